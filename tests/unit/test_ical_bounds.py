"""Calendar text from strangers: an oracle, hostile input, and text broken at random."""

import time as clock
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError
from headrace.producers.ical import MAX_OCCURRENCES, parse_calendar_object
from tests.unit.calendar_text import BERLIN, CUSTOM_ZONE, NEW_YORK, OK, SERIES, parsed, resource


def many(count: int, pattern: Callable[[int], str]) -> str:
    return ",".join(pattern(number) for number in range(count))


def second(number: int) -> str:
    return f"{datetime(2026, 1, 5, 9, tzinfo=UTC) + timedelta(seconds=number):%Y%m%dT%H%M%SZ}"


def zone_with(rule: str) -> tuple[str, ...]:
    return tuple(f"RRULE:{rule}" if line.startswith("RRULE") else line for line in CUSTOM_ZONE)


HOSTILE: dict[str, str] = {
    "a million added dates": resource((*OK, "RDATE:" + many(1_000_000, lambda _: "20260105T090000Z"))),
    "ten thousand added dates": resource((*OK, "RDATE:" + many(10_000, second))),
    "ten thousand exceptions": resource((*OK, "RRULE:FREQ=SECONDLY", "EXDATE:" + many(10_000, second))),
    "exceptions that leave nothing": resource((*OK, "RRULE:FREQ=SECONDLY", "EXDATE;VALUE=DATE:20260105")),
    "every second, far off as well": resource((*OK, "RRULE:FREQ=SECONDLY", "RDATE:20990101T000000Z")),
    "every second, moved for ever": resource(
        (*OK, "RRULE:FREQ=SECONDLY"),
        ("RECURRENCE-ID;RANGE=THISANDFUTURE:20260105T090100Z", "DTSTART:19700101T000000Z"),
    ),
    "every second since long before the start": resource((*OK, "RRULE:FREQ=SECONDLY", "DTEND:19700101T000000Z")),
    "every second of every day": resource((
        *OK,
        "RRULE:FREQ=DAILY;BYHOUR=" + many(24, str) + ";BYMINUTE=" + many(60, str) + ";BYSECOND=" + many(60, str),
    )),
    "too many rules": resource((*OK, *["RRULE:FREQ=SECONDLY"] * 100)),
    "a huge step": resource((*OK, "RRULE:FREQ=DAILY;INTERVAL=999999999")),
    "too many overrides": resource(OK, *[("RECURRENCE-ID:" + second(n), *OK) for n in range(2_000)]),
    "a thousand overrides": resource(
        (*OK, "RRULE:FREQ=DAILY"), *[("RECURRENCE-ID:" + second(n * 86_400), *OK) for n in range(990)]
    ),
    "nothing but nesting": "BEGIN:VCALENDAR\r\n" + "BEGIN:VEVENT\r\n" * 100_000 + "END:VEVENT\r\n" * 100_000,
    "a zone that changes every second": resource(
        ("DTSTART;TZID=Head Office:20260105T090000",), before=zone_with("FREQ=SECONDLY")
    ),
    "a zone of a thousand changes": resource(
        ("DTSTART;TZID=Head Office:20260105T090000", "RRULE:FREQ=DAILY"),
        before=(*CUSTOM_ZONE[:2], *CUSTOM_ZONE[2:8] * 1_000, CUSTOM_ZONE[-1]),
    ),
    "a zone that changes every Sunday": resource(
        ("DTSTART;TZID=Head Office:20260105T090000", "RRULE:FREQ=DAILY"), before=zone_with("FREQ=YEARLY;BYDAY=SU")
    ),
    "a zone at the end of its days": resource(
        ("DTSTART;TZID=Head Office:49990105T090000", "RRULE:FREQ=DAILY"), before=CUSTOM_ZONE
    ),
    "the last year there is": resource(("DTSTART:99891231T235959Z", "RRULE:FREQ=DAILY")),
    "long text": resource((*OK, "DESCRIPTION:" + "x" * 2_000_000)),
    "blank lines": resource(OK) + "\r\n" * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_little(name: str) -> None:
    began = clock.process_time()
    try:
        found = parse_calendar_object(HOSTILE[name])
    except BadInputError:
        found = None
    assert clock.process_time() - began < 5, "bounded, with room for a slow machine"
    assert found is None or len(found.body["occurrences"]) <= MAX_OCCURRENCES


# What a wall clock shows has no time zone.
wall_clocks = st.integers(0, 100 * 365 * 24 * 60).map(
    lambda minute: datetime.fromisoformat("1980-01-01") + timedelta(minutes=minute)
)


@given(
    start=wall_clocks,
    zone=st.sampled_from([BERLIN, NEW_YORK, ZoneInfo("Asia/Kathmandu"), ZoneInfo("UTC")]),
    step=st.sampled_from([("DAILY", timedelta(days=1)), ("WEEKLY", timedelta(weeks=1))]),
    interval=st.integers(1, 40),
    count=st.integers(1, 400),
    minutes=st.integers(0, 3000),
    left_out=st.sets(st.integers(0, 20), max_size=5),
    floating=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_adding_days(  # noqa: PLR0917
    start: datetime,
    zone: ZoneInfo,
    step: tuple[str, timedelta],
    interval: int,
    count: int,
    minutes: int,
    left_out: set[int],
    floating: bool,
) -> None:
    tzid = "" if floating else f";TZID={zone.key}"
    starts = [start + number * interval * step[1] for number in range(count)]
    lines = [
        f"DTSTART{tzid}:{start:%Y%m%dT%H%M%S}",
        f"DURATION:PT{minutes}M",
        f"RRULE:FREQ={step[0]};INTERVAL={interval};COUNT={count}",
        *(f"EXDATE{tzid}:{starts[number]:%Y%m%dT%H%M%S}" for number in left_out if number < count),
    ]
    found = parsed(tuple(lines), zone=zone)
    expected = []
    for number, one in enumerate(starts):
        if number not in left_out:
            begin, end = (
                round(when.replace(tzinfo=zone).timestamp() * 1000) for when in (one, one + timedelta(minutes=minutes))
            )
            expected.append({"start": begin, "end": max(begin, end)})
    assert found.body["occurrences"] == expected[:MAX_OCCURRENCES]
    more = expected[MAX_OCCURRENCES:]
    assert found.body["unbounded_from"] == (more[0]["start"] if more else None)


SAID = (
    "DTSTART;VALUE=DATE:20260105",
    "DTEND;TZID=America/New_York:20260105T100000",
    "DURATION:P2D",
    "EXDATE;VALUE=DATE:20260105",
    "RDATE;VALUE=PERIOD:20260108T090000Z/PT3H",
    "RDATE:20260107T120000Z,20251231T090000Z",
    "RRULE:FREQ=DAILY;UNTIL=20260107",
    "RECURRENCE-ID;RANGE=THISANDFUTURE:20260112T080000Z",
    "STATUS:CANCELLED",
    "SEQUENCE:3",
    "ATTENDEE;PARTSTAT=ACCEPTED:mailto:ann@example.com",
)
PIECES = [*CUSTOM_ZONE, *SERIES, *SAID, "BEGIN:VEVENT", "END:VEVENT"]


@given(
    lines=st.lists(st.sampled_from(PIECES), max_size=12),
    cut=st.integers(0, 400),
    put=st.text(alphabet=';:=,\r\n TZ0-9A\\"\x00é', max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(lines: list[str], cut: int, put: str) -> None:
    text = resource(tuple(lines))
    text = text[:cut] + put + text[cut:]
    try:
        first = parse_calendar_object(text, BERLIN)
    except BadInputError:
        return
    assert parse_calendar_object(text, BERLIN) == first
    if first is not None:
        listed = first.body["occurrences"]
        assert listed == sorted(listed, key=lambda one: (one["start"], one["end"]))
        assert all(one["start"] <= one["end"] for one in listed)
