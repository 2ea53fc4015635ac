"""The topic behind a Kafka log: created with the settings the log's promises rest on, and checked for them.

A topic that differs is refused, with the command that mends it. Source of the settings: Apache Kafka documentation,
"Topic configs".
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import EarliestSpec, LatestSpec, OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from headrace.errors import BadInputError, HaltError, HeadraceError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.admission import OPENED, log_id_of
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble, already_there, answer, client_settings, is_passing, meaning, patiently
from headrace.log.port import Stored
from headrace.schemas.registry import MARKER, WIRE_MARKER, Registry, built_in, datum

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""What a new log's topic takes in one record: more than any door lets in."""
LEAST_MESSAGE_BYTES: Final = 1024 * 1024
"""With less a topic is refused."""
CLOSED_MESSAGE_BYTES: Final = 0
"""What the topic of a log takes that is closed for certain: nothing, whoever sends it."""
SHUTTING_MESSAGE_BYTES: Final = (2, 1)
"""Just before, one after the other: nothing fits into that, either."""
_SETTINGS: Final[Mapping[str, str]] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
}
_SIZE: Final = "max.message.bytes"
_IN_SYNC: Final = "min.insync.replicas"
_ENDS: Final = "asking for the ends of"
_LATEST: Final[OffsetSpec] = LatestSpec()  # type: ignore[no-untyped-call]
_EARLIEST: Final[OffsetSpec] = EarliestSpec()  # type: ignore[no-untyped-call]
_APPEAR_SECONDS: Final = 30.0
CONFIRM_SECONDS: Final = 5.0
"""How long a leader that stood still may take to hear that another one leads now."""
_CONFIRM_PAUSE_SECONDS: Final = 0.5


def topic_settings(min_insync: int) -> dict[str, str]:
    """What a new log's topic is configured with."""
    return {**_SETTINGS, _SIZE: str(MAX_MESSAGE_BYTES), _IN_SYNC: str(min_insync)}


class TopicState(NamedTuple):
    """A topic as it is. ``id`` is Kafka's own: one that is deleted and made again under the same name has another."""

    id: str
    partitions: int
    least_replicas: int


