"""The host of syncs: whose accounts it syncs, and what becomes of a sync that is given away or overtaken."""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.errors import BadInputError
from headrace.producers.connections import Connections
from headrace.producers.event import Changes, Known, NewEvent
from headrace.producers.feed import Feed
from headrace.producers.provider import Connected, Delivery, Received, Watch, Watcher
from headrace.producers.provider_http import GrantError, ProviderHttp
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.source_host import SourceHost
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.producers.sync import OvertakenError
from headrace.producers.sync_figures import SyncFigures
from headrace.producers.vault_sqlite import SqliteVault
from headrace.projections import known
from headrace.schemas.refs import ActorRef
from headrace.store import Store
from tests.contract.rich_history import mail
from tests.worker.site import until

TENANT: Final = "acme"
PATIENCE: Final = 30.0
PACE: Final = Pace(period=3_600.0, first_retry=0.01)


class Post:
    """A provider with one message for everybody, on the first of two pages; before it shows a page it does what the
    test says. The cursor is how many there are."""

    name = "post"
    feeds = ("mail.thread",)

    def __init__(self) -> None:
        self.does: dict[str, Callable[[int], object]] = {}
        self.messages = 1

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> Any:
        return _Mailbox(self, connected.account)

    def watch(
        self, connected: Connected, http: ProviderHttp, address: str, last: Watch | None, now: int
    ) -> Watch | None:
        return None

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """Nothing is watched."""

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:
        raise NotImplementedError


def _nothing(page: int) -> None:
    """Nobody asked for anything."""


class _Mailbox:
    feeds = Post.feeds

    def __init__(self, post: Post, account: str) -> None:
        self._post, self._account = post, account

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        does = self._post.does.get(self._account, _nothing)
        does(0)
        first = int(cursor or 0)
        yield Changes(tuple(map(_message, range(first, self._post.messages))), None, full=cursor is None, more=True)
        does(1)
        yield Changes((), str(self._post.messages), full=cursor is None)


def _message(number: int) -> NewEvent:
    return NewEvent("mail.received", "mail.thread", f"t-{number}", f"m-{number}", mail(number))


class Share:
    """The accounts that a test says."""

    def __init__(self, *accounts: str) -> None:
        self._accounts = set(accounts)
        self._listeners: set[Callable[[], object]] = set()
        self.left = threading.Event()
        """Set when the host is told to stop."""

    def holds(self, tenant: str, account: str) -> bool:
        assert tenant == TENANT
        return account in self._accounts

    def listening(self, listener: Callable[[], object]) -> AbstractContextManager[None]:
        return self._listening(listener)

    @contextmanager
    def _listening(self, listener: Callable[[], object]) -> Generator[None]:
        self._listeners.add(listener)
        yield
        self._listeners.remove(listener)
        self.left.set()

    def become(self, *accounts: str) -> None:
        self._accounts = set(accounts)
        for listener in self._listeners:
            listener()


class Site:
    """A store, and two mailboxes connected to it."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.connections = Connections(SqliteVault(directory), store.keys)
        self.post = Post()
        self.keys = {account: SourceKey(TENANT, account, f"post/{account}") for account in ("ann", "bob")}
        for account, key in self.keys.items():
            self.connections.add(Connected(TENANT, account, key.source, "post", {}), {"access_token": "t"})
        setups = {"post": ProviderSetup(self.post, "https://post.invalid")}
        self.syncs = SourceSyncs(store, self.connections, setups, None)

    def host(
        self, share: Share | None = None, watch: Callable[[Connected], Watcher | None] = lambda _: None
    ) -> SourceHost:
        """It looks by itself once in an hour."""
        return SourceHost(self.store, self.connections, self.syncs, watch, share=share, pace=PACE, look_seconds=3_600.0)

    def feed(self, account: str) -> Feed:
        """Another process's way to the log."""
        store, key = self.store, self.keys[account]
        return Feed(
            store.log,
            store.tables,
            store.applied,
            store.intake,
            store.kinds,
            tenant=key.tenant,
            account=key.account,
            source=key.source,
            feeds=Post.feeds,
            actor=ActorRef("user", account),
        )

    def end(self, account: str) -> int:
        return self.store.log.describe().ends[self.store.intake.partition(TENANT, account)]

    def types(self, account: str, prefix: str = "") -> list[str]:
        with self.store.tables.snapshot() as reader:
            sql = 'SELECT type, disposition FROM events WHERE account = :account ORDER BY "offset"'
            rows = reader.rows(sql, {"account": account})
        return [f"{row['type']} {row['disposition']}" for row in rows if row["type"].startswith(prefix)]

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once the tables say so."""
        changed = threading.Event()
        with self.store.applied.listening(changed.set):
            while not condition():
                assert changed.wait(PATIENCE), self.types("ann")
                changed.clear()

    def synced(self, account: str) -> bool:
        with self.store.tables.snapshot() as reader:
            row = known.source(reader, *self.keys[account])
        return row is not None and row.synced_offset > row.sync_offset


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Store(tmp_path / "store", writer=True, partitions=1) as store:
        yield Site(store, tmp_path)


class Held:
    """Holds a provider's first page until it is let go."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def __call__(self, page: int) -> None:
        if page == 0 and not self.asked.is_set():
            self.asked.set()
            assert self.go_on.wait(PATIENCE)


