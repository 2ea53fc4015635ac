"""A log copied into a Kafka topic; :mod:`headrace.log.carrying` says what makes its records what they are.

The topic stamps ``CreateTime`` while it is copied into, so nobody opens it as a log, and ``LogAppendTime`` once
everything is there and compared. Brokers learn of a changed setting one after another, so ``log.moved`` is sent with a
time far in the future: a broker that still stamps ``CreateTime`` refuses that, one that stamps by itself does not look
at it.

Records are sent many at a time without waiting for each; where one went is checked when its acknowledgement comes.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headrace.errors import BadInputError, HeadraceError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.carrying import carried, carrying, ends_copy, new_copy, original
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_appender import check_sizes
from headrace.log.kafka_copied import CopiedPart
from headrace.log.kafka_faults import Trouble, client_settings, meaning, served
from headrace.log.kafka_reader import Reader
from headrace.log.kafka_topic import Topic, check_opening
from headrace.log.port import LogDescription, Record, Stored

_STAMPED: Final = "message.timestamp.type"
_BY_THE_BROKER: Final = {_STAMPED: "LogAppendTime"}
_COPYING: Final = {_STAMPED: "CreateTime", "message.timestamp.after.max.ms": "3600000"}
"""While it is copied into: times of ours, but none that lies more than an hour ahead."""
_AHEAD_MS: Final = 10 * 365 * 86_400_000
_TOLD_SECONDS: Final = 30.0
_QUIET_SECONDS: Final = 1.0
"""How long nothing may arrive before it is believed that a run that was killed has nothing under way any more."""
_AGAIN: Final = "throw the copy away with --discard and begin again"


class KafkaDestination:
    """See :class:`headrace.log.copying.Destination`. Close it when done."""

    def __init__(self, address: KafkaAddress, topic: Topic, reader: Reader, copy: str, record_bytes: int) -> None:
        """For :meth:`open` only."""
        self.name: Final = str(address)
        self.copy: Final = copy
        self._address: Final = address
        self._topic: Final = topic
        self._reader: Final = reader
        self._record_bytes: Final = record_bytes
        self._moved: Final[dict[int, int]] = {}
        self._acknowledged: Final[list[int]] = []
        self._sent: Final[list[int]] = []
        self._failure: HeadraceError | None = None
        self._trouble: Final = Trouble()
        self._patient: Final = _Patient(address, self._trouble, record_bytes)
        self._producer: Final = Producer(
            {
                **_producer_settings(address, self._trouble, record_bytes),
                "enable.gapless.guarantee": True,
                "linger.ms": 20,
                "batch.size": 1_000_000,
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 128 * 1024,
                "on_delivery": self._reported,
            }
        )

    @classmethod
    def open(cls, url: str, origin: LogDescription) -> Self:
        """Begin a copy at ``url``, or go on with the one that is there.

        :raises BadInputError: there is another log, or one of its own.
        :raises HaltError: the topic's settings are not a log's.
        :raises UnavailableError: the brokers do not answer, or do not let us.
        """
        address = KafkaAddress.parse(url)
        topic = Topic(address)
        with ExitStack() as undo:
            reader = Reader(address)
            undo.callback(reader.close)
            ends = _made(topic, address, origin.partitions)
            copy = _copy_of(reader, address, ends, origin)
            stamped = topic.setting(_STAMPED)
            moved: dict[int, int] = {}
            if copy is not None and stamped != _COPYING[_STAMPED]:
                part = CopiedPart(str(address), copy, reader.fetch_kept, lambda one: ends[one])
                sought = {partition: part.sought(partition) for partition in ends}
                moved = {partition: end for partition, end in sought.items() if end is not None}
            record_bytes = topic.verify(closed=False, differing={_STAMPED: stamped})
            if not moved and stamped != _COPYING[_STAMPED]:
                topic.set(_COPYING)
                topic.until(_STAMPED, _COPYING[_STAMPED], _TOLD_SECONDS)
            destination = cls(address, topic, reader, copy or new_copy(), record_bytes)
            destination._go_on(ends, moved)
            undo.pop_all()
            return destination

    def _go_on(self, ends: Mapping[int, int], moved: Mapping[int, int]) -> None:
        """From where an earlier run came to: partitions ``moved`` have their ``log.moved`` at these offsets."""
        self._moved.update(moved)
        self._sent[:] = [moved.get(partition, ends[partition]) for partition in sorted(ends)]
        self._acknowledged[:] = self._sent

    def close(self) -> None:
        """Let go of the brokers. Harmless when repeated."""
        self._patient.close()
        self._producer.purge()
        served(self._producer.flush, 1.0)
        self._reader.close()

    def ends(self) -> tuple[int, ...]:
        """See :class:`headrace.log.copying.Destination`."""
        deadline = time.monotonic() + self._address.delivery_timeout_ms / 1000 + 10
        while self._serve(self._producer.flush, 0.5) and self._failure is None:
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.name} does not say whether records landed{self._trouble}; copy again")
        if self._failure is not None:
            raise self._failure
        there = self._topic.ends(range(len(self._sent)))
        return tuple(self._moved.get(partition, there[partition]) for partition in range(len(self._sent)))

    def write(self, records: Sequence[Stored]) -> None:
        """See :class:`headrace.log.copying.Destination`."""
        partition = records[0].partition
        if partition and not self._acknowledged[0]:
            raise BadInputError(f"partition 0 of {self.name} comes first: it says which copy this is")
        if partition in self._moved:
            raise LogMismatchError(
                f"{partition}:{records[0].offset} was written to the old log after {self.name} went on: end whoever"
                " still writes there, and append it to the new log"
            )
        now = time.time_ns() // 1_000_000
        made = [Record(partition, one.key, carrying(one, self.copy), one.value) for one in records]
        check_sizes(self._address, made, self._record_bytes)
        for record, one in zip(made, records, strict=True):
            if one.offset != self._sent[partition]:
                raise LogMismatchError(f"{self.name}: {one.offset} is written where {self._sent[partition]} comes next")
            self._produce(record, min(max(one.appended_at, 0), now))
            self._sent[partition] += 1
        if not self._acknowledged[0]:
            self.ends()  # record 0 of partition 0 is there before anything else
        self._serve(self._producer.poll, 0)
        if self._failure is not None:
            raise self._failure

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :class:`headrace.log.copying.Destination`."""
        kept = self._reader.fetch_kept(partition, offset, limit, self._acknowledged[partition])
        return [original(record, self.copy) or record for record in kept]

    def finish(self, movings: Sequence[Record], successor: str | None) -> None:  # noqa: ARG002 - a replica's
        """See :class:`headrace.log.copying.Destination`."""
        if not movings:
            raise BadInputError(f"{self.name} cannot be a replica, which is for reading: make one in a SQLite file")
        self._topic.set(_BY_THE_BROKER)
        self._topic.until(_STAMPED, _BY_THE_BROKER[_STAMPED], _TOLD_SECONDS)
        left = [one for one in movings if one.partition not in self._moved]
        for some in ([one for one in left if one.partition], [one for one in left if not one.partition]):
            self._send_moved(some)
        self._topic.verify(closed=False)

    def _send_moved(self, movings: Sequence[Record]) -> None:
        """Append these, each once its broker stamps by itself, and see that they are where they say."""
        for partition, offset in self._patient.send(movings).items():
            self._moved[partition] = offset
        for one in movings:
            partition = one.partition
            offset = self._moved[partition]
            [kept] = self._reader.fetch_kept(partition, offset, 1)
            if offset != self._sent[partition] or not ends_copy(kept, self.copy):
                raise LogMismatchError(
                    f"log.moved is at {partition}:{offset} of {self.name}, behind a record that was not copied:"
                    f" {_AGAIN}"
                )

    def _produce(self, record: Record, timestamp: int) -> None:
        while True:
            try:
                self._producer.produce(
                    self._address.topic,
                    record.value,
                    record.key,
                    record.partition,
                    timestamp=timestamp,
                    headers=list(record.headers),
                )
            except BufferError:
                self._serve(self._producer.poll, 0.05)  # the queue is full: help to empty it
                if self._failure is not None:
                    raise self._failure from None
            except KafkaException as error:
                raise self._failure or meaning(error.args[0], self._address, "copying to", self._trouble) from error
            else:
                return

    def _serve(self, serve: Callable[[float], int], seconds: float) -> int:
        left, fatal = served(serve, seconds)
        if fatal is not None:
            self._failure = self._failure or meaning(fatal, self._address, "copying to", self._trouble)
        return left

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        """A record's delivery report; those of a partition come in order."""
        if self._failure is not None:
            return
        partition = message.partition()
        assert partition is not None
        if error is not None:
            self._failure = meaning(error, self._address, "copying to", self._trouble)
        elif message.offset() != self._acknowledged[partition]:
            self._failure = LogMismatchError(
                f"a record meant for {partition}:{self._acknowledged[partition]} of {self.name} went to"
                f" {message.offset()}: somebody else writes there; end that, {_AGAIN}"
            )
        else:
            self._acknowledged[partition] += 1


