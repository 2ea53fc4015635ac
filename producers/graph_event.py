"""What a calendar event says, as Graph shows it: times come in UTC and occurrences one by one, for whoever asks.

A series is its master and those of its occurrences that are in the window that is looked at.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from headrace.producers.graph_api import GRAPH, address, moment, text, yes
from headrace.producers.ical import CalendarObject
from headrace.producers.marks import GRAPH_PROPERTY
from headrace.schemas.envelope import rfc3339

SELECT: Final = (
    "id,type,seriesMasterId,iCalUId,changeKey,subject,bodyPreview,location,start,end,isAllDay,isCancelled,showAs,"
    "organizer,attendees,responseStatus,lastModifiedDateTime,recurrence,originalStartTimeZone,transactionId"
)
EXPAND: Final = f"singleValueExtendedProperties($filter=id eq '{GRAPH_PROPERTY}')"
"""The mark of headrace's own events: without being asked for it is not shown
(https://learn.microsoft.com/graph/api/singlevaluelegacyextendedproperty-get)."""
UTC_TIMES: Final = 'outlook.timezone="UTC"'
"""Without it times come in it, too; it is asked for all the same."""
_UTC_NAMES: Final = frozenset({"UTC", "Etc/UTC", "Etc/GMT", "tzone://Microsoft/Utc"})
_ANSWERS: Final = {
    "organizer": "accepted",
    "accepted": "accepted",
    "declined": "declined",
    "tentativelyAccepted": "tentative",
}
"""As PARTSTAT (RFC 5545, section 3.2.12); any other answer is none yet."""
_NOT_BUSY: Final = frozenset({"free", "workingElsewhere"})
_IN_SERIES: Final = frozenset({"occurrence", "exception"})
_LAST_MS: Final = 253_402_300_800_000
_DAYS: Final = {
    "daily": 1,
    "weekly": 7,
    "absoluteMonthly": 31,
    "relativeMonthly": 31,
    "absoluteYearly": 366,
    "relativeYearly": 366,
}
"""How far apart two occurrences of a pattern with interval 1 are at the most."""
_MOST_DAYS: Final = 366_000


class Shown(NamedTuple):
    """An event on the calendar. ``series`` is its master's id where it is one of several; ``starts`` and ``ends`` are
    epoch milliseconds UTC."""

    id: str
    series: str | None
    starts: int
    ends: int
    cancelled: bool
    said: Mapping[str, Any]


def read_shown(said: Mapping[str, Any], zone: tzinfo) -> Shown:
    """What a calendar view lists: single events, occurrences and exceptions of series.

    :raises UnavailableError: it cannot be read; the field is named.
    """
    event, all_day = GRAPH.identifier(said, "id"), yes(said, "isAllDay")
    series = GRAPH.identifier(said, "seriesMasterId") if text(said, "type") in _IN_SERIES else None
    starts = _instant(said, "start", zone if all_day else UTC)
    ends = max(starts, _instant(said, "end", zone if all_day else UTC))
    return Shown(event, series, starts, ends, yes(said, "isCancelled"), said)


def is_master(said: Mapping[str, Any]) -> bool:
    """Whether it stands for a whole series."""
    return said.get("type") == "seriesMaster"


def _instant(said: Mapping[str, Any], field: str, zone: tzinfo) -> int:
    """A dateTimeTimeZone, asked for in UTC. The dates of what lasts whole days mean those days in ``zone``."""
    found = GRAPH.mapping(said, field)
    name, at = text(found, "timeZone"), text(found, "dateTime")
    if name not in _UTC_NAMES or at is None:
        raise GRAPH.unusable(f"{field} in UTC")
    try:
        when = datetime.fromisoformat(at.removesuffix("Z"))
        return round(when.replace(tzinfo=zone).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise GRAPH.unusable(field) from None


def etag(said: Mapping[str, Any]) -> str | None:
    """The version, as ``If-Match`` takes it."""
    whole = text(said, "@odata.etag")
    key = text(said, "changeKey")
    return whole or (f'W/"{key}"' if key else None)


def calendar_object(
    said: Mapping[str, Any], owner: str, occurrences: Iterable[tuple[int, int]], unbounded_from: int | None
) -> CalendarObject:
    """An event, or a series by its master, that happens at ``occurrences``; ``owner`` is whose calendar it is.

    :raises UnavailableError: it cannot be read; the field is named.
    """
    uid = text(said, "iCalUId")
    if not uid:
        raise GRAPH.unusable("iCalUId")
    organizer, shown_organizer = address(GRAPH.optional(said, "organizer"))
    attendees = _attendees(said, owner)
    people = [shown for shown in (shown_organizer, *(shown for shown, _ in attendees.values())) if shown]
    cancelled, show = yes(said, "isCancelled"), text(said, "showAs")
    body = {
        "uid": uid,
        "sequence": 0,
        "status": "cancelled" if cancelled else "tentative" if show == "tentative" else "confirmed",
        "busy": show not in _NOT_BUSY,
        "all_day": yes(said, "isAllDay"),
        "occurrences": [{"start": start, "end": end} for start, end in sorted(set(occurrences))],
        "unbounded_from": unbounded_from,
        "organizer": organizer,
        "attendees": [{"who": who, "response": response} for who, (_, response) in attendees.items()],
    }
    recurrence = GRAPH.optional(said, "recurrence")
    content = {
        "title": text(said, "subject") or None,
        "description": text(said, "bodyPreview") or None,
        "location": text(GRAPH.optional(said, "location"), "displayName") or None,
        "time_zone": text(said, "originalStartTimeZone"),
        "recurrence": json.dumps(recurrence, sort_keys=True) if recurrence else None,
        "people": list(dict.fromkeys(people)),
    }
    modified = moment(said, "lastModifiedDateTime")
    in_reach = modified is not None and 0 <= modified < _LAST_MS
    at = rfc3339(modified) if modified is not None and in_reach else None
    return CalendarObject(uid, body, content, at, _mark(said))


def _mark(said: Mapping[str, Any]) -> str | None:
    extended = [GRAPH.mapping(one) for one in GRAPH.some(said, "singleValueExtendedProperties")]
    found = [text(one, "value") for one in extended if (text(one, "id") or "").lower() == GRAPH_PROPERTY.lower()]
    return found[0] if found else None


def _attendees(said: Mapping[str, Any], owner: str) -> dict[str, tuple[str | None, str]]:
    """By address: as shown, and the answer. What the owner answered is told apart: her copy of somebody else's meeting
    does not know what the others said."""
    found: dict[str, tuple[str | None, str]] = {}
    own = text(GRAPH.optional(said, "responseStatus"), "response")
    for one in GRAPH.some(said, "attendees"):
        who, shown = address(GRAPH.mapping(one))
        if who is None:
            continue
        answer = text(GRAPH.optional(GRAPH.mapping(one), "status"), "response")
        if who == owner and own in _ANSWERS:
            answer = own
        found.setdefault(who, (shown, _ANSWERS.get(answer or "", "needs-action")))
    return found


def goes_on(said: Mapping[str, Any], after: int) -> bool:
    """Whether a series may have occurrences at or after a time (epoch milliseconds UTC): for certain not, is no
    (https://learn.microsoft.com/graph/api/resources/recurrencerange)."""
    recurrence = GRAPH.optional(said, "recurrence")
    bounds, pattern = GRAPH.optional(recurrence, "range"), GRAPH.optional(recurrence, "pattern")
    if not bounds:
        return False
    start, kind = _day(bounds, "startDate"), text(bounds, "type")
    if kind == "endDate":
        last = _day(bounds, "endDate")
    elif kind == "numbered":
        count, interval = (
            _number(part, name) for part, name in ((bounds, "numberOfOccurrences"), (pattern, "interval"))
        )
        apart = _DAYS.get(text(pattern, "type") or "", 366) * max(1, interval)
        last = start + timedelta(days=min(count * apart, _MOST_DAYS)) if start is not None else None
    else:
        return True
    if last is None:
        return True
    # Two days more: its dates are in a time zone of its own.
    day = datetime(last.year, last.month, last.day, tzinfo=UTC).timestamp() + 2 * 86_400
    return day * 1000 > after


def _day(said: Mapping[str, Any], field: str) -> date | None:
    try:
        found = date.fromisoformat(text(said, field) or "")
    except ValueError:
        return None
    return found if 1 < found.year < 5_000 else None


def _number(said: Mapping[str, Any], field: str) -> int:
    found = said.get(field)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**31:
        raise GRAPH.unusable(field)
    return found
