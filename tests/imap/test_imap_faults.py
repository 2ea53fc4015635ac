"""Servers that break off, answer strangely or not at all, and messages that nobody should have sent."""

import logging
from collections.abc import Callable
from itertools import count

import pytest

from headrace.errors import UnavailableError
from headrace.producers.imap import Imap
from headrace.producers.provider import Connected
from headrace.producers.provider_http import ThrottledError
from infra.stack.dovecot import DovecotServer
from tests.doubles.desk import ACCOUNT, SOURCE, TENANT, Desk, desk
from tests.imap.parts import Box, Secret, box, connected
from tests.imap.scripted import HEADER, Said, Scripted, shown
from tests.proxy import FaultProxy

pytestmark = pytest.mark.embedded("opens no store")


def at(server: Scripted, timeout_s: float = 20.0) -> Callable[[Desk], list[str]]:
    settings = {"host": "127.0.0.1", "port": str(server.port), "security": "none", "username": "ann"}
    one = Connected(TENANT, ACCOUNT, SOURCE, "imap", settings)
    provider = Imap(timeout_s=timeout_s)

    def told(here: Desk) -> list[str]:
        return here.told(provider.mailbox(one, Secret("secret"), here.pseudonym))

    return told


def number(nth: int) -> Callable[[bytes], bool]:
    """Knows the nth request from now on."""
    asked = count()
    return lambda _: next(asked) == nth


def test_a_connection_that_breaks_off_anywhere_loses_nothing(dovecot: DovecotServer) -> None:
    with box(dovecot) as mine, FaultProxy("127.0.0.1", dovecot.port) as proxy:
        names = [mine.person.receive() for _ in range(3)]
        mine.sync()
        through = {"port": str(proxy.port)}
        source = Imap().mailbox(
            connected(dovecot, mine.person.user, **through), Secret(dovecot.password), mine.desk.pseudonym
        )
        for at_first, name in enumerate(names):
            mine.person.flag("INBOX", name, "\\Flagged")
            mine.person.send(name)
            mine.person.move("INBOX", name, "Archive" if at_first else "Trash")
        broken = 0
        for nth in count():
            proxy.lose_reply(number(nth))
            try:
                mine.desk.sync(source, full=nth % 3 == 2)
            except UnavailableError:
                broken += 1
            else:
                break
            finally:
                proxy.heal()
        assert broken > 10
        mine.agree()
        assert mine.sync() == []


def test_a_server_that_is_stopped_in_the_middle_says_so() -> None:
    bye: dict[str, Said] = {"EXAMINE": b"* BYE shutting down\r\n"}
    broken = pytest.raises(UnavailableError, match="broke the connection off")
    with Scripted(bye) as server, desk("mail.thread") as here, broken:
        at(server)(here)


@pytest.mark.parametrize("command", ["CAPABILITY", "AUTHENTICATE", "LIST", "EXAMINE", "FETCH", "UID FETCH"])
def test_a_server_that_is_silent_is_not_waited_for(command: str) -> None:
    hello = (
        b"* OK hello\r\n" if command == "CAPABILITY" else b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hello\r\n"
    )
    with Scripted({command: None}, hello) as server, desk("mail.thread") as here, pytest.raises(UnavailableError):
        at(server, 0.2)(here)


STRANGE: list[tuple[str, bytes]] = [
    ("LIST", b""),
    ("LIST", b"* LIST\r\n"),
    ("LIST", b"* LIST () NIL NIL\r\n"),
    ("LIST", b"* LIST INBOX INBOX INBOX\r\n"),
    ("LIST", b"* LIST " + b"(" * 5000 + b"\r\n"),
    ("LIST", b'* LIST () "/" {3}\r\nabc\r\n'),
    ("EXAMINE", b""),
    ("EXAMINE", b"* 1 EXISTS\r\n"),
    ("EXAMINE", b"* x EXISTS\r\n* OK [UIDVALIDITY y] z\r\n"),
    ("EXAMINE", b"TAG NO [SERVERBUG] oh\r\n"),
    ("EXAMINE", b"TAG NO no\r\n"),
    ("EXAMINE", b"* " + b"9" * 1_000_100 + b" EXISTS\r\n"),
    ("FETCH", b"* 1 FETCH (UID 7 FLAGS\r\n"),
    ("FETCH", b"* 1 FETCH " + b"(" * 5000 + b"\r\n"),
    ("FETCH", b"* 1 FETCH (UID 99999999999 FLAGS ())\r\n"),
    ("FETCH", b"* 1 FETCH (UID x FLAGS ())\r\n"),
    ("FETCH", b"* 1 FETCH (UID 7 FLAGS 7)\r\n"),
    ("FETCH", b"\0\0\0\r\n"),
    ("FETCH", b"TAG BAD what\r\n"),
    ("UID FETCH", b"* 1 FETCH (UID 7 BODY[HEADER.FIELDS (X)]<0> {99999999999}\r\n"),
    ("CAPABILITY", b"* CAPABILITY \xff\xfe\r\n"),
]


@pytest.mark.parametrize(("command", "said"), STRANGE)
def test_strange_answers_are_the_servers_trouble(command: str, said: bytes) -> None:
    with Scripted({command: said}) as server, desk("mail.thread") as here, pytest.raises(UnavailableError):
        at(server)(here)


