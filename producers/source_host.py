"""The syncs of a store's connected sources in one process: those that are its share, from entering to leaving."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final, Protocol, Self

from headrace.errors import HeadraceError, UnavailableError
from headrace.producers.connections import Connections, key_of
from headrace.producers.hints import Hints
from headrace.producers.provider import Connected, Hint
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.source_syncs import Parts, SourceSyncs
from headrace.producers.sync_runner import SyncRunner
from headrace.projections.known import hinted

_LOOK_SECONDS: Final = 5.0
"""How often it is looked what sources there are: other processes connect and remove them."""
_STOP_SECONDS: Final = 5.0
_log: Final = logging.getLogger("headrace.sync")

Share = Callable[[str, str], bool]
"""Whether an account (tenant, account) is this process's to sync."""


class Watcher(Protocol):
    """Holds a connection to a provider that notifies nobody, and hints what is heard on it."""

    def hints(self) -> Iterator[Hint]:
        """Until it is stopped. Raises HeadraceError where a person must act."""
        ...

    def stop(self) -> None:
        """End it, from another thread."""
        ...


Watch = Callable[[Connected], Watcher | None]
"""What holds a source's connection open, ``None`` where its provider notifies or is only polled."""


def _everything(_tenant: str, _account: str) -> bool:
    return True


class SourceHost:
    """``look_seconds``: how often it is looked what sources there are."""

    def __init__(
        self,
        parts: Parts,
        connections: Connections,
        syncs: SourceSyncs,
        watch: Watch,
        *,
        share: Share = _everything,
        pace: Pace | None = None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._parts, self._connections, self._watch, self._share = parts, connections, watch, share
        self._hints: Final = Hints(parts.log, parts.tables, parts.applied, parts.intake)
        self._runner: Final = SyncRunner(syncs.sync, self._hinted, pace=pace)
        self._look_seconds: Final = look_seconds
        self._watchers: Final[dict[SourceKey, tuple[Watcher, threading.Thread]]] = {}
        self._due: frozenset[SourceKey] = frozenset()
        self._stopping: Final = threading.Event()
        self._entered: Final = ExitStack()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-sources", daemon=True)

    def __enter__(self) -> Self:
        self._entered.enter_context(self._parts.applied.listening(self._runner.look))
        self._runner.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._entered.close()
        self._runner.stop()
        self._thread.join(_STOP_SECONDS)
        for watcher, thread in self._watchers.values():
            watcher.stop()
            thread.join(_STOP_SECONDS)

    def look(self) -> None:
        """See what sources there are and whose; call it when the share changes."""
        found = {key_of(one): one for one in self._connections.all() if self._share(one.tenant, one.account)}
        self._due = frozenset(self._connections.all_due().keys() & found.keys())
        self._runner.keep(found)
        for gone in self._watchers.keys() - found.keys():
            self._watchers.pop(gone)[0].stop()
        for ended in [key for key, (_, thread) in self._watchers.items() if not thread.is_alive()]:
            del self._watchers[ended]  # a person had to mend something: perhaps that is done
        for key in found.keys() - self._watchers.keys():
            watcher = self._watch(found[key])
            if watcher is not None:
                thread = threading.Thread(target=self._hear, args=(key, watcher), daemon=True)
                self._watchers[key] = watcher, thread
                thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except HeadraceError as error:
                _log.error("it cannot be seen which sources are connected: %s", error)
            self._stopping.wait(self._look_seconds)

    def _hinted(self) -> list[SourceKey]:
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
