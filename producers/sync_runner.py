"""Runs the syncs of many sources: which and when is :mod:`headrace.producers.schedule`'s, here are the threads.

A source is synced when a hint for it is on the log and no start after it, and every now and then without a hint,
because notifications get lost. So which sources have something to fetch survives any crash, and whoever runs them next
takes it up from the tables.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from headrace.errors import BadInputError, HeadraceError, UnavailableError
from headrace.producers.provider_http import ThrottledError
from headrace.producers.schedule import Outcome, Pace, Schedule, SourceKey
from headrace.producers.sync import OvertakenError, Synced

_STOP_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0
_APART_SECONDS: Final = 0.05
"""How far looks for hints are apart at the least: where much is folded, every commit asks for one."""
_log: Final = logging.getLogger("headrace.sync")

Told = Callable[[SourceKey, Synced | HeadraceError], object]
"""Called after every sync, from its thread, with how it went."""


def _told_nobody(_: SourceKey, __: Synced | HeadraceError) -> None:
    """Nobody asked."""


def _everybody(_: SourceKey) -> str:
    return ""


class SyncRunner:
    """Runs ``sync`` for the sources that :meth:`keep` names, from :meth:`start` to :meth:`stop`.

    ``hinted`` gives the sources with a hint on the log and no start after it; it is asked after every :meth:`look`.
    ``group`` is a source's provider: what ails one of them is none of the others' business.
    """

    def __init__(
        self,
        sync: Callable[[SourceKey], Synced],
        hinted: Callable[[], Iterable[SourceKey]],
        *,
        pace: Pace | None = None,
        told: Told = _told_nobody,
        group: Callable[[SourceKey], str] = _everybody,
    ) -> None:
        self._sync, self._hinted, self._told = sync, hinted, told
        self._schedule: Final = Schedule(pace or Pace(), random.random, group)
        self._changed: Final = threading.Condition()
        self._threads: Final[set[threading.Thread]] = set()
        self._looking = True
        self._look_at = 0.0
        self._stopping = False
        self._thread: Final = threading.Thread(target=self._run, name="headrace-syncs", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = _STOP_SECONDS) -> bool:
        """Begin no more syncs and wait for those at hand; whether they ended within ``timeout`` seconds. What is left
        behind ends with the process: its next sync begins again from the same cursor."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            threads = (self._thread, *self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def keep(self, sources: Iterable[SourceKey]) -> None:
        """These are the sources that this process syncs now."""
        with self._changed:
            self._schedule.keep(sources, time.monotonic())
            self._looking = True
            self._changed.notify_all()

    def ask(self, source: SourceKey) -> None:
        """Somebody wants this one synced now, however badly it did before."""
        with self._changed:
            self._schedule.ask(source, time.monotonic())
            self._changed.notify_all()

    def look(self) -> None:
        """Something was applied: there may be hints. Cheap, from any thread."""
        with self._changed:
            self._looking = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                now = time.monotonic()
                looking = self._looking and now >= self._look_at
                if looking:
                    self._looking, self._look_at = False, now + _APART_SECONDS
            hinted = self._asked() if looking else ()
            with self._changed:
                now = time.monotonic()
                for source in hinted:
                    self._schedule.hint(source, now)
                for source in () if self._stopping else self._schedule.take(now):
                    self._begin(source)
                until = self._schedule.next_time(now)
                if self._looking:
                    until = self._look_at if until is None else min(until, self._look_at)
                if not self._stopping:
                    self._changed.wait(None if until is None else max(0.0, until - time.monotonic()))

    def _asked(self) -> Iterable[SourceKey]:
        try:
            return list(self._hinted())
        except UnavailableError as error:
            _log.warning("it cannot be seen which sources have hints: %s", error)
            timer = threading.Timer(_RETRY_SECONDS, self.look)
            timer.daemon = True
            timer.start()
            return ()

    def _begin(self, source: SourceKey) -> None:
        thread = threading.Thread(target=self._synced, args=(source,), name=f"headrace-sync-{source.source}")
        thread.daemon = True
        self._threads.add(thread)
        thread.start()

    def _synced(self, source: SourceKey) -> None:
        outcome: Outcome = "refused"
        pause = 0.0
        try:
            outcome, pause = self._turn(source)
        except Exception:  # noqa: BLE001 - a bug in one provider's module must not end the others' syncs
            _log.critical("the sync of %s of %s has failed on a bug", source.source, source.account, exc_info=True)
        finally:
            with self._changed:
                self._schedule.ended(source, time.monotonic(), outcome, pause=pause)
                self._threads.discard(threading.current_thread())
                self._looking = True  # hints that came meanwhile are still in the tables
                self._changed.notify_all()

    def _turn(self, source: SourceKey) -> tuple[Outcome, float]:
        named = f"{source.source} of {source.account}"
        try:
            synced = self._sync(source)
        except ThrottledError as error:
            _log.warning("%s: %s", named, error)
            self._told(source, error)
            return "failed", error.retry_after
        except OvertakenError as error:
            _log.info("%s: %s", named, error)
            self._told(source, error)
            return "failed", 0.0  # if it is ours after all, it is tried again
        except UnavailableError as error:
            _log.warning("%s: %s; it is tried again", named, error)
            self._told(source, error)
            return "failed", 0.0
        except HeadraceError as error:
            level = logging.ERROR if isinstance(error, BadInputError) else logging.CRITICAL
            _log.log(level, "%s: %s", named, error)
            self._told(source, error)
            return "refused", 0.0
        _log.info("%s: %d events%s", named, synced.events, ", compared in full" if synced.full else "")
        self._told(source, synced)
        return "done", 0.0