def test_only_its_share_and_at_once_when_that_changes(site: Site) -> None:
    share = Share("ann")
    with site.host(share):
        site.until(lambda: site.synced("ann"))
        assert site.types("bob") == []
        share.become("ann", "bob")
        site.until(lambda: site.synced("bob"))
    assert site.types("ann", "source.") == ["source.sync_started noted", "source.synced noted"]


def test_what_is_given_away_while_it_is_synced_appends_nothing_more(site: Site) -> None:
    share, held = Share("ann"), Held()
    site.post.does["ann"] = held
    with site.host(share) as host:
        assert held.asked.wait(PATIENCE)
        end = site.end("ann")
        share.become()
        held.go_on.set()
        figures = host.figures
    assert site.end("ann") == end
    assert counted(figures, "headrace_syncs", outcome="overtaken") == 1
    assert site.types("ann") == ["source.sync_started noted"]


def test_what_is_given_away_and_comes_back_is_synced_by_one_thread(site: Site) -> None:
    share, held, at_once, most = Share("ann"), Held(), list[int](), list[int]()

    def does(page: int) -> None:
        at_once.append(1)
        most.append(len(at_once))
        held(page)
        at_once.pop()

    site.post.does["ann"] = does
    with site.host(share) as host:
        assert held.asked.wait(PATIENCE)
        share.become()
        host.look()
        share.become("ann")
        host.look()
        held.go_on.set()
        site.until(lambda: site.synced("ann"))
    assert max(most) == 1
    assert site.types("ann", "mail.") == ["mail.received applied"]


def test_a_sync_that_a_later_start_has_replaced_stops_and_says_so(site: Site) -> None:
    seen = list[int]()

    def other_syncs_meanwhile(page: int) -> None:
        seen.append(page)
        if seen == [0]:
            site.syncs.sync(site.keys["ann"])

    site.post.does["ann"] = other_syncs_meanwhile
    with pytest.raises(OvertakenError, match="another sync of post/ann of ann"):
        site.syncs.sync(site.keys["ann"])
    assert seen == [0, 0, 1]
    assert site.types("ann") == [
        "source.sync_started noted",
        "source.sync_started noted",
        "mail.received applied",
        "source.synced noted",
        "mail.received stale_sync",
    ]


def test_a_sync_whose_end_does_not_count_is_run_again(site: Site) -> None:
    """Somebody begins a sync, and dies: a worker that slept, or a command that was stopped."""
    others = list[str]()

    def somebody_begins(page: int) -> None:
        if page == 1 and not others:
            others.append(site.feed("ann").begin(full=False).sync)

    site.post.does["ann"] = somebody_begins
    with site.host(Share("ann")) as host:
        site.until(lambda: site.synced("ann"))
        figures = host.figures
    assert counted(figures, "headrace_syncs", outcome="overtaken") == 1
    assert counted(figures, "headrace_syncs", outcome="done") == 1
    assert site.types("ann") == [
        "source.sync_started noted",
        "mail.received applied",
        "source.sync_started noted",
        "source.synced stale_sync",
        "source.sync_started noted",
        "mail.received duplicate",
        "source.synced noted",
    ]


