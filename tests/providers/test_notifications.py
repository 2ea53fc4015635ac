"""The whole way of a notification: the door, the hint, the sync, the log; with Gmail at the double's."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from headrace.errors import UnavailableError
from headrace.producers.connections import Connections, key_of
from headrace.producers.gmail import watch_id
from headrace.producers.hints import Hints
from headrace.producers.notifications import PATH, notification_router
from headrace.producers.provider import Answer, Connected, Delivery, Hint, Received, Watch
from headrace.producers.schedule import SourceKey
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.producers.vault_sqlite import SqliteVault
from headrace.projections import known
from headrace.store import Store
from tests.doubles.gmail import ADDRESS, METADATA, GmailDouble
from tests.doubles.http import Faulty, Grant, transport
from tests.providers.gmail_parts import BASE, google_error, provider
from tests.providers.test_gmail_push import NOW, ONE, Certificates, wrapped

SOURCE: Final = Connected("acme", "ann", "gmail/1", "gmail", {"address": ADDRESS, "content": "headers"})
KEY: Final = key_of(SOURCE)


class Site:
    """A store with one mailbox connected, and the door for what Google sends."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.now = NOW
        self.connections = Connections(SqliteVault(directory), store.keys)
        self.double = GmailDouble(Grant([METADATA]))
        self.faulty = Faulty(self.double)
        self.gmail = provider(Certificates(ONE).keys)
        self.connections.add(SOURCE, {"access_token": self.double.grant.token, "expires_at": NOW + 3_600})
        setups = {"gmail": ProviderSetup(self.gmail, BASE)}
        self.syncs = SourceSyncs(
            store,
            self.connections,
            setups,
            "https://headrace.example",
            transport=transport(self.faulty),
            clock=lambda: self.now,
        )
        self.hints = Hints(store.log, store.tables, store.applied, store.intake, lambda: self.now)
        self.metrics = CollectorRegistry()
        self.app = FastAPI()
        self.app.include_router(self.router({"gmail": self.gmail}))

    def router(self, providers: dict[str, Any]) -> Any:
        return notification_router(
            providers, lambda: self.connections, self.hints, self.metrics, clock=lambda: self.now
        )

    def push(self, *bodies: Any, token: str | None = None, name: str = "gmail") -> list[httpx.Response]:
        """Deliver these at once."""
        answers: list[httpx.Response] = []

        async def all_of_them() -> None:
            http = httpx.ASGITransport(self.app)
            async with (
                httpx.AsyncClient(transport=http, base_url="http://here") as client,
                anyio.create_task_group() as together,
            ):

                async def one(body: Any) -> None:
                    headers = {"authorization": f"Bearer {token or ONE.token()}"}
                    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                    answers.append(await client.post(f"{PATH}/{name}", content=raw, headers=headers))

                for body in bodies:
                    together.start_soon(one, body)

        anyio.run(all_of_them)
        return answers

    def records(self, type_: str) -> int:
        """How many records of a type are on the account's partition."""
        partition = self.store.intake.partition(SOURCE.tenant, SOURCE.account)
        end = self.store.log.describe().ends[partition]
        found = self.store.log.read(partition, 0, end)
        return sum(dict(record.headers)["ce_type"] == type_.encode() for record in found)

    def hinted(self) -> bool:
        """Whether the source is to be synced, once the tables have everything."""
        partition = self.store.intake.partition(SOURCE.tenant, SOURCE.account)
        assert self.store.applied.wait(partition, self.store.log.describe().ends[partition] - 1, 30)
        with self.store.tables.snapshot() as reader:
            return tuple(KEY) in known.hinted(reader)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Store(tmp_path / "store", writer=True, partitions=2) as store:
        yield Site(store, tmp_path)


def test_from_the_push_to_the_log(site: Site) -> None:
    site.double.receive()
    site.syncs.sync(KEY)
    assert site.records("mail.received") == 1
    [watched] = site.connections.watches(KEY)
    assert watched.watch.id == watch_id(ADDRESS)
    assert not site.hinted()
    site.double.receive()
    [answer] = site.push(wrapped())
    assert answer.status_code == 204
    assert site.hinted()
    synced = site.syncs.sync(KEY)
    assert (synced.events, synced.full) == (1, False)
    assert site.records("mail.received") == 2
    assert not site.hinted()


def test_a_burst_is_one_hint(site: Site) -> None:
    site.syncs.sync(KEY)
    answers = site.push(*[wrapped(messageId=str(number)) for number in range(300)])
    assert {answer.status_code for answer in answers} == {204}
    assert site.records("source.notified") == 1
    assert site.counted("headrace_notifications_hints_total", provider="gmail", added="no") == 299
    site.push(*[wrapped(messageId=f"later-{number}") for number in range(50)])
    assert site.records("source.notified") == 1
    site.syncs.sync(KEY)
    site.push(wrapped())
    assert site.records("source.notified") == 2
    assert site.hinted()


