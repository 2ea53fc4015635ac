"""Reads runs of records from any place: a few consumers, each left where it stopped, so that reading on is cheap."""

import math
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.errors import HeadraceError, LogMismatchError
from headrace.log.carrying import carried
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_copied import CopiedPart
from headrace.log.kafka_faults import (
    Trouble,
    client_settings,
    is_beyond,
    is_passing,
    meaning,
    patiently,
    silence,
)
from headrace.log.kafka_topic import CONFIRM_SECONDS
from headrace.log.port import READ_BYTES, Stored

MOST_RECORDS: Final = 10_000
"""What one read gives at the most, whatever was asked for."""
GROUP: Final = "headrace-log"
"""librdkafka wants a group; nothing joins it and nothing is committed."""
_IDLE: Final = 4
_SLICE_SECONDS: Final = 0.5
_HOLES: Final = "Compaction, deleted records or a transaction make such holes, and a log has none: restore it"
_SAMPLE: Final = 16
"""So many records tell how large those behind them may be."""
_SCAN: Final = 64
"""Who reads fewer records than this looks something up; who reads more will want what comes after."""


def consumer_settings(address: KafkaAddress, trouble: Trouble) -> dict[str, Any]:
    """What every consumer of a log is made with."""
    return {
        **client_settings(address, trouble),
        "group.id": GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # a replaced or truncated log must be noticed, never skipped over
        "check.crcs": True,
        "isolation.level": "read_uncommitted",  # a log has no transactions; their marks would be holes
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.queue.backoff.ms": 5,
        "fetch.error.backoff.ms": 50,
        "socket.nagle.disable": True,
    }


def stored(message: Message) -> Stored:
    """A message as a record, as the broker keeps it: see :meth:`Reader.originals`."""
    kind, appended_at = message.timestamp()
    found: Any = message.headers() or ()  # the client's types say str or bytes; read back it is bytes, or None
    value, partition, offset = message.value(), message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Stored(
        partition,
        offset,
        appended_at,
        kind == TIMESTAMP_LOG_APPEND_TIME,
        message.key(),
        tuple([(name, raw or b"") for name, raw in found]),
        value or b"",
    )


def _fitting(count: int, size: int, most_bytes: float) -> int:
    """How many more records to ask for, if ``count`` had so many bytes: consumers give all that they are asked for."""
    if math.isinf(most_bytes):
        return MOST_RECORDS
    return math.ceil((most_bytes - size) * count / size) if size else _SAMPLE


class _Cursor:
    """A consumer and the place it would read next."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address: Final = address
        self.trouble: Final = Trouble()
        # A fetch that waits at a partition's end holds up the next one from elsewhere: let it wait briefly.
        settings = {**consumer_settings(address, self.trouble), "fetch.wait.max.ms": 1, "enable.partition.eof": True}
        self._consumer: Final = Consumer(settings)
        self.at: tuple[int, int] | None = None

    def fetch(self, partition: int, offset: int, count: int, most_bytes: float) -> list[Stored]:
        """``count`` records, which are known to be there; only some of the first where they have more than
        ``most_bytes`` together, and, with such a bound, where all do not arrive in time."""
        if self.at != (partition, offset):
            self._consumer.assign([TopicPartition(self._address.topic, partition, offset)])
        self.at = None
        found: list[Stored] = []
        size = 0
        deadline = time.monotonic() + self._address.request_seconds
        while len(found) < count and size < most_bytes:
            left = deadline - time.monotonic()
            if left <= 0:
                if found and most_bytes < math.inf:
                    break
                raise silence(self._address, f"reading partition {partition} of", self.trouble)
            wanted = min(count - len(found), _fitting(len(found), size, most_bytes))
            for message in self._consumer.consume(wanted, timeout=min(left, _SLICE_SECONDS)):
                error = message.error()
                if error is None:
                    found.append(stored(message))
                    size += len(found[-1].value)
                else:
                    self._judge(error, message, partition, offset, offset + count)
            check_run(self._address, partition, offset, found)
        self.at = (partition, offset + len(found))
        return found

    def _judge(self, error: KafkaError, message: Message, partition: int, offset: int, end: int) -> None:
        if error.code() != KafkaError._PARTITION_EOF:
            raise _at(partition, offset) if is_beyond(error) else meaning(error, self._address, "reading")
        reached = message.offset()
        if reached is not None and reached >= end:  # earlier is a new leader that does not know yet how far it goes
            raise LogMismatchError(f"partition {partition} of {self._address} has a hole before offset {end}: {_HOLES}")

    def rest(self) -> None:
        """Fetch nothing ahead any more."""
        self._consumer.unassign()
        self.at = None

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that is there, and the next that will be."""
        place = TopicPartition(self._address.topic, partition)
        ask: Any = self._consumer.get_watermark_offsets  # its types forget that a timeout is None
        found: tuple[int, int] | None = ask(place, timeout=self._address.request_seconds, cached=False)
        if found is None:
            raise silence(self._address, f"asking where partition {partition} ends of", self.trouble)
        return found

    def close(self) -> None:
        self._consumer.close()


