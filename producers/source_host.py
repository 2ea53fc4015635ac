"""The syncs of a store's connected sources in one process: those that are its share, from entering to leaving."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Final, Protocol, Self

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.processors.core.freshness import NOTHING
from headrace.producers.connections import Connections, key_of
from headrace.producers.feed import Feed
from headrace.producers.hints import Hints
from headrace.producers.live_checks import LiveChecks
from headrace.producers.provider import Connected, Watcher
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.source_syncs import Parts, SourceSyncs
from headrace.producers.sync import Synced
from headrace.producers.sync_figures import SyncFigures
from headrace.producers.sync_runner import SyncRunner
from headrace.projections.known import complete, hinted
from headrace.schemas.refs import ActorRef

_LOOK_SECONDS: Final = 5.0
"""How often it is looked what sources there are: other processes connect and remove them."""
_STOP_SECONDS: Final = 5.0
"""How long the syncs at hand may go on when the process is to stop; what is left of them ends with it."""
_BUG: Final = HaltError("a bug in the provider's module; report it")
_log: Final = logging.getLogger("headrace.sync")


class Share(Protocol):
    """The accounts that are this process's to sync."""

    def holds(self, tenant: str, account: str) -> bool:
        """Whether an account is, now."""
        ...

    def listening(self, listener: Callable[[], object]) -> AbstractContextManager[None]:
        """While it lasts ``listener``, which returns at once, is called when the share has changed."""
        ...


class Everything:
    """The share of a process that is alone."""

    def holds(self, tenant: str, account: str) -> bool:  # noqa: ARG002 - whoever it is
        """See :class:`Share`."""
        return True

    def listening(self, listener: Callable[[], object]) -> AbstractContextManager[None]:  # noqa: ARG002
        """See :class:`Share`: it never changes."""
        return nullcontext()


Watch = Callable[[Connected], Watcher | None]
"""What holds a source's connection open, ``None`` where its provider notifies or is only polled."""


