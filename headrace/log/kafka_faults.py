"""What Kafka's errors mean to a caller of the log."""

import logging
import math
import re
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headrace.errors import BadInputError, HeadraceError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.kafka_address import KafkaAddress

T = TypeVar("T")
_LONGEST_PAUSE_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 60.0
_WHILE: Final = re.compile(r" \(after \d+ms in state \w+[^)]*\)")
"""How long it took before it failed: that differs every time, and is no news."""
_log: Final = logging.getLogger("headrace.log.kafka")
_GONE: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)
_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)
_BEYOND: Final = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION})
_PASSING: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
    }
)
_NOT_APPENDED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._PURGE_QUEUE,
        *_GONE,
        *_REFUSED,
    }
)


class Trouble:
    """The last thing a client complained about by itself, such as a refused sign-in: what a timeout was about. A client
    complains many times a second while brokers are away; this process's log is told of each complaint once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._said = ""
        self._logged: Final[dict[str, float]] = {}
        self._clock: Final = clock
        self._guard: Final = threading.Lock()
        self._silent: Callable[[], AdminClient | None] = lambda: None

    def heard_by(self, client: AdminClient) -> None:
        """For a client that nobody polls: it is asked to complain. It is not held here, as it holds this: threads and
        sockets of a client that is part of a cycle stay until garbage is collected, which may be never."""
        self._silent = weakref.ref(client)

    def __call__(self, error: KafkaError) -> None:
        """For ``error_cb``."""
        what, now = _WHILE.sub("", str(error)), self._clock()
        with self._guard:
            self._said = str(error)
            news = now >= self._logged.get(what, -math.inf) + _AGAIN_SECONDS
            if news:
                self._logged[what] = now
        if news:
            _log.warning("%s", error)

    def __str__(self) -> str:
        """``; the client says: …``, or nothing."""
        silent = self._silent()
        if silent is not None:
            silent.poll(0)
        with self._guard:
            return f"; the client says: {self._said}" if self._said else ""


def client_settings(address: KafkaAddress, trouble: Trouble) -> dict[str, Any]:
    """What any client is made with: it complains to ``trouble``, and of the worst to the log of this process. A topic
    that is gone stays gone: a client that asks for it would make it again, where brokers let it."""
    ours = {"log_level": 0, "logger": _log, "error_cb": trouble, "allow.auto.create.topics": False}
    return {**address.settings(), **ours}


def served(serve: Callable[[float], int], seconds: float) -> tuple[int, KafkaError | None]:
    """What a producer's ``poll`` or ``flush`` gives, and the error that it does not recover from, should it say so just
    now: the client raises that one to whoever serves it, instead of telling ``error_cb``."""
    try:
        return serve(seconds), None
    except KafkaException as error:
        return 0, error.args[0]


def is_beyond(error: KafkaError) -> bool:
    """Whether the offset asked for is not in the partition."""
    return error.code() in _BEYOND


def is_passing(error: HeadraceError) -> bool:
    """Whether this came of a leader's change, which is over in a moment."""
    return _code(error) in _PASSING


def already_there(error: HeadraceError) -> bool:
    """Whether this says that somebody has made the topic before."""
    return _code(error) == KafkaError.TOPIC_ALREADY_EXISTS


def _code(error: HeadraceError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None


def nothing_landed(error: KafkaError) -> bool:
    """Whether a record that met this error was refused. The client sends again by itself, and does not say that it did:
    a first attempt whose answer was lost may have landed before the topic was shut, say, and the second one refused."""
    return error.code() in _NOT_APPENDED


def is_too_large(error: KafkaError) -> bool:
    """Whether the topic takes no record of this size: a closed log takes none of any size."""
    return error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)


def meaning(error: KafkaError, address: KafkaAddress, doing: str, trouble: object = "") -> HeadraceError:
    """The error to raise for ``error``, met while ``doing`` something."""
    said = f"{doing} {address} failed: {error.str()} ({error.name()}){trouble}"
    if error.code() in _GONE:
        return NotFoundError(f"{said}; there is no such log: create it, or mend the address")
    if error.code() in _REFUSED:
        return UnavailableError(f"{said}; the brokers refuse this client: check its credentials and ACLs")
    if error.code() in _BEYOND:
        return LogMismatchError(f"{said}; the log was cut off or replaced: restore it")
    if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
        return BadInputError(
            f"{said}; the cluster has fewer brokers than replication.factor={address.replication}: add brokers, or for"
            " trying it out on one say ?replication.factor=1"
        )
    return UnavailableError(f"{said}; check that the brokers run and can be reached, then try again")


def answer(future: "Future[T]", address: KafkaAddress, doing: str, trouble: object = "") -> T:
    """What an administrative request was answered.

    :raises HeadraceError: it failed; see :func:`meaning`.
    """
    try:
        return future.result(address.request_seconds)
    except KafkaException as error:
        raise meaning(error.args[0], address, doing, trouble) from error
    except FutureTimeoutError:
        raise silence(address, doing, trouble) from None


def silence(address: KafkaAddress, doing: str, trouble: object) -> UnavailableError:
    """The error to raise when the brokers do not answer."""
    return UnavailableError(
        f"{doing} {address} takes longer than {address.request_seconds:g} s{trouble}; check that the brokers run and"
        " can be reached, then try again"
    )


def make_sure(look: Callable[[], object], seconds: float) -> None:
    """Look at a topic that a broker does not know. It may only not know it yet; and where nobody answers, nothing is
    said of the topic, so that it is no reason to give up.

    :raises HeadraceError: the topic is gone, or another.
    """
    try:
        patiently(look, lambda error: isinstance(error, NotFoundError), seconds)
    except UnavailableError as error:
        _log.warning("%s", error)


def patiently(
    ask: Callable[[], T], passing: Callable[[HeadraceError], bool], seconds: float, pauses: float = 0.01
) -> T:
    """What ``ask`` gives, asked again while it raises what is ``passing``, for so many seconds.

    :param pauses: seconds before it is asked again; longer every time.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            return ask()
        except HeadraceError as error:
            if not passing(error) or time.monotonic() > deadline:
                raise
        pause.wait(pauses)
        pauses = min(2 * pauses, _LONGEST_PAUSE_SECONDS)
