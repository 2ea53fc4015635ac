"""Gmail: agents' own acts come back."""

from collections.abc import Iterator

import pytest

from headrace.producers.marks import MAIL_HEADER, mark_of, message_id
from tests.contract.mail_echo_conformance import MailboxAtProvider, MailEchoes
from tests.doubles.gmail import Mail
from tests.providers.gmail_parts import Box, box


class GmailAtProvider:
    """Ann's mailbox. ``keeps``: whether Gmail keeps the Message-ID that it is given, or sets one of its own."""

    def __init__(self, mine: Box, *, keeps: bool) -> None:
        self.mine, self.desk, self.source, self.keeps = mine, mine.desk, mine.source, keeps

    def entity(self, thread: str) -> str:
        return self.mine.names.entity(thread)

    def receive(self, thread: str | None = None) -> str:
        return self.mine.double.receive(thread).thread

    def reply(self, thread: str) -> None:
        self.mine.double.send(thread)

    def read(self, thread: str) -> None:
        for mail in self.mine.double.of(thread):
            self.mine.double.unlabel(mail, "UNREAD")

    def label(self, thread: str) -> None:
        self.mine.double.label(self.mine.double.of(thread)[0], "Label_1")

    def ours(self, mail: Mail, proposal: str) -> None:
        if self.keeps:
            mail.headers["Message-Id"] = message_id(self.desk.pseudonym, proposal, "example.com")
        mail.headers[MAIL_HEADER] = mark_of(self.desk.pseudonym, proposal)

    def agent_replies(self, thread: str, proposal: str) -> None:
        self.ours(self.mine.double.send(thread), proposal)

    def agent_drafts(self, thread: str, proposal: str) -> None:
        self.ours(self.mine.double.draft(thread), proposal)

    def send_draft(self, thread: str) -> None:
        double = self.mine.double
        draft = next(mail for mail in double.of(thread) if "DRAFT" in mail.labels)
        sent = double.send_draft(draft)
        sent.headers |= {name: draft.headers[name] for name in ("Message-Id", MAIL_HEADER)}

    def agent_archives(self, thread: str) -> None:
        self.mine.double.archive(thread)

    def bounce(self, thread: str, proposal: str) -> None:
        self.ours(self.mine.double.receive(thread), proposal)


class TestGmailEchoes(MailEchoes):
    @pytest.fixture(params=["its own Message-ID", "ours"])
    def mailbox(self, request: pytest.FixtureRequest) -> Iterator[MailboxAtProvider]:
        with box() as mine:
            yield GmailAtProvider(mine, keeps=request.param == "ours")