class Topic:
    """Administers one topic. Safe to call from any thread."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address: Final = address
        self._trouble: Final = Trouble()
        self._admin: Final = AdminClient(client_settings(address, self._trouble))
        self._trouble.heard_by(self._admin)
        self._resource: Final = ConfigResource(ResourceType.TOPIC, address.topic)

    def create(self, partitions: int, differing: Mapping[str, str] | None = None) -> None:
        """Make the topic unless it is there; return when every partition has a leader.

        :param differing: settings that are not to be a log's.
        :raises BadInputError: it is there with another number of partitions, or the cluster cannot hold it so.
        """
        address = self._address
        settings = {**topic_settings(address.min_insync), **(differing or {})}
        wanted = NewTopic(address.topic, partitions, replication_factor=address.replication, config=settings)
        made = self._admin.create_topics([wanted], request_timeout=self._address.request_seconds)[address.topic]
        try:
            answer(made, address, "creating", self._trouble)
        except HeadraceError as error:
            if not already_there(error):
                raise
        state = self._appeared()
        if state.partitions != partitions:
            raise BadInputError(
                f"{address} is there with {state.partitions} partitions, not {partitions}: a log's number of partitions"
                " never changes; open it as it is, or name another topic"
            )

    def state(self) -> TopicState:
        """The topic now.

        :raises NotFoundError: there is none.
        :raises UnavailableError: the brokers do not answer, or a partition has no leader.
        """
        name = self._address.topic
        asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=self._address.request_seconds)
        found = answer(asked[name], self._address, "looking at", self._trouble)
        leaderless = [one.id for one in found.partitions if one.leader is None]
        if leaderless:
            raise UnavailableError(
                f"{self._address}: partitions {leaderless} have no leader; bring their brokers back, then try again"
            )
        return TopicState(
            str(found.topic_id), len(found.partitions), min(len(one.replicas) for one in found.partitions)
        )

    def verify(self, *, closed: bool, differing: Mapping[str, str] | None = None) -> int:
        """Refuse a topic whose settings break the log's promises; returns the bytes that a record may have.

        :param closed: the log may be closed, or left half closed, so that the topic takes no records at all.
        :param differing: settings that are not to be a log's.
        :raises HaltError: a setting is wrong; the message says what to change, and how.
        """
        found = self._settings()
        replicas = self.state().least_replicas
        if replicas < self._address.replication:
            raise HaltError(
                f"{self._address} has {replicas} copies of a partition, replication.factor="
                f"{self._address.replication} is wanted: reassign its partitions to more brokers"
                " (kafka-reassign-partitions.sh), or name what it has in the address"
            )
        right = {**_SETTINGS, **(differing or {})}
        wrong = {name: wanted for name, wanted in right.items() if found[name] != wanted}
        if int(found[_IN_SYNC]) < self._address.min_insync:
            wrong[_IN_SYNC] = str(self._address.min_insync)
        size = int(found[_SIZE])
        if size < LEAST_MESSAGE_BYTES and not (closed and is_shut(size)):
            wrong[_SIZE] = str(MAX_MESSAGE_BYTES)
        if wrong:
            differs = ", ".join(f"{name} is {found[name]}, must be {wanted}" for name, wanted in wrong.items())
            change = ",".join(f"{name}={wanted}" for name, wanted in wrong.items())
            raise HaltError(
                f"{self._address} cannot be a log as it is configured: {differs}. If no record was lost by that,"
                f" kafka-configs.sh --bootstrap-server {self._address.servers} --alter --topic {self._address.topic}"
                f" --add-config {change}"
            )
        return size

    def ends(self, partitions: Iterable[int], *, whole: bool = False) -> dict[int, int]:
        """Where partitions end now: each one's next offset, as far as it is replicated.

        :param whole: see as well that they still begin where they began.
        :raises LogMismatchError: records are gone from a partition's beginning.
        """
        numbers = list(partitions)
        if whole:
            for partition, offset in self._offsets(numbers, _EARLIEST).items():
                check_beginning(self._address, partition, offset)
        return self._offsets(numbers, _LATEST)

    def confirmed(self, least: Mapping[int, int]) -> dict[int, int]:
        """Where partitions end that were seen to go as far as ``least`` and were said to be shorter.

        A leader that stood still, and has not heard that another one leads now, answers with how far it went then, and
        the client goes on asking it: so who leads is asked anew, again and again. What is answered after some seconds
        stands.
        """
        deadline = time.monotonic() + min(CONFIRM_SECONDS, self._address.request_seconds)
        pause, pauses = threading.Event(), 0.01
        while True:
            self.find_leaders()
            found = self.ends(least)
            if time.monotonic() > deadline or all(found[partition] >= end for partition, end in least.items()):
                return found
            pause.wait(pauses)
            pauses = min(2 * pauses, _CONFIRM_PAUSE_SECONDS)

    def _offsets(self, partitions: Sequence[int], spec: OffsetSpec) -> dict[int, int]:
        """What the partitions' leaders answer; while leaders change, asked again."""
        places = {TopicPartition(self._address.topic, partition): spec for partition in partitions}

        def ask() -> dict[int, int]:
            asked = self._admin.list_offsets(
                places, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._address.request_seconds
            )
            found = {
                place.partition: answer(future, self._address, _ENDS, self._trouble).offset
                for place, future in asked.items()
            }
            if any(offset < 0 for offset in found.values()):
                # Of a partition whose leader is new, librdkafka may hand on "no offset" (-1001) as if that were one.
                unknown = KafkaError(KafkaError.OFFSET_NOT_AVAILABLE, "a partition's leader is new")
                raise meaning(unknown, self._address, _ENDS, self._trouble) from KafkaException(unknown)
            return found

        return patiently(ask, self._is_passing, self._address.request_seconds)

    def _is_passing(self, error: HeadraceError) -> bool:
        """Whether a leader has changed; who leads is then asked anew."""
        passing = is_passing(error)
        if passing:
            self.find_leaders()
        return passing

    def find_leaders(self) -> None:
        """Ask anew who leads: the client itself goes by what it knew for as long as a quarter of an hour (librdkafka:
        ListOffsets with a cached leader epoch)."""
        try:
            self._admin.list_topics(self._address.topic, timeout=self._address.request_seconds)
        except KafkaException as trouble:
            self._trouble(trouble.args[0])

    def limit(self, record_bytes: int, *, try_only: bool = False) -> None:
        """Let the topic take records of ``record_bytes`` at the most; with ``try_only`` only see whether that is
        allowed.

        :raises UnavailableError: it is not allowed, or the brokers do not answer.
        """
        self.set({_SIZE: str(record_bytes)}, try_only=try_only)

    def shut(self) -> None:
        """Let the topic take nothing.

        :raises UnavailableError: it is not allowed, or the brokers do not answer.
        """
        self.limit(min(SHUTTING_MESSAGE_BYTES))

    def set(self, settings: Mapping[str, str], *, try_only: bool = False) -> None:
        """Change settings of the topic; with ``try_only`` only see whether that is allowed.

        :raises UnavailableError: it is not allowed, or the brokers do not answer.
        """
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
        ]
        wanted = ConfigResource(ResourceType.TOPIC, self._address.topic, incremental_configs=entries)
        asked = self._admin.incremental_alter_configs(
            [wanted], validate_only=try_only, request_timeout=self._address.request_seconds
        )
        answer(asked[wanted], self._address, f"setting {', '.join(settings)} of", self._trouble)

    def until(self, name: str, value: str, seconds: float) -> None:
        """Return once the brokers say that a setting has this value.

        :raises UnavailableError: they do not, for so long.
        """

        def look() -> None:
            if self.setting(name) != value:
                raise UnavailableError(f"{self._address} does not take over {name}={value}; look at its brokers")

        patiently(look, lambda error: isinstance(error, UnavailableError), seconds)

    def setting(self, name: str) -> str:
        """A setting of the topic as it is now."""
        return self._settings()[name]

    def delete(self) -> None:
        """Delete the topic and everything in it; return when the brokers have forgotten it."""
        asked = self._admin.delete_topics([self._address.topic], request_timeout=self._address.request_seconds)
        answer(asked[self._address.topic], self._address, "deleting", self._trouble)
        patiently(self._gone, lambda error: isinstance(error, UnavailableError), _APPEAR_SECONDS)

    def _gone(self) -> None:
        try:
            self.state()
        except NotFoundError:
            return
        raise UnavailableError(f"{self._address} is still being deleted; look again in a moment")

    def taken_bytes(self) -> int:
        """What the topic takes in one record now."""
        return int(self.setting(_SIZE))

    def _settings(self) -> dict[str, str]:
        asked = self._admin.describe_configs([self._resource], request_timeout=self._address.request_seconds)
        found = answer(asked[self._resource], self._address, "reading the settings of", self._trouble)
        return {name: entry.value or "" for name, entry in found.items()}

    def _appeared(self) -> TopicState:
        """The topic just made, once the brokers that lead it know it."""

        def look() -> TopicState:
            state = self.state()
            self.ends(range(state.partitions))
            return state

        return patiently(look, lambda error: isinstance(error, NotFoundError | UnavailableError), _APPEAR_SECONDS)


