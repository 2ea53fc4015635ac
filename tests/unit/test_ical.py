"""What a calendar object means in UTC: by hand-made examples, by an oracle, and against hostile text."""

import json
import sys
import time as clock
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import fastavro
import pytest
from fastavro.validation import validate

from headrace.errors import BadInputError
from headrace.producers.ical import MAX_OCCURRENCES, parse_calendar_object
from tests.unit.calendar_text import OK, SERIES, ms, parsed, resource, times

SCHEMAS = Path(__file__).parents[2] / "schemas" / "calendar"
CASES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "utc": (("DTSTART:20260105T090000Z", "DTEND:20260105T100000Z"), ["2026-01-05T09:00/10:00"]),
    "zone": (
        ("DTSTART;TZID=America/New_York:20260105T090000", "DTEND;TZID=America/New_York:20260105T100000"),
        ["2026-01-05T14:00/15:00"],
    ),
    "floating, in the account's zone": (
        ("DTSTART:20260705T090000", "DTEND:20260705T100000"),
        ["2026-07-05T07:00/08:00"],
    ),
    "all day, in the account's zone": (
        ("DTSTART;VALUE=DATE:20260105",),
        ["2026-01-04T23:00/2026-01-05T23:00"],
    ),
    "all day, the day the clock goes forward has 23 hours": (
        ("DTSTART;VALUE=DATE:20260329", "DTEND;VALUE=DATE:20260330"),
        ["2026-03-28T23:00/2026-03-29T22:00"],
    ),
    "two days": (
        ("DTSTART;VALUE=DATE:20260105", "DURATION:P2D"),
        ["2026-01-04T23:00/2026-01-06T23:00"],
    ),
    "duration": (("DTSTART:20260105T090000Z", "DURATION:PT90M"), ["2026-01-05T09:00/10:30"]),
    "no end": (("DTSTART:20260105T090000Z",), ["2026-01-05T09:00/09:00"]),
    "Windows zone name": (
        ("DTSTART;TZID=W. Europe Standard Time:20260705T090000", "DURATION:PT1H"),
        ["2026-07-05T07:00/08:00"],
    ),
    "weekly over the clock going forward": (
        ("DTSTART;TZID=Europe/Berlin:20260322T090000", "DURATION:PT1H", "RRULE:FREQ=WEEKLY;COUNT=2"),
        ["2026-03-22T08:00/09:00", "2026-03-29T07:00/08:00"],
    ),
    "weekly over the clock going back, elsewhere": (
        ("DTSTART;TZID=America/New_York:20261025T090000", "DURATION:PT1H", "RRULE:FREQ=WEEKLY;COUNT=2"),
        ["2026-10-25T13:00/14:00", "2026-11-01T14:00/15:00"],
    ),
    "floating series follows the account's clock": (
        ("DTSTART:20261024T090000", "DURATION:PT1H", "RRULE:FREQ=DAILY;COUNT=2"),
        ["2026-10-24T07:00/08:00", "2026-10-25T08:00/09:00"],
    ),
    "a time the clock skips, read with the offset before": (
        ("DTSTART;TZID=Europe/Berlin:20260329T023000", "DTEND;TZID=Europe/Berlin:20260329T031500"),
        ["2026-03-29T01:30/01:30"],
    ),
    "a time the clock passes twice, the first of them": (
        ("DTSTART;TZID=Europe/Berlin:20261025T023000", "DURATION:PT10M"),
        ["2026-10-25T00:30/00:40"],
    ),
    "exceptions": (
        (
            "DTSTART;TZID=Europe/Berlin:20260105T090000",
            "DURATION:PT1H",
            "RRULE:FREQ=DAILY;COUNT=4",
            "EXDATE;TZID=Europe/Berlin:20260106T090000,20260107T090000",
        ),
        ["2026-01-05T08:00/09:00", "2026-01-08T08:00/09:00"],
    ),
    "exception as a date": (
        ("DTSTART:20260105T090000Z", "RRULE:FREQ=DAILY;COUNT=2", "EXDATE;VALUE=DATE:20260105"),
        ["2026-01-06T09:00/09:00"],
    ),
    "added dates, one with an end of its own, one before the start": (
        (
            "DTSTART:20260105T090000Z",
            "DURATION:PT1H",
            "RDATE:20260107T120000Z,20251231T090000Z",
            "RDATE;VALUE=PERIOD:20260108T090000Z/PT3H",
        ),
        ["2025-12-31T09:00/10:00", "2026-01-05T09:00/10:00", "2026-01-07T12:00/13:00", "2026-01-08T09:00/12:00"],
    ),
    "until, as a date": (
        ("DTSTART;TZID=Europe/Berlin:20260105T090000", "RRULE:FREQ=DAILY;UNTIL=20260107"),
        ["2026-01-05T08:00/08:00", "2026-01-06T08:00/08:00"],
    ),
    "until before the start": (
        ("DTSTART:20260105T090000Z", "RRULE:FREQ=DAILY;UNTIL=20250101T000000Z"),
        [],
    ),
    "never again: no thirtieth of February": (
        ("DTSTART:20260105T090000Z", "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"),
        ["2026-01-05T09:00/09:00"],
    ),
    "no occurrence at all": (("DTSTART:20260105T090000Z", "RRULE:FREQ=DAILY;COUNT=0"), ["2026-01-05T09:00/09:00"]),
    "an end before the start is none": (
        ("DTSTART:20260105T090000Z", "DTEND:20260105T080000Z", "RRULE:FREQ=DAILY;COUNT=2"),
        ["2026-01-05T09:00/09:00", "2026-01-06T09:00/09:00"],
    ),
    "nor is a negative duration": (
        ("DTSTART;VALUE=DATE:20260105", "DURATION:-P3D"),
        ["2026-01-04T23:00/2026-01-05T23:00"],
    ),
    "an end that means never": (
        ("DTSTART:20260105T090000Z", "DTEND:99991231T235959Z"),
        ["2026-01-05T09:00/3026-12-28T23:59"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_times(name: str) -> None:
    lines, expected = CASES[name]
    found = parsed(lines)
    assert times(found) == expected
    assert found.body["unbounded_from"] is None


def override(at: str, *lines: str) -> tuple[str, ...]:
    return (f"RECURRENCE-ID;TZID=Europe/Berlin:{at}", *lines)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            override("20260112T090000", "DTSTART;TZID=Europe/Berlin:20260113T140000", "DURATION:PT2H"),
            ["2026-01-05T08:00/09:00", "2026-01-13T13:00/15:00", "2026-01-19T08:00/09:00"],
            id="moved",
        ),
        pytest.param(
            override("20260112T090000", "DTSTART;TZID=Europe/Berlin:20260112T090000", "STATUS:CANCELLED"),
            ["2026-01-05T08:00/09:00", "2026-01-19T08:00/09:00"],
            id="cancelled",
        ),
        pytest.param(
            override("20260112T090000", "DTSTART:20251201T090000Z", "DTEND:20251201T093000Z"),
            ["2025-12-01T09:00/09:30", "2026-01-05T08:00/09:00", "2026-01-19T08:00/09:00"],
            id="moved before the first",
        ),
        pytest.param(
            override("20260119T090000", "DTSTART:20300101T090000Z", "DTEND:20300101T093000Z"),
            ["2026-01-05T08:00/09:00", "2026-01-12T08:00/09:00", "2030-01-01T09:00/09:30"],
            id="moved far behind the last",
        ),
        pytest.param(
            override("20260601T090000", "DTSTART:20260601T120000Z", "DTEND:20260601T130000Z"),
            ["2026-01-05T08:00/09:00", "2026-01-12T08:00/09:00", "2026-01-19T08:00/09:00", "2026-06-01T12:00/13:00"],
            id="of none of the rule's, taken as one more",
        ),
        pytest.param(
            (
                "RECURRENCE-ID;RANGE=THISANDFUTURE;TZID=Europe/Berlin:20260112T090000",
                "DTSTART;TZID=Europe/Berlin:20260112T100000",
                "DURATION:PT1H",
            ),
            ["2026-01-05T08:00/09:00", "2026-01-12T09:00/10:00", "2026-01-19T09:00/10:00"],
            id="this and those to come",
        ),
    ],
)
def test_overrides(change: tuple[str, ...], expected: list[str]) -> None:
    assert times(parsed(SERIES, change)) == expected
    assert times(parsed(change, SERIES)) == expected, "their order in the text means nothing"


