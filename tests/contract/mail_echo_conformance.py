"""What every mailbox's source makes of agents' own acts that come back: whose they are, and what they supersede."""

from abc import abstractmethod
from typing import Final, Protocol

import pytest

from headrace.producers.event import Source
from tests.doubles.carrier import Carrier
from tests.doubles.desk import Desk, Fact

KIND: Final = "mail.thread"
BOT: Final = "agent/bot"
PERSON: Final = "user/ann"


class MailboxAtProvider(Protocol):
    """A person's mailbox, its source, and whoever acts on it. Threads are named as the provider does."""

    @property
    def desk(self) -> Desk: ...
    @property
    def source(self) -> Source: ...

    def entity(self, thread: str) -> str: ...

    # A person's hand.

    def receive(self, thread: str | None = None) -> str:
        """Somebody's mail arrives, in a thread or in a new one; returns the thread."""
        ...

    def reply(self, thread: str) -> None: ...
    def read(self, thread: str) -> None: ...
    def label(self, thread: str) -> None: ...

    # An agent's, as the one who carries proposals out does it.

    def agent_replies(self, thread: str, proposal: str) -> None: ...
    def agent_drafts(self, thread: str, proposal: str) -> None: ...
    def send_draft(self, thread: str) -> None:
        """A person sends it as it is."""
        ...

    def agent_archives(self, thread: str) -> None: ...
    def bounce(self, thread: str, proposal: str) -> None:
        """A mail arrives that carries the marks of the agent's own."""
        ...


