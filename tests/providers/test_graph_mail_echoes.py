"""Outlook's mail: agents' own acts come back."""

from collections.abc import Iterator

import pytest

from headrace.producers.marks import message_id
from tests.contract.mail_echo_conformance import MailboxAtProvider, MailEchoes
from tests.doubles.graph_people import Mail
from tests.providers.graph_parts import Box, box


class OutlookMailAtProvider:
    """Ann's mailbox."""

    def __init__(self, mine: Box) -> None:
        self.mine, self.desk, self.source = mine, mine.desk, mine.source

    def entity(self, thread: str) -> str:
        return self.mine.names.entity(thread)

    def last(self, thread: str) -> Mail:
        return [mail for mail in self.mine.double.of(thread) if not mail.draft][-1]

    def receive(self, thread: str | None = None) -> str:
        answers = self.last(thread) if thread is not None else None
        return self.mine.double.receive(thread, answers=answers).thread

    def reply(self, thread: str) -> None:
        received = next(mail for mail in self.mine.double.of(thread) if mail.folder == "F-inbox")
        self.mine.double.send(thread, answers=received)

    def read(self, thread: str) -> None:
        for mail in self.mine.double.of(thread):
            self.mine.double.mark(mail, read=True)

    def label(self, thread: str) -> None:
        self.mine.double.categorise(self.mine.double.of(thread)[0], "Red")

    def agent_replies(self, thread: str, proposal: str) -> None:
        sent = self.mine.double.send(thread, answers=self.mine.double.of(thread)[0])
        sent.key = message_id(self.desk.pseudonym, proposal)

    def agent_drafts(self, thread: str, proposal: str) -> None:
        self.mine.double.draft(thread).key = message_id(self.desk.pseudonym, proposal)

    def send_draft(self, thread: str) -> None:
        self.mine.double.send_draft(next(mail for mail in self.mine.double.of(thread) if mail.draft))

    def agent_archives(self, thread: str) -> None:
        self.mine.double.archive(thread)

    def bounce(self, thread: str, proposal: str) -> None:
        self.mine.double.receive(thread).key = message_id(self.desk.pseudonym, proposal)


class TestOutlookMailEchoes(MailEchoes):
    @pytest.fixture
    def mailbox(self) -> Iterator[MailboxAtProvider]:
        with box() as mine:
            yield OutlookMailAtProvider(mine)