def test_single_instances_without_their_series() -> None:
    one = override("20260112T090000", "DTSTART:20260112T080000Z", "SUMMARY:only this", "STATUS:TENTATIVE")
    two = override("20260119T090000", "DTSTART:20260119T080000Z", "STATUS:CANCELLED")
    found = parsed(one, two)
    assert times(found) == ["2026-01-12T08:00/08:00"]
    assert (found.body["status"], found.content["title"]) == ("confirmed", "only this")
    assert parsed(two).body["status"] == "cancelled"


@pytest.mark.parametrize(
    ("rule", "listed", "unbounded_from"),
    [
        ("FREQ=DAILY", MAX_OCCURRENCES, "2027-01-06T08:00"),
        ("FREQ=DAILY;COUNT=-1", MAX_OCCURRENCES, "2027-01-06T08:00"),
        ("FREQ=DAILY;COUNT=366", MAX_OCCURRENCES, None),
        ("FREQ=DAILY;COUNT=367", MAX_OCCURRENCES, "2027-01-06T08:00"),
        ("FREQ=DAILY;UNTIL=99991231T235959Z", MAX_OCCURRENCES, "2027-01-06T08:00"),
        ("FREQ=WEEKLY;BYDAY=MO,WE", MAX_OCCURRENCES, "2029-07-09T07:00"),
        ("FREQ=YEARLY;UNTIL=20300101T000000Z", 4, None),
        ("FREQ=SECONDLY", MAX_OCCURRENCES, "2026-01-05T08:06:06"),
        # Following it would cost too much: anything after the start may be meant.
        ("FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30", 1, "2026-01-05T08:00"),
        # 29 February on a Sunday: what is found in 400 years and more, and all that may come after them.
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=SU", 26, "2799-12-30T23:00"),
    ],
)
def test_long_series(rule: str, listed: int, unbounded_from: str | None) -> None:
    found = parsed(("DTSTART;TZID=Europe/Berlin:20260105T090000", "DURATION:PT1H", f"RRULE:{rule}"))
    assert len(found.body["occurrences"]) == listed
    assert found.body["unbounded_from"] == (unbounded_from and ms(unbounded_from))