def is_shut(record_bytes: int) -> bool:
    """Whether no record has so few bytes."""
    return record_bytes <= max(SHUTTING_MESSAGE_BYTES)


def check_beginning(address: KafkaAddress, partition: int, first: int) -> None:
    """Pass when a partition still begins with its record 0.

    :raises LogMismatchError: it does not.
    """
    if first > 0:
        raise LogMismatchError(
            f"partition {partition} of {address} begins at offset {first}: older records were deleted, and the log is"
            " the truth; restore it from a copy, and keep retention.ms and retention.bytes at -1"
        )


def check_count(address: KafkaAddress, has: int, made_with: int) -> None:
    """Pass when a topic has as many partitions as the log was made with.

    :raises LogMismatchError: it has not.
    """
    if has != made_with:
        raise LogMismatchError(
            f"{address} has {has} partitions and was made with {made_with}: accounts would move between them."
            " Partitions cannot be taken away again: copy the log to a new topic"
        )


def check_opening(address: KafkaAddress, first: Stored, partitions: int) -> bytes:
    """The id of the log that partition 0's record 0 opens.

    :raises LogMismatchError: it opens none, or one of another number of partitions.
    """
    log_id = log_id_of(first.headers)
    if OPENED not in first.headers or log_id is None:
        raise LogMismatchError(
            f"{address} does not begin with log.opened: this is no log of headrace; name another topic"
        )
    known, value = Registry(built_in()), first.value
    if value.startswith(WIRE_MARKER):  # the header says which schema it is: no need to ask a schema registry
        value = MARKER + known.schema("log.opened").fingerprint + datum(value)
    if value.startswith(MARKER):
        check_count(address, partitions, known.decode(value).body["partitions"])
    return log_id
