"""A person's mailbox on the real server, what she does there over a connection of her own, the source that follows it,
and the desk where its events land."""

import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from imapclient import IMAPClient

from headrace.producers.imap import Imap
from headrace.producers.imap_source import ImapSource, Names
from headrace.producers.mail_story import is_mail, picture
from headrace.producers.provider import Connected
from headrace.producers.provider_http import GrantError
from infra.stack.dovecot import DovecotServer
from tests.doubles.desk import ACCOUNT, SOURCE, TENANT, Desk, desk

START: Final = datetime(2026, 11, 18, 11, 6, 41, tzinfo=UTC)
ADDRESS: Final = "ann@example.com"
FOLDERS: Final = ("INBOX", "Sent", "Drafts", "Trash", "Archive", "Junk")


class Secret:
    """The port ``Tokens``: one password, or whatever comes next."""

    def __init__(self, *secrets: str) -> None:
        self._secrets = list(secrets)

    def access(self, *, refused: str | None = None) -> str:
        while refused is not None and self._secrets and self._secrets[0] == refused:
            self._secrets.pop(0)
        if not self._secrets:
            raise GrantError("the grant is gone; connect the source again")
        return self._secrets[0]


def connected(server: DovecotServer, user: str, **more: str) -> Connected:
    settings = {"host": "127.0.0.1", "port": str(server.port), "security": "none", "username": user, "address": ADDRESS}
    return Connected(TENANT, ACCOUNT, SOURCE, "imap", {**settings, **more})


class Person:
    """Ann at her mail program."""

    def __init__(self, server: DovecotServer, user: str) -> None:
        self.server = server
        self.user = user
        self.client = self._logged_in()
        self.threads: dict[str, str] = {}
        """Which conversation a message belongs to, by Message-ID."""
        self._count = 0
        for folder in FOLDERS[1:]:
            if not self.client.folder_exists(folder):
                self.client.create_folder(folder)

    def _logged_in(self) -> IMAPClient:
        client = IMAPClient("127.0.0.1", self.server.port, ssl=False, timeout=20)
        client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.login(self.user, self.server.password)
        return client

    def close(self) -> None:
        self.client.logout()

    def text(self, *lines: str, answers: str | None = None, sender: str = "Bob <bob@example.com>") -> tuple[str, bytes]:
        """A new message: its Message-ID and what it is made of."""
        self._count += 1
        name = f"<m{self._count}@example.com>"
        found = [f"Message-ID: {name}", f"From: {sender}", f"To: {ADDRESS}", "Subject: Friday?", *lines]
        if answers is not None:
            found += [f"In-Reply-To: {answers}", f"References: {answers}"]
        self.threads[name] = self.threads.get(answers, answers) if answers is not None else name
        return name, "\r\n".join([*found, "", "Does 15:00 suit you?", ""]).encode()

    def put(self, folder: str, raw: bytes, *flags: str) -> None:
        moment = START + timedelta(minutes=self._count)
        self.client.append(folder, raw, flags, moment)

    def receive(
        self, answers: str | None = None, *lines: str, folder: str = "INBOX", flags: tuple[str, ...] = ()
    ) -> str:
        name, raw = self.text(*lines, answers=answers)
        self.put(folder, raw, *flags)
        return name

    def send(self, answers: str | None = None, *lines: str) -> str:
        name, raw = self.text(*lines, answers=answers, sender=ADDRESS)
        self.put("Sent", raw.replace(b"To: ann@", b"To: bob@"), "\\Seen")
        return name

    def open(self, folder: str) -> None:
        self.client.select_folder(folder)

    def uid(self, folder: str, name: str) -> int:
        self.open(folder)
        [uid, *_] = self.client.search(f'HEADER Message-ID "{name}"')
        return int(uid)

    def flag(self, folder: str, name: str, *flags: str) -> None:
        self.client.add_flags([self.uid(folder, name)], flags)

    def unflag(self, folder: str, name: str, *flags: str) -> None:
        self.client.remove_flags([self.uid(folder, name)], flags)

    def move(self, folder: str, name: str, to: str) -> None:
        self.client.move([self.uid(folder, name)], to)

    def copy(self, folder: str, name: str, to: str) -> None:
        self.client.copy([self.uid(folder, name)], to)

    def expunge(self, folder: str, name: str) -> None:
        uid = self.uid(folder, name)
        self.client.delete_messages([uid])
        self.client.uid_expunge([uid])

    def renumber(self, folder: str) -> None:
        """UIDVALIDITY changes, as when a mailbox is restored from a backup."""
        validity = str(secrets.randbelow(2**31 - 1) + 1)
        self.close()
        self.server.administer("mailbox", "update", "-u", self.user, "--uid-validity", validity, folder)
        self.client = self._logged_in()  # Dovecot ends sessions that have the old numbers

    def shown(self) -> dict[str, list[tuple[str, frozenset[str]]]]:
        """Where every message is, and its flags, by Message-ID."""
        found: dict[str, list[tuple[str, frozenset[str]]]] = {}
        for _, _, folder in self.client.list_folders():
            self.client.select_folder(folder, readonly=True)
            for items in self._all():
                raw = next(value for key, value in items.items() if key.startswith(b"BODY"))
                name = raw.decode().split(":", 1)[1].strip()
                flags = frozenset(flag.decode() for flag in items[b"FLAGS"])
                found.setdefault(name, []).append((folder, flags))
        return found

    def whole(self, folder: str, name: str) -> tuple[bytes, list[bytes]]:
        """A message as it is, and its flags."""
        uid = self.uid(folder, name)
        items: dict[bytes, Any] = self.client.fetch([uid], ["BODY.PEEK[]", "FLAGS"])[uid]
        return items[b"BODY[]"], [flag for flag in items[b"FLAGS"] if flag != b"\\Recent"]

    def _all(self) -> list[dict[bytes, Any]]:
        uids = self.client.search()
        return list(self.client.fetch(uids, ["FLAGS", "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"]).values())


