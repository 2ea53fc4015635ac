"""The embedded host: one thread that folds every partition of a log as it grows.

What goes wrong stays where it belongs:

==========================================  ====================================================================
a schema is missing, the tables do not      the partition is paused, loudly, and goes on by itself once that is
answer                                      mended; the others go on meanwhile
an entity kind's code raises                the partition stops: it is a bug, and skipping the record would be worse
the log is not the one that was folded,     everything stops: this process must not judge this log
the log asks for what is not installed,
another process owns a partition
==========================================  ====================================================================

Whoever waits for a partition that has stopped is told why.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.errors import HaltError, HeadraceError, KindError, SchemaMissingError, UnavailableError
from headrace.log.port import Log, Stored
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine

BATCH: Final = 1_000
"""Records folded in one transaction at most."""
_IDLE_SECONDS: Final = 0.05
"""How long the log is waited for at a time: so long may :meth:`EmbeddedHost.stop` take while nothing happens."""
_RETRY_SECONDS: Final = 0.1
_RETRY_AT_MOST_SECONDS: Final = 5.0
_log: Final = logging.getLogger("headrace.embedded")


class _Pause(NamedTuple):
    """A paused partition: when it is tried again (monotonic seconds), and how long it waited last."""

    until: float
    seconds: float


class EmbeddedHost:
    """Runs an engine over a log until :meth:`stop`. ``applied`` tells how far it is."""

    def __init__(self, log: Log, engine: Engine, applied: Applied | None = None) -> None:
        self._log: Final = log
        self._engine: Final = engine
        self.applied: Final = applied or Applied()
        self._next: Final[dict[int, int]] = {}
        self._pauses: Final[dict[int, _Pause]] = {}
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-fold", daemon=True)

    def start(self) -> None:
        """Check that the log is the one that was folded, catch up, and go on in a thread of its own.

        :raises HaltError: this process must not judge this log; nothing was started.
        :raises UnavailableError: log or tables cannot be read now; nothing was started.
        """
        for partition in range(self._log.describe().partitions):
            self._next[partition] = self._engine.resume(self._log, partition)
            self.applied.advance(partition, self._next[partition])
        self._turn(frozenset(self._next))
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the batch at hand and end the thread; whether it ended within ``timeout`` seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn(self._grown() | self._due())
        except HeadraceError as error:
            _log.critical("the fold has stopped: %s", error)
            self.applied.fail(error)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it was
            _log.critical("the fold has stopped on a bug", exc_info=True)
            self.applied.fail(HaltError(f"the fold has stopped on a bug: {error!r}; see the log, mend it, start again"))

    def _grown(self) -> frozenset[int]:
        """The partitions that have something new, waiting for it a while."""
        after = {partition: offset for partition, offset in self._next.items() if partition not in self._pauses}
        until = min((pause.until for pause in self._pauses.values()), default=float("inf"))
        try:
            return self._log.wait(after, max(0.0, min(_IDLE_SECONDS, until - time.monotonic())))
        except UnavailableError as error:
            if not self._stopping.is_set():
                _log.warning("the fold waits: %s", error)
            self._stopping.wait(_RETRY_SECONDS)
            return frozenset()

    def _due(self) -> frozenset[int]:
        now = time.monotonic()
        return frozenset(partition for partition, pause in self._pauses.items() if pause.until <= now)

    def _turn(self, partitions: frozenset[int]) -> None:
        """A batch of each in turn, until none has more: a busy partition keeps no other waiting."""
        left = sorted(partitions)
        while left and not self._stopping.is_set():
            left = [partition for partition in left if self._batch(partition)]

    def _batch(self, partition: int) -> bool:
        """Fold one batch; whether there may be more."""
        try:
            if partition in self._pauses:
                # What the tables hold now decides: perhaps only the answer to a commit got lost.
                self._next[partition] = self._engine.resume(self._log, partition)
            records = self._log.read(partition, self._next[partition], BATCH)
            self._fold(partition, records)
        except (SchemaMissingError, UnavailableError) as error:
            self._pause(partition, error)
            return False
        except KindError as error:
            _log.critical("partition %d has stopped: %s", partition, error)
            del self._next[partition]
            self._pauses.pop(partition, None)
            self.applied.fail(error, partition)
            return False
        if self._pauses.pop(partition, None) is not None:
            _log.warning("partition %d goes on", partition)
        self.applied.advance(partition, self._next[partition])
        return len(records) == BATCH

    def _fold(self, partition: int, records: Sequence[Stored]) -> None:
        """Fold what was read. Where one record cannot be, those before it are."""
        if not records:
            return
        try:
            self._engine.apply(partition, records)
        except (SchemaMissingError, KindError):
            if len(records) == 1:
                raise
            for record in records:
                self._engine.apply(partition, [record])
                self._next[partition] += 1
                self.applied.advance(partition, self._next[partition])
        else:
            self._next[partition] += len(records)

    def _pause(self, partition: int, error: SchemaMissingError | UnavailableError) -> None:
        earlier = self._pauses.get(partition)
        seconds = min(_RETRY_AT_MOST_SECONDS, earlier.seconds * 2) if earlier is not None else _RETRY_SECONDS
        self._pauses[partition] = _Pause(time.monotonic() + seconds, seconds)
        _log.error("partition %d is paused and tried again in %.1f s: %s", partition, seconds, error)
        if isinstance(error, SchemaMissingError):
            self._engine.look_for_schemas()
        self.applied.pause(partition, error)
