"""``headrace log copy``: the same log somewhere else. Moved, so that it goes on there, or as a replica for reading.

Every record is copied as it is, from record 0 on, at its offset and with its append time, the records that close the
log included: a position, a token, a chain value means the same in both. Then ``log.moved`` opens each partition for
more.

Nobody need stop for most of it. While the log is still written, what it holds is copied and compared, record by
record, again and again until little is left. Only then it is closed (``log.closed``, naming where it goes on), the rest
is copied and compared, and ``log.moved`` follows, partition 0's last. Before that nobody opens the destination as a
log. An earlier run may have died while it closed the log: so it is closed again, unless that is certain, before anybody
goes by where it ends.

Whatever interrupts it, the same copy asked for again goes on. A destination that holds anything else than its origin is
refused; it is thrown away with :func:`headrace.log.copy_to_sqlite.discard` or
:func:`headrace.log.copy_to_kafka.discard` and begun again.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from headrace.errors import BadInputError, LogClosedError, LogMismatchError, UnavailableError
from headrace.log.copy_marks import closed_for, closings, movings
from headrace.log.framing import GENESIS, chain
from headrace.log.port import Log, LogDescription, Record, Stored

LITTLE: Final = 2_000
"""Records left to copy at which a log that is still written is closed."""
_ROUNDS: Final = 20
_FIRST_RECORDS: Final = 500
_MOST_RECORDS: Final = 5_000
_BATCH_BYTES: Final = 8 * 1024 * 1024
_OVERHEAD_BYTES: Final = 200
_AGAIN: Final = "throw the copy away with --discard and begin again"

Progress = Callable[[int, int], None]
"""Called with how many records are done and how many there are; each counts twice, copied and compared."""

Close = Callable[[Sequence[Record]], None]
"""Appends the records that close the log, in one call; finishes what an earlier call left half done. Harmless where the
log is closed.

:raises LogClosedError: so it was, for certain.
:raises WriterLockedError: another process has it open; nothing was appended.
"""


class Destination(Protocol):
    """Where a log is copied to. ``name`` is its address for people, ``copy`` the copy's id.

    Only records of the origin are written, per partition in order and without a hole. It is open for reading as a log
    once it is finished, and not before.
    """

    @property
    def name(self) -> str:
        """Its address for people."""
        ...

    @property
    def copy(self) -> str:
        """The copy's id."""
        ...

    def ends(self) -> tuple[int, ...]:
        """Where each partition's copied part ends, once everything written is durable.

        :raises LogMismatchError: something else was written there.
        :raises UnavailableError: it cannot be written or asked now.
        """
        ...

    def write(self, records: Sequence[Stored]) -> None:
        """Write a run of one partition, at its offsets; it may become durable later."""
        ...

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """As :meth:`headrace.log.port.Log.read`, of what was copied."""
        ...

    def finish(self, movings: Sequence[Record], successor: str | None) -> None:
        """Make it a log: with ``movings`` behind the copied parts one that goes on, without them a replica, whose
        appends are refused with ``successor``. Repeated after a crash it goes on."""
        ...


class Outcome(NamedTuple):
    """``ends`` and ``chains``: what was copied and compared, of every partition: next offset and chain value there.
    ``records``: how many this run copied. ``closed_seconds``: from the moment the log was closed to its first possible
    append at the destination; ``None`` where that was not in this run."""

    log_id: bytes
    ends: tuple[int, ...]
    chains: tuple[bytes, ...]
    records: int
    closed_seconds: float | None


