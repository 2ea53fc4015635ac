"""The content lines (RFC 5545 §3.1) of a resource that its state depends on.

What nobody asks for (alarms, attachments, others' extensions) never reaches the parser: it cannot make an event
unreadable, nor cost time. What is left is bounded, because reading a date costs some ten microseconds.
"""

import re
from collections.abc import Iterator
from typing import Final

from icalendar.parser import Contentlines

from headrace.errors import BadInputError
from headrace.producers.ical_zones import needed
from headrace.producers.marks import ICALENDAR_PROPERTY

MAX_CHARACTERS: Final = 1_000_000
MAX_DATES: Final = 10_000
MAX_EVENTS: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9-]+(?=[;:])")
_KEPT: Final[dict[tuple[str, ...], frozenset[str]]] = {
    ("VCALENDAR",): frozenset({"CALSCALE"}),
    ("VCALENDAR", "VTIMEZONE"): frozenset({"TZID"}),
    ("VCALENDAR", "VTIMEZONE", "STANDARD"): (
        _onset := frozenset({"DTSTART", "RRULE", "RDATE", "TZOFFSETFROM", "TZOFFSETTO", "TZNAME"})
    ),
    ("VCALENDAR", "VTIMEZONE", "DAYLIGHT"): _onset,
    ("VCALENDAR", "VEVENT"): frozenset({
        "UID", "DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "SEQUENCE", "STATUS",
        "TRANSP", "ORGANIZER", "ATTENDEE", "SUMMARY", "DESCRIPTION", "LOCATION", "LAST-MODIFIED", "DTSTAMP",
        ICALENDAR_PROPERTY,
    }),
}  # fmt: skip


def relevant_lines(text: str) -> list[str] | None:
    """The unfolded lines that matter, well nested; ``None`` when there is no VEVENT among them.

    :raises BadInputError: it is no iCalendar object, or larger than any calendar needs.
    """
    kept: list[str] = []
    counts = {"characters": 0, "dates": 0, "VEVENT": 0}
    zone_at = 0
    for path, name, line in _located(text):
        kept.append(line)
        if name == "BEGIN":
            counts["VEVENT"] += path[-1] == "VEVENT"
            zone_at = len(kept) if path[-1] == "VTIMEZONE" else zone_at
        elif name == "END" and path[-1] == "VTIMEZONE":
            if not needed(kept[zone_at:]):
                del kept[zone_at - 1 :]
        elif name in {"RDATE", "EXDATE"}:
            counts["dates"] += line.count(",") + 1
        counts["characters"] += len(line)
        _check(counts)
    return kept if counts["VEVENT"] else None


def _located(text: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Each relevant line with its name and the components it stands in (for BEGIN and END, itself included)."""
    try:
        lines: list[str] = list(Contentlines.from_ical(text))  # type: ignore[no-untyped-call]
    except ValueError:
        raise BadInputError("it is not an iCalendar object (RFC 5545)") from None
    path: tuple[str, ...] = ()
    seen = False
    for line in lines:
        match = _NAME.match(line)
        if match is None:
            continue
        name = match.group().upper()
        if name == "BEGIN":
            path = (*path[:16], line[6:].strip().upper())
            seen = seen or path == ("VCALENDAR",)
            if path in _KEPT:
                yield path, name, line
        elif name == "END":
            if not path or path[-1] != line[4:].strip().upper():
                raise BadInputError("its BEGIN and END lines do not match (RFC 5545 §3.6)")
            if path in _KEPT:
                yield path, name, line
            path = path[:-1]
        elif name in _KEPT.get(path, ()):
            yield path, name, line
    if path or not seen:
        raise BadInputError("it is not a whole VCALENDAR (RFC 5545 §3.4)")


def _check(counts: dict[str, int]) -> None:
    limits = {
        "characters": (MAX_CHARACTERS, "text longer than"),
        "dates": (MAX_DATES, "RDATE and EXDATE with more values than"),
        "VEVENT": (MAX_EVENTS, "more VEVENTs than"),
    }
    for what, (limit, words) in limits.items():
        if counts[what] > limit:
            raise BadInputError(f"it has {words} {limit}")
