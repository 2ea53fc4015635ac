"""A calendar on a real CalDAV server: agents' own events come back."""

from collections.abc import Iterator
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import icalendar
import pytest

from headrace.demo.caldav_server import CaldavServer
from headrace.producers.caldav import CaldavSource
from headrace.producers.event import KnownEntity
from headrace.producers.marks import ICALENDAR_PROPERTY, calendar_mark, own_uid
from headrace.producers.webdav import canonical_url
from tests.contract.echo_conformance import HOUR, KIND, TITLE, CalendarAtProvider, CalendarEchoes, Written
from tests.doubles.carrier import Carrier
from tests.doubles.desk import Desk, desk
from tests.integration.calendar_desk import ics

pytestmark = pytest.mark.embedded("opens no store")
DAY: Final = 1_767_571_200_000
"""2026-01-05, midnight UTC."""
_numbers = count()


class CaldavAtProvider:
    """Ann's calendar."""

    def __init__(self, server: CaldavServer, at: Desk) -> None:
        self.desk, self.server = at, server
        self.url = server.make_calendar(f"echoes {next(_numbers)}")
        self.calendar = canonical_url(self.url)
        self.source = CaldavSource(server.url, server.username, server.password, self.url, pseudonym=at.pseudonym)
        self.http = httpx.Client(auth=(server.username, server.password))

    def hour(self, hour: int) -> int:
        return DAY + hour * HOUR

    def entity(self, name: str) -> str:
        return self.desk.pseudonym(name)

    def shown(self) -> dict[str, Any]:
        return {}

    def put(self, name: str, text: str, *, etag: str | None = None) -> Written:
        headers = {"Content-Type": "text/calendar; charset=utf-8"} | ({"If-Match": etag} if etag is not None else {})
        answer = self.http.put(f"{self.url}{name}.ics", content=text.encode(), headers=headers)
        assert answer.is_success, answer.text
        return Written(name, answer.headers["etag"])

    def get(self, name: str) -> tuple[icalendar.Calendar, str]:
        answer = self.http.get(f"{self.url}{name}.ics")
        assert answer.is_success
        calendar = icalendar.Calendar.from_ical(answer.content)
        assert isinstance(calendar, icalendar.Calendar)
        return calendar, answer.headers["etag"]

    def changed(self, name: str, changes: dict[str, str], *, as_: str | None = None) -> Written:
        """The object with these lines in place of what it had, by whoever: other lines are kept as they are."""
        calendar, _ = self.get(name)
        lines = calendar.to_ical().decode().replace("\r\n ", "").splitlines()
        kept = [line for line in lines if line.replace(";", ":").partition(":")[0] not in changes]
        new = [f"{key}:{value}" for key, value in changes.items()]
        end = kept.index("END:VEVENT")
        return self.put(as_ or name, "\r\n".join([*kept[:end], *new, *kept[end:], ""]))

    def stamp(self, hour: int) -> str:
        return f"20260105T{hour:02d}0000Z"

    def write(self, hour: int) -> Written:
        name = f"event-{next(_numbers)}"
        return self.put(name, ics(f"SUMMARY:{TITLE}", uid=name, start=self.stamp(hour)))

    def retitle(self, name: str, title: str) -> Written:
        return self.changed(name, {"SUMMARY": title})

    def move(self, name: str, hour: int) -> Written:
        return self.changed(name, {"DTSTART": self.stamp(hour)})

    def copy(self, name: str) -> Written:
        return self.changed(name, {"UID": f"copy-of-{name}"}, as_=f"copy-of-{name}")

    def mark(self, name: str, entity: str, proposal: str) -> str:
        content = {"title": TITLE}
        return calendar_mark(self.desk.pseudonym, proposal=proposal, entity=entity, anchor=name, content=content)

    def agent_books(self, entity: str, proposal: str, hour: int) -> Written:
        name = own_uid(self.desk.pseudonym, entity)
        mark = f"{ICALENDAR_PROPERTY}:{self.mark(name, entity, proposal)}"
        return self.put(name, ics(f"SUMMARY:{TITLE}", mark, uid=name, start=self.stamp(hour)))

    def agent_moves(self, name: str, entity: str, proposal: str | None, hour: int) -> Written:
        mark = {ICALENDAR_PROPERTY: self.mark(name, entity, proposal)} if proposal is not None else {}
        return self.changed(name, {"DTSTART": self.stamp(hour), "SEQUENCE": "1", **mark})

    def agent_deletes(self, name: str) -> None:
        assert self.http.delete(f"{self.url}{name}.ics").is_success