def test_a_sync_that_ended_before_a_later_one_began_is_done(site: Site) -> None:
    site.syncs.sync(site.keys["ann"])
    later = site.feed("ann")
    began = threading.Event()
    real = site.store.log.append

    def append(records: Any) -> Any:
        found = real(records)
        if b"source.synced" in dict(records[-1].headers).values() and not began.is_set():
            began.set()
            later.begin(full=False)
        return found

    site.store.log.append = append  # type: ignore[method-assign]
    site.syncs.sync(site.keys["ann"])
    assert began.is_set()


def test_stopping_ends_a_sync_at_its_next_record(site: Site) -> None:
    share, asked = Share("ann"), threading.Event()

    def until_it_stops(page: int) -> None:
        asked.set()
        assert share.left.wait(PATIENCE)

    site.post.does["ann"] = until_it_stops
    with site.host(share):
        assert asked.wait(PATIENCE)
    assert site.types("ann") == ["source.sync_started noted"]
    assert not any(thread.name.startswith("headrace-sync-") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("at", "left"),
    [(None, []), (0, ["source.sync_started noted"]), (1, ["source.sync_started noted", "mail.received applied"])],
)
def test_what_is_not_ours_is_neither_begun_nor_gone_on_with(site: Site, at: int | None, left: list[str]) -> None:
    share = Share("ann") if at is not None else Share()
    site.post.does["ann"] = lambda page: share.become() if page == at else None
    with pytest.raises(OvertakenError, match="another process"):
        site.syncs.sync(site.keys["ann"], ours=lambda: share.holds(TENANT, "ann"))
    assert site.types("ann") == left


def test_between_pages_with_nothing_new_it_is_seen_that_it_was_given_away(site: Site) -> None:
    share, seen = Share("ann"), list[int]()

    def given_away(page: int) -> None:
        seen.append(page)
        share.become()

    site.post.messages, site.post.does["ann"] = 0, given_away
    with pytest.raises(OvertakenError, match="another process"):
        site.syncs.sync(site.keys["ann"], ours=lambda: share.holds(TENANT, "ann"))
    assert seen == [0]


def test_one_that_cannot_be_listened_to_does_not_keep_others_from_it(site: Site) -> None:
    listened = list[str]()

    def watch(connected: Connected) -> Watcher | None:
        listened.append(connected.account)
        if connected.account == "ann":
            raise BadInputError("its settings cannot be used")
        return None

    with site.host(watch=watch):
        site.until(lambda: site.synced("ann") and site.synced("bob"))
    assert {"ann", "bob"} <= set(listened)


def test_the_figures(site: Site) -> None:
    def refuses(_: int) -> None:
        raise GrantError("the grant is gone")

    site.post.does["bob"] = refuses
    with site.host() as host:
        figures = host.figures
        until(lambda: counted(figures, "headrace_syncs") == 2)
        host.look()
        assert counted(figures, "headrace_sources") == 2
        assert counted(figures, "headrace_syncs_running") == 0
        assert 0 <= counted(figures, "headrace_sources_lag_seconds") < 60
    labels = [sample.labels for metric in figures.collect() for sample in metric.samples]
    assert {value for each in labels for value in each.values()} == {"post", "done", "refused"}


def test_the_lag_is_that_of_the_one_furthest_behind() -> None:
    now = [1_000.0]
    figures = SyncFigures(lambda: now[0])
    ann, bob, cleo = (SourceKey(TENANT, account, "s") for account in ("ann", "bob", "cleo"))
    figures.keep({ann: "post", bob: "post", cleo: "dav"}, {ann: 990_000})
    assert lags(figures) == {"post": 10.0, "dav": 0.0}
    now[0] = 1_060.0  # bob has never been synced since he came
    figures.keep({ann: "post", bob: "post", cleo: "dav"}, {ann: 1_055_000})
    assert lags(figures) == {"post": 60.0, "dav": 60.0}
    figures.keep({ann: "post"}, {ann: 1_055_000})
    assert lags(figures) == {"post": 5.0}


def lags(figures: SyncFigures) -> Mapping[str, float]:
    found = next(metric for metric in figures.collect() if metric.name == "headrace_sources_lag_seconds")
    return {sample.labels["provider"]: sample.value for sample in found.samples}


def counted(figures: SyncFigures, name: str, **labels: str) -> float:
    found = next(metric for metric in figures.collect() if metric.name == name)
    return sum(sample.value for sample in found.samples if labels.items() <= sample.labels.items())
