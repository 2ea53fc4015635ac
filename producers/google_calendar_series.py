"""What the parts of a Google event come to: the event or series as the log speaks of it, with every time in UTC.

Google keeps the exceptions of a series as events of their own, each with the start that it has instead
(https://developers.google.com/workspace/calendar/api/concepts/events-calendars#instances_and_exceptions). On the log a
series is one entity, so its rule is followed without the starts that have an exception, and what the exceptions say is
added.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from headrace.errors import BadInputError
from headrace.producers.google_calendar_api import CALENDAR, Item, When
from headrace.producers.ical import MAX_OCCURRENCES, CalendarObject, parse_calendar_object
from headrace.schemas.envelope import normal_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MOST_PARTS: Final = 10_000
_MAX_SEQUENCE: Final = 2**63 - 1
_RULE: Final = re.compile(r"(?:RRULE|RDATE|EXDATE)[;:][^\x00-\x1f\x7f\x85\u2028\u2029]*\Z")
"""The kinds of line that ``recurrence`` holds and that are followed. EXRULE has gone from RFC 5545."""
_RESPONSES: Final = {"needsAction": "needs-action"}
_STATUSES: Final = frozenset({"confirmed", "tentative"})


class Series:
    """What an event consists of, its parts in any order: a single event, or a master and its exceptions; of a series
    to which somebody is only asked now and then, the exceptions alone."""

    def __init__(self, parts: Iterable[Item]) -> None:
        parts = tuple(parts)
        self.master: Final = next((one for one in parts if one.master is None and not one.cancelled), None)
        repeats = self.master is None or bool(self.master.recurrence)
        self.exceptions: Final = sorted(
            (one for one in parts if repeats and one.master is not None), key=lambda one: one.id
        )
        shown = (one for one in self.exceptions if not one.cancelled)
        self.told: Final = [*([self.master] if self.master is not None else []), *shown]

    @property
    def version(self) -> str | None:
        """The master's etag where it stands alone, else it also tells the exceptions apart; see :func:`if_match`.
        ``None`` when nothing is left of it, or Google gives no etag."""
        if not self.told or not self.exceptions:
            return self.told[0].etag if self.told else None
        said = [[one.id, None if one.cancelled else one.etag] for one in self.exceptions]
        return f"{self.told[0].etag or ''}+{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}"


def zone_of(name: str) -> ZoneInfo:
    """The zone of this IANA name.

    :raises BadInputError: the time-zone data here do not know it.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError: below
        raise BadInputError("its time zone is no IANA name") from None
    except KeyError:
        raise BadInputError("its time zone is not in the time-zone data here; update tzdata") from None


def if_match(version: str) -> str:
    """The etag to send in ``If-Match`` for what the log holds as an event's version."""
    return version.partition("+")[0]


def assembled(series: Series, zone: ZoneInfo) -> CalendarObject | None:
    """The event as the log speaks of it, ``None`` when nothing is left of it. ``zone`` is the calendar's: where its
    dates happen.

    :raises BadInputError: its times or its rule cannot be resolved.
    """
    if len(series.exceptions) > _MOST_PARTS:
        raise BadInputError(f"it has more exceptions than {_MOST_PARTS}")
    told = series.told
    if not told:
        return None
    leading = told[0]
    try:
        times, unbounded_from = _occurrences(series.master, series.exceptions, zone)
    except (ValueError, OverflowError, TypeError):
        raise BadInputError("its start, end or original start cannot be resolved") from None
    organizer = _address(leading.body.get("organizer"))
    attendees = _attendees(told)
    body = {
        "uid": leading.uid,
        "sequence": max(_sequence(one) for one in told),
        "status": _status(leading) if leading is series.master else "confirmed",
        "busy": any(one.body.get("transparency") != "transparent" for one in told),
        "all_day": leading.start is not None and leading.start.date is not None,
        "occurrences": [{"start": start, "end": end} for start, end in times],
        "unbounded_from": unbounded_from,
        "organizer": organizer,
        "attendees": [{"who": who, "response": response} for who, response in attendees.items()],
    }
    return CalendarObject(str(leading.uid), body, _content(leading, organizer, attendees), _updated(told))


# Times


