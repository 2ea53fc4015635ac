"""From a hook's delivery to the hints of the sources that are connected as its account; what is kept of deliveries, and
how a kept one is run again."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from headrace.errors import BadInputError, NotFoundError
from headrace.log.port import Stored
from headrace.producers.connections import Connections, hook_of, key_of
from headrace.producers.hints import MOST_KEPT_BYTES, Hints
from headrace.producers.provider import Connected, Delivery
from headrace.producers.redelivery import Redelivery, kept_delivery
from headrace.producers.schedule import SourceKey
from headrace.projections import known
from headrace.schemas.envelope import Envelope, rfc3339
from headrace.schemas.refs import ActorRef
from headrace.settings import HookSection, load_settings
from headrace.sourcing import hooks_of, notifications_of
from tests.providers.doors import (
    FIRST,
    GRANT,
    HOOK_BODIES,
    KEYS,
    SECOND,
    Doors,
    Sent,
    doors,
    gmail,
    google_calendar,
    graph,
    hook,
    standard,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Doors]:
    with doors(tmp_path / "store") as made:
        yield made


def notified(site: Doors, account: str) -> list[Stored]:
    """The hints of an account, oldest first."""
    partition = site.store.intake.partition("local", account)
    found = site.store.log.read(partition, 0, site.ends()[partition])
    key = f"local/{account}".encode()
    return [one for one in found if one.key == key and (b"source.notified" in dict(one.headers)["ce_type"])]


def kept(site: Doors, stored: Stored) -> dict[str, Any]:
    """What is kept of a delivery."""
    said: dict[str, Any] = json.loads(site.store.registry.decode(stored.value).body["content"])
    return said


def hinted(site: Doors) -> set[SourceKey]:
    """The sources that are to be synced."""
    for partition, end in enumerate(site.ends()):
        assert site.store.applied.wait(partition, end - 1, 20)
    with site.store.tables.snapshot() as reader:
        return {SourceKey(*one) for one in known.hinted(reader)}


def test_a_delivery_hints_every_source_of_its_account(site: Doors) -> None:
    assert site.ask(hook("nylas")).status == 200
    assert hinted(site) == {key_of(FIRST), key_of(SECOND)}
    first, second = notified(site, "ann")
    assert {dict(one.headers)["ce_source"] for one in (first, second)} == {b"imap/1", b"caldav/1"}
    assert site.store.registry.decode(first.value).body["delivery"] == "d-1"
    assert site.counted() == {"headrace_notifications_hints_total/nylas/yes": 2}
    assert site.ask(hook("nylas")).status == 200
    assert site.counted()["headrace_notifications_hints_total/nylas/no"] == 2
    [one, two] = site.app.state.context.deliveries.after(0)
    assert [hint.added for hint in one.hints] == [True, True]
    assert [hint.added for hint in two.hints] == [False, False]
    assert one.digest == two.digest
    assert one.size == len(hook("nylas").body)


def test_an_account_may_be_an_address_and_stands_in_no_name(site: Doors) -> None:
    assert site.ask(hook("mail", more={"X-EE-Wh-Event-Id": "x"})).status == 200
    [seen] = notified(site, "eve")
    assert b"eve@example.com" not in seen.key  # type: ignore[operator]
    vault = site.store.directory / "sources.db"
    assert b"eve@example.com" not in vault.read_bytes()


def test_a_source_changes_its_hook_and_leaves_it(site: Doors) -> None:
    connections = site.store.connections
    moved = SECOND._replace(settings={"hook": "nylas/other"})
    connections.add(moved, {})
    assert connections.hooked("nylas", GRANT) == [key_of(FIRST)]
    assert connections.hooked("nylas", "other") == [key_of(SECOND)]
    assert connections.hooked("mail", "other") == []
    connections.add(moved._replace(settings={}), {})
    assert connections.hooked("nylas", "other") == []
    connections.remove(key_of(FIRST))
    assert connections.hooked("nylas", GRANT) == []
    assert site.ask(hook("nylas")).reason == "unknown_account"


def test_a_source_connected_again_is_hinted_once(site: Doors) -> None:
    site.store.connections.add(FIRST, {"password": "new"})
    assert site.store.connections.hooked("nylas", GRANT) == [key_of(SECOND), key_of(FIRST)]


@pytest.mark.parametrize("said", ["", "nylas", "nylas/", "Nylas/x", "/x", "nylas/" + "x" * 257])
def test_what_is_no_hook_of_a_source(site: Doors, said: str) -> None:
    with pytest.raises(BadInputError, match="NAME/ACCOUNT"):
        site.store.connections.add(Connected("local", "zed", "imap/9", "imap", {"hook": said}), {})
    assert site.store.connections.find(SourceKey("local", "zed", "imap/9")) is None
    assert hook_of({"hook": "a/b/c"}) == ("a", "b/c")


def test_a_hook_may_not_have_a_providers_name(site: Doors) -> None:
    settings = load_settings(site.store.directory)
    named = settings.model_copy(update={"hooks": {"gmail": HookSection(preset="nylas")}})
    with pytest.raises(BadInputError, match="gmail is a provider's name"):
        notifications_of(site.store, named, CollectorRegistry())


def test_secrets_are_read_from_files_and_told_nowhere(site: Doors) -> None:
    found = hooks_of(load_settings(site.store.directory))
    assert [len(one.secrets) for one in found.values()] == [2, 1, 1]
    assert not any(key in repr(found) for key in KEYS.values())


# What is kept.

ALL: Final[Mapping[str, tuple[str, Callable[[], Sent]]]] = {
    "gmail": ("bob", gmail),
    "google_calendar": ("cid", google_calendar),
    "graph": ("dan", graph),
    "nylas": ("ann", lambda: hook("nylas")),
    "mail": ("eve", lambda: hook("mail")),
    "stamped": ("fay", lambda: hook("stamped")),
}
PROOFS: Final = ("secret-1", "state-1", "Bearer")


@pytest.mark.parametrize("name", ["gmail", "google_calendar", "graph", "nylas", "mail", "stamped"])
def test_what_let_a_delivery_in_is_not_kept(site: Doors, name: str) -> None:
    account, made = ALL[name]
    sent = made()
    site.ask(sent)
    text = json.dumps(kept(site, notified(site, account)[0]))
    assert not any(proof in text for proof in PROOFS)
    for header, value in sent.headers:
        if b"signature" in header:
            assert value.decode() not in text


def test_of_a_graph_delivery_each_source_keeps_its_own_part(site: Doors) -> None:
    """A delivery may hold notifications of several people, even of several tenants."""
    other = Connected("elsewhere", "hal", "graph/2", "graph", {"address": "hal@example.com"})
    site.store.connections.add(other, {})
    watch = site.store.connections.find_watch("graph", "sub-2")
    assert watch is not None
    site.store.connections.put_watch(key_of(other), "graph", watch.watch)
    items = [
        {"subscriptionId": f"sub-{n}", "clientState": f"state-{n}", "changeType": "updated", "resource": f"of-{n}"}
        for n in (1, 2)
    ]
    assert site.ask(graph(json.dumps({"value": items, "validationTokens": []}).encode())).status == 202
    body = kept(site, notified(site, "dan")[0])["body"]
    assert json.loads(body) == {"value": [{"subscriptionId": "sub-1", "changeType": "updated", "resource": "of-1"}]}


def test_a_hint_fits_on_every_log_whatever_came_with_it(site: Doors) -> None:
    body = json.dumps({**HOOK_BODIES["mail"], "text": "ü" * 400_000}, ensure_ascii=False).encode()
    assert len(body) > MOST_KEPT_BYTES
    assert site.ask(hook("mail", body)).status == 200
    [one] = notified(site, "eve")
    assert len(one.value) < 10_000
    assert kept(site, one)["body_bytes"] == len(body)
    with pytest.raises(BadInputError, match="too large to be kept"):
        kept_delivery(site.store.registry, one)


# Run again.


@pytest.fixture
def redelivery(site: Doors) -> Redelivery:
    return notifications_of(site.store, load_settings(site.store.directory), CollectorRegistry()).redelivery


@pytest.mark.parametrize("name", ALL)
def test_a_kept_delivery_is_read_again(site: Doors, redelivery: Redelivery, name: str) -> None:
    account, made = ALL[name]
    site.ask(made())
    stored, ends = notified(site, account)[0], site.ends()
    for dry_run, added in ((True, None), (False, False)):  # a hint waits already
        again = redelivery.run(stored, dry_run=dry_run)
        assert (again.to, again.kinds, again.watch, again.added) == (name, ("changed",), True, added)
        assert again.delivery_id == site.store.registry.decode(stored.value).body["delivery"]
    assert site.ends() == ends
    start_a_sync(site, again.source)
    assert redelivery.run(stored, dry_run=False).added is True
    assert again.source in hinted(site)
    last = notified(site, account)[-1]
    assert kept(site, last) == kept(site, stored)


def start_a_sync(site: Doors, source: SourceKey) -> None:
    """So that its hint waits no more."""
    envelope = Envelope(
        "s-1:start",
        source.source,
        "source.sync_started",
        ActorRef("system", "sync"),
        observed_at=rfc3339(1),
        sync="s-1",
    )
    body = {"sync": "s-1", "full": False, "feeds": []}
    site.store.log.append([site.store.intake.record(source.tenant, source.account, envelope, body)])
    assert source not in hinted(site)


def test_what_a_lifecycle_notification_asks_for_is_asked_for_again(site: Doors, redelivery: Redelivery) -> None:
    site.ask(graph(changeType=None, lifecycleEvent="missed"))
    key = SourceKey("local", "dan", "graph/1")
    connections: Connections = site.store.connections
    connections.done(key, connections.due(key))
    [stored] = notified(site, "dan")
    assert redelivery.run(stored, dry_run=True).kinds == ("missed",)
    assert not connections.due(key).compare
    redelivery.run(stored, dry_run=False)
    assert connections.due(key).compare


def test_a_watch_that_was_replaced_since_is_no_hindrance(site: Doors, redelivery: Redelivery) -> None:
    site.ask(google_calendar())
    site.store.connections.drop_watch("google_calendar", "c-1")
    again = redelivery.run(notified(site, "cid")[0], dry_run=True)
    assert (again.watch, again.kinds) == (False, ("changed",))


def test_one_that_an_earlier_release_kept(site: Doors, redelivery: Redelivery) -> None:
    """It does not say where it was sent to: to its source's provider, for there were no hooks."""
    key = SourceKey("local", "bob", "gmail/1")
    delivery = Delivery("POST", (), (), gmail().body, 1.5)
    Hints(site.store.log, site.store.tables, site.store.applied, site.store.intake).append(key, delivery, "d")
    [stored] = notified(site, "bob")
    assert "to" not in kept(site, stored)
    again = redelivery.run(stored, dry_run=True)
    assert (again.to, again.source, again.received_at, again.kinds) == ("gmail", key, 1.5, ("changed",))


def test_what_belongs_to_another_source_now_is_not_run(site: Doors, redelivery: Redelivery) -> None:
    site.ask(hook("mail"))
    site.store.connections.add(Connected("local", "eve", "imap/2", "imap", {"hook": "mail/another"}), {})
    with pytest.raises(BadInputError, match="belongs to other sources"):
        redelivery.run(notified(site, "eve")[0], dry_run=False)
    site.store.connections.remove(SourceKey("local", "eve", "imap/2"))
    with pytest.raises(NotFoundError, match="is connected"):
        redelivery.run(notified(site, "eve")[0], dry_run=False)


def test_what_is_no_delivery_is_told(site: Doors, redelivery: Redelivery) -> None:
    assert site.ask(standard()).status == 202
    partition = site.store.intake.partition("local", "gus")
    opening, *_, event = site.store.log.read(partition, 0, 100)
    for stored in (opening, event):
        with pytest.raises(BadInputError, match=r"no delivery: run a source\.notified"):
            redelivery.run(stored, dry_run=False)
    Hints(site.store.log, site.store.tables, site.store.applied, site.store.intake).append(key_of(FIRST))
    with pytest.raises(BadInputError, match="came by no delivery"):
        redelivery.run(notified(site, "ann")[0], dry_run=False)
