"""Time zones that a calendar brings along."""

import datetime as dt_module
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.errors import BadInputError
from headrace.producers.ical import parse_calendar_object
from tests.unit.calendar_text import CUSTOM_ZONE, parsed, resource, times


def test_zone_defined_in_the_calendar() -> None:
    event = ("DTSTART;TZID=Head Office:20260322T090000", "DURATION:PT1H", "RRULE:FREQ=WEEKLY;COUNT=2")
    found = parsed(event, before=CUSTOM_ZONE)
    assert times(found) == ["2026-03-22T07:00/08:00", "2026-03-29T06:00/07:00"]
    assert found.content["time_zone"] == "Head Office"


def test_a_zone_that_everybody_knows_is_not_read_from_the_calendar() -> None:
    known = tuple(line.replace("Head Office", "Europe/Berlin").replace("YEARLY", "SECONDLY") for line in CUSTOM_ZONE)
    event = ("DTSTART;TZID=Europe/Berlin:20260705T090000",)
    assert times(parsed(event, before=known)) == ["2026-07-05T07:00/07:00"]


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [
        ("FREQ=YEARLY", True),
        ("FREQ=YEARLY;INTERVAL=1;BYMONTH=10;BYDAY=-1SU;WKST=MO", True),
        ("FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=8,9,10,11,12,13,14;BYDAY=SU;UNTIL=20300101T000000Z", True),
        ("FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=21", True),
        ("FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=21,22", False),
        ("FREQ=YEARLY;BYMONTH=3,4;BYDAY=-1SU", False),
        ("FREQ=YEARLY;BYMONTH=3;BYDAY=SU", False),
        ("FREQ=YEARLY;BYDAY=1SU", False),
        ("FREQ=YEARLY;BYHOUR=1,2", False),
        ("FREQ=DAILY", False),
    ],
)
def test_a_zone_changes_at_most_once_a_year_by_each_rule(rule: str, accepted: bool) -> None:
    zone = tuple(f"RRULE:{rule}" if line.startswith("RRULE") else line for line in CUSTOM_ZONE)
    text = resource(("DTSTART;TZID=Head Office:20260705T090000",), before=zone)
    if accepted:
        assert parse_calendar_object(text) is not None
    else:
        with pytest.raises(BadInputError, match="VTIMEZONE"):
            parse_calendar_object(text)


def test_two_calendars_may_mean_different_things_by_one_zone_name() -> None:
    """icalendar keeps the first definition it meets in a cache of the process; ours must not depend on the order."""
    event = ("DTSTART;TZID=Head Office:20260705T090000",)
    east = tuple(line.replace("+0300", "+0800").replace("+0200", "+0800") for line in CUSTOM_ZONE)
    assert [times(parsed(event, before=zone)) for zone in (CUSTOM_ZONE, east, CUSTOM_ZONE)] == [
        ["2026-07-05T06:00/06:00"],
        ["2026-07-05T01:00/01:00"],
        ["2026-07-05T06:00/06:00"],
    ]
    assert times(parsed(event)) == ["2026-07-05T07:00/07:00"], "without a definition the time floats"


def test_todays_date_means_nothing_to_a_zone_of_the_calendars_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """dateutil reads the clock, for what a zone's onset leaves out. It leaves nothing out."""
    onset = tuple(
        line.replace("DTSTART:16010101T020000", "DTSTART;VALUE=DATE:16010101").replace(
            "3;BYDAY", "3;UNTIL=20300101;BYDAY"
        )
        for line in CUSTOM_ZONE
    )
    event = ("DTSTART;TZID=Head Office:20260322T090000", "DURATION:PT1H", "RRULE:FREQ=WEEKLY")

    class Elsewhen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Elsewhen":
            return cls(2031, 8, 29, 23, 59, 58, tzinfo=tz)

    today = parsed(event, before=onset)
    monkeypatch.setattr(
        "dateutil.parser._parser.datetime", SimpleNamespace(**{**vars(dt_module), "datetime": Elsewhen})
    )
    assert parsed(event, before=onset) == today
