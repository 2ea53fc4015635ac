"""What people do in Google Calendar, and what stands on the log for it."""

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.errors import BadInputError
from headrace.producers.event import NewEvent
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.google_calendar_names import own_event_id
from headrace.producers.google_calendar_series import if_match
from headrace.producers.marks import GOOGLE_PROPERTY
from tests.doubles.google_calendar import WRITE
from tests.doubles.google_calendar_desk import (
    ADDRESS,
    TEAM,
    at,
    daily,
    guests,
    interval,
    on,
    shifted,
)
from tests.providers.google_calendar_parts import KIND, Office, office, team

HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.fixture
def mine() -> Iterator[Office]:
    with office() as made:
        yield made


def starts(mine: Office, event: Any) -> list[int]:
    return [one["start"] for one in mine.state(event)["occurrences"]]


def test_an_event_and_what_becomes_of_it(mine: Office) -> None:
    lunch = mine.double.insert(**at(12), attendees=guests("Bob@example.com", "carol@example.com"), location="Roma")
    [created] = mine.found()
    pseudonym = mine.desk.pseudonym
    assert (created.type, created.entity) == ("calendar.created", mine.names.entity(lunch.id))
    assert created.occurred_at == lunch.updated
    assert created.body["calendar"] == pseudonym(ADDRESS)
    assert created.body["uid"] == pseudonym(lunch.uid)
    assert created.body["resource"] == pseudonym(lunch.id)
    assert created.body["etag"] == lunch.etag
    assert created.body["occurrences"] == [{"start": 1795431600000, "end": 1795431600000 + HOUR}]
    assert created.body["attendees"] == [
        {"who": pseudonym("bob@example.com"), "response": "needs-action"},
        {"who": pseudonym("carol@example.com"), "response": "needs-action"},
    ]
    assert b"Roma" in created.body["content"]
    mine.double.respond(lunch, "carol@example.com", "declined")
    [responded] = mine.found()
    assert responded.type == "calendar.responded"
    assert responded.body["responses"] == [{"who": pseudonym("carol@example.com"), "response": "declined"}]
    assert responded.concerns == (f"person:{pseudonym('carol@example.com')}",)
    mine.double.edit(lunch, **at(13))
    [moved] = mine.found()
    assert (moved.type, moved.body["occurrences"][0]["start"]) == ("calendar.updated", 1795431600000 + HOUR)
    assert moved.body["sequence"] == 1
    mine.double.delete(lunch)
    [cancelled] = mine.found()
    assert (cancelled.type, cancelled.body["removed"]) == ("calendar.cancelled", True)
    assert mine.state(lunch)["status"] == "cancelled"
    mine.double.restore(lunch)
    assert mine.sync() == ["calendar.created"]
    mine.agree()
    assert mine.sync() == []


def test_names_on_the_log_are_opaque(mine: Office) -> None:
    mine.double.insert(**at(12), attendees=guests("bob@example.com"))
    mine.double.insert(event="imported.by-someone@example.com", **at(13))
    mine.sync()
    for stored in mine.desk.log.records[0]:
        envelope = b"".join(value for _, value in stored.headers)
        assert b"@" not in envelope
    mine.agree()
    mine.double.delete(mine.double.events[ADDRESS]["imported.by-someone@example.com"])
    assert mine.sync(full=True) == ["calendar.cancelled"]


def test_what_is_decided_on_and_what_is_not(mine: Office) -> None:
    event = mine.double.insert(**at(12))
    mine.sync()
    acts: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"summary": "Dinner"}, {}),
        ({"transparency": "transparent"}, {"busy": False}),
        ({"status": "tentative"}, {"status": "tentative"}),
        ({"transparency": None, "status": None}, {"busy": True, "status": "confirmed"}),
        (on(3), {"all_day": True}),
        ({"status": "unheard of"}, {"status": "confirmed"}),
    ]
    for fields, wanted in acts:
        mine.double.edit(event, **fields)
        assert mine.sync() == ["calendar.updated"]
        state = mine.state(event)
        assert {name: state[name] for name in wanted} == wanted
    before = event.updated
    mine.double.remind(event)
    [told] = mine.found()
    assert (told.type, told.occurred_at) == ("calendar.updated", before), "another version, which If-Match takes"


