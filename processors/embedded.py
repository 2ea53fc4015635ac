"""The embedded host: one thread that folds every partition of a log as it grows.

An outage of the tables pauses the fold loudly and it goes on by itself; anything that makes judging unsafe stops it, and
whoever waits is told why.
"""

import logging
import threading
from typing import Final

from headrace.errors import FencedError, HaltError, UnavailableError
from headrace.log.port import Log
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine

BATCH: Final = 1_000
"""Records folded in one transaction at most."""
_IDLE_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 0.2
_log: Final = logging.getLogger("headrace.embedded")


class EmbeddedHost:
    """Runs an engine over a log until :meth:`stop`. ``applied`` tells how far it is."""

    def __init__(self, log: Log, engine: Engine, applied: Applied | None = None) -> None:
        self._log: Final = log
        self._engine: Final = engine
        self.applied: Final = applied or Applied()
        self._next: dict[int, int] = {}
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-fold", daemon=True)

    def start(self) -> None:
        """Check that the log is the one that was folded, catch up, and go on in a thread of its own.

        :raises HaltError: judging must not go on; nothing was started.
        """
        for partition in range(self._log.describe().partitions):
            self._next[partition] = self._engine.resume(self._log, partition)
        self._turn(frozenset(self._next))
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch at hand and end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn(self._log.wait(self._next, _IDLE_SECONDS))
        except (HaltError, FencedError) as error:
            _log.critical("the fold has stopped: %s", error)
            self.applied.fail(error)
        except Exception as error:
            _log.critical("the fold has stopped on a bug", exc_info=True)
            self.applied.fail(HaltError(f"the fold has stopped on a bug: {error!r}; see the log, mend it, start again"))

    def _turn(self, partitions: frozenset[int]) -> None:
        for partition in sorted(partitions):
            while not self._stopping.is_set() and self._batch(partition):
                pass

    def _batch(self, partition: int) -> bool:
        """Fold one batch; whether there may be more."""
        try:
            records = self._log.read(partition, self._next[partition], BATCH)
            if records:
                self._engine.apply(partition, records)
        except HaltError:
            raise
        except UnavailableError as error:
            _log.warning("the fold waits: %s", error)
            self._stopping.wait(_RETRY_SECONDS)
            return True
        if not records:
            self.applied.advance(partition, self._next[partition])
            return False
        self._next[partition] += len(records)
        self.applied.advance(partition, self._next[partition])
        return len(records) == BATCH