class MailEchoes:
    """``mailbox`` is empty at first."""

    @pytest.fixture
    @abstractmethod
    def mailbox(self) -> MailboxAtProvider: ...

    @pytest.fixture
    def carrier(self, mailbox: MailboxAtProvider) -> Carrier:
        mailbox.desk.sync(mailbox.source)
        return Carrier(mailbox.desk)

    def found(self, mailbox: MailboxAtProvider) -> list[tuple[str, str, str]]:
        return [(one.type, one.disposition, one.actor) for one in self.facts(mailbox)]

    def facts(self, mailbox: MailboxAtProvider) -> list[Fact]:
        return mailbox.desk.found(mailbox.source)

    def thread(self, mailbox: MailboxAtProvider) -> str:
        """A mail has arrived, and is on the log."""
        thread = mailbox.receive()
        mailbox.desk.sync(mailbox.source)
        return thread

    def to_reply(self, mailbox: MailboxAtProvider, carrier: Carrier, *, sends: bool) -> str:
        """That the agent answers a mail is under way: by sending, or by saving a draft."""
        thread = self.thread(mailbox)
        assert carrier.propose(mailbox.entity(thread), "mail.reply", {}, id="p1") == "accepted"
        carrier.attempt("p1", marked=sends, snapshot=False)
        return thread

    def to_archive(self, mailbox: MailboxAtProvider, carrier: Carrier) -> str:
        thread = self.thread(mailbox)
        assert carrier.propose(mailbox.entity(thread), "mail.archive", {}, id="p1") == "accepted"
        carrier.attempt("p1", marked=False)
        return thread

    @pytest.mark.parametrize("outcome", [None, "unknown", "succeeded"])
    def test_a_reply_that_the_agent_sent_is_the_agents(
        self, mailbox: MailboxAtProvider, carrier: Carrier, outcome: str | None
    ) -> None:
        thread = self.to_reply(mailbox, carrier, sends=True)
        read = carrier.head(KIND, mailbox.entity(thread))
        mailbox.agent_replies(thread, "p1")
        if outcome is not None:
            carrier.outcome(outcome, "p1")
        assert self.found(mailbox) == [("mail.sent", "echo", BOT)]
        state = mailbox.desk.states(KIND)[mailbox.entity(thread)]
        assert (state["messages"], state["last_by_owner"], len(state["answered"])) == (2, True, 1)
        label = {"added": ["x"]}
        assert carrier.judged(mailbox.entity(thread), "mail.label", label, read, id="p2") == "accepted"
        assert self.found(mailbox) == []

    def test_it_is_so_whatever_else_the_same_sync_finds(self, mailbox: MailboxAtProvider, carrier: Carrier) -> None:
        thread = self.to_reply(mailbox, carrier, sends=True)
        mailbox.read(thread)
        mailbox.desk.sync(mailbox.source)
        mailbox.receive(thread)
        mailbox.agent_replies(thread, "p1")
        found = self.found(mailbox)
        assert ("mail.sent", "echo", BOT) in found
        assert ("mail.received", "applied", PERSON) in found

    def test_a_reply_by_hand_in_the_same_sync_is_the_persons(
        self, mailbox: MailboxAtProvider, carrier: Carrier
    ) -> None:
        thread = self.to_reply(mailbox, carrier, sends=True)
        entity = mailbox.entity(thread)
        read = carrier.head(KIND, entity)
        mailbox.agent_replies(thread, "p1")
        mailbox.reply(thread)
        facts = self.facts(mailbox)
        assert sorted((one.type, one.disposition, one.actor) for one in facts) == [
            ("mail.sent", "applied", PERSON),
            ("mail.sent", "echo", BOT),
        ]
        assert carrier.judged(entity, "mail.archive", {}, read, id="p2") == "superseded"
        by_hand = next(one for one in facts if one.disposition == "applied")
        assert carrier.row("p2").finding["event"]["offset"] == by_hand.offset

    def test_a_draft_that_a_person_sends_is_the_persons(self, mailbox: MailboxAtProvider, carrier: Carrier) -> None:
        thread = self.to_reply(mailbox, carrier, sends=False)
        entity = mailbox.entity(thread)
        mailbox.agent_drafts(thread, "p1")
        assert self.found(mailbox) == [], "a draft is no fact"
        carrier.outcome("succeeded", "p1")
        read = carrier.head(KIND, entity)
        mailbox.send_draft(thread)
        assert self.found(mailbox) == [("mail.sent", "applied", PERSON)]
        assert carrier.judged(entity, "mail.archive", {}, read, id="p2") == "superseded"

    def test_what_is_received_is_never_ours(self, mailbox: MailboxAtProvider, carrier: Carrier) -> None:
        thread = self.to_reply(mailbox, carrier, sends=True)
        mailbox.bounce(thread, "p1")
        assert [(one.disposition, one.actor) for one in self.facts(mailbox) if one.type == "mail.received"] == [
            ("applied", PERSON)
        ]

    @pytest.mark.parametrize("succeeded", [False, True])
    def test_an_archive_comes_back_as_the_agents(
        self, mailbox: MailboxAtProvider, carrier: Carrier, *, succeeded: bool
    ) -> None:
        thread = self.to_archive(mailbox, carrier)
        mailbox.agent_archives(thread)
        if succeeded:
            carrier.outcome("succeeded", "p1")
        # After a success the log holds it already, so a source that compares has nothing to tell.
        assert self.found(mailbox) in [[("mail.archived", "echo", BOT)], *([[]] if succeeded else [])]
        assert mailbox.desk.states(KIND)[mailbox.entity(thread)]["archived"]
        assert self.found(mailbox) == []

    def test_a_label_put_on_in_the_same_sync_is_the_persons(self, mailbox: MailboxAtProvider, carrier: Carrier) -> None:
        thread = self.to_archive(mailbox, carrier)
        entity = mailbox.entity(thread)
        read = carrier.head(KIND, entity)
        mailbox.agent_archives(thread)
        mailbox.label(thread)
        assert ("mail.labelled", "applied", PERSON) in self.found(mailbox)
        assert carrier.judged(entity, "mail.label", {"added": ["x"]}, read, id="p2") == "superseded"
        assert mailbox.desk.states(KIND)[entity]["archived"]
