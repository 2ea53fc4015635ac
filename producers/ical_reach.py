"""How far into a series to look for so many occurrences, found without following a rule that never ends or matches.

dateutil follows a rule to the year 9999 whether it matches or not. So a rule is first tried without its bounds
and, because the Gregorian calendar (weekdays included) repeats every 400 years, from a start moved so close to that
end that at most 800 years are left.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any, Final, NamedTuple

import icalendar
from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

from headrace.errors import BadInputError

MAX_RULES: Final = 4
_CYCLE: Final = 400
_LAST_YEAR: Final = 9999
_SLACK: Final = timedelta(days=2)  # UNTIL may stand in another time zone than DTSTART
_FINE: Final = frozenset({"SECONDLY", "MINUTELY", "HOURLY"})
_FINE_PARTS: Final = frozenset({"BYHOUR", "BYMINUTE", "BYSECOND"})


class Reach(NamedTuple):
    """``until``: the wall-clock time before which the rules yield what was asked for (``None``: no rule yields
    anything); ``complete``: they yield nothing after it. ``rules`` are those worth following; ``everything`` tells
    that one was left out because following it would cost too much, so that any time from DTSTART on may be meant."""

    rules: tuple[icalendar.vRecur, ...]
    until: datetime | None
    complete: bool
    everything: bool


class _Found(NamedTuple):
    last: datetime
    complete: bool


def reach_of(master: icalendar.Event, overrides: Sequence[icalendar.Event], wanted: int) -> Reach:
    """How far to look for ``wanted`` occurrences of each of the master's rules.

    :raises BadInputError: an RRULE makes no sense.
    """
    value = master.get("RRULE", [])
    rules: list[icalendar.vRecur] = value if isinstance(value, list) else [value]
    if len(rules) > MAX_RULES:
        raise BadInputError(f"it has more RRULEs than {MAX_RULES}")
    start = _naive(master.get("DTSTART").dt)
    entangled = any(_entangled(override) for override in overrides)
    kept: list[icalendar.vRecur] = []
    found: list[_Found] = []
    everything = False
    for rule in rules:
        if _costly(rule, entangled):
            everything = True
            continue
        try:
            one = _follow(rule, start, wanted)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
            raise BadInputError("its RRULE makes no sense (RFC 5545 §3.3.10)") from None
        if one is not None:
            # A negative COUNT is seen in the wild for "endless", and recurring-ical-events means to read it so.
            kept.append(rule if _count(rule) is not None else _without(rule, "COUNT"))
            found.append(one)
    ends = [one.last for one in found if not one.complete]
    until = min(ends) if ends else max((one.last for one in found), default=None)
    return Reach(tuple(kept), until, not ends, everything)


def _costly(rule: icalendar.vRecur, entangled: bool) -> bool:
    """Whether dateutil would have to step through hours, minutes or seconds that the rule then leaves out, or
    recurring-ical-events through all of them to place an override."""
    fine = _first(rule, "FREQ") in _FINE
    return (fine and any(part.upper().startswith("BY") for part in rule)) or (
        entangled and (fine or not _FINE_PARTS.isdisjoint(rule))
    )


def _entangled(override: icalendar.Event) -> bool:
    recurrence_id = override.get("RECURRENCE-ID")
    return (recurrence_id is not None and "RANGE" in recurrence_id.params) or any(
        name in override for name in ("RRULE", "RDATE", "EXDATE")
    )


def _follow(rule: icalendar.vRecur, start: datetime, wanted: int) -> _Found | None:
    interval, count, until = _first(rule, "INTERVAL"), _count(rule), _first(rule, "UNTIL")
    if interval is not None and interval < 1:
        raise ValueError
    bare = _without(rule, "COUNT", "UNTIL")
    cycles = max(0, (_LAST_YEAR - _CYCLE - start.year) // _CYCLE) * _CYCLE
    text: str = bare.to_ical().decode()  # type: ignore[no-untyped-call]
    candidates = rrulestr(text, dtstart=start.replace(year=start.year + cycles))
    asked = wanted if count is None else min(wanted, count)
    times = [moved.replace(year=moved.year - cycles) for moved in islice(candidates, asked)]
    if not times:
        return None
    last = times[-1] if len(times) == asked else datetime(_LAST_YEAR - cycles, 12, 31)  # noqa: DTZ001
    ended = count is not None and len(times) == count
    return _Found(last, ended or (until is not None and _naive(until) <= last - _SLACK))


def _count(rule: icalendar.vRecur) -> int | None:
    count = _first(rule, "COUNT")
    return count if isinstance(count, int) and count >= 0 else None


def _without(rule: icalendar.vRecur, *parts: str) -> icalendar.vRecur:
    return icalendar.vRecur({part: value for part, value in rule.items() if part not in parts})


def _first(rule: icalendar.vRecur, part: str) -> Any:
    value = rule.get(part)
    return value[0] if isinstance(value, list) and value else value


def _naive(when: date) -> datetime:
    return when.replace(tzinfo=None) if isinstance(when, datetime) else datetime.combine(when, time.min)