class _Patient:
    """Appends records that a broker may refuse for a while. Made before it is needed: a producer takes half a second to
    get its id."""

    def __init__(self, address: KafkaAddress, trouble: Trouble, record_bytes: int) -> None:
        self._address: Final = address
        self._trouble: Final = trouble
        self._producer: Final = Producer({**_producer_settings(address, trouble, record_bytes), "linger.ms": 0})
        self._landed: Final[dict[int, int]] = {}
        self._refused: Final[dict[int, KafkaError]] = {}

    def send(self, records: Sequence[Record]) -> Mapping[int, int]:
        """Append one record a partition; where it went, by partition."""
        deadline = time.monotonic() + _TOLD_SECONDS
        pause = threading.Event()
        left = list(records)
        while left:
            ahead = time.time_ns() // 1_000_000 + _AHEAD_MS
            for record in left:
                self._producer.produce(
                    self._address.topic,
                    record.value,
                    record.key,
                    record.partition,
                    timestamp=ahead,
                    headers=list(record.headers),
                    on_delivery=self._reported,
                )
            _, fatal = served(self._producer.flush, self._address.delivery_timeout_ms / 1000 + 10)
            if fatal is not None:
                raise self._meaning(fatal)
            left = [record for record in left if record.partition not in self._landed]
            for record in left:
                error = self._refused.get(record.partition)
                if error is None or error.code() != KafkaError.INVALID_TIMESTAMP or time.monotonic() > deadline:
                    raise self._meaning(error)
            if left:
                pause.wait(0.05)
        return self._landed

    def _meaning(self, error: KafkaError | None) -> HeadraceError:
        if error is None:
            return UnavailableError(f"{self._address} does not say whether log.moved landed{self._trouble}; copy again")
        return meaning(error, self._address, "opening the copy in", self._trouble)

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        if error is not None:
            self._refused[partition] = error
        elif offset is not None:
            self._landed[partition] = offset

    def close(self) -> None:
        self._producer.purge()
        served(self._producer.flush, 1.0)


