"""What every calendar's source makes of agents' own acts that come back: whose they are, and what they supersede."""

from abc import abstractmethod
from typing import Any, Final, NamedTuple, Protocol

import pytest

from headrace.producers.event import Source
from tests.doubles.carrier import Carrier
from tests.doubles.desk import Desk, Fact

KIND: Final = "calendar.event"
BOT: Final = "agent/bot"
PERSON: Final = "user/ann"
TITLE: Final = "Lunch"
HOUR: Final = 3_600_000


class Written(NamedTuple):
    """An event at the provider: what names it there, and its version after the write."""

    name: str
    etag: str | None


class CalendarAtProvider(Protocol):
    """A person's calendar, its source, and whoever acts on it. Hours are counted from a day's beginning."""

    @property
    def desk(self) -> Desk: ...
    @property
    def source(self) -> Source: ...
    @property
    def calendar(self) -> str:
        """As ``calendar.book`` names it."""
        ...

    def hour(self, hour: int) -> int:
        """Epoch milliseconds."""
        ...

    def entity(self, name: str) -> str:
        """The entity of an event that a person made."""
        ...

    def shown(self) -> dict[str, Any]:
        """What the provider makes of a new event by itself, as far as it is decided on."""
        ...

    # A person's hand.

    def write(self, hour: int) -> Written: ...
    def retitle(self, name: str, title: str) -> Written: ...
    def move(self, name: str, hour: int) -> Written: ...
    def copy(self, name: str) -> Written:
        """Everything that the event carries, in another one."""
        ...

    # An agent's, as the one who carries proposals out does it.

    def agent_books(self, entity: str, proposal: str, hour: int) -> Written: ...
    def agent_moves(self, name: str, entity: str, proposal: str | None, hour: int) -> Written:
        """With the proposal's mark; without where it is ``None``: a provider that keeps none."""
        ...

    def agent_deletes(self, name: str) -> None: ...


