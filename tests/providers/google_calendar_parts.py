"""A person's calendars at the double, the sources that follow them, and the desk where their events land."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from headrace.producers.event import NewEvent, Source
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.google_calendar_names import CalendarNames, marked, own_event_id
from headrace.producers.google_calendar_source import GoogleCalendarSource
from headrace.producers.marks import calendar_mark
from headrace.producers.provider import Connected
from headrace.producers.provider_http import ProviderHttp
from headrace.producers.sync import Begun, run_sync
from tests.doubles.desk import ACCOUNT, TENANT, Desk, Fact, desk
from tests.doubles.google_calendar import READ, GoogleCalendarDouble
from tests.doubles.google_calendar_desk import ADDRESS, TEAM, Stored, interval, shifted
from tests.doubles.http import Faulty, Grant, transport

BASE: Final = "https://calendar.test/calendar/v3/"
ENDPOINT: Final = "https://headrace.example/v1/notifications/google_calendar"
KIND: Final = "calendar.event"
ENDLESS: Final = 380


def connected(calendar: str = ADDRESS) -> Connected:
    return Connected(TENANT, ACCOUNT, "calendar/ann", "google_calendar", {"calendar": calendar})


class Office:
    """All of it together."""

    def __init__(self, at: Desk, http: ProviderHttp, double: GoogleCalendarDouble, faulty: Faulty) -> None:
        self.desk, self.http, self.double, self.faulty = at, http, double, faulty
        self.names: Final = CalendarNames(ADDRESS, at.pseudonym)
        self.source: GoogleCalendarSource = GoogleCalendar().source(connected(), http, at.pseudonym)

    def booked_for(
        self, entity: str, *, event: str | None = None, proposal: str = "p-1", **words: Any
    ) -> dict[str, Any]:
        """What an event that an agent makes for an entity has among its fields."""
        content = {"title": words.get("summary"), "location": words.get("location")}
        anchor = event or own_event_id(entity)
        mark = calendar_mark(self.desk.pseudonym, proposal=proposal, entity=entity, anchor=anchor, content=content)
        return {**words, **marked(mark)}

    def found(self, *, full: bool = False) -> list[Fact]:
        """What a sync put on the log, all of it effective."""
        found = self.desk.found(self.source, full=full)
        assert {fact.disposition for fact in found} <= {"applied"}
        return found

    def sync(self, *, full: bool = False) -> list[str]:
        return [fact.type for fact in self.found(full=full)]

    def state(self, event: Stored) -> dict[str, Any]:
        return self.desk.states(KIND)[self.names.entity(event.master or event.id)]

    def asked(self, end: str) -> int:
        """How many requests so far went to a path that ends like this."""
        return sum(request.path.endswith(end) for request in self.faulty.asked)

    def agree(self, calendar: str = ADDRESS) -> None:
        """The tables hold what the calendar shows."""
        mine = self.desk.pseudonym(calendar)
        held = {
            state["resource"]: state
            for state in self.desk.states(KIND).values()
            if state["calendar"] == mine and not state["removed"]
        }
        wanted = {self.desk.pseudonym(series): parts for series, parts in self._there(calendar).items()}
        assert held.keys() == wanted.keys()
        for resource, parts in wanted.items():
            self._agrees(held[resource], parts, self.double.zones[calendar])
        assert self.desk.idle(KIND) == []

    def _there(self, calendar: str) -> dict[str, list[Stored]]:
        """Single events, masters and lonely instances that are there, each with its exceptions."""
        events = self.double.events[calendar]
        found: dict[str, list[Stored]] = {}
        for one in events.values():
            found.setdefault(one.master or one.id, []).append(one)
        return {
            series: parts
            for series, parts in found.items()
            if (series in events and not events[series].cancelled)
            or (series not in events and any(not part.cancelled for part in parts))
        }

    def _agrees(self, state: dict[str, Any], parts: list[Stored], zone: str) -> None:
        times, endless = expected(parts, zone)
        shown = [(one["start"], one["end"]) for one in state["occurrences"]]
        assert shown[:300] == times[:300]
        assert (state["unbounded_from"] is not None) == endless
        leading = next((part for part in parts if part.master is None), None)
        alive = [part for part in parts if not part.cancelled]
        leading = leading or min(alive, key=lambda part: part.id)
        assert state["uid"] == self.desk.pseudonym(leading.uid)
        assert state["status"] == (leading.fields.get("status", "confirmed") if leading.master is None else "confirmed")
        assert state["busy"] == any(part.fields.get("transparency") != "transparent" for part in alive)
        assert state["all_day"] == ("date" in leading.fields["start"])
        assert str(state["etag"]).startswith(leading.etag)
        answers = {self.desk.pseudonym(one["who"]): one["response"] for one in state["attendees"]}
        for guest in leading.fields.get("attendees", []):
            said = guest["responseStatus"].replace("needsAction", "needs-action")
            assert answers[self.desk.pseudonym(guest["email"].lower())] == said


def expected(parts: list[Stored], zone: str) -> tuple[list[tuple[int, int]], bool]:
    """When it happens, worked out day by day: rules of the double are daily."""
    master = next((part for part in parts if part.master is None), None)
    times = [interval(part.fields, zone) for part in parts if part.master is not None and not part.cancelled]
    if master is None:
        return sorted(set(times)), False
    if "recurrence" not in master.fields:
        return [interval(master.fields, zone)], False
    rule = master.fields["recurrence"][0]
    count = int(rule.partition("COUNT=")[2]) if "COUNT=" in rule else ENDLESS
    left_out = [part.original for part in parts if part.original is not None]
    for number in range(count):
        start = shifted(master.fields["start"], number)
        if start not in left_out:
            times.append(interval({"start": start, "end": shifted(master.fields["end"], number)}, zone))
    return sorted(set(times)), count == ENDLESS


@contextmanager
def office(*, page: int = 2_500, scope: str = READ) -> Generator[Office]:
    """With the least scope that this takes."""
    double = GoogleCalendarDouble(Grant([scope]), page=page)
    faulty = Faulty(double)
    with (
        desk(KIND) as at,
        ProviderHttp(BASE, double.grant.tokens(), transport=transport(faulty)) as http,
    ):
        yield Office(at, http, double, faulty)


def team(mine: Office) -> "Beside":
    """The other calendar of the same account."""
    return Beside(mine, GoogleCalendar().source(connected(TEAM), mine.http, mine.desk.pseudonym))


class Beside:
    """Another source of the same account and feed, with a cursor of its own."""

    def __init__(self, mine: Office, source: Source) -> None:
        self._mine, self._source = mine, source
        self._cursor: str | None = None
        self._theirs: str | None = None

    def sync(self, *, full: bool = False) -> list[str]:
        before = len(self._mine.desk.facts)
        run_sync(self._source, self, full=full)
        found = self._mine.desk.facts[before:]
        assert {fact.disposition for fact in found} <= {"applied"}
        return [fact.type for fact in found]

    def begin(self, full: bool) -> Begun:
        begun = self._mine.desk.feed.begin(full)
        self._theirs = begun.cursor
        return begun._replace(cursor=self._cursor)

    def found(self, sync: str, events: Sequence[NewEvent]) -> None:
        self._mine.desk.feed.found(sync, events)

    def finish(self, sync: str, cursor: str | None) -> None:
        self._mine.desk.feed.finish(sync, self._theirs)
        self._cursor = cursor
