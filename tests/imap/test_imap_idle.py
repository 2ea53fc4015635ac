"""Hints from a connection held open, with a real server at the other end."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from headrace.errors import HeadraceError
from headrace.producers.imap import Imap
from headrace.producers.imap_idle import ImapWatcher
from headrace.producers.imap_login import ImapSettings
from headrace.producers.provider import Hint
from headrace.producers.provider_http import GrantError
from infra.stack.dovecot import DovecotServer
from tests.imap.conftest import server
from tests.imap.parts import Box, Secret, box, connected
from tests.imap.scripted import Said, Scripted
from tests.proxy import FaultProxy, Way

pytestmark = pytest.mark.embedded("opens no store")

SOON = 10.0
HINT = Hint("mailbox/ann", None)


class Watching:
    """A watcher in a thread, and what it said."""

    def __init__(self, watcher: ImapWatcher) -> None:
        self.watcher = watcher
        self.said: queue.SimpleQueue[Hint | Exception] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for hint in self.watcher.hints():
                self.said.put(hint)
        except HeadraceError as error:
            self.said.put(error)

    def next(self) -> Hint | Exception:
        return self.said.get(timeout=SOON)

    def drain(self) -> None:
        """What an act caused that came in several parts."""
        while not self.said.empty():
            self.said.get()

    def until_hint(self, act: Callable[[], object]) -> None:
        """One act, at least one hint after it. What earlier acts still bring is not taken for it."""
        self.drain()
        act()
        assert self.next() == HINT


@contextmanager
def watching(
    settings: dict[str, str], *secrets: str, idle_s: float = 60.0, poll_s: float = 60.0
) -> Generator[Watching]:
    watcher = ImapWatcher(
        ImapSettings.of(settings), Secret(*secrets), HINT.watch, idle_s=idle_s, poll_s=poll_s, first_retry_s=0.05
    )
    made = Watching(watcher)
    try:
        yield made
    finally:
        began = time.monotonic()
        watcher.stop()
        made.thread.join(SOON)
        assert not made.thread.is_alive()
        assert time.monotonic() - began < 3.0, "it ends when told to, whatever it waits for"


def of(mine: Box, **more: str) -> dict[str, str]:
    return dict(connected(mine.server, mine.person.user, **more).settings)


@pytest.fixture(scope="module")
def without_notify() -> Generator[DovecotServer]:
    with server("IMAP4rev1 SASL-IR LITERAL+ ENABLE IDLE CONDSTORE QRESYNC NAMESPACE UIDPLUS MOVE SPECIAL-USE") as made:
        yield made


def test_every_change_anywhere_is_hinted_at(mine: Box) -> None:
    with watching(of(mine), mine.server.password) as here:
        assert here.next() == HINT, "what happened before it was watched"
        person = mine.person
        name, raw = person.text()
        here.until_hint(lambda: person.put("INBOX", raw))
        here.until_hint(lambda: person.flag("INBOX", name, "\\Seen"))
        here.until_hint(lambda: person.send(name))
        here.until_hint(lambda: person.flag("Sent", "<m2@example.com>", "\\Flagged"))
        here.until_hint(lambda: person.move("INBOX", name, "Archive"))
        here.until_hint(lambda: person.expunge("Archive", name))


def test_without_notify_the_inbox_and_sent_mail_are_watched(without_notify: DovecotServer) -> None:
    with box(without_notify) as mine, watching(of(mine), mine.server.password) as here:
        here.next()
        name, raw = mine.person.text()
        here.until_hint(lambda: mine.person.put("INBOX", raw))
        here.until_hint(lambda: mine.person.flag("INBOX", name, "\\Seen"))
        here.until_hint(lambda: mine.person.send(name))
        here.until_hint(lambda: mine.person.move("INBOX", name, "Archive"))


def test_an_idle_is_renewed_and_nothing_said_meanwhile_is_lost(mine: Box) -> None:
    with watching(of(mine), mine.server.password, idle_s=0.05) as here:
        here.next()
        for _ in range(5):
            here.until_hint(mine.person.receive)


def test_a_connection_that_breaks_is_made_again(mine: Box) -> None:
    proxy = FaultProxy("127.0.0.1", mine.server.port)
    with proxy, watching(of(mine, port=str(proxy.port)), mine.server.password) as here:
        here.next()
        for _ in range(3):
            here.until_hint(proxy.break_links)
        proxy.cut()
        proxy.wait(lambda seen: seen.ended > 5)
        here.until_hint(proxy.heal)
        here.until_hint(mine.person.receive)


def test_a_connection_that_has_silently_gone_is_found_when_idle_is_renewed(mine: Box) -> None:
    proxy = FaultProxy("127.0.0.1", mine.server.port)
    patience = pytest.MonkeyPatch.context()
    with proxy, patience as patch:
        patch.setattr("headrace.producers.imap_idle._CONNECT_SECONDS", 1.0)
        with watching(of(mine, port=str(proxy.port)), mine.server.password, idle_s=0.2) as here:
            here.next()
            links = proxy.seen.links
            proxy.blackhole(Way.ANSWERING)
            proxy.wait(lambda seen: seen.links > links)
            here.until_hint(proxy.heal)


def test_it_ends_when_told_to_while_it_waits_to_try_again() -> None:
    settings = {"host": "127.0.0.1", "port": "1", "security": "none", "username": "ann"}
    watcher = ImapWatcher(ImapSettings.of(settings), Secret("x"), "w", first_retry_s=100.0)
    here = Watching(watcher)
    watcher.stop()
    here.thread.join(SOON)
    assert not here.thread.is_alive()


def test_a_grant_that_is_gone_is_for_a_person(mine: Box) -> None:
    with watching(of(mine), "wrong") as here:
        assert isinstance(here.next(), GrantError)


def test_a_server_without_idle_is_polled(plain_server: DovecotServer) -> None:
    with box(plain_server) as mine, watching(of(mine), mine.server.password, poll_s=0.05) as here:
        for _ in range(3):
            assert here.next() == HINT


def test_a_farewell_is_no_hint_but_a_reason_to_come_back() -> None:
    able = b"* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE\r\n"
    idles = iter([b"+ idling\r\n* OK Still here\r\n* BYE going down\r\n", b"+ idling\r\n* OK Still here\r\n"])
    says: dict[str, Said] = {"CAPABILITY": able, "IDLE": lambda _: b"RAW" + next(idles, b"+ idling\r\n")}
    with Scripted(says) as here:
        settings = {"host": "127.0.0.1", "port": str(here.port), "security": "none", "username": "ann"}
        with watching(settings, "x") as watched:
            assert watched.next() == HINT
        assert sum(line.endswith(b"IDLE") for line in here.asked) == 2
        assert watched.said.empty()


def test_the_watcher_of_a_connected_source(mine: Box) -> None:
    one = connected(mine.server, mine.person.user)
    watcher = Imap().watcher(one, Secret(mine.server.password))
    hints = watcher.hints()
    assert next(hints) == Hint(one.source, None)
    watcher.stop()
    assert list(hints) == []
