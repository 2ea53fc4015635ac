"""The partitions that a host folds: where each one is, and what goes wrong with one stays with that one.

==========================================  ====================================================================
a schema is missing, the tables do not      the partition is paused, loudly, and goes on by itself once that is
answer                                      mended; the others go on meanwhile
an entity kind's code raises                the partition stops: it is a bug, and skipping the record would be worse
anything else                               is the host's to judge
==========================================  ====================================================================

Whoever waits for a partition that has stopped is told why.

While one batch is committed, and the server has its own work with that, a batch of another partition may be decoded and
folded: at most one is under way. Of the same partition the next may be decoded only, since it is folded over what the
one before it left in the tables.
"""

import logging
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, NamedTuple

from headrace.errors import HeadraceError, KindError, SchemaMissingError, UnavailableError
from headrace.log.port import Log, Stored
from headrace.processors.applied import Applied
from headrace.processors.engine import Decoded, Engine, Folded

BATCH: Final = 1_000
"""Records folded in one transaction at most."""
_RETRY_SECONDS: Final = 0.1
_RETRY_AT_MOST_SECONDS: Final = 5.0


class _Pause(NamedTuple):
    """When a partition is tried again (monotonic seconds), how long it waited last, and for what."""

    until: float
    seconds: float
    error: HeadraceError


class _UnderWay(NamedTuple):
    """A batch that is being committed."""

    partition: int
    folded: Folded
    commit: Future[object]


