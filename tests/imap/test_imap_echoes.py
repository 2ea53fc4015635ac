"""A mailbox on a real Dovecot: agents' own acts come back."""

from collections.abc import Iterator

import pytest

from headrace.producers.marks import message_id
from infra.stack.dovecot import DovecotServer
from tests.contract.mail_echo_conformance import MailboxAtProvider, MailEchoes
from tests.imap.parts import ADDRESS, Box, box


class DovecotAtProvider:
    """Ann's mailbox. A thread is named after the Message-ID of the mail that began it."""

    def __init__(self, mine: Box) -> None:
        self.mine, self.desk, self.source = mine, mine.desk, mine.source

    def entity(self, thread: str) -> str:
        return self.mine.entity(thread)

    def receive(self, thread: str | None = None) -> str:
        name = self.mine.person.receive(thread)
        return thread or name

    def reply(self, thread: str) -> None:
        self.mine.person.send(thread)

    def read(self, thread: str) -> None:
        self.mine.person.flag("INBOX", thread, "\\Seen")

    def label(self, thread: str) -> None:
        self.mine.person.flag("Archive", thread, "$Work")

    def ours(self, thread: str, proposal: str, *, sender: str, folder: str, flags: tuple[str, ...]) -> None:
        name, raw = self.mine.person.text(answers=thread, sender=sender)
        mine = message_id(self.desk.pseudonym, proposal, "example.com")
        self.mine.person.threads[mine] = thread
        self.mine.person.put(
            folder, raw.replace(f"Message-ID: {name}".encode(), f"Message-ID: {mine}".encode()), *flags
        )

    def agent_replies(self, thread: str, proposal: str) -> None:
        self.ours(thread, proposal, sender=ADDRESS, folder="Sent", flags=("\\Seen",))

    def agent_drafts(self, thread: str, proposal: str) -> None:
        self.ours(thread, proposal, sender=ADDRESS, folder="Drafts", flags=("\\Seen", "\\Draft"))
        self.proposal = proposal

    def send_draft(self, thread: str) -> None:
        name = message_id(self.desk.pseudonym, self.proposal, "example.com")
        raw, _ = self.mine.person.whole("Drafts", name)
        self.mine.person.put("Sent", raw, "\\Seen")
        self.mine.person.expunge("Drafts", name)

    def agent_archives(self, thread: str) -> None:
        self.mine.person.move("INBOX", thread, "Archive")

    def bounce(self, thread: str, proposal: str) -> None:
        self.ours(thread, proposal, sender="Bob <bob@example.com>", folder="INBOX", flags=())


class TestDovecotEchoes(MailEchoes):
    @pytest.fixture
    def mailbox(self, dovecot: DovecotServer) -> Iterator[MailboxAtProvider]:
        with box(dovecot) as mine:
            yield DovecotAtProvider(mine)