def test_unbounded_from_looks_past_exceptions() -> None:
    gaps = ",".join(f"202601{day:02}T090000Z" for day in range(6, 16))
    found = parsed(("DTSTART:20260105T090000Z", "RRULE:FREQ=DAILY", f"EXDATE:{gaps}"))
    assert len(found.body["occurrences"]) == MAX_OCCURRENCES
    assert found.body["unbounded_from"] == ms("2027-01-16T09:00")


def test_everything_else_it_says() -> None:
    found = parsed(
        (
            "DTSTART;TZID=Europe/Berlin:20260105T090000",
            "RRULE:FREQ=WEEKLY;COUNT=2",
            "SEQUENCE:3",
            "STATUS:TENTATIVE",
            "TRANSP:TRANSPARENT",
            "SUMMARY:Review\\, again",
            "DESCRIPTION:long",
            " er than a line",
            "LOCATION:Room 1",
            'ORGANIZER;CN="Boss, The":MAILTO:Boss@Example.com',
            "ATTENDEE;PARTSTAT=ACCEPTED:mailto:Ann@Example.com",
            "ATTENDEE:mailto:bob@example.com",
            "ATTENDEE;PARTSTAT=DECLINED:urn:uuid:1",
            "LAST-MODIFIED:20260104T120000Z",
        ),
        (
            "RECURRENCE-ID;TZID=Europe/Berlin:20260112T090000",
            "DTSTART:20260112T100000Z",
            "SEQUENCE:5",
            "TRANSP:TRANSPARENT",
            "ATTENDEE;PARTSTAT=DECLINED:mailto:ann@example.com",
            "ATTENDEE;PARTSTAT=TENTATIVE:mailto:guest@example.com",
            "LAST-MODIFIED:20260104T120001Z",
        ),
    )
    assert found.uid == "u1@example.com"
    assert found.occurred_at == "2026-01-04T12:00:01.000Z"
    assert {name: value for name, value in found.body.items() if name != "occurrences"} == {
        "uid": "u1@example.com",
        "sequence": 5,
        "status": "tentative",
        "busy": False,
        "all_day": False,
        "unbounded_from": None,
        "organizer": "boss@example.com",
        "attendees": [
            {"who": "ann@example.com", "response": "accepted"},
            {"who": "bob@example.com", "response": "needs-action"},
            {"who": "urn:uuid:1", "response": "declined"},
            {"who": "guest@example.com", "response": "tentative"},
        ],
    }
    assert found.content == {
        "title": "Review, again",
        "description": "longer than a line",
        "location": "Room 1",
        "time_zone": "Europe/Berlin",
        "recurrence": "FREQ=WEEKLY;COUNT=2",
        "people": ["boss@example.com", "ann@example.com", "bob@example.com", "urn:uuid:1", "guest@example.com"],
    }


def test_defaults_and_dates() -> None:
    found = parsed(("DTSTART;VALUE=DATE:20260105",))
    assert (found.body["all_day"], found.body["busy"], found.body["status"]) == (True, True, "confirmed")
    assert (found.body["sequence"], found.body["organizer"], found.body["attendees"]) == (0, None, [])
    assert found.occurred_at == "2026-01-01T00:00:00.000Z", "DTSTAMP where there is no LAST-MODIFIED"
    assert parsed(("DTSTART:20260105T090000Z", "STATUS:CANCELLED")).body["status"] == "cancelled"
    assert found.content["time_zone"] is None
    assert parsed(("DTSTART:20260105T090000Z",)).content["time_zone"] == "UTC"


