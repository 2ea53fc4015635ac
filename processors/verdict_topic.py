"""The verdicts as a stream: one message for every verdict, in a topic beside the log's.

A verdict is published before it is in the tables, so that no crash loses it, and published again when its batch is
folded again: at least once, the same bytes every time. Whoever reads leaves out what it has seen, by ``ce_id``.

==================  ================================================================================================
topic               the log's name with ``.verdicts`` for ``.events``; it has the log's number of partitions
partition           that of the record which decided: an account's verdicts are in order, but for repetitions
key                 ``tenant/account/proposal``
value               the verdict in canonical JSON, as in the table ``verdicts``
``ce_id``           ``partition-offset`` of the record that decided; unique within ``ce_source``
``ce_source``       ``/headrace/logs/`` and the log's id in hex
``ce_type``         ``verdict.`` and what it is, such as ``verdict.accepted``
``ce_subject``      ``proposal/`` and the proposal's id
``ce_time``         log time there
``ce_tenant``, ``ce_account``, ``ce_partition``, ``ce_offset``   what they say
==================  ================================================================================================

Source of the headers: CloudEvents 1.0.2 and its Kafka protocol binding, §3.2.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, NamedTuple, Self

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from headrace.errors import HaltError, HeadraceError, NotFoundError, UnavailableError
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_appender import Appender, Outcome
from headrace.log.kafka_faults import Trouble, already_there, answer, client_settings, patiently
from headrace.log.kafka_topic import Topic
from headrace.log.port import Headers, Record
from headrace.processors.core.memory import Judged, Memory
from headrace.schemas.envelope import SPEC_VERSION, rfc3339
from headrace.schemas.refs import KIND_NAME, OPAQUE_ID

GROUP: Final = "headrace-delivery"
"""What the names of the groups begin with in which workers read it."""
RETENTION_MS: Final = 7 * 24 * 3_600_000
"""How long a new topic keeps verdicts: the tables keep them for ever."""
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
SOURCE_PREFIX: Final = "/headrace/logs/"
TYPE_PREFIX: Final = "verdict."
_EVENTS: Final = ".events"
_VERDICTS: Final = ".verdicts"
_CLEANUP: Final = "cleanup.policy"
_IN_SYNC: Final = "min.insync.replicas"
_APPEAR_SECONDS: Final = 30.0
_IDS: Final = 3
_PLACE: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,18})\Z")


def topic_name(log_topic: str) -> str:
    """The verdicts' topic of a log's: ``headrace.verdicts`` of ``headrace.events``."""
    return log_topic.removesuffix(_EVENTS) + _VERDICTS


def topic_settings(min_insync: int) -> dict[str, str]:
    """What a new topic is configured with. ``retention.ms`` may be changed at will."""
    return {
        _CLEANUP: "delete",  # compaction would leave only the last verdict on a proposal
        "retention.ms": str(RETENTION_MS),
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        _IN_SYNC: str(min_insync),
    }


def address_of(log: KafkaAddress) -> KafkaAddress:
    """Where the verdicts of the log at ``log`` are."""
    return replace(log, topic=topic_name(log.topic))


def prepare(log: KafkaAddress, partitions: int) -> KafkaAddress:
    """Make the topic unless it is there, and check it; where it is. Safe to repeat, and from two processes.

    :param partitions: how many the log has.
    :raises HaltError: it is there and cannot be used; the message says what to change.
    :raises UnavailableError: the brokers do not answer, or this client may not make it.
    """
    address = address_of(log)
    trouble = Trouble()
    admin = AdminClient(client_settings(address, trouble))
    trouble.heard_by(admin)
    topic = Topic(address)
    try:
        topic.state()
    except NotFoundError:
        config = topic_settings(address.min_insync)
        wanted = NewTopic(address.topic, partitions, replication_factor=address.replication, config=config)
        made = admin.create_topics([wanted], request_timeout=address.request_seconds)[address.topic]
        try:
            answer(made, address, "creating", trouble)
        except HeadraceError as error:
            if not already_there(error):
                raise
    _check(address, topic, _settings(admin, address, trouble), partitions)
    return address


def _settings(admin: AdminClient, address: KafkaAddress, trouble: Trouble) -> dict[str, str]:
    """The topic's settings, once the broker that is asked knows it."""

    def ask() -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, address.topic)
        asked = admin.describe_configs([resource], request_timeout=address.request_seconds)[resource]
        found = answer(asked, address, "reading the settings of", trouble)
        return {name: entry.value or "" for name, entry in found.items()}

    return patiently(ask, lambda error: isinstance(error, NotFoundError), _APPEAR_SECONDS)


def _check(address: KafkaAddress, topic: Topic, found: Mapping[str, str], partitions: int) -> None:
    state = patiently(topic.state, lambda error: isinstance(error, NotFoundError | UnavailableError), _APPEAR_SECONDS)
    if state.partitions != partitions:
        raise HaltError(
            f"{address} has {state.partitions} partitions, the log has {partitions}: delete that topic and start again"
            " (the tables keep every verdict)"
        )
    wrong: dict[str, str] = {}
    if found[_CLEANUP] != "delete":
        wrong[_CLEANUP] = "delete"
    if int(found[_IN_SYNC]) < address.min_insync:
        wrong[_IN_SYNC] = str(address.min_insync)
    if wrong:
        differs = ", ".join(f"{name} is {found[name]}, must be {wanted}" for name, wanted in wrong.items())
        change = ",".join(f"{name}={wanted}" for name, wanted in wrong.items())
        raise HaltError(
            f"{address} cannot carry verdicts as it is configured: {differs}; kafka-configs.sh --bootstrap-server"
            f" {address.servers} --alter --topic {address.topic} --add-config {change}"
        )


