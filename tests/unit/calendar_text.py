"""iCalendar texts to test with, and a way to read the times they come to."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from headrace.producers.ical import CalendarObject, parse_calendar_object

OK = ("DTSTART:20260105T090000Z",)
SERIES = ("DTSTART;TZID=Europe/Berlin:20260105T090000", "DURATION:PT1H", "RRULE:FREQ=WEEKLY;COUNT=3")
CUSTOM_ZONE = (
    "BEGIN:VTIMEZONE",
    "TZID:Head Office",
    "BEGIN:STANDARD",
    "DTSTART:16010101T030000",
    "RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU",
    "TZOFFSETFROM:+0300",
    "TZOFFSETTO:+0200",
    "END:STANDARD",
    "BEGIN:DAYLIGHT",
    "DTSTART:16010101T020000",
    "RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU",
    "TZOFFSETFROM:+0200",
    "TZOFFSETTO:+0300",
    "END:DAYLIGHT",
    "END:VTIMEZONE",
)


BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")


def resource(*events: tuple[str, ...], before: tuple[str, ...] = ()) -> str:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//", *before]
    for event in events:
        lines += ["BEGIN:VEVENT", "UID:u1@example.com", "DTSTAMP:20260101T000000Z", *event, "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""])


def parsed(*events: tuple[str, ...], zone: ZoneInfo = BERLIN, before: tuple[str, ...] = ()) -> CalendarObject:
    found = parse_calendar_object(resource(*events, before=before), zone)
    assert found is not None
    return found


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def times(found: CalendarObject) -> list[str]:
    """``2026-03-29T07:00/08:00`` and so on, in UTC, the end without its date when that is the same."""

    def moment(value: int) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)

    shown = []
    for one in found.body["occurrences"]:
        start, end = moment(one["start"]), moment(one["end"])
        pattern = "%H:%M" if start.date() == end.date() else "%Y-%m-%dT%H:%M"
        shown.append(f"{start:%Y-%m-%dT%H:%M}/{end:{pattern}}")
    return shown