class Reader:
    """Safe to use from any thread."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address: Final = address
        self._guard: Final = threading.Lock()
        self._idle: Final[list[_Cursor]] = []
        self._closed = False
        self._copied: CopiedPart | None = None

    def look_for_copy(self, first: Stored) -> None:
        """``first`` is record 0 of partition 0: it says whether the log was copied from elsewhere.

        :raises HaltError: it is being copied, and that is not finished.
        """
        found = carried(first)
        if found is None:
            return
        copied = CopiedPart(str(self._address), found.copy, self.fetch_kept, lambda one: self.bounds(one)[1])
        copied.end(0)  # log.moved of partition 0 is the copy's last
        self._copied = copied

    def originals(self, records: Sequence[Stored]) -> list[Stored]:
        """Records of one partition as the log's port gives them: what was copied from another log is as it was there.

        :raises HaltError: the topic was changed.
        """
        return list(records) if self._copied is None else self._copied.originals(records)

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset of a partition that is there, and the next that will be.

        :raises UnavailableError: the brokers do not answer.
        """

        def ask() -> tuple[int, int]:  # when it fetches, the client sits out a leader's change by itself; not here
            with self._cursor(None) as cursor:
                return cursor.bounds(partition)

        return patiently(ask, is_passing, self._address.request_seconds)

    def fetch(self, partition: int, offset: int, count: int, end: int) -> list[Stored]:
        """``count`` records that are known to be there, or fewer if they are large; ``end`` is as far as the partition
        is known to go.

        :raises LogMismatchError: they are not there, or not without holes.
        :raises UnavailableError: the brokers do not answer.
        """
        return self.originals(self.fetch_kept(partition, offset, count, end, READ_BYTES))

    def fetch_kept(
        self, partition: int, offset: int, count: int, end: int = 0, most_bytes: float = math.inf
    ) -> list[Stored]:
        """:meth:`fetch`, as the broker keeps them; all of them unless ``most_bytes`` are given."""

        def ask() -> list[Stored]:
            with self._cursor((partition, offset)) as cursor:
                found = cursor.fetch(partition, offset, count, most_bytes)
                if count < _SCAN or offset + len(found) >= end:
                    cursor.rest()
                return found

        def stale(error: HeadraceError) -> bool:  # a leader of the past, see Topic.confirmed; its front it knows
            return isinstance(error, _BeyondError) and self.bounds(partition)[0] <= offset

        return patiently(ask, stale, min(CONFIRM_SECONDS, self._address.request_seconds))

    def close(self) -> None:
        """Close what is idle; what is in use closes itself. Harmless when repeated."""
        with self._guard:
            self._closed = True
            cursors, self._idle[:] = list(self._idle), []
        for cursor in cursors:
            cursor.close()

    @contextmanager
    def _cursor(self, at: tuple[int, int] | None) -> Generator[_Cursor, None, None]:
        """A cursor for this thread alone, for the moment: one that stands at ``at`` if there is one."""
        with self._guard:
            here = (one for one in self._idle if at is not None and one.at == at)
            resting = (one for one in self._idle if one.at is None)
            cursor = next(chain(here, resting, self._idle), None)
            if cursor is not None:
                self._idle.remove(cursor)
        if cursor is None:
            cursor = _Cursor(self._address)
        kept = False
        try:
            yield cursor
            with self._guard:
                if not self._closed and len(self._idle) < _IDLE:
                    self._idle.append(cursor)
                    kept = True
        except KafkaException as error:
            raise meaning(error.args[0], self._address, "reading", cursor.trouble) from error
        finally:
            if not kept:  # after an error too: the next caller gets a fresh one
                cursor.close()


def check_run(address: KafkaAddress, partition: int, offset: int, found: list[Stored]) -> None:
    """Pass when records follow one another from ``offset`` on.

    :raises LogMismatchError: some are missing between.
    """
    for expected, record in enumerate(found, offset):
        if record.offset != expected:
            raise LogMismatchError(
                f"partition {partition} of {address} has a hole: {record.offset} comes where {expected} should be."
                f" {_HOLES}"
            )


class _BeyondError(LogMismatchError):
    """A broker says that an offset is not in its partition."""


def _at(partition: int, offset: int) -> LogMismatchError:
    return _BeyondError(f"partition {partition} has no record at offset {offset}: the log was cut off or replaced")