class SourceHost:
    """``look_seconds``: how often it is looked what sources there are. ``figures`` are what it says of itself.

    When the share changes, what it holds no more is let go of: nothing of it begins, and a sync that runs stops before
    it appends again. Should that come too late, the later start, which is the other process's, decides on the log.
    """

    def __init__(
        self,
        parts: Parts,
        connections: Connections,
        syncs: SourceSyncs,
        watch: Watch,
        *,
        share: Share | None = None,
        pace: Pace | None = None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._parts, self._connections, self._watch, self._syncs = parts, connections, watch, syncs
        self._share: Final[Share] = share or Everything()
        self.figures: Final = SyncFigures()
        self._hints: Final = Hints(parts.log, parts.tables, parts.applied, parts.intake)
        self._runner: Final = SyncRunner(self._sync, self._hinted, pace=pace, group=self._provider)
        self._checks: Final = LiveChecks(parts, self._hints, self._share.holds)
        self._look_seconds: Final = look_seconds
        self._watchers: Final[dict[SourceKey, tuple[Watcher, threading.Thread]]] = {}
        self._providers: Mapping[SourceKey, str] = {}
        self._due: frozenset[SourceKey] = frozenset()
        self._asked: Mapping[SourceKey, str] = {}
        self._stopping: Final = threading.Event()
        self._woken: Final = threading.Event()
        self._entered: Final = ExitStack()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-sources", daemon=True)

    def __enter__(self) -> Self:
        self._entered.enter_context(self._parts.applied.listening(self._runner.look))
        self._entered.enter_context(self._share.listening(self._woken.set))
        self._entered.enter_context(self._parts.applied.listening(self._checks.look))
        self._runner.start()
        self._checks.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._woken.set()
        self._entered.close()
        self._checks.stop(0.0)
        until = time.monotonic() + _STOP_SECONDS
        for watcher, _thread in tuple(self._watchers.values()):
            watcher.stop()
        self._runner.stop(_STOP_SECONDS)
        for thread in (self._thread, *(held for _watcher, held in tuple(self._watchers.values()))):
            thread.join(max(0.0, until - time.monotonic()))

    def look(self) -> None:
        """See what sources there are and whose."""
        found = {key_of(one): one for one in self._connections.all() if self._share.holds(one.tenant, one.account)}
        self._providers = {key: one.provider for key, one in found.items()}
        due = self._connections.all_due()
        self._due = frozenset(due.keys() & found.keys())
        self._runner.keep(found)
        asked = {key: due[key].asked for key in self._due}
        for key in [key for key, which in asked.items() if which and self._asked.get(key) != which]:
            self._runner.ask(key)
        self._asked = asked
        self._checks.look()
        self._listen(found)
        with self._parts.tables.snapshot() as reader:
            fresh = {SourceKey(*key): at for key, at in complete(reader).items()}
        self.figures.keep(self._providers, fresh)
        for gone in self._connections.gone():
            if self._ours(gone):
                self._part_with(gone)

    def _part_with(self, key: SourceKey) -> None:
        """Say on the log that a removed source feeds nothing any more: by a sync that does not, and that replaces those
        under way. What it fed would otherwise be held for ever, waiting for a sync of it."""
        parts = self._parts
        feed = Feed(
            parts.log,
            parts.tables,
            parts.applied,
            parts.intake,
            parts.kinds,
            tenant=key.tenant,
            account=key.account,
            source=key.source,
            feeds=[NOTHING],
            actor=ActorRef("user", key.account),
        )
        try:
            feed.finish(feed.begin(full=False).sync, None)
            self._connections.forget(key)
        except HeadraceError as error:
            _log.warning("%s of %s is removed, which cannot be said now: %s", key.source, key.account, error)

    def _listen(self, found: Mapping[SourceKey, Connected]) -> None:
        """Hold the connections to those that notify nobody, and no others."""
        for gone in self._watchers.keys() - found.keys():
            self._watchers.pop(gone)[0].stop()
        for ended in [key for key, (_, thread) in self._watchers.items() if not thread.is_alive()]:
            del self._watchers[ended]  # a person had to mend something: perhaps that is done
        for key in found.keys() - self._watchers.keys():
            watcher = self._watcher(found[key])
            if watcher is not None and not self._stopping.is_set():
                thread = threading.Thread(target=self._hear, args=(key, watcher), daemon=True)
                self._watchers[key] = watcher, thread
                thread.start()

    def _watcher(self, connected: Connected) -> Watcher | None:
        try:
            return self._watch(connected)
        except HeadraceError as error:
            _log.error("%s of %s is not listened to: %s", connected.source, connected.account, error)
            return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                self.look()
            except HeadraceError as error:
                _log.error("it cannot be seen which sources are connected: %s", error)
            self._woken.wait(self._look_seconds)

    def _ours(self, key: SourceKey) -> bool:
        return not self._stopping.is_set() and self._share.holds(key.tenant, key.account)

    def _provider(self, key: SourceKey) -> str:
        return self._providers.get(key, "unknown")

    def _sync(self, key: SourceKey) -> Synced:
        provider = self._provider(key)
        self.figures.begun(provider)
        how: Synced | HeadraceError = _BUG
        try:
            how = synced = self._syncs.sync(key, ours=lambda: self._ours(key))
        except HeadraceError as error:
            how = error
            raise
        finally:
            self.figures.ended(provider, how)
        return synced

    def _hinted(self) -> list[SourceKey]:
        if not self._providers:
            return []
        with self._parts.tables.snapshot() as reader:
            found = [SourceKey(*one) for one in hinted(reader)]
        return [*found, *(key for key in self._due if any(self._connections.due(key)))]

    def _hear(self, key: SourceKey, watcher: Watcher) -> None:
        try:
            for _ in watcher.hints():
                self._hint(key)
        except HeadraceError as error:
            _log.error("%s of %s is no longer listened to: %s", key.source, key.account, error)

    def _hint(self, key: SourceKey) -> None:
        try:
            self._hints.append(key)
        except UnavailableError as error:
            _log.warning("a hint for %s of %s is lost: %s; it is polled", key.source, key.account, error)