def test_a_cancelled_instance_takes_no_time() -> None:
    free = (*SERIES, "TRANSP:TRANSPARENT")
    gone = ("RECURRENCE-ID;TZID=Europe/Berlin:20260112T090000", "DTSTART:20260112T080000Z", "STATUS:CANCELLED")
    kept = (gone[0], "DTSTART:20260112T080000Z")
    assert [parsed(free).body["busy"], parsed(free, gone).body["busy"], parsed(free, kept).body["busy"]] == [
        False,
        False,
        True,
    ]


def test_fits_the_schemas() -> None:
    created = fastavro.parse_schema(json.loads((SCHEMAS / "created.v1.avsc").read_text()))
    content = fastavro.parse_schema(json.loads((SCHEMAS / "event_content.v1.avsc").read_text()))
    for lines, _ in CASES.values():
        found = parsed(lines)
        body = {"calendar": "c", "resource": "r", "etag": None, "content_key": None, "content": None, **found.body}
        assert validate(body, created, strict=True, raise_errors=True)
        assert validate(found.content, content, strict=True, raise_errors=True)


@pytest.mark.parametrize("name", ["VTODO", "VJOURNAL", "VFREEBUSY"])
def test_what_is_no_event(name: str) -> None:
    text = resource().replace("END:VCALENDAR", f"BEGIN:{name}\r\nUID:1\r\nEND:{name}\r\nEND:VCALENDAR")
    assert parse_calendar_object(text) is None
    assert parse_calendar_object(resource()) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "VCALENDAR"),
        ("/etc/passwd", "VCALENDAR"),
        ("BEGIN:VCARD\r\nEND:VCARD\r\n", "VCALENDAR"),
        (resource(OK)[: -len("END:VCALENDAR\r\n")], "VCALENDAR"),
        (resource(OK).replace("END:VEVENT", "END:VTODO"), "BEGIN and END"),
        (resource(()), "DTSTART"),
        (resource(("DTSTART:tomorrow",)), "DTSTART"),
        (resource(("DTSTART:00010101T000000Z",)), "DTSTART"),
        (resource(("DTSTART:120000",)), "DTSTART"),
        (resource((*OK, "DTEND;VALUE=PERIOD:20260105T090000Z/PT1H")), "DTEND"),
        (resource((*OK, *OK)), "DTSTART"),
        (resource(OK).replace("UID:u1@example.com\r\n", ""), "UID"),
        (resource(OK, OK).replace("UID:u1", "UID:other", 1), "UID"),
        (resource((*OK, "DTEND:later")), "DTEND"),
        (resource((*OK, "DURATION:long")), "DURATION"),
        (resource((*OK, "DURATION:P4000000D")), "DURATION"),
        (resource((*OK, "RRULE:FREQ=FORTNIGHTLY")), "RRULE"),
        (resource((*OK, "RRULE:COUNT=2")), "RRULE"),
        (resource((*OK, "RRULE:FREQ=DAILY;INTERVAL=0")), "RRULE"),
        (resource((*OK, "EXDATE:never")), "EXDATE"),
        (resource((*OK, "RECURRENCE-ID:sometime")), "RECURRENCE-ID"),
        (resource((*OK, "SEQUENCE:99999999999999999999")), "SEQUENCE"),
        (resource((*OK, "SEQUENCE:-1")), "SEQUENCE"),
        (resource((*OK, "SEQUENCE:one")), "SEQUENCE"),
    ],
)
def test_what_cannot_be_read_is_named_and_not_quoted(text: str, named: str) -> None:
    with pytest.raises(BadInputError, match=named) as caught:
        parse_calendar_object(text)
    assert "u1@example.com" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_nobody_asks_for_makes_nothing_unreadable() -> None:
    alarm = ("BEGIN:VALARM", "TRIGGER:whenever", "DTSTART:20990101T000000Z", "END:VALARM")
    odd = ("a line broken by its writer", "X-JUNK;=;:", "CREATED:once", "ATTACH;ENCODING=BASE64:" + "A" * 3_000_000)
    assert times(parsed((*OK, *odd, *alarm))) == ["2026-01-05T09:00/09:00"]


def test_the_clock_is_never_read() -> None:
    read: list[str] = []

    def watch(_frame: FrameType, happening: str, called: Any) -> None:
        owner = getattr(called, "__self__", None)
        clocks = owner is clock or (isinstance(owner, type) and issubclass(owner, date))
        if happening == "c_call" and clocks and called.__name__ in {"now", "today", "utcnow", "time", "time_ns"}:
            read.append(called.__name__)

    text = resource((*SERIES[:2], "RRULE:FREQ=WEEKLY", "EXDATE:20260112T080000Z"))
    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        datetime.now(UTC)
        parse_calendar_object(text)
    finally:
        sys.setprofile(previous)
    assert read == ["now"], "only the one that proves the watch works"
