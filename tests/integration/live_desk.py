"""A store that is served, with sources that do what a test says, and whatever syncs them."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from headrace.api.server import BackgroundServer
from headrace.errors import UnavailableError
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.producers.event import Changes, Known, NewEvent
from headrace.producers.hints import Hints
from headrace.producers.live_checks import LiveChecks
from headrace.producers.provider import Connected, Delivery, Received, Watch
from headrace.producers.provider_http import ProviderHttp
from headrace.producers.refusal import RefusedError
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.source_host import Share, SourceHost
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.projections import queries
from headrace.settings import load_settings
from headrace.store import Store
from tests.integration.api_desk import WAIT, Desk
from tests.integration.stores import open_store

NAME: Final = "scripted"
STRICT: Final = Policy("strict", DEFAULT_POLICY.rules, source_max_staleness_ms=-1)
"""No source is ever fresh enough: only a live check helps."""
_PACE: Final = Pace(period=3_600.0, first_retry=0.05, longest_retry=0.05, refused_retry=0.05)

Fetch = Callable[[], Sequence[NewEvent]]
"""What a provider answers: the events that it found, or an exception."""


class Scripted:
    """A provider. ``does[account, source]`` answers a fetch; ``fetches`` are those that were begun."""

    def __init__(self) -> None:
        self.name: Final = NAME
        self.does: Final[dict[tuple[str, str], Fetch]] = {}
        self.feeds: Final[dict[str, tuple[str, ...]]] = {}
        self.fetches: Final[list[tuple[str, str]]] = []
        self.changed: Final = threading.Condition()

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> "_Source":
        return _Source(self, connected)

    def watch(
        self, connected: Connected, http: ProviderHttp, address: str, last: Watch | None, now: int
    ) -> Watch | None:
        return None

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """It notifies nobody."""

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:
        raise RefusedError("unknown_watch", "it notifies nobody")

    def fetched(self, account: str, source: str = "mail") -> int:
        """How many fetches were begun."""
        return self.fetches.count((account, source))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a fetch has begun that makes it so."""
        with self.changed:
            assert self.changed.wait_for(condition, WAIT), self.fetches


class _Source:
    def __init__(self, provider: Scripted, connected: Connected) -> None:
        self._provider, self._key = provider, (connected.account, connected.source.rpartition("/")[2])

    @property
    def feeds(self) -> tuple[str, ...]:
        return self._provider.feeds.get(self._key[1], ("mail.thread",))

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        with self._provider.changed:
            self._provider.fetches.append(self._key)
            self._provider.changed.notify_all()
        found = self._provider.does.get(self._key, tuple)()
        yield Changes(tuple(found), str(time.monotonic_ns()), full=cursor is None)


class Gate:
    """A provider's answer that comes when it is let through; :meth:`let` may be told what it is."""

    def __init__(self) -> None:
        self._open: Final = threading.Event()
        self._found: Sequence[NewEvent] = ()

    def __call__(self) -> Sequence[NewEvent]:
        assert self._open.wait(WAIT)
        return self._found

    def let(self, *found: NewEvent) -> None:
        """Answer."""
        self._found = found
        self._open.set()


class LiveDesk(Desk):
    """``provider`` is what the connected sources are read through."""

    def __init__(self, store: Store, http: httpx.Client) -> None:
        super().__init__(store, http)
        self.provider: Final = Scripted()

    def connect(self, account: str, source: str = "mail") -> SourceKey:
        """Connect a source of the account."""
        name = f"{NAME}/{source}"
        self.store.connections.add(Connected(self.tenant, account, name, NAME, {}), {"password": "p"})
        return SourceKey(self.tenant, account, name)

    def host(
        self, store: Store | None = None, *, share: Share | None = None, look_seconds: float = 0.05, pace: Pace = _PACE
    ) -> SourceHost:
        """What syncs them, not entered."""
        of = store or self.store
        # Nothing is asked over HTTP, so the base URL leads nowhere.
        setup = ProviderSetup(self.provider, "https://scripted.invalid/")
        syncs = SourceSyncs(of, of.connections, {NAME: setup}, None)
        return SourceHost(of, of.connections, syncs, lambda _: None, share=share, pace=pace, look_seconds=look_seconds)

    def begin(self, account: str, *sources: str) -> str:
        """An account with a thread and sources that were synced once; the thread's basis."""
        basis: str = self.thread(account)["basis"]
        for source in sources or ("mail",):
            self.connect(account, source)
            self.synced(account, source)
        return basis

    def synced(self, account: str, source: str = "mail") -> None:
        """Wait until the source has been synced, and no sync of it is under way."""
        key = (self.tenant, account)

        def idle() -> bool:
            with self.store.tables.snapshot() as reader:
                rows = [row for row in queries.sources(reader, key) if row.source == f"{NAME}/{source}"]
            return any(-1 < row.sync_offset < row.synced_offset for row in rows)

        self.until(account, idle)

    def until(self, account: str, condition: Callable[[], bool]) -> None:
        """Wait until something is so of an account. Asked anew whenever its partition has grown."""
        applied, partition = self.store.applied, self.store.intake.partition(self.tenant, account)
        deadline = time.monotonic() + WAIT
        while True:
            at = applied.next_offset(partition)
            if condition():
                return
            assert applied.wait(partition, at, deadline - time.monotonic()), self.history(account)

    def verdict(self, account: str, proposal: str) -> str:
        """The current one."""
        said: str = self.http.get(f"/v1/accounts/{account}/proposals/{proposal}").json()["verdict"]
        return said

    def judged(self, account: str, proposal: str, verdict: str) -> dict[str, Any]:
        """The proposal, once this is its verdict."""
        self.until(account, lambda: self.verdict(account, proposal) == verdict)
        found: dict[str, Any] = self.http.get(f"/v1/accounts/{account}/proposals/{proposal}").json()
        return found

    def history(self, account: str, *types: str) -> list[dict[str, Any]]:
        """The account's rows of ``events`` in order, of these types if there are any."""
        with self.store.tables.snapshot() as reader:
            rows = queries.account_events(reader, (self.tenant, account), after=-1, limit=1_000)
        return [row for row in rows if not types or row["type"] in types]

    def became(self, account: str, type_: str) -> list[str]:
        """What became of the account's records of a type."""
        return [row["disposition"] for row in self.history(account, type_)]

    def archived(self, event_id: str = "archived-1") -> NewEvent:
        """Somebody has archived thread ``t1``."""
        return NewEvent("mail.archived", "mail.thread", "t1", event_id, {})


def live_checks(store: Store) -> LiveChecks:
    """What one more process has; its ``turn`` is one look."""
    hints = Hints(store.log, store.tables, store.applied, store.intake)
    return LiveChecks(store, hints, lambda _tenant, _account: True)


def broken() -> Sequence[NewEvent]:
    """A provider that does not answer."""
    raise UnavailableError("the provider is away")


@contextmanager
def serving(directory: Path, *, policy: Policy = STRICT, fold: bool = True) -> Generator[LiveDesk]:
    """A store, served; nothing syncs it yet. Without ``fold`` others fold it."""
    with (
        open_store(directory, writer=True, partitions=4, policy=policy, fold=fold) as store,
        BackgroundServer(store, load_settings(directory, port=0)) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        yield LiveDesk(store, http)