class Copy:
    """One run. ``origin`` need not be open for writing; ``origin_name`` is its address for people.

    :raises LogMismatchError: the destination holds something else than the origin.
    :raises BadInputError: the origin is no log that can be copied.
    """

    def __init__(
        self, origin: Log, origin_name: str, destination: Destination, progress: Progress | None = None
    ) -> None:
        described = origin.describe()
        if described.log_id is None or not all(described.ends):
            raise BadInputError(f"{origin_name} is not opened whole: finish making that log first")
        self._origin: Final = origin
        self._origin_name: Final = origin_name
        self._destination: Final = destination
        self._progress: Final = progress
        self._log_id: Final = described.log_id
        self._walked: Final = [(0, GENESIS)] * described.partitions
        self._compared: Final = [(0, GENESIS)] * described.partitions
        self._marks: Final[list[deque[tuple[int, bytes]]]] = [deque() for _ in described.ends]
        self._records = 0
        self._done = 0
        self._limit = _FIRST_RECORDS
        self._written: Final = list(destination.ends())
        self._check_last(described)

    def catch_up(self) -> int:
        """Copy and compare what the log holds now; returns how many records that were.

        :raises LogMismatchError: the destination is not what was written to it.
        """
        described = self._origin.describe()
        if described.log_id != self._log_id:
            raise LogMismatchError(f"{self._origin_name} is another log now: restore it, then begin again")
        before = self._records
        left = sum(described.ends) * 2 - sum(self._written) - sum(offset for offset, _ in self._compared)
        total = self._done + left
        for partition, end in enumerate(described.ends):
            self._copy(partition, end, total)
        found = self._destination.ends()
        if found != tuple(self._written):
            raise LogMismatchError(f"{self._destination.name} has records that were not copied: {_AGAIN}")
        for partition in range(described.partitions):
            self._compare(partition, total)
        return self._records - before

    def replicate(self) -> Outcome:
        """Make the destination a replica of what the log holds now."""
        self.catch_up()
        self._destination.finish((), self._origin.describe().successor or self._origin_name)
        return self._outcome(None)

    def move(self, close: Close) -> Outcome:
        """Let the log go on at the destination.

        :param close: called once, when little is left.
        :raises LogClosedError: the log goes on somewhere else already.
        """
        self._check_successor(self._origin.describe())
        for _ in range(_ROUNDS):
            if self.catch_up() <= LITTLE:
                break
        described = self._origin.describe()
        closing = described.successor is None
        successor = described.successor or self._destination.name
        with suppress(LogClosedError):
            close(closings(described.partitions, self._destination.copy, successor))
        described = self._origin.describe()
        if described.successor is None:
            raise UnavailableError(f"{self._origin_name} is not closed: somebody else writes to it; copy again")
        began = time.monotonic()
        self._check_successor(described)
        self.catch_up()
        ends = tuple(self._written)
        self._destination.finish(movings(ends, self._destination.copy, self._origin_name), None)
        return self._outcome(time.monotonic() - began if closing else None)

    def _outcome(self, closed_seconds: float | None) -> Outcome:
        ends, chains = zip(*self._compared, strict=True)
        return Outcome(self._log_id, ends, chains, self._records, closed_seconds)

    def _check_successor(self, described: LogDescription) -> None:
        """A closed log is copied to where it was said to go on, and nowhere else: two would go on otherwise."""
        if described.successor is None or described.successor == self._destination.name:
            return
        last = self._origin.read(0, described.ends[0] - 1, 1)[0]
        if not closed_for(last, self._destination.copy):
            raise LogClosedError(
                f"{self._origin_name} is closed; it goes on at {described.successor}: copy it there, or copy that log"
            )

    def _check_last(self, described: LogDescription) -> None:
        """What an earlier run copied must end as the origin does there; all of it is compared later."""
        for partition, end in enumerate(self._written):
            if end > described.ends[partition]:
                raise LogMismatchError(
                    f"partition {partition} of {self._destination.name} goes to {end}, its origin to"
                    f" {described.ends[partition]}: {_AGAIN}"
                )
            last = end - 1
            if end and self._origin.read(partition, last, 1) != self._destination.read(partition, last, 1):
                raise self._differs(partition, last)

    def _copy(self, partition: int, end: int, total: int) -> None:
        self._walk(partition, self._written[partition])
        while self._written[partition] < end:
            records = self._read(partition, self._written[partition], end)
            self._destination.write(records)
            self._written[partition] += len(records)
            self._records += len(records)
            self._mark(records)
            self._tell(len(records), total)

    def _walk(self, partition: int, end: int) -> None:
        """What an earlier run copied: its chain is the origin's still to be computed."""
        while self._walked[partition][0] < end:
            self._mark(self._read(partition, self._walked[partition][0], end))

    def _mark(self, records: Sequence[Stored]) -> None:
        """Go on with the origin's chain over these records, and remember where it was then."""
        partition = records[0].partition
        _, value = self._walked[partition]
        self._walked[partition] = (records[-1].offset + 1, _chained(value, records))
        self._marks[partition].append(self._walked[partition])

    def _compare(self, partition: int, total: int) -> None:
        """The destination's chain, computed from what is read there, must be the origin's."""
        marks = self._marks[partition]
        while marks:
            offset, value = self._compared[partition]
            end, expected = marks[0]
            records: list[Stored] = []
            while offset < end:
                records = self._destination.read(partition, offset, min(self._limit, end - offset))
                if not records:
                    raise self._differs(partition, offset)
                offset, value = records[-1].offset + 1, _chained(value, records)
                self._tell(len(records), total)
            if value != expected:
                raise self._found(partition, self._compared[partition][0], end)
            self._compared[partition] = marks.popleft()

    def _found(self, partition: int, offset: int, end: int) -> LogMismatchError:
        """Which record it is."""
        while offset < end:
            records = self._read(partition, offset, end)
            copied = self._destination.read(partition, offset, len(records))
            for one, other in zip(records, copied, strict=False):
                if one != other:
                    return self._differs(partition, one.offset)
            if not copied:
                return self._differs(partition, offset)
            offset += min(len(records), len(copied))
        return self._differs(partition, end - 1)

    def _differs(self, partition: int, offset: int) -> LogMismatchError:
        return LogMismatchError(
            f"record {partition}:{offset} of {self._destination.name} is not that of {self._origin_name}: {_AGAIN}"
        )

    def _read(self, partition: int, offset: int, end: int) -> list[Stored]:
        """Some of the origin's records before ``end``: as many as fit into memory, if they are of one size."""
        records = self._origin.read(partition, offset, min(self._limit, end - offset))
        if not records:
            raise LogMismatchError(f"{self._origin_name} lacks record {partition}:{offset}: restore it from a backup")
        size = sum(len(record.value) + _OVERHEAD_BYTES for record in records) // len(records)
        self._limit = max(1, min(_MOST_RECORDS, _BATCH_BYTES // size))
        return records

    def _tell(self, records: int, total: int) -> None:
        self._done += records
        if self._progress is not None:
            self._progress(self._done, max(total, self._done))


def _chained(value: bytes, records: Sequence[Stored]) -> bytes:
    for record in records:
        value = chain(value, record)
    return value
