"""Which VTIMEZONEs (RFC 5545 §3.6.5) of a calendar are worth reading, and that reading them costs little.

Every conversion with a zone of the calendar's own walks through all of its onsets up to the time in question. A real
zone changes its clock twice a year; a hostile one would do it every second.
"""

import re
import zoneinfo
from collections.abc import Sequence
from functools import cache
from typing import Final

from headrace.errors import BadInputError

LAST_YEAR: Final = 4999  # no event starts later than this
_MAX_ONSETS: Final = 200
_MAX_YEARS: Final = 10_000
_WEEK: Final = 7
_ALLOWED: Final = frozenset({"FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYMONTH", "BYMONTHDAY", "BYDAY"})
_YEAR: Final = re.compile(r"\d{4}")
_NTH_WEEKDAY: Final = re.compile(r"[+-]?\d[A-Z]{2}\Z")


@cache
def _olson() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def needed(zone: Sequence[str]) -> bool:
    """Whether a VTIMEZONE, given as its lines, has to be read: not where the time-zone data know its name.

    :raises BadInputError: it changes the clock more often than any real one.
    """
    said = [line.partition(":") for line in zone]
    tzid = next((value.strip() for name, _, value in said if name.upper().startswith("TZID")), "")
    if tzid.strip("/") in _olson():
        return False
    onsets, years, first = 0, 0, LAST_YEAR
    for name, _, value in said:
        word = name.partition(";")[0].upper()
        if word == "BEGIN":
            onsets += 1
        elif word == "DTSTART":
            first = _year(value, LAST_YEAR)
        elif word == "RRULE":
            years += max(1, _last(value.upper()) - first)
    if onsets > _MAX_ONSETS or years > _MAX_YEARS:
        raise BadInputError("its VTIMEZONE has more onsets than any real one")
    return True


def _last(rule: str) -> int:
    """The year a rule goes on to.

    :raises BadInputError: it has more than one onset a year.
    """
    parts: dict[str, str] = {}
    for part in rule.strip().strip(";").split(";"):
        name, _, value = part.partition("=")
        parts[name] = value
    days = parts.get("BYMONTHDAY", "")
    weekday = parts.get("BYDAY", "")
    which_day = not days if not weekday else bool(days) or _NTH_WEEKDAY.match(weekday) is not None
    once_a_year = (
        parts.keys() <= _ALLOWED
        and parts.get("FREQ") == "YEARLY"
        and (parts.get("BYMONTH", "").isdigit() or not ("BYMONTH" in parts or days or weekday))
        and (which_day or days.isdigit())
        and days.count(",") < _WEEK
    )
    if not once_a_year:
        raise BadInputError("its VTIMEZONE's RRULE changes the clock more than once a year")
    return _year(parts.get("UNTIL", ""), LAST_YEAR)


def _year(text: str, default: int) -> int:
    match = _YEAR.match(text.strip())
    return int(match.group()) if match else default