class PublishedVerdict(NamedTuple):
    """A message of the topic: ``proposal`` was judged at ``partition`` and ``offset`` of the log. ``text`` is the whole
    verdict in canonical JSON."""

    log_id: bytes
    partition: int
    offset: int
    tenant: str
    account: str
    proposal: str
    verdict: str
    text: str


def record_of(log_id: bytes, partition: int, judged: Judged) -> Record:
    """The message that says what was judged."""
    tenant, account, proposal = judged.key
    headers: Headers = (
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", f"{partition}-{judged.offset}".encode()),
        ("ce_source", f"{SOURCE_PREFIX}{log_id.hex()}".encode()),
        ("ce_type", f"{TYPE_PREFIX}{judged.verdict}".encode()),
        ("ce_subject", f"proposal/{proposal}".encode()),
        *_time(judged.log_time),
        ("ce_tenant", tenant.encode()),
        ("ce_account", account.encode()),
        ("ce_partition", str(partition).encode()),
        ("ce_offset", str(judged.offset).encode()),
        ("content-type", b"application/json"),
    )
    return Record(partition, f"{tenant}/{account}/{proposal}".encode(), headers, judged.text)


def _time(log_time: int) -> Headers:
    """Without it where a broker's clock was beyond what RFC 3339 can say."""
    try:
        return (("ce_time", rfc3339(log_time).encode()),)
    except (ValueError, OverflowError, OSError):
        return ()


def read_message(
    key: bytes | None, headers: Mapping[str, bytes | None], value: bytes | None
) -> PublishedVerdict | None:
    """What a message of the topic says; ``None`` where it is none of headrace's. Who may write to the topic may write
    anything: nothing that the journal could not hold is taken for a verdict."""
    told = {name: headers.get(name) for name in ("ce_source", "ce_type", "ce_id")}
    if key is None or value is None or None in told.values():
        return None
    try:
        ids, text = key.decode().split("/"), value.decode()
        source, type_, place = (raw.decode() for raw in told.values() if raw is not None)
        log_id = bytes.fromhex(source.removeprefix(SOURCE_PREFIX))
    except ValueError:
        return None
    at, verdict = _PLACE.match(place), type_.removeprefix(TYPE_PREFIX)
    if not source.startswith(SOURCE_PREFIX) or not type_.startswith(TYPE_PREFIX) or at is None:
        return None
    if len(ids) != _IDS or not all(map(OPAQUE_ID.match, ids)) or not KIND_NAME.match(verdict) or "\0" in text:
        return None
    tenant, account, proposal = ids
    return PublishedVerdict(log_id, int(at[1]), int(at[2]), tenant, account, proposal, verdict, text)


class VerdictTopic:
    """Publishes; :meth:`publish` is what :class:`headrace.processors.engine.Engine` is given."""

    def __init__(self, address: KafkaAddress) -> None:
        self.address: Final = address
        self.published = 0
        """Messages that the brokers have acknowledged, repetitions included."""
        self._making: Final = threading.Lock()
        self._appender: Appender | None = None
        self._retired: Final[list[Appender]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, memory: Memory) -> Callable[[], None]:
        """Begin to publish what a batch judged: for the transaction that commits it, once that has fenced it. Before
        that it must not get out: what a worker that was paused for long has loaded may be ahead of what it folds. What
        is returned waits until the brokers have all of it, and raises :class:`UnavailableError` where they have not:
        publish it again.
        """
        if not memory.judged:
            return _nothing
        partition = memory.partition
        records = [record_of(partition.log_id, partition.partition, judged) for judged in memory.judged]
        appender = self._open()
        outcomes = appender.begin(records)

        def wait() -> None:
            self._check(appender, partition.partition, outcomes())
            self.published += len(records)

        return wait

    def close(self) -> None:
        """Let go of the brokers. Harmless when repeated."""
        with self._making:
            appenders = [one for one in (self._appender, *self._retired) if one is not None]
            self._appender = None
            self._retired.clear()
        for appender in appenders:
            appender.close()

    def _open(self) -> Appender:
        with self._making:
            if self._appender is not None and self._appender.fatal is not None:
                self._retired.append(self._appender)
                self._appender = None
            if self._appender is None:
                self._appender = Appender(self.address, MAX_MESSAGE_BYTES)
            return self._appender

    def _check(self, appender: Appender, partition: int, outcomes: Sequence[Outcome]) -> None:
        failed = [outcome for outcome in outcomes if outcome.offset is None]
        if failed:
            error = next((outcome.error for outcome in failed if outcome.error is not None), None)
            why = f"{error.str()} ({error.name()})" if error is not None else "the client never said"
            raise UnavailableError(
                f"{len(failed)} of {len(outcomes)} verdicts of partition {partition} were not published to"
                f" {self.address}: {why}{appender.trouble}; check the brokers and this client's rights; nothing was"
                " committed, and it is tried again"
            )


def _nothing() -> None:
    """What waiting for nothing takes."""
