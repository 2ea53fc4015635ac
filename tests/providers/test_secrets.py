"""What opens people's mailboxes and lets notifications in stands nowhere: not in what is logged, not on the log, not in
a table, a file, an answer, a metric or an error, over everything that is done with all of the providers."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from headrace.demo.caldav_server import CaldavServer
from headrace.producers.caldav_provider import Caldav
from headrace.producers.connections import key_of
from headrace.producers.imap import Imap
from headrace.producers.provider import Connected
from headrace.producers.schedule import SourceKey
from headrace.producers.source_syncs import ProviderSetup
from headrace.projections import known
from infra.stack.dovecot import DovecotServer
from tests.doubles.http import replies
from tests.doubles.oauth import SECRET
from tests.imap.parts import Person as Mailbox
from tests.integration.calendar_desk import ics
from tests.providers.world import Person, World, world

PROVIDERS: Final = ("gmail", "google_calendar", "graph", "graph calendar")
WRONG: Final = "not-the-passw0rd-of-ann"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "store") as made:
        yield made


class Heard(logging.Handler):
    """Everything that anybody logs, at any level, with all that a record carries."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self._formatter.format(record) + json.dumps(record.__dict__, default=repr))


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Heard]:
    made, root = Heard(), logging.getLogger()
    with caplog.at_level(logging.DEBUG):
        root.addHandler(made)
        yield made
        root.removeHandler(made)


def synced(site: World, key: SourceKey) -> bool:
    with site.store.tables.snapshot() as reader:
        row = known.source(reader, *key)
    return row is not None and row.synced_offset >= 0


def failed(heard: Heard, name: str) -> Callable[[], bool]:
    return lambda: any(f"{name}: " in said and "connect the source again" in said for said in list(heard.said))


def at_every_provider(site: World, heard: Heard, people: list[Person]) -> None:
    """Connected, refreshed, watched, notified of, throttled, refreshed once more, and at last taken back."""
    for person in people:
        person.add()
        person.connect()
    site.until(lambda: all(person.fresh() and person.watched() and person.events() == 1 for person in people))
    for person in people:
        person.faulty.plan(replies(429, {"error": "slow down"}, {"retry-after": "0"}), replies(500))
        person.server.access.clear()
        person.add()
        assert person.push() in {202, 204}
    site.until(lambda: all(person.events() == 2 for person in people))
    for person in people:
        person.server.revoke()
        assert person.push() in {202, 204}
    for person in people:
        site.until(failed(heard, f"{person.key.source} of {person.account}"))


def at_real_servers(site: World, heard: Heard, dovecot: DovecotServer, radicale: CaldavServer) -> list[str]:
    """With the right password and a wrong one; the passwords."""
    mailbox = Mailbox(dovecot, "ann-of-secrets")
    mailbox.receive()
    calendar = radicale.make_calendar("secrets")
    radicale.put_event(calendar, ics(), "one.ics")
    imap = {"host": "127.0.0.1", "port": str(dovecot.port), "security": "none", "username": mailbox.user}
    imap["address"] = "ann@example.com"
    caldav = {"url": radicale.url, "username": radicale.username, "calendar": calendar}
    right, wrong = list[Connected](), list[Connected]()
    for provider, settings, password in (("imap", imap, dovecot.password), ("caldav", caldav, radicale.password)):
        right.append(Connected("local", f"right-{provider}", f"{provider}/1", provider, settings))
        wrong.append(Connected("local", f"wrong-{provider}", f"{provider}/1", provider, settings))
        site.store.connections.add(right[-1], {"password": password})
        site.store.connections.add(wrong[-1], {"password": WRONG})
    site.until(lambda: all(synced(site, key_of(one)) for one in right))
    for one in wrong:
        site.until(lambda one=one: any(f"{one.source} of {one.account}: " in said for said in list(heard.said)))  # type: ignore[misc]
    mailbox.close()
    return [dovecot.password, radicale.password]


def told(site: World, metrics: bytes) -> bytes:
    """All that can be read of a store, from outside and from within, but for what is sealed."""
    store = site.store
    parts: list[Any] = [metrics]
    for partition, end in enumerate(store.log.describe().ends):
        assert store.applied.wait(partition, end - 1, 20)
        for stored in store.log.read(partition, 0, end):
            parts.append(repr((stored.key, stored.headers)))
            body = store.registry.decode(stored.value).body
            parts.append(repr(body).encode().decode("unicode_escape").encode("latin-1", "replace"))
    parts += [path.read_bytes() for path in store.directory.rglob("*") if path.is_file() and path.parent.name != "keys"]
    http = site.http
    for path in ("/metrics", "/v1/accounts", *(f"/v1/accounts/{one.account}/sources" for one in site.people)):
        parts.append(http.get(path).text)
    parts += [repr((one, one.connected, site.setups)) for one in site.people]
    return b"\n".join(one if isinstance(one, bytes) else str(one).encode() for one in parts)


def test_no_secret_is_told_anywhere(
    site: World, heard: Heard, dovecot: DovecotServer, radicale: CaldavServer, tmp_path: Path
) -> None:
    site.setups["imap"] = ProviderSetup(Imap(tmp_path / "indexes"), "https://invalid./")
    site.setups["caldav"] = ProviderSetup(Caldav(), "https://invalid./")
    people = [site.person(provider, f"p{number}", f"t-{number % 2}") for number, provider in enumerate(PROVIDERS)]
    registry = CollectorRegistry()
    with site.host() as host:
        registry.register(host.figures)
        at_every_provider(site, heard, people)
        passwords = at_real_servers(site, heard, dovecot, radicale)
        watches = [watched.watch.secret for person in people for watched in site.store.connections.watches(person.key)]
        metrics = generate_latest(registry)
    lets_in = [one for one in (*site.pushed, *watches) if one]
    assert len(site.tokens) >= 2 * 3 * len(people), "granted, refreshed when it ended, and once it was turned down"
    assert len(lets_in) > len(people)
    secrets = {*site.tokens, *lets_in, *passwords, SECRET, WRONG}
    secrets |= {one.removeprefix("Bearer ") for one in secrets}
    logged, kept = "\n".join(heard.said), told(site, metrics)
    assert len(heard.said) > 50
    for secret in secrets:
        assert len(secret) > 10
        assert secret not in logged
        assert secret.encode() not in kept
    names = {*(person.address for person in people), "ann@example.com", "ann-of-secrets", f"/{radicale.username}/"}
    for address in names:
        assert address not in logged, [said for said in heard.said if address in said][:1]
        assert address.replace("@", "%40") not in logged
