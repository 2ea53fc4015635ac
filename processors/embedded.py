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
from typing import Final

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.log.port import Log
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine
from headrace.processors.partition_folding import BATCH, PartitionFolding

_IDLE_SECONDS: Final = 0.05
"""How long the log is waited for at a time: so long may :meth:`EmbeddedHost.stop` take while nothing happens."""
_RETRY_SECONDS: Final = 0.1
_log: Final = logging.getLogger("headrace.embedded")

__all__ = ("BATCH", "EmbeddedHost")


class EmbeddedHost:
    """Runs an engine over a log until :meth:`stop`. ``applied`` tells how far it is."""

    def __init__(self, log: Log, engine: Engine, applied: Applied | None = None) -> None:
        self._log: Final = log
        self.applied: Final = applied or Applied()
        self._folding: Final = PartitionFolding(log, engine, self.applied, _log)
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-fold", daemon=True)

    def start(self) -> None:
        """Check that the log is the one that was folded, catch up, and go on in a thread of its own.

        :raises HaltError: this process must not judge this log; nothing was started.
        :raises UnavailableError: log or tables cannot be read now; nothing was started.
        """
        for partition in range(self._log.describe().partitions):
            self._folding.begin(partition)
            self.applied.advance(partition, self._folding.next[partition])
        self._turn(frozenset(self._folding.next))
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the batch at hand and end the thread; whether it ended within ``timeout`` seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._folding.close()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn(self._grown() | frozenset(self._folding.due))
        except HeadraceError as error:
            _log.critical("the fold has stopped: %s", error)
            self.applied.fail(error)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it was
            _log.critical("the fold has stopped on a bug", exc_info=True)
            self.applied.fail(HaltError(f"the fold has stopped on a bug: {error!r}; see the log, mend it, start again"))

    def _grown(self) -> frozenset[int]:
        """The partitions that have something new, waiting for it a while."""
        paused = self._folding.paused
        after = {partition: offset for partition, offset in self._folding.next.items() if partition not in paused}
        try:
            return self._log.wait(after, self._folding.until_due(_IDLE_SECONDS))
        except UnavailableError as error:
            if not self._stopping.is_set():
                _log.warning("the fold waits: %s", error)
            self._stopping.wait(_RETRY_SECONDS)
            return frozenset()

    def _turn(self, partitions: frozenset[int]) -> None:
        """A batch of each in turn, until none has more: a busy partition keeps no other waiting."""
        left = sorted(partitions)
        while left and not self._stopping.is_set():
            left = [partition for partition in left if self._folding.catch_up(partition)]
