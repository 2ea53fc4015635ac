"""What a calendar object resource says, with every time resolved to UTC.

A resource (RFC 4791 §4.1) is one VCALENDAR holding one UID: a master VEVENT and its RECURRENCE-ID overrides. The fold
never sees recurrence rules or time zones, so they are resolved here, once, by ``icalendar`` and
``recurring-ical-events``. The result depends on the text, on ``zone`` and on the time-zone data, never on today's date.

Calendars are written by strangers, so what is expanded is bounded beforehand: the two libraries would follow
``FREQ=SECONDLY`` or a never-matching rule for hours.
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final, NamedTuple

import icalendar
import recurring_ical_events

from headrace.errors import BadInputError
from headrace.producers.ical_lines import relevant_lines
from headrace.producers.ical_reach import reach_of
from headrace.producers.ical_zones import LAST_YEAR
from headrace.producers.marks import ICALENDAR_PROPERTY

MAX_OCCURRENCES: Final = 366
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY: Final = timedelta(days=1)
_YEARS: Final = range(2, LAST_YEAR + 1)
_MAX_SEQUENCE: Final = 2**63 - 1
_STATUSES: Final = frozenset({"confirmed", "tentative", "cancelled"})
# RFC 5545 §3.6.1: MUST NOT occur more than once; the libraries trip over a second one.
_ONCE: Final = ("UID", "DTSTART", "DTEND", "DURATION", "RECURRENCE-ID", "SEQUENCE", "STATUS", "TRANSP")
# A value of these that cannot be read makes the state wrong; of any other property it only loses some text.
_DECIDING: Final = frozenset({*_ONCE, "RRULE", "RDATE", "EXDATE", "ORGANIZER", "ATTENDEE"})
# What the parsing libraries raise on malformed text. Their messages quote it, so none is ever passed on.
_LIBRARY_ERRORS: Final = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError,
)  # fmt: skip
_PARSER_LOCK: Final = threading.Lock()


class CalendarObject(NamedTuple):
    """``body`` fits ``calendar/created.v1.avsc`` but for ``calendar``, ``resource`` and ``etag``, which only the
    caller knows; people and ``uid`` are in clear. ``content`` fits ``calendar/event_content.v1.avsc``. ``mark`` is what
    the object carries as ours, unread (:mod:`headrace.producers.marks`)."""

    uid: str
    body: dict[str, Any]
    content: dict[str, Any]
    occurred_at: str | None
    mark: str | None = None


def parse_calendar_object(text: str, zone: tzinfo = UTC) -> CalendarObject | None:
    """The event in ``text``, or ``None`` when it holds none (a to-do, a journal, a bare time zone).

    ``zone`` is where dates and floating times (RFC 5545 §3.3.5) happen. A series longer than
    :data:`MAX_OCCURRENCES` lists that many; ``unbounded_from`` is the start of the first one left out, or earlier
    where finding it would cost too much.

    :raises BadInputError: it cannot be read; the message names the property and quotes nothing.
    """
    lines = relevant_lines(text)
    if lines is None:
        return None
    calendar = _parse(lines)
    events = calendar.events
    uid = _check(events)
    master = _primary(events)
    try:
        _mend_ends(events, zone)
        occurrences, unbounded_from = _occurrences(calendar, events, master, zone)
        occurred_at = _occurred_at(events)
    except _LIBRARY_ERRORS:
        raise BadInputError("its dates cannot be resolved (DTSTART, DTEND, DURATION, RRULE, RDATE or EXDATE)") from None
    organizer = _address(_values(master, "ORGANIZER"))
    attendees = _attendees(master, events)
    body = {
        "uid": uid,
        "sequence": max(_sequence(event) for event in events),
        "status": _status(master, events),
        "busy": any(_busy(event) for event in events if event is master or not _cancelled(event)),
        "all_day": not isinstance(_start(master), datetime),
        "occurrences": [{"start": start, "end": end} for start, end in occurrences],
        "unbounded_from": unbounded_from,
        "organizer": organizer,
        "attendees": [{"who": who, "response": response} for who, response in attendees.items()],
    }
    mark = _text(master, ICALENDAR_PROPERTY) or None
    return CalendarObject(uid, body, _content(master, organizer, attendees), occurred_at, mark)


def _parse(lines: Sequence[str]) -> icalendar.Calendar:
    # icalendar keeps custom VTIMEZONEs in a cache of the process, where the first definition of a TZID wins: without
    # a new one each time, what an event means would depend on whose event was read before.
    with _PARSER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        icalendar.use_zoneinfo()  # type: ignore[no-untyped-call]
        try:
            # Bytes, because a text without line breaks would be opened as a file.
            parsed = icalendar.Calendar.from_ical("\r\n".join([*lines, ""]).encode())
        except _LIBRARY_ERRORS:
            raise BadInputError("it is not an iCalendar object (RFC 5545)") from None
    if parsed.name != "VCALENDAR":
        raise BadInputError("it is not a VCALENDAR (RFC 5545 §3.4)")
    return parsed


def _check(events: Sequence[icalendar.Event]) -> str:
    for event in events:
        for name, _ in event.errors:
            if name in _DECIDING:
                raise BadInputError(f"its {name} cannot be read")
        for name in _ONCE:
            if isinstance(event.get(name), list):
                raise BadInputError(f"its {name} is given more than once")
        if "DTSTART" not in event:
            raise BadInputError("its DTSTART is missing")
        for name in ("DTSTART", "DTEND", "RECURRENCE-ID"):
            # icalendar reads times of day, durations and periods here, too.
            if name in event and not isinstance(event.get(name).dt, date):
                raise BadInputError(f"its {name} is neither a date nor a date with a time")
        if _start(event).year not in _YEARS:
            raise BadInputError("its DTSTART is out of range")
        if not 0 <= _sequence(event) <= _MAX_SEQUENCE:
            raise BadInputError("its SEQUENCE is out of range")
    uids = {_text(event, "UID") for event in events}
    if len(uids) > 1:
        raise BadInputError("it holds more than one UID (RFC 4791 §4.1)")
    uid = uids.pop()
    if not uid:
        raise BadInputError("its UID is missing")
    return uid


def _mend_ends(events: Sequence[icalendar.Event], zone: tzinfo) -> None:
    """Make ends that cannot be calculated with into ones that can."""
    for event in events:
        start, end, duration = _start(event), event.get("DTEND"), event.get("DURATION")
        if end is not None and _utc(end.dt.replace(year=min(end.dt.year, LAST_YEAR)), zone) < _utc(start, zone):
            # recurring-ical-events would take it for the start, of the whole series. RFC 5545 §3.8.2.2 forbids it.
            del event["DTEND"]
        elif end is not None and end.dt.year > LAST_YEAR:
            # 9999-12-31 is written for "never ends"; a thousand years leave room to convert between time zones.
            event["DTEND"] = icalendar.vDDDTypes(end.dt.replace(year=start.year + 1000, day=min(end.dt.day, 28)))
        if duration is not None and duration.dt < timedelta():
            del event["DURATION"]


def _primary(events: Sequence[icalendar.Event]) -> icalendar.Event:
    """The master; of a series of which we only got single instances, the first of those."""
    masters = [event for event in events if "RECURRENCE-ID" not in event]
    return max(masters or events, key=_sequence)


def _sequence(event: icalendar.Event) -> int:
    return int(event.get("SEQUENCE", 0))


def _status(master: icalendar.Event, events: Sequence[icalendar.Event]) -> str:
    if "RECURRENCE-ID" in master and not all(_cancelled(event) for event in events):
        return "confirmed"
    status = _text(master, "STATUS").lower()
    return status if status in _STATUSES else "confirmed"


def _cancelled(event: icalendar.Component) -> bool:
    return _text(event, "STATUS").upper() == "CANCELLED"


def _busy(event: icalendar.Event) -> bool:
    return _text(event, "TRANSP").upper() != "TRANSPARENT"


def _values(event: icalendar.Component, name: str) -> list[Any]:
    value = event.get(name, [])
    return value if isinstance(value, list) else [value]


def _start(event: icalendar.Component) -> Any:
    return event.get("DTSTART").dt


def _text(event: icalendar.Component, name: str) -> str:
    return next((str(value).strip() for value in _values(event, name)), "")


# People


def _address(values: Sequence[Any]) -> str | None:
    """RFC 5545 §3.3.3: a URI, nearly always ``mailto:``; addresses are compared without regard to case."""
    text = str(values[0]).strip().lower() if values else ""
    return text.removeprefix("mailto:").strip() or None


def _attendees(master: icalendar.Event, events: Sequence[icalendar.Event]) -> dict[str, str]:
    """Who is asked and the answer to the whole series; who is asked to single instances only comes after them."""
    answers: dict[str, str] = {}
    for event in (master, *events):
        for attendee in _values(event, "ATTENDEE"):
            who = _address([attendee])
            if who is not None:
                answers.setdefault(who, str(attendee.params.get("PARTSTAT", "")).lower() or "needs-action")
    return answers


# Words


def _content(master: icalendar.Event, organizer: str | None, attendees: dict[str, str]) -> dict[str, Any]:
    rules = "\n".join(rule.to_ical().decode() for rule in _values(master, "RRULE"))
    zone = master.get("DTSTART").params.get("TZID")
    return {
        "title": _text(master, "SUMMARY") or None,
        "description": _text(master, "DESCRIPTION") or None,
        "location": _text(master, "LOCATION") or None,
        "time_zone": zone or ("UTC" if _tz(master) else None),
        "recurrence": rules or None,
        "people": list(dict.fromkeys([organizer, *attendees] if organizer else attendees)),
    }


def _occurred_at(events: Sequence[icalendar.Event]) -> str | None:
    """When it was last written: LAST-MODIFIED (RFC 5545 §3.8.7.3), else DTSTAMP (§3.8.7.2)."""
    for name in ("LAST-MODIFIED", "DTSTAMP"):
        stamps = [getattr(value, "dt", None) for event in events for value in _values(event, name)]
        times = [_utc(stamp, UTC) for stamp in stamps if isinstance(stamp, datetime)]
        if times:
            return max(times).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return None


# Times


def _utc(when: date, zone: tzinfo) -> datetime:
    if not isinstance(when, datetime):
        when = datetime.combine(when, time.min)
    # A skipped or doubled wall-clock time is read with the offset before the change (RFC 5545 §3.3.5): fold 0.
    return (when if when.tzinfo else when.replace(tzinfo=zone)).astimezone(UTC)


def _epoch_ms(when: date, zone: tzinfo) -> int:
    return (_utc(when, zone) - _EPOCH) // _MILLISECOND


def _interval(start: date, end: date, zone: tzinfo) -> tuple[int, int]:
    start_ms = _epoch_ms(start, zone)
    # An end on the wall clock that follows the start may still precede it in UTC where the clock is put forward.
    return start_ms, max(start_ms, _epoch_ms(end, zone))


def _occurrences(
    calendar: icalendar.Calendar, events: Sequence[icalendar.Event], master: icalendar.Event, zone: tzinfo
) -> tuple[list[tuple[int, int]], int | None]:
    overrides = [event for event in events if event is not master]
    # Occurrences may be taken away again, so that many more are looked for; one more tells that there are more.
    spare = sum(len(value.dts) for value in _values(master, "EXDATE")) + len(overrides) + 2
    reach = reach_of(master, overrides, MAX_OCCURRENCES + spare)
    master.pop("RRULE", None)
    if reach.rules:
        master["RRULE"] = list(reach.rules)
    first, last = _extent(events, zone)
    stop = last if reach.until is None else _utc(reach.until.replace(tzinfo=_tz(master)), zone)
    if reach.complete:
        stop = max(stop, last) + _DAY
    found = sorted(set(_between(calendar, master, first - _DAY, stop, zone)))
    open_from = [_epoch_ms(_start(master), zone)] if reach.everything else []
    if len(found) > MAX_OCCURRENCES:
        open_from.append(found[MAX_OCCURRENCES][0])
    elif not reach.complete:
        open_from.append((stop - _EPOCH) // _MILLISECOND)
    return found[:MAX_OCCURRENCES], min(open_from, default=None)


def _between(
    calendar: icalendar.Calendar, master: icalendar.Event, start: datetime, stop: datetime, zone: tzinfo
) -> Iterator[tuple[int, int]]:
    if _tz(master) is None:
        start, stop = (when.astimezone(zone).replace(tzinfo=None) for when in (start, stop))
    whole = _cancelled(master)
    for occurrence in recurring_ical_events.of(calendar).between(start, stop):
        if whole or not _cancelled(occurrence):
            yield _interval(_start(occurrence), occurrence.get("DTEND").dt, zone)


def _tz(master: icalendar.Event) -> tzinfo | None:
    start = _start(master)
    return start.tzinfo if isinstance(start, datetime) else None


def _extent(events: Sequence[icalendar.Event], zone: tzinfo) -> tuple[datetime, datetime]:
    """From the first to the last time that is written down."""
    times: list[datetime] = []
    for event in events:
        start = _start(event)
        written = [start, *(value.dt for value in _values(event, "DTEND"))]
        written += [start + value.dt for value in _values(event, "DURATION")]
        for value in _values(event, "RDATE"):
            for one in value.dts:
                begin, end = one.dt if isinstance(one.dt, tuple) else (one.dt, one.dt)
                written += [begin, begin + end if isinstance(end, timedelta) else end]
        times += (_utc(when, zone) for when in written)
    return min(times), max(times)