def discard(url: str) -> None:
    """Delete the topic of an unfinished copy; never any other.

    :raises NotFoundError: there is no such topic.
    :raises BadInputError: what is there is no unfinished copy; nothing was deleted.
    """
    address = KafkaAddress.parse(url)
    topic, reader = Topic(address), Reader(address)
    try:
        ends = topic.ends(range(topic.state().partitions))
        if any(ends.values()):
            first = reader.fetch_kept(0, 0, 1)[0] if ends[0] else None
            said = carried(first) if first is not None else None
            if said is None:
                raise BadInputError(f"{address} is no unfinished copy: nothing was deleted")
            part = CopiedPart(str(address), said.copy, reader.fetch_kept, lambda one: ends[one])
            if part.ended(0):  # its log.moved is the last
                raise BadInputError(f"{address} is a finished copy, and a log by now: nothing was deleted")
        elif topic.setting(_STAMPED) != _COPYING[_STAMPED]:
            raise BadInputError(f"{address} is no unfinished copy: nothing was deleted")
        topic.delete()
    finally:
        reader.close()


def _producer_settings(address: KafkaAddress, trouble: Trouble, record_bytes: int) -> dict[str, Any]:
    return {
        **client_settings(address, trouble),
        "enable.idempotence": True,
        "acks": "all",
        "socket.nagle.disable": True,
        "delivery.timeout.ms": address.delivery_timeout_ms,
        "message.max.bytes": max(record_bytes, 1_000),
    }


def _made(topic: Topic, address: KafkaAddress, partitions: int) -> dict[int, int]:
    """The topic, made unless it is there; where its partitions end once nothing arrives any more."""
    try:
        found = topic.state().partitions
    except NotFoundError:
        topic.create(partitions, _COPYING)
        found = partitions
    if found != partitions:
        raise BadInputError(f"{address} has {found} partitions, the log to copy has {partitions}: name another topic")
    ends = topic.ends(range(partitions), whole=True)
    while any(ends.values()):
        threading.Event().wait(_QUIET_SECONDS)
        before, ends = ends, topic.ends(range(partitions))
        if before == ends:
            break
    return ends


def _copy_of(reader: Reader, address: KafkaAddress, ends: Mapping[int, int], origin: LogDescription) -> str | None:
    """Which copy the topic holds; ``None`` while it holds nothing."""
    if not any(ends.values()):
        return None
    first = reader.fetch_kept(0, 0, 1)[0] if ends[0] else None
    said = carried(first) if first is not None else None
    if first is None or said is None:
        raise BadInputError(f"{address} holds something else than a copy: name another topic, or delete that one")
    if check_opening(address, first, origin.partitions) != origin.log_id:
        raise BadInputError(f"{address} is a copy of another log: name another topic, or --discard it if unfinished")
    return said.copy