def test_days_are_days_of_the_calendar(mine: Office) -> None:
    holiday = mine.double.insert(**on(0, 2))
    meeting = mine.double.insert(**at(12))
    mine.sync()
    midnight = 1795388400000
    assert mine.state(holiday)["occurrences"] == [{"start": midnight, "end": midnight + 2 * DAY}], "in Berlin"
    before = mine.state(meeting)
    mine.double.set_zone(ADDRESS, "America/New_York")
    assert mine.sync() == ["calendar.updated"], "Google names no event of this"
    assert starts(mine, holiday) == [midnight + 6 * HOUR]
    assert mine.state(meeting) == before
    mine.agree()
    assert mine.sync() == []
    mine.double.set_zone(ADDRESS, "Mars/Olympus")
    with pytest.raises(BadInputError, match="tzdata"):
        mine.sync()


def test_a_series_is_one_entity(mine: Office) -> None:
    series = mine.double.insert(**at(9), recurrence=daily(4), attendees=guests("bob@example.com"))
    assert mine.sync() == ["calendar.created"]
    first = starts(mine, series)
    assert first == [1795420800000 + n * DAY for n in range(4)]
    moved = mine.double.instance(series, 1, **at(17, 1), attendees=guests("dan@example.com"))
    assert mine.sync() == ["calendar.updated"]
    assert starts(mine, series) == [first[0], first[1] + 8 * HOUR, first[2], first[3]]
    assert len(mine.state(series)["attendees"]) == 2
    assert if_match(mine.state(series)["etag"]) == series.etag != mine.state(series)["etag"]
    gone = mine.double.instance(series, 2)
    mine.double.delete(gone)
    assert mine.sync() == ["calendar.updated"]
    assert starts(mine, series) == [first[0], first[1] + 8 * HOUR, first[3]]
    mine.double.restore(gone)
    assert mine.sync() == ["calendar.updated"]
    mine.double.delete(moved)
    assert mine.sync() == ["calendar.updated"]
    assert starts(mine, series) == [first[0], first[2], first[3]]
    mine.agree()
    assert mine.sync(full=True) == []
    mine.double.delete(series)
    assert mine.sync() == ["calendar.cancelled"]
    assert list(mine.desk.states(KIND)) == [mine.names.entity(series.id)]


def test_a_series_over_the_change_of_the_clock(mine: Office) -> None:
    series = mine.double.insert(**at(9, 120), recurrence=daily(10))
    mine.sync()
    gaps = {b - a for a, b in zip(starts(mine, series), starts(mine, series)[1:], strict=False)}
    assert gaps == {DAY, DAY - HOUR}, "9 o'clock in Berlin, on 28 March 2027, too"
    mine.agree()


def test_an_endless_series(mine: Office) -> None:
    series = mine.double.insert(**at(9), recurrence=daily())
    mine.sync()
    state = mine.state(series)
    assert len(state["occurrences"]) == 366
    assert (
        state["unbounded_from"]
        == interval({name: shifted(series.fields[name], 366) for name in ("start", "end")}, "UTC")[0]
    )
    mine.double.instance(series, 0, **at(9, 300, zone="Asia/Kolkata"))
    assert mine.sync() == ["calendar.updated"]
    mine.agree()