def _occurrences(
    master: Item | None, exceptions: Sequence[Item], zone: ZoneInfo
) -> tuple[list[tuple[int, int]], int | None]:
    times = [_interval(one, zone) for one in exceptions if not one.cancelled]
    unbounded_from: int | None = None
    if master is not None and not master.recurrence:
        times.append(_interval(master, zone))
    elif master is not None:
        ruled = parse_calendar_object("\r\n".join(_lines(master, exceptions, zone)), zone)
        if ruled is not None:
            times += [(one["start"], one["end"]) for one in ruled.body["occurrences"]]
            unbounded_from = ruled.body["unbounded_from"]
    found = sorted(set(times))
    if len(found) > MAX_OCCURRENCES:
        left_out = found[MAX_OCCURRENCES][0]
        unbounded_from = left_out if unbounded_from is None else min(unbounded_from, left_out)
    return found[:MAX_OCCURRENCES], unbounded_from


def _interval(item: Item, zone: ZoneInfo) -> tuple[int, int]:
    start = _utc(item.start, zone)
    end = _utc(item.end, zone)
    first = (start - _EPOCH) // _MILLISECOND
    return first, max(first, (end - _EPOCH) // _MILLISECOND)


def _utc(when: When | None, zone: ZoneInfo) -> datetime:
    """A date is its first moment in ``zone``."""
    if when is None:
        raise ValueError
    if when.date is not None:
        return datetime.strptime(when.date, "%Y-%m-%d").replace(tzinfo=zone).astimezone(UTC)
    moment = datetime.fromisoformat(when.moment or "")
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=_own(when, zone))).astimezone(UTC)


def _own(when: When, zone: ZoneInfo) -> ZoneInfo:
    return zone_of(when.zone) if when.zone is not None else zone


def _lines(master: Item, exceptions: Sequence[Item], zone: ZoneInfo) -> Iterator[str]:
    """The master as a VEVENT (RFC 5545), each start that has an exception left out (EXDATE)."""
    if master.start is None or master.end is None:
        raise ValueError
    whole_days = master.start.date is not None
    own = _own(master.start, zone)

    def stamped(name: str, when: When) -> str:
        if whole_days:
            local = _utc(when, zone).astimezone(zone) if when.date is None else datetime.fromisoformat(when.date)
            return f"{name};VALUE=DATE:{local:%Y%m%d}"
        local = _utc(when, own).astimezone(own)
        return f"{name};TZID={own.key}:{local:%Y%m%dT%H%M%S}"

    yield from ("BEGIN:VCALENDAR", "BEGIN:VEVENT", "UID:series")
    yield stamped("DTSTART", master.start)
    yield stamped("DTEND", master.end)
    yield from (line for line in master.recurrence if _RULE.match(line))
    yield from (stamped("EXDATE", one.original) for one in exceptions if one.original is not None)
    yield from ("END:VEVENT", "END:VCALENDAR", "")


# People and words


def _address(said: Any) -> str | None:
    """The address of a person object; some hold but a name."""
    found = CALENDAR.optional_text(said, "email") if said is not None else None
    return (found.strip().lower() or None) if found is not None else None


def _attendees(told: Sequence[Item]) -> dict[str, str]:
    """Who is asked and the answer to the whole series; who is asked to single instances only comes after them."""
    answers: dict[str, str] = {}
    for item in told:
        for one in CALENDAR.some(item.body, "attendees"):
            who = _address(one)
            if who is not None:
                said = CALENDAR.optional_text(one, "responseStatus") or "needsAction"
                answers.setdefault(who, _RESPONSES.get(said, said.lower()))
    return answers


def _status(item: Item) -> str:
    status = item.body.get("status")
    return status if isinstance(status, str) and status in _STATUSES else "confirmed"


def _sequence(item: Item) -> int:
    sequence = item.body.get("sequence", 0)
    usable = isinstance(sequence, int) and not isinstance(sequence, bool) and 0 <= sequence <= _MAX_SEQUENCE
    return int(sequence) if usable else 0


def _updated(told: Sequence[Item]) -> str | None:
    """When it was last changed; Google leaves this as it is where only a reminder was."""
    return max((moment for moment in map(updated, told) if moment is not None), default=None)


def updated(item: Item) -> str | None:
    """When it was last changed, as far as it says."""
    said = item.body.get("updated")
    if not isinstance(said, str):
        return None
    try:
        return normal_time(said)
    except BadInputError:
        return None


def _content(item: Item, organizer: str | None, attendees: dict[str, str]) -> dict[str, Any]:
    def said(field: str) -> str | None:
        return CALENDAR.optional_text(item.body, field)

    start = item.start
    zone = start.zone or ("UTC" if start.moment is not None else None) if start is not None else None
    return {
        "title": said("summary"),
        "description": said("description"),
        "location": said("location"),
        "time_zone": zone,
        "recurrence": "\n".join(line for line in item.recurrence if line.startswith("RRULE")) or None,
        "people": list(dict.fromkeys([organizer, *attendees] if organizer else attendees)),
    }