def labels(places: list[tuple[str, frozenset[str]]]) -> frozenset[str]:
    """What headrace's documentation says of where a message is."""
    trash = [(folder, flags) for folder, flags in places if folder == "Trash" or "\\Deleted" in flags]
    counted = [one for one in places if one not in trash] or trash
    found: set[str] = set()
    for folder, flags in counted:
        found |= {"STARRED"} if "\\Flagged" in flags else set()
        found |= {"ANSWERED"} if "\\Answered" in flags else set()
        found |= {"UNREAD"} if "\\Seen" not in flags else set()
        found |= {"DRAFT"} if "\\Draft" in flags else set()
        found |= {flag for flag in flags if not flag.startswith("\\")}
        if (folder, flags) in trash:
            found.add("TRASH")
        elif folder != "Archive":
            found.add({"Sent": "SENT", "Junk": "SPAM"}.get(folder, folder))
    return frozenset(found)


class Box:
    """All of it together."""

    def __init__(
        self, at: Desk, server: DovecotServer, person: Person, index: Path | None, more: dict[str, str]
    ) -> None:
        self.desk, self.server, self.person = at, server, person
        self.index, self.more = index, more
        self.names: Final = Names(ADDRESS, at.pseudonym)
        self.source: ImapSource = self.another()
        self.filed: dict[str, str] = {}
        """The entity that a message was told in, where that is not the one named after what began its conversation."""

    def another(self) -> ImapSource:
        """As another worker has it, which knows nothing but where its index may be."""
        tokens = Secret(self.server.password)
        return Imap(self.index).mailbox(
            connected(self.server, self.person.user, **self.more), tokens, self.desk.pseudonym
        )

    def sync(self, *, full: bool = False) -> list[str]:
        """The types of what a sync put on the log, all of it effective."""
        found = self.desk.found(self.source, full=full)
        assert {fact.disposition for fact in found} <= {"applied"}, found
        return [fact.type for fact in found]

    def entity(self, name: str) -> str:
        if name in self.filed:
            return self.filed[name]
        return self.names.entity(self.desk.pseudonym(self.person.threads.get(name, name)))

    def state(self, name: str) -> dict[str, Any]:
        return self.desk.states("mail.thread")[self.entity(name)]

    def agree(self) -> None:
        """The tables hold what the mailbox shows."""
        states = self.desk.states("mail.thread")
        threads: dict[str, list[frozenset[str]]] = {}
        names: set[str] = set()
        for name, places in self.person.shown().items():
            kept = [(folder, flags) for folder, flags in places if folder != "Drafts"]
            said = labels(kept)
            if kept and is_mail(said):
                threads.setdefault(self.entity(name), []).append(said)
                names.add(self.desk.pseudonym(name))
        for entity, there in threads.items():
            wanted, state = picture(there), states[entity]
            held = (sorted(state["labels"]), state["unread"], state["trashed"], state["deleted"])
            assert held == (sorted(wanted.labels), wanted.unread, wanted.trashed, False)
            assert wanted.archived is None or state["archived"] == wanted.archived
        assert {entity for entity, state in states.items() if not state["deleted"]} == threads.keys()
        assert names <= {fact.body["message"] for fact in self.desk.applied() if "message" in fact.body}
        assert self.desk.idle("mail.thread") == []


@contextmanager
def box(server: DovecotServer, index: Path | None = None, **more: str) -> Generator[Box]:
    """A mailbox of a new user."""
    person = Person(server, f"ann{secrets.token_hex(6)}")
    try:
        with desk("mail.thread") as at:
            yield Box(at, server, person, index, more)
    finally:
        person.close()
