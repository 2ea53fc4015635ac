"""Deliveries shown as they come: what became of each, to whoever may see it, and nothing of what was in them."""

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from headrace.api.deliveries import shown_to
from headrace.api.principals import LOCAL, Principal
from headrace.api.server import BackgroundServer
from headrace.api.streams import HEARTBEAT_SECONDS
from headrace.cli.listening import told
from headrace.cli.watching import events
from headrace.producers.connections import key_of
from headrace.producers.deliveries import Deliveries, Hinted, Noting
from headrace.producers.provider import Connected
from headrace.producers.schedule import SourceKey
from headrace.settings import VERBS, ApiKey, Settings, Verb, load_settings, new_key
from headrace.store import Store
from tests.providers.doors import FIRST, KEYS, SECOND, SETTINGS, Sent, challenge, hook, standard

PATIENCE: Final = HEARTBEAT_SECONDS - 3
HOLDERS: Final[dict[str, tuple[str, frozenset[Verb]]]] = {
    "admin": ("local", VERBS),
    "stranger": ("other", VERBS),
    "reader": ("local", frozenset({"read"})),
}
HELD: Final = {name: new_key() for name in HOLDERS}


class Served:
    """A store with two sources at a hook, behind a real server."""

    def __init__(self, store: Store, http: httpx.Client) -> None:
        self.store, self.http = store, http

    def send(self, *sent: Sent) -> list[int]:
        """Deliver."""
        return [
            self.http.request(
                one.method, one.path, params=one.query.decode(), content=one.body, headers=list(one.headers)
            ).status_code
            for one in sent
        ]

    @contextmanager
    def listening(self, key: str | None = None, **params: int) -> Generator[Iterator[dict[str, Any]]]:
        """Deliveries as they come."""
        headers = {"Authorization": f"Bearer {HELD[key][0]}"} if key is not None else {}
        with (
            httpx.Client(base_url=self.http.base_url, timeout=PATIENCE) as http,
            http.stream("GET", "/v1/deliveries/watch", params=params, headers=headers) as answer,
        ):
            assert answer.status_code == 200, answer.read()
            found = events(answer.iter_lines())
            assert next(found).type == "listening"
            yield (json.loads(one.data) for one in found if one.type == "delivery")