class TestCaldavEchoes(CalendarEchoes):
    @pytest.fixture
    def calendar(self, caldav_server: CaldavServer) -> Iterator[CalendarAtProvider]:
        with desk(KIND) as at:
            made = CaldavAtProvider(caldav_server, at)
            with made.http:
                yield made

    def test_a_booking_stays_the_entity_that_it_was_made_for(
        self, calendar: CaldavAtProvider, carrier: Carrier
    ) -> None:
        """Whoever takes the mark off, wherever the object is moved, and when everything is compared."""
        data = {"calendar": calendar.calendar, "start": calendar.hour(11), "end": calendar.hour(12)}
        carrier.propose("booking-1", "calendar.book", data, id="p1")
        carrier.attempt("p1")
        booked = calendar.agent_books("booking-1", "p1", 11)
        assert self.one(calendar).entity == "booking-1"
        calendar.put(booked.name, ics("SUMMARY:Dinner", uid=booked.name, start=calendar.stamp(11)))
        assert self.one(calendar).entity == "booking-1", "whoever takes the mark off"
        calendar.put("elsewhere", ics("SUMMARY:Dinner", uid="other", start=calendar.stamp(8)))
        text, _ = calendar.get(booked.name)
        calendar.agent_deletes(booked.name)
        calendar.put("moved", text.to_ical().decode())
        facts = {fact.entity: fact.type for fact in self.found(calendar)}
        assert facts == {"booking-1": "calendar.updated", calendar.desk.pseudonym("other"): "calendar.created"}
        assert calendar.desk.found(calendar.source, full=True) == []
        calendar.agent_deletes("moved")
        assert [(fact.entity, fact.type) for fact in self.found(calendar)] == [("booking-1", "calendar.cancelled")]
        calendar.agent_books("booking-1", "p1", 12)
        assert self.one(calendar).entity == "booking-1", "it is booked again"

    def test_a_booking_that_changes_is_found_without_reading_the_whole_calendar(
        self, calendar: CaldavAtProvider, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = {"calendar": calendar.calendar, "start": calendar.hour(11), "end": calendar.hour(12)}
        carrier.propose("booking-1", "calendar.book", data, id="p1")
        carrier.attempt("p1")
        booked = calendar.agent_books("booking-1", "p1", 11)
        self.one(calendar)
        asked = list[dict[str, str]]()
        where = calendar.desk.feed.where

        def counted(kind: str, **columns: str) -> Iterator[KnownEntity]:
            asked.append(columns)
            return where(kind, **columns)

        monkeypatch.setattr(calendar.desk.feed, "where", counted)
        calendar.retitle(booked.name, "Dinner")
        assert self.one(calendar).entity == "booking-1"
        assert asked
        assert all("resource" in columns for columns in asked)

    def test_the_servers_precondition_holds_an_act_back(self, calendar: CaldavAtProvider, carrier: Carrier) -> None:
        written, _ = self.to_move(calendar, carrier)
        calendar.move(written.name, 13)
        headers = {"If-Match": str(written.etag), "Content-Type": "text/calendar; charset=utf-8"}
        answer = calendar.http.put(f"{calendar.url}{written.name}.ics", content=ics().encode(), headers=headers)
        assert answer.status_code == 412
        carrier.outcome("refused", "p1")
        assert (fact := self.one(calendar)).actor == "user/ann"
        assert fact.disposition == "applied"


def test_the_address_of_a_calendar_is_what_the_source_says(caldav_server: CaldavServer) -> None:
    """``calendar.book`` names the calendar as the source does, or its echo would be another's."""
    with desk(KIND) as at:
        made = CaldavAtProvider(caldav_server, at)
        with made.http:
            made.write(9)
            [fact] = at.found(made.source)
            assert fact.body["calendar"] == at.pseudonym(made.calendar)
            assert urlsplit(made.calendar).path.endswith("/")