class PartitionFolding:
    """For one thread. ``passing`` are the errors that a partition waits out; ``batch`` is how many records are folded
    in one transaction at the most."""

    def __init__(
        self,
        log: Log,
        engine: Engine,
        applied: Applied,
        logger: logging.Logger,
        *,
        batch: int = BATCH,
        passing: tuple[type[HeadraceError], ...] = (SchemaMissingError, UnavailableError),
    ) -> None:
        self.next: Final[dict[int, int]] = {}
        """Every partition that is folded here, with the first offset that is not."""
        self.stopped: Final[dict[int, HeadraceError]] = {}
        """The partitions that go no further, and why."""
        self.records = 0
        """How many were folded."""
        self.batches = 0
        self.pauses = 0
        """How often a partition had to wait."""
        self._log: Final = log
        self._engine: Final = engine
        self._applied: Final = applied
        self._logger: Final = logger
        self.batch: Final = batch
        self._passing: Final = passing
        self._paused: Final[dict[int, _Pause]] = {}
        self._committer: Final = ThreadPoolExecutor(1, "headrace-commit")
        self._under_way: _UnderWay | None = None

    def begin(self, partition: int) -> None:
        """Take the partition on, from where the tables are.

        :raises HaltError: this process must not judge this log.
        :raises UnavailableError: log or tables cannot be read now.
        """
        self._settle(partition)
        self.next[partition] = self._engine.resume(self._log, partition)

    def forget(self, partition: int) -> None:
        """The partition is somebody else's now."""
        try:
            self._settle(partition)
        finally:
            self._drop(partition)

    def _drop(self, partition: int) -> None:
        self._engine.forget(partition)
        self.next.pop(partition, None)
        self.stopped.pop(partition, None)
        if self._paused.pop(partition, None) is not None:
            self._applied.advance(partition, self._applied.next_offset(partition))  # here nobody waits for it any more

    @property
    def paused(self) -> dict[int, HeadraceError]:
        """The partitions that wait for something, and for what."""
        return {partition: pause.error for partition, pause in list(self._paused.items())}

    @property
    def due(self) -> list[int]:
        """The paused partitions that are to be tried again now, the one that has waited longest first."""
        now = time.monotonic()
        return sorted(
            (one for one in self._paused if self._paused[one].until <= now), key=lambda one: self._paused[one]
        )

    def until_due(self, most: float) -> float:
        """Seconds until some paused partition is to be tried again; no more than ``most``."""
        until = min((pause.until for pause in self._paused.values()), default=float("inf"))
        return max(0.0, min(most, until - time.monotonic()))

    def catch_up(self, partition: int) -> bool:
        """Read and fold one batch; whether there may be more."""
        more = False
        self._settle(partition)
        with self.guarded(partition):
            if partition in self._paused:
                self.begin(partition)  # what the tables hold now decides: perhaps only a commit's answer got lost
            records = self._log.read(partition, self.next[partition], self.batch)
            self._fold(partition, records)
            more = len(records) > 0  # fewer than were asked for come where they are large
        return more  # noqa: RET504 - what is raised above may not leave here

    def fold(self, partition: int, records: Sequence[Stored], *, more: bool = False) -> None:
        """Fold a batch that begins where the partition is. With ``more`` to come, it may only be on its way into the
        tables afterwards: whether that worked, :meth:`settle` or the next batch finds out."""
        batch = self._ready(partition, records)
        self._settle(partition)
        if partition not in self.next or partition in self._paused:
            return
        with self.guarded(partition):
            self._fold(partition, batch, more=more)

    def _ready(self, partition: int, records: Sequence[Stored]) -> Sequence[Stored] | Decoded:
        """The batch decoded, where the partition's last is still under way."""
        if self._under_way is None or self._under_way.partition != partition:
            return records
        try:
            return self._engine.decode(partition, records, self._under_way.folded.batch)
        except (SchemaMissingError, UnavailableError):
            return records  # whoever folds it meets that again, when it is this batch's turn

    def settle(self) -> None:
        """Wait for the batch that is under way into the tables. What goes wrong with it is its partition's."""
        found, self._under_way = self._under_way, None
        if found is not None:
            with self.guarded(found.partition):
                found.commit.result()
                self._committed(found.partition, found.folded)

    def _settle(self, partition: int) -> None:
        if self._under_way is not None and self._under_way.partition == partition:
            self.settle()

    def close(self) -> None:
        """Wait for what is under way, and end. Harmless when repeated."""
        self.settle()
        self._committer.shutdown()

    def check(self) -> None:
        """Pause the partitions whose tables are not where they were left. A database that crashed or was restored may
        be back at an earlier place: who folds on notices by the fence, but a partition that gets nothing new would
        lack what it had for ever."""
        self.settle()
        try:
            found = self._engine.places()
        except UnavailableError as error:
            self._logger.warning("it cannot be seen where the tables are: %s", error)
            return
        for partition, place in self.next.items():
            if partition not in self._paused and found.get(partition, 0) != place:
                there = found.get(partition, 0)
                why = f"the tables are at offset {there}, and were at {place}; it goes on from where they are"
                self.pause(partition, UnavailableError(why))

    @contextmanager
    def guarded(self, partition: int) -> Generator[None]:
        """What goes wrong within, and with this partition alone, pauses or stops it. Anything else is raised."""
        try:
            yield
        except self._passing as error:
            self.pause(partition, error)
        except KindError as error:
            self._logger.critical("partition %d has stopped: %s", partition, error)
            self.next.pop(partition, None)
            self._paused.pop(partition, None)
            self.stopped[partition] = error
            self._applied.fail(error, partition)
        else:
            if self._paused.pop(partition, None) is not None:
                self._logger.warning("partition %d goes on", partition)
            self._applied.advance(partition, self.next[partition])

    def pause(self, partition: int, error: HeadraceError) -> None:
        """Let the partition wait, the longer the more often it had to."""
        earlier = self._paused.get(partition)
        seconds = min(_RETRY_AT_MOST_SECONDS, earlier.seconds * 2) if earlier is not None else _RETRY_SECONDS
        self._paused[partition] = _Pause(time.monotonic() + seconds, seconds, error)
        self.pauses += 1
        self._logger.error("partition %d is paused and tried again in %.1f s: %s", partition, seconds, error)
        if isinstance(error, SchemaMissingError):
            self._engine.look_for_schemas()
        self._applied.pause(partition, error)

    def _fold(self, partition: int, batch: Sequence[Stored] | Decoded, *, more: bool = False) -> None:
        """Fold one batch. Where one record cannot be, those before it are."""
        records = batch.records if isinstance(batch, Decoded) else batch
        if not records:
            return
        try:
            folded = self._engine.fold(partition, batch)
        except (SchemaMissingError, KindError):
            if len(records) == 1:
                raise
            for record in records:
                self._fold(partition, [record])
                self._applied.advance(partition, self.next[partition])
            return
        self.settle()
        if more:
            self._under_way = _UnderWay(partition, folded, self._committer.submit(self._engine.commit, folded))
        else:
            self._engine.commit(folded)
            self._committed(partition, folded)

    def _committed(self, partition: int, folded: Folded) -> None:
        self.next[partition] += len(folded.batch.records)
        self.records += len(folded.batch.records)
        self.batches += 1