def test_an_instance_that_changes_asks_for_its_series_and_no_more(mine: Office) -> None:
    series = mine.double.insert(**at(9), recurrence=daily(5))
    for _ in range(5):
        mine.double.insert(**at(12))
    mine.sync()
    before = len(mine.faulty.asked)
    mine.double.instance(series, 1, **at(17, 1))
    mine.sync()
    asked = mine.faulty.asked[before:]
    assert [request.one("iCalUID") for request in asked] == [None, series.uid]
    mine.double.delete(mine.double.instance(series, 2))
    mine.sync()
    asked = mine.faulty.asked[before + 2 :]
    assert [request.path.rpartition("/")[2] for request in asked] == ["events", series.id, "events"]


def test_instances_to_which_one_is_asked_alone(mine: Office) -> None:
    one, two = mine.double.alone(1), mine.double.alone(2)
    assert mine.sync() == ["calendar.created"]
    assert len(starts(mine, one)) == 2
    mine.double.delete(one)
    assert mine.sync() == ["calendar.updated"]
    assert len(starts(mine, two)) == 1
    mine.agree()
    mine.double.delete(two)
    assert mine.sync() == ["calendar.cancelled"]
    mine.agree()
    assert mine.sync(full=True) == []


@pytest.mark.parametrize("full", [True, False])
def test_what_is_left_of_exceptions_when_an_event_no_longer_repeats(mine: Office, full: bool) -> None:
    series = mine.double.insert(**at(9), recurrence=daily(3))
    mine.double.instance(series, 1, **at(17, 1))
    mine.sync()
    mine.double.edit(series, recurrence=None)
    assert mine.sync(full=full) == ["calendar.updated"]
    assert mine.state(series)["etag"] == series.etag
    mine.agree()
    assert mine.sync(full=True) == []


def test_cancelled_instances_that_their_uid_does_not_find(mine: Office) -> None:
    """Not documented, and so not relied on: then everything is compared."""
    series = mine.double.insert(**at(9), recurrence=daily(3))
    mine.sync()
    mine.double.silent_exceptions = True
    mine.double.delete(mine.double.instance(series, 1))
    assert mine.sync() == ["calendar.updated"]
    mine.agree()


@pytest.mark.parametrize("bare", [True, False])
def test_a_cancelled_event_may_say_nothing_but_its_id(mine: Office, bare: bool) -> None:
    mine.double.bare = bare
    event = mine.double.insert(**at(9))
    other = mine.double.insert(**at(10))
    mine.double.delete(other)
    mine.sync()
    mine.double.delete(event)
    [told] = mine.found()
    assert (told.type, told.entity) == ("calendar.cancelled", mine.names.entity(event.id))
    assert told.occurred_at == (None if bare else event.updated)


def test_how_much_a_cancelled_instance_says_makes_no_difference(mine: Office) -> None:
    series = mine.double.insert(**at(9), recurrence=daily(3))
    mine.double.delete(mine.double.instance(series, 1))
    mine.sync()
    mine.double.bare = False
    assert mine.sync(full=True) == []


def test_what_came_and_went_between_two_syncs_leaves_no_trace(mine: Office) -> None:
    mine.sync()
    mine.double.delete(mine.double.insert(**at(9)))
    mine.double.delete(mine.double.insert(**at(9), recurrence=daily(3)))
    assert mine.sync() == []


def test_an_event_that_begins_and_stops_to_repeat(mine: Office) -> None:
    event = mine.double.insert(**at(9))
    mine.sync()
    mine.double.edit(event, recurrence=daily(3))
    assert mine.sync() == ["calendar.updated"]
    mine.double.instance(event, 1, **at(17, 1))
    mine.sync()
    mine.double.edit(event, recurrence=None)
    assert mine.sync() == ["calendar.updated"]
    assert len(starts(mine, event)) == 1
    mine.agree()


@pytest.mark.parametrize("first", ["here", "there"])
def test_an_event_moved_to_another_calendar(mine: Office, first: str) -> None:
    other = team(mine)
    event = mine.double.insert(**at(9))
    mine.sync()
    other.sync()
    mine.double.move(event, TEAM)
    told = {
        "here": lambda: mine.sync() + other.sync(),
        "there": lambda: other.sync() + mine.sync(),
    }[first]()
    assert sorted(told) == ["calendar.cancelled", "calendar.created"]
    mine.agree()
    mine.agree(TEAM)