def test_a_hint_that_comes_during_a_sync_leads_to_another(site: Site) -> None:
    """The start is before the hint: what it tells of may have been missed."""
    site.syncs.sync(KEY)
    site.push(wrapped())
    asked, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        asked.set()
        assert go_on.wait(30)

    site.faulty.plan(hold, path="history")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(site.syncs.sync, KEY)
        assert asked.wait(30)
        site.push(wrapped(messageId="2"))
        go_on.set()
        running.result(30)
    assert site.records("source.notified") == 2
    assert site.hinted()


def test_threads_that_append_at_once_leave_one(site: Site) -> None:
    site.syncs.sync(KEY)
    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(site.hints.append, [KEY] * 40))
    assert 1 <= sum(added) <= 8
    assert sum(added) == site.records("source.notified")
    assert not site.hints.append(KEY)


class Sent(NamedTuple):
    """``None``: as it should be."""

    body: Any = None
    token: str | None = None
    name: str = "gmail"


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (Sent({}), 400, "not_notification"),
        (Sent(b"\xff"), 400, "not_utf8"),
        (Sent(b"x" * 1_100_000), 413, "too_large"),
        (Sent(token=ONE.token(aud="https://elsewhere")), 403, "wrong_audience"),
        (Sent(token=ONE.token(exp=int(NOW) - 3_600)), 401, "stale"),
        (Sent(token=ONE.token() + "x"), 401, "forged"),
        (Sent(name="nobody"), 404, "unknown_endpoint"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_is_turned_away_leaves_a_counter(site: Site, sent: Sent, status: int, reason: str) -> None:
    body, token, name = sent
    site.syncs.sync(KEY)
    ends = site.store.log.describe().ends
    [answer] = site.push(wrapped() if body is None else body, token=token, name=name)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ADDRESS not in answer.text
    label = name if name == "gmail" else "(unknown)"
    assert site.counted("headrace_notifications_refused_total", provider=label, reason=reason) == 1
    assert site.store.log.describe().ends == ends


def test_of_somebody_who_is_not_watched(site: Site) -> None:
    [answer] = site.push(wrapped())
    assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_watch")


class Loses:
    """A provider that says that it lost something."""

    name = "loses"

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def receive(self, _: Delivery, __: Any) -> Received:
        return Received((Hint("w-1", "d-1", self._kind),), Answer(202), ("wrong_sender",))


@pytest.mark.parametrize(
    ("kind", "compare", "watch"),
    [("changed", False, False), ("missed", True, False), ("reauthorize", False, True), ("removed", True, True)],
)
def test_what_a_provider_lost_is_kept_until_a_sync_has_seen_to_it(
    site: Site, kind: str, compare: bool, watch: bool
) -> None:
    site.syncs.sync(KEY)
    site.connections.put_watch(KEY, "loses", Watch("w-1", "", int(NOW * 1_000) + 10**9, {}))
    site.app.include_router(
        notification_router({"loses": Loses(kind)}, lambda: site.connections, site.hints, CollectorRegistry())  # type: ignore[dict-item]
    )
    due = site.connections.due(KEY)
    assert due == (False, False, "")
    site.app.router.routes.insert(0, site.app.router.routes.pop())
    [answer] = site.push(b"x", name="loses")
    assert answer.status_code == 202
    assert site.connections.due(KEY) == (compare, watch, "")
    asked = len(site.faulty.asked)
    assert site.syncs.sync(KEY).full == compare
    watches = sum("watch" in request.path for request in site.faulty.asked[asked:])
    assert watches == watch
    assert site.connections.due(KEY) == (False, False, "")


def test_a_sync_that_fails_leaves_it_due(site: Site) -> None:
    site.syncs.sync(KEY)
    site.connections.put_due(KEY, compare=True, watch=False)
    site.faulty.plan(lambda _: (_ for _ in ()).throw(UnavailableError("gone")), path="threads")
    with pytest.raises(UnavailableError):
        site.syncs.sync(KEY)
    assert site.connections.due(KEY).compare


def test_a_watch_is_renewed_in_time_and_not_before(site: Site) -> None:
    for hours, watches in ((0, 1), (23, 1), (25, 2), (26, 2)):
        site.now = NOW + hours * 3_600
        site.connections.put_grant(KEY, {"access_token": site.double.grant.token, "expires_at": site.now + 3_600})
        site.syncs.sync(KEY)
        assert sum("watch" in request.path for request in site.faulty.asked) == watches


def test_a_source_that_cannot_be_watched_is_read_all_the_same(site: Site) -> None:
    site.double.receive()
    refuse = site.double.answer

    def answer(request: Any) -> Any:
        return google_error(403, "forbidden") if "watch" in request.path else refuse(request)

    site.double.answer = answer  # type: ignore[method-assign]
    assert site.syncs.sync(KEY).events == 1
    assert site.connections.watches(KEY) == []


def test_what_is_removed_is_known_no_more(site: Site) -> None:
    site.syncs.sync(KEY)
    site.connections.remove(KEY)
    assert site.connections.all() == []
    assert site.connections.watches() == []
    assert site.connections.grant(KEY) is None
    [answer] = site.push(wrapped())
    assert answer.status_code == 404
    assert site.connections.find(SourceKey("acme", "ann", "gmail/1")) is None