@contextmanager
def served(directory: Path, *, keyed: bool = False) -> Generator[Served]:
    directory.mkdir(parents=True)
    for name, key in {**KEYS, "spare": "z" * 40}.items():
        (directory / name).write_text(key)
    (directory / "headrace.toml").write_text(SETTINGS)
    settings: Settings = load_settings(directory, port=0)
    if keyed:
        keys = tuple(
            ApiKey(name=name, sha256=HELD[name][1], tenant=tenant, verbs=verbs)
            for name, (tenant, verbs) in HOLDERS.items()
        )
        settings = settings.model_copy(update={"api_keys": keys})
    with (
        Store(directory, writer=True, partitions=2) as store,
        BackgroundServer(store, settings) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        for one in (FIRST, SECOND, Connected("other", "hal", "imap/1", "imap", {"hook": "mail/hal"})):
            store.connections.add(one, {"password": "x"})
        yield Served(store, http)


def test_what_comes_is_shown_while_it_comes(tmp_path: Path) -> None:
    with served(tmp_path / "store") as site, site.listening() as stream:
        sent = (
            hook("nylas"), hook("nylas"), hook("nylas", key="x" * 32), challenge("nylas", challenge="c"),
            Sent("/v1/notifications/ann@example.com", (), b"{}"), standard(), standard(account="ann@example.com"),
        )  # fmt: skip
        assert site.send(*sent) == [200, 200, 401, 200, 404, 202, 422]
        seen = [next(stream) for _ in sent]
    assert [one["number"] for one in seen] == list(range(1, 8))
    assert [(one["door"], one["name"], one["status"], one["reason"]) for one in seen] == [
        ("notifications", "nylas", 200, None),
        ("notifications", "nylas", 200, None),
        ("notifications", "nylas", 401, "forged"),
        ("notifications", "nylas", 200, None),
        ("notifications", "(unknown)", 404, "unknown_endpoint"),
        ("webhooks", "default", 202, None),
        ("webhooks", "default", 422, "not_opaque"),
    ]
    hints = [{"account": "ann", "source": name, "kind": "changed", "added": True} for name in ("caldav/1", "imap/1")]
    assert seen[0]["hints"] == hints
    assert {hint["added"] for hint in seen[1]["hints"]} == {False}
    assert seen[2]["hints"] == []
    assert (seen[0]["digest"], seen[0]["bytes"]) == (seen[1]["digest"], len(sent[0].body))
    assert seen[4]["bytes"] is None
    assert [one["events"] for one in seen] == [0, 0, 0, 0, 0, 1, 0]
    text = json.dumps(seen)
    for said in ("@example.com", "e0ff2a6c", "Hi", *KEYS.values(), "bob"):
        assert said not in text


def test_one_begins_with_those_that_came_before(tmp_path: Path) -> None:
    with served(tmp_path / "store") as site:
        site.send(*[hook("nylas")] * 5)
        with site.listening(last=2) as stream:
            assert [next(stream)["number"] for _ in range(2)] == [4, 5]
            site.send(hook("nylas"))
            assert next(stream)["number"] == 6
        with site.listening(last=500) as stream:
            assert [next(stream)["number"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        assert site.http.get("/v1/deliveries/watch", params={"last": 501}).status_code == 422


def test_a_stream_ends_with_the_server_and_leaves_nothing(tmp_path: Path) -> None:
    with served(tmp_path / "store") as site:
        stream = site.listening()
        found = stream.__enter__()
        rest: list[Any] = []
        reading = threading.Thread(target=lambda: rest.extend(found))
        reading.start()
    reading.join(20)
    assert not reading.is_alive()
    assert rest == []
    stream.__exit__(None, None, None)


def test_only_admins_listen_each_to_their_own(tmp_path: Path) -> None:
    with served(tmp_path / "store", keyed=True) as site:
        for key, status in ((None, 401), ("reader", 403)):
            headers = {"Authorization": f"Bearer {HELD[key][0]}"} if key else {}
            for method, path in (("GET", "/v1/deliveries/watch"), ("POST", "/v1/deliveries")):
                with site.http.stream(method, path, json={"position": "0:1"}, headers=headers) as answer:
                    assert answer.status_code == status
        other = hook("mail", b'{"account":"hal"}')
        site.send(hook("nylas"), other, standard(), hook("mail", key="x" * 32))
        with site.listening("admin", last=10) as mine, site.listening("stranger", last=10) as theirs:
            assert [next(mine)["number"] for _ in range(3)] == [1, 3, 4]
            assert [next(theirs)["number"] for _ in range(2)] == [2, 4]


def test_a_record_of_another_tenant_is_not_run_again(tmp_path: Path) -> None:
    with served(tmp_path / "store", keyed=True) as site:
        site.send(hook("nylas"))
        partition = site.store.intake.partition(*key_of(FIRST)[:2])
        position = f"{partition}:{site.store.log.describe().ends[partition] - 1}"

        def run(key: str, where: str = position) -> httpx.Response:
            headers = {"Authorization": f"Bearer {HELD[key][0]}"}
            return site.http.post("/v1/deliveries", json={"position": where, "dry_run": True}, headers=headers)

        assert run("admin").json()["kinds"] == ["changed"]
        stranger = run("stranger")
        assert stranger.status_code == 404
        assert stranger.json() == run("admin", "0:99999").json()
        assert run("admin", "9:0").status_code == 404
        assert run("admin", "x").status_code == 422


def noted(deliveries: Deliveries, *hints: Hinted, tenant: str | None = None, reason: str | None = None) -> None:
    noting = Noting()
    noting.hints.extend(hints)
    noting.tenant = tenant
    deliveries.put(noting, door="notifications", name="graph", method="POST", status=202, reason=reason)


def test_only_so_many_are_remembered() -> None:
    deliveries = Deliveries(kept=3)
    for _ in range(10):
        noted(deliveries)
    assert [one.number for one in deliveries.after(0)] == [8, 9, 10]
    assert [one.number for one in deliveries.after(9)] == [10]
    assert deliveries.number == 10


def test_what_belongs_to_several_tenants_is_parted() -> None:
    """A delivery of Graph's may."""
    deliveries = Deliveries()
    mine, theirs = (Hinted(SourceKey(tenant, "a", "graph/1"), "changed", True) for tenant in ("acme", "other"))
    noted(deliveries, mine, theirs)
    noted(deliveries, theirs)
    noted(deliveries, tenant="other", reason="stale")
    noted(deliveries, reason="forged")
    acme = Principal("k", "acme", VERBS)
    shown = [shown_to(acme, one) for one in deliveries.after(0)]
    assert [one and len(one["hints"]) for one in shown] == [1, None, None, 0]
    assert [len((shown_to(LOCAL, one) or {})["hints"]) for one in deliveries.after(0)] == [2, 1, 0, 0]


def test_equal_bodies_are_known_by_nobody_else() -> None:
    """The digest is keyed anew in every process: nobody can try what a body may have been."""
    found = set[str | None]()
    for _ in range(2):
        deliveries = Deliveries()
        noting = Noting()
        noting.body = b"ann@example.com"
        deliveries.put(noting, door="webhooks", name="x", method="POST", status=401)
        [seen] = deliveries.after(0)
        found.add(seen.digest)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"reason": "forged", "status": 401}, "refused: forged"),
        ({"hints": [{"account": "ann", "source": "s", "kind": "missed", "added": True}]}, "ann s: hint added (missed)"),
        ({"hints": [{"account": "ann", "source": "s", "kind": "changed", "added": False}]}, "ann s: hint redundant"),
        ({"door": "webhooks", "events": 3}, "3 events"),
        ({"dropped": ["forged"]}, "dropped: forged"),
        ({}, "taken, leads to nothing"),
        ({"reason": "for\x1bged"}, r"refused: for\u001bged"),
    ],
)
def test_a_line_for_people(said: dict[str, Any], line: str) -> None:
    whole = {
        "time": "T", "door": "notifications", "name": "n", "method": "POST", "status": 200, "reason": None,
        "dropped": [], "hints": [], "events": 0, "bytes": 3, "digest": "ab", "ms": 1.5,
    }  # fmt: skip
    assert line in told(whole | said)
    assert told(whole | said).endswith("3 B ab  1.5 ms")