@pytest.mark.parametrize("first", ["here", "there"])
def test_our_own_event_stays_the_same_entity_when_it_is_moved(mine: Office, first: str) -> None:
    other = team(mine)
    event = mine.double.insert(event=own_event_id("b-1"), **at(9), **mine.booked_for("b-1"))
    mine.sync()
    mine.double.move(event, TEAM)
    if first == "here":
        assert (mine.sync(), other.sync()) == (["calendar.cancelled"], ["calendar.created"])
    else:
        assert (other.sync(), mine.sync()) == (["calendar.updated"], [])
    assert list(mine.desk.states(KIND)) == ["b-1"]
    mine.agree()
    mine.agree(TEAM)


def test_an_event_of_our_own_is_the_entity_it_was_booked_for() -> None:
    with office(scope=WRITE) as mine:
        mine.sync()
        body = {"id": own_event_id("booking-1"), **at(9), **mine.booked_for("booking-1")}
        made = mine.http.ask("POST", f"calendars/{ADDRESS}/events", body=body)
        with pytest.raises(BadInputError, match="409"):
            mine.http.ask("POST", f"calendars/{ADDRESS}/events", body=body)
        [created] = mine.found()
        assert created.entity == "booking-1"
        assert (created.body["etag"], created.body["uid"]) == (made["etag"], mine.desk.pseudonym(made["iCalUID"]))
        event = mine.double.events[ADDRESS][made["id"]]
        mine.double.edit(event, extendedProperties=None)
        assert [fact.entity for fact in mine.found()] == ["booking-1"], "whoever takes the mark off"
        mine.double.delete(event)
        assert [fact.entity for fact in mine.found()] == ["booking-1"]
        mine.double.restore(event)
        assert [fact.entity for fact in mine.found(full=True)] == ["booking-1"]
        mine.double.forget()
        mine.double.delete(event)
        mine.double.purge()
        assert [(fact.entity, fact.type) for fact in mine.found()] == [("booking-1", "calendar.cancelled")]


def test_marks_that_are_none(mine: Office) -> None:
    """A copy has another id, and nobody names an entity into being that is another event's."""
    mine.double.insert(event=own_event_id("b-1"), **at(9), **mine.booked_for("b-1"))
    copy = mine.double.insert(**at(10), **mine.booked_for("b-1"))
    theirs = mine.double.insert(**at(11))
    taken = mine.names.entity(theirs.id)
    forged = mine.double.insert(event="forged0", **at(12), **mine.booked_for(taken, event="somebodyelses"))
    odd = mine.double.insert(**at(13), extendedProperties={"private": {GOOGLE_PROPERTY: 5}})
    none = mine.double.insert(**at(14), extendedProperties=["x"])
    mine.sync()
    named = {mine.names.entity(one.id) for one in (copy, theirs, forged, odd, none)}
    assert mine.desk.states(KIND).keys() == {"b-1", *named}
    mine.agree()


def test_an_entity_that_is_something_else_already_is_left_alone(mine: Office) -> None:
    begun = mine.desk.feed.begin(full=False)
    body = {"calendar": "elsewhere", "uid": "u", "resource": "/elsewhere/u.ics"}
    mine.desk.feed.found(begun.sync, [NewEvent("calendar.created", KIND, "b-2", "e-1", body)])
    event = mine.double.insert(event=own_event_id("b-2"), **at(9), **mine.booked_for("b-2"))
    [told] = mine.found()
    assert told.entity == mine.names.entity(event.id)
    mine.agree()


def test_the_source_feeds_calendar_events(mine: Office) -> None:
    assert mine.source.feeds == (KIND,)
    assert GoogleCalendar().name == "google_calendar"