def test_one_message_that_the_server_stumbles_over_does_not_keep_the_others_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listed = b"".join(b"* %d FETCH (UID %d FLAGS ())\r\n" % (number, number + 10) for number in range(1, 9))

    def headers(command: bytes) -> bytes:
        parts = [one.partition(b":") for one in command.split(b" ")[2].split(b",")]
        uids = [uid for first, _, last in parts for uid in range(int(first), int(last or first) + 1)]
        if 14 in uids:
            return b"TAG NO [CANNOT] broken message of ann@example.com\r\n"
        if 16 in uids:
            return b"* 6 FETCH (UID 16 BODY[HEADER.FIELDS (X)]<0> " + b"(" * 5000 + b"\r\n"
        return b"".join(shown(uid, HEADER.replace(b"m1", b"m%d" % uid), number=uid - 10) for uid in uids)

    says: dict[str, Said] = {
        "FETCH": listed,
        "UID FETCH": headers,
        "EXAMINE": b"* 8 EXISTS\r\n* OK [UIDVALIDITY 3] .\r\n",
    }
    with Scripted(says) as server, desk("mail.thread") as here, caplog.at_level(logging.DEBUG):
        assert at(server)(here).count("mail.received") == 6
    assert "2 messages cannot be read" in caplog.text
    assert "@" not in caplog.text


def test_another_sessions_change_is_not_taken_for_a_messages(mine: Box) -> None:
    """An answer without UID, unasked: message number 7 is another than the one with UID 7."""
    stray = b"* 7 FETCH (FLAGS (\\Flagged))\r\n"
    says: dict[str, Said] = {"FETCH": b"* 1 FETCH (UID 7 FLAGS (\\Seen))\r\n" + stray, "UID FETCH": shown() + stray}
    with Scripted(says) as server, desk("mail.thread") as here:
        at(server)(here)
        [state] = here.states("mail.thread").values()
    assert state["labels"] == ["INBOX"]


@pytest.mark.parametrize("code", ["LIMIT", "THROTTLED", "OVERQUOTA"])
def test_limits_are_waited_for(code: str) -> None:
    says: dict[str, Said] = {"FETCH": f"TAG NO [{code}] slow down\r\n".encode()}
    with Scripted(says) as server, desk("mail.thread") as here, pytest.raises(ThrottledError) as caught:
        at(server)(here)
    assert caught.value.retry_after == 60


HOSTILE = [
    b"",
    b"\r\n",
    b"From: " + b"(" * 5000 + b"\r\n\r\n",
    b"From: bob@example.com\r\nSubject: no id\r\n\r\n",
    b"Message-ID: \r\nFrom: =?utf-8?b?!!!?= <bob@example.com>\r\n\r\n",
    b"Message-ID: <a b@c>\r\nSubject: =?nowhere?q?=ff=fe?=\r\n\r\n",
    b"Message-ID: <\xff\xfe@x>\r\nFrom: \xe9\xe8 <b\xfcb@example.com>\r\nSubject: \x00\x01\r\n\r\n",
    b"Message-ID: <self@x>\r\nReferences: <self@x> <self@x>\r\nIn-Reply-To: <self@x>\r\n\r\n",
    b"Message-ID: <loop@x>\r\nReferences: " + b" ".join(b"<r%d@x>" % n for n in range(900)) + b"\r\n\r\n",
    b"Message-ID: <" + b"x" * 5000 + b"@x>\r\nTo: " + b"a@b.c," * 2000 + b"\r\n\r\n",
    b"Message-ID: <fold\r\n @x>\r\nSubject: a\r\n\tb\r\n\r\n",
    b"no header at all, but text\r\n",
    b"Content-Type: multipart/mixed; boundary=x\r\nMessage-ID: <deep@x>\r\n\r\n" + b"--x\r\n" * 5000,
    b'Content-Type: text/plain; charset="no such"\r\nMessage-ID: <charset@x>\r\n\r\n\xff\xfe\r\n',
    b"Subject: =?utf-8?q?=ED=A0=80?=\r\nMessage-ID: <half@x>\r\n\r\n",
]


@pytest.mark.parametrize("content", ["headers", "text"])
def test_messages_that_nobody_should_have_sent(dovecot: DovecotServer, content: str) -> None:
    with box(dovecot, content=content) as mine:
        for number, raw in enumerate(HOSTILE):
            mine.person.client.append("INBOX", raw or b"\r\n", ["\\Seen"])
            mine.desk.sync(mine.source)
            assert mine.sync() == [], number
        good = mine.person.receive()
        assert mine.sync() == ["mail.received"]
        assert mine.state(good)["unread"]
        states = mine.desk.states("mail.thread")
        mine.source = mine.another()
        assert mine.sync(full=True) == []
        mine.person.renumber("INBOX")
        assert mine.sync() == []
        assert mine.desk.states("mail.thread") == states


def test_a_huge_message_is_not_fetched_whole(dovecot: DovecotServer) -> None:
    with box(dovecot, content="text") as mine:
        _, raw = mine.person.text("X-Long: " + "x" * 900_000)
        mine.person.put("INBOX", raw + b"y" * 8_000_000)
        name, raw = mine.person.text()
        mine.person.put("INBOX", raw + b"y" * 8_000_000)
        assert mine.sync() == ["mail.received", "mail.received"]
        assert max(len(stored.value) for stored in mine.desk.log.records[0]) < 150_000
        assert mine.state(name)["messages"] == 1