class CalendarEchoes:
    """``calendar`` is empty at first, and was synced."""

    @pytest.fixture
    @abstractmethod
    def calendar(self) -> CalendarAtProvider: ...

    @pytest.fixture
    def carrier(self, calendar: CalendarAtProvider) -> Carrier:
        calendar.desk.sync(calendar.source)
        return Carrier(calendar.desk)

    def to_move(self, calendar: CalendarAtProvider, carrier: Carrier) -> tuple[Written, str]:
        """A person's event, and that it is moved to eleven is under way."""
        written = calendar.write(9)
        calendar.desk.sync(calendar.source)
        entity = calendar.entity(written.name)
        data = {"start": calendar.hour(11), "end": calendar.hour(12)}
        assert carrier.propose(entity, "calendar.move", data, id="p1") == "accepted"
        carrier.attempt("p1")
        return written, entity

    def found(self, calendar: CalendarAtProvider) -> list[Fact]:
        return calendar.desk.found(calendar.source)

    def one(self, calendar: CalendarAtProvider) -> Fact:
        [fact] = self.found(calendar)
        return fact

    def read_before(self, carrier: Carrier, entity: str) -> tuple[int, bytes]:
        head = carrier.head(KIND, entity)
        assert head is not None
        return head

    def agrees(self, calendar: CalendarAtProvider, entity: str, hour: int, etag: str | None) -> None:
        state = calendar.desk.states(KIND)[entity]
        assert (state["starts_at"], state["etag"]) == (calendar.hour(hour), etag)
        assert self.found(calendar) == [], "nothing is told twice"

    @pytest.mark.parametrize("outcome", [None, "unknown", "succeeded"])
    def test_a_move_comes_back_as_the_agents(
        self, calendar: CalendarAtProvider, carrier: Carrier, outcome: str | None
    ) -> None:
        written, entity = self.to_move(calendar, carrier)
        read = self.read_before(carrier, entity)
        moved = calendar.agent_moves(written.name, entity, "p1", 11)
        if outcome is not None:
            carrier.outcome(outcome, "p1", moved.etag)
        echo = self.one(calendar)
        assert (echo.disposition, echo.actor, echo.entity) == ("echo", BOT, entity)
        assert carrier.row("p1").outcome == ("succeeded" if outcome == "succeeded" else "echoed")
        assert carrier.steps("p1")[-1] == ("echo", BOT)
        assert carrier.judged(entity, "calendar.cancel", {}, read, id="p2") == "accepted", "it supersedes nobody"
        self.agrees(calendar, entity, 11, moved.etag)

    @pytest.mark.parametrize("succeeded", [False, True])
    @pytest.mark.parametrize("edit", ["title", "time"])
    def test_a_persons_edit_on_top_within_the_same_sync_is_the_persons(
        self, calendar: CalendarAtProvider, carrier: Carrier, edit: str, *, succeeded: bool
    ) -> None:
        written, entity = self.to_move(calendar, carrier)
        read = self.read_before(carrier, entity)
        moved = calendar.agent_moves(written.name, entity, "p1", 11)
        last = calendar.retitle(moved.name, "Dinner") if edit == "title" else calendar.move(moved.name, 13)
        if succeeded:
            carrier.outcome("succeeded", "p1", moved.etag)
        fact = self.one(calendar)
        assert (fact.disposition, fact.actor, fact.entity) == ("applied", PERSON, entity)
        assert carrier.judged(entity, "calendar.cancel", {}, read, id="p2") == "superseded"
        by = carrier.row("p2").finding["event"]
        assert (by["offset"], by["actor"]) == (fact.offset, PERSON)
        self.agrees(calendar, entity, 11 if edit == "title" else 13, last.etag)

    def test_an_edit_after_the_echo_is_the_persons(self, calendar: CalendarAtProvider, carrier: Carrier) -> None:
        written, entity = self.to_move(calendar, carrier)
        calendar.agent_moves(written.name, entity, "p1", 11)
        assert self.one(calendar).actor == BOT
        calendar.move(written.name, 13)
        assert (fact := self.one(calendar)).disposition == "applied"
        assert fact.actor == PERSON
        back = calendar.move(written.name, 11)
        assert self.one(calendar).actor == PERSON, "back to where the agent moved it, mark and all"
        self.agrees(calendar, entity, 11, back.etag)

    def test_an_edit_before_the_act_is_the_persons(self, calendar: CalendarAtProvider, carrier: Carrier) -> None:
        """Where no precondition holds the act back."""
        written, entity = self.to_move(calendar, carrier)
        calendar.retitle(written.name, "Dinner")
        calendar.agent_moves(written.name, entity, "p1", 11)
        assert (fact := self.one(calendar)).disposition == "applied"
        assert fact.actor == PERSON

    def test_a_mark_that_the_provider_loses_is_made_up_for_by_its_answer(
        self, calendar: CalendarAtProvider, carrier: Carrier
    ) -> None:
        written, entity = self.to_move(calendar, carrier)
        moved = calendar.agent_moves(written.name, entity, None, 11)
        carrier.outcome("succeeded", "p1", moved.etag)
        assert (echo := self.one(calendar)).disposition == "echo"
        assert echo.actor == BOT

    def test_without_mark_and_answer_it_is_nobodys_echo(self, calendar: CalendarAtProvider, carrier: Carrier) -> None:
        written, entity = self.to_move(calendar, carrier)
        calendar.agent_moves(written.name, entity, None, 11)
        assert self.one(calendar).disposition == "applied"

    def test_a_booking_comes_back_as_the_agents(self, calendar: CalendarAtProvider, carrier: Carrier) -> None:
        data = {"calendar": calendar.calendar, "start": calendar.hour(11), "end": calendar.hour(12)}
        assert carrier.propose("booking-1", "calendar.book", data, id="p1") == "accepted"
        carrier.attempt("p1", **calendar.shown())
        booked = calendar.agent_books("booking-1", "p1", 11)
        echo = self.one(calendar)
        assert (echo.type, echo.entity) == ("calendar.created", "booking-1")
        assert (echo.disposition, echo.actor) == ("echo", BOT)
        self.agrees(calendar, "booking-1", 11, booked.etag)
        again = calendar.agent_books("booking-1", "p1", 11)
        assert again.name == booked.name, "tried again it is the same one"
        last = calendar.retitle(booked.name, "Dinner")
        renamed = self.found(calendar)[-1]
        assert (renamed.entity, renamed.disposition, renamed.actor) == ("booking-1", "applied", PERSON)
        self.agrees(calendar, "booking-1", 11, last.etag)

    def test_a_copy_of_a_booking_is_a_persons(self, calendar: CalendarAtProvider, carrier: Carrier) -> None:
        data = {"calendar": calendar.calendar, "start": calendar.hour(11), "end": calendar.hour(12)}
        carrier.propose("booking-1", "calendar.book", data, id="p1")
        carrier.attempt("p1", **calendar.shown())
        booked = calendar.agent_books("booking-1", "p1", 11)
        calendar.copy(booked.name)
        facts = {fact.entity == "booking-1": fact for fact in self.found(calendar)}
        assert (facts[True].disposition, facts[True].actor) == ("echo", BOT)
        assert (facts[False].disposition, facts[False].actor) == ("applied", PERSON)
        assert len(calendar.desk.states(KIND)) == 2

    def test_a_deletion_comes_back_as_the_agents(self, calendar: CalendarAtProvider, carrier: Carrier) -> None:
        written = calendar.write(9)
        calendar.desk.sync(calendar.source)
        entity = calendar.entity(written.name)
        carrier.propose(entity, "calendar.cancel", {}, id="p1")
        carrier.attempt("p1", marked=False, removed=True)
        calendar.agent_deletes(written.name)
        carrier.outcome("succeeded", "p1")
        assert (echo := self.one(calendar)).type == "calendar.cancelled"
        assert (echo.disposition, echo.actor) == ("echo", BOT)
