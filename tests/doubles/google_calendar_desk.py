"""What people do in Google Calendar, and what their calendars then hold: events, masters of series, exceptions."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

ADDRESS: Final = "ann@example.com"
TEAM: Final = "team@group.calendar.google.com"
HOLIDAYS: Final = "en.german#holiday@group.v.calendar.google.com"
ZONE: Final = "Europe/Berlin"
START: Final = 1_795_000_000_000
FIRST_DAY: Final = date(2026, 11, 23)


@dataclass
class Stored:
    """An event resource. ``fields`` are what people write; ``master`` and ``original`` are of an exception."""

    id: str
    calendar: str
    uid: str
    fields: dict[str, Any]
    master: str | None = None
    original: dict[str, Any] | None = None
    cancelled: bool = False
    version: int = 0
    sequence: int = 0
    etag: str = ""
    created: str = ""
    updated: str = ""


class Calendars:
    """Three calendars that one person can see. ``changed`` is called with the calendar's id after every change."""

    def __init__(self) -> None:
        self.zones: Final = {ADDRESS: ZONE, TEAM: "America/New_York", HOLIDAYS: ZONE}
        self.events: Final[dict[str, dict[str, Stored]]] = {calendar: {} for calendar in self.zones}
        self.oldest: Final[dict[str, int]] = dict.fromkeys(self.zones, 0)
        self.listeners: Final[list[Callable[[str], object]]] = []
        self.version = 0
        self.now = START
        self._number = 0

    def insert(self, *, calendar: str = ADDRESS, event: str | None = None, **fields: Any) -> Stored:
        """Somebody writes a new event down; :func:`at` and :func:`on` make its start and end."""
        self._number += 1
        event = event or f"{self._number * 7919:05d}event"
        stored = Stored(event, calendar, f"{event}@google.com", {"summary": "Lunch", **fields})
        self.events[calendar][event] = stored
        stored.created = self._moment()
        self._touch(stored)
        return stored

    def edit(self, stored: Stored, **fields: Any) -> None:
        """Fields are replaced; ``None`` takes one away. A series whose times change loses its exceptions; of one that
        no longer repeats they stay behind, cancelled."""
        for name, value in fields.items():
            if value is None:
                stored.fields.pop(name, None)
            else:
                stored.fields[name] = value
        if fields.keys() & {"start", "end", "recurrence"}:
            stored.sequence += 1
            for one in self.exceptions(stored):
                if not one.cancelled:
                    one.cancelled = True
                    self._touch(one)
                if "recurrence" in stored.fields:
                    del self.events[one.calendar][one.id]
        self._touch(stored)

    def respond(self, stored: Stored, who: str, answer: str) -> None:
        """A guest answers."""
        for guest in stored.fields["attendees"]:
            if guest["email"] == who:
                guest["responseStatus"] = answer
        self._touch(stored)

    def remind(self, stored: Stored) -> None:
        """[event] Updating reminders does not change ``updated``; the etag is another."""
        before = stored.updated
        self._touch(stored)
        stored.updated = before

    def delete(self, stored: Stored) -> None:
        """An event, a whole series, or one instance of it."""
        stored.cancelled = True
        for one in self.exceptions(stored):
            if not one.cancelled:
                one.cancelled = True
                self._touch(one)
        self._touch(stored)

    def restore(self, stored: Stored) -> None:
        """Out of the bin."""
        stored.cancelled = False
        self._touch(stored)

    def purge(self) -> None:
        """[event] Cancelled events will eventually disappear; exceptions last as long as their series. [list] For a
        token, all that was deleted since is told, so tokens from before are forgotten."""
        for calendar, events in self.events.items():
            for one in list(events.values()):
                if one.cancelled and (one.master is None or one.master not in events):
                    del events[one.id]
                    self.forget(calendar)

    def instance(self, master: Stored, number: int, **fields: Any) -> Stored:
        """Somebody changes one instance of a series; ``number`` counts from 0 as the rule does."""
        original = shifted(master.fields["start"], number)
        day = original.get("date") or original["dateTime"]
        name = f"{master.id}_{day.replace('-', '').replace(':', '')[:15]}"
        stored = self.events[master.calendar].get(name)
        if stored is None:
            whole = {key: value for key, value in master.fields.items() if key != "recurrence"}
            times = {"start": original, "end": shifted(master.fields["end"], number)}
            stored = Stored(name, master.calendar, master.uid, {**whole, **times}, master.id, original)
            stored.created = self._moment()
            self.events[master.calendar][name] = stored
        stored.cancelled = False
        stored.fields |= fields
        self._touch(stored)
        return stored

    def alone(self, number: int, *, calendar: str = ADDRESS) -> Stored:
        """Somebody asks her to one instance of a series of theirs, which is not in her calendar."""
        master = Stored("0theirs", calendar, "0theirs@google.com", {"summary": "Theirs", **at(9, 1)})
        return self.instance(master, number)

    def move(self, stored: Stored, calendar: str) -> Stored | None:
        """[event] To another calendar, where it keeps its id; a cancelled one stays behind, of which only that id is
        certain. ``None`` where one of that id is there already."""
        if stored.id in self.events[calendar] or stored.calendar == calendar:
            return None
        moved = Stored(stored.id, calendar, stored.uid, dict(stored.fields), created=stored.created)
        self.events[calendar][stored.id] = moved
        self.delete(stored)
        self._touch(moved)
        return moved

    def exceptions(self, master: Stored) -> list[Stored]:
        """What is kept of single instances."""
        return [one for one in self.events[master.calendar].values() if one.master == master.id]

    def set_zone(self, calendar: str, zone: str) -> None:
        """No event changes, and all whole days are at other hours."""
        self.zones[calendar] = zone

    def forget(self, calendar: str = ADDRESS) -> None:
        """[sync] Tokens are invalidated: they are too old, or who may see what has changed."""
        self.version += 1
        self.oldest[calendar] = self.version

    def _touch(self, stored: Stored) -> None:
        self.version += 1
        stored.version = self.version
        stored.etag = f'"{3_480_508_598_540_894 + self.version * 2}"'
        stored.updated = self._moment()
        for listener in self.listeners:
            listener(stored.calendar)

    def _moment(self) -> str:
        self.now += 1_000
        return datetime.fromtimestamp(self.now / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def at(hour: int, day: int = 0, hours: int = 1, zone: str = ZONE) -> dict[str, Any]:
    """Start and end of an hour or more on a day after the first, on the clock of ``zone``."""
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, hour, tzinfo=ZoneInfo(zone)) + timedelta(day)
    end = start + timedelta(hours=hours)
    return {name: {"dateTime": when.isoformat(), "timeZone": zone} for name, when in (("start", start), ("end", end))}


def on(day: int, days: int = 1) -> dict[str, Any]:
    """Start and end of whole days."""
    first = FIRST_DAY + timedelta(day)
    return {"start": {"date": first.isoformat()}, "end": {"date": (first + timedelta(days)).isoformat()}}


def daily(count: int | None = None) -> list[str]:
    """Every day, so many times or for ever."""
    return ["RRULE:FREQ=DAILY" + (f";COUNT={count}" if count is not None else "")]


def guests(*addresses: str) -> list[dict[str, Any]]:
    """Who is asked."""
    return [{"email": address, "responseStatus": "needsAction"} for address in addresses]


def shifted(when: dict[str, Any], days: int) -> dict[str, Any]:
    """So many days later, on the same clock."""
    if "date" in when:
        return {"date": (date.fromisoformat(when["date"]) + timedelta(days)).isoformat()}
    zone = ZoneInfo(when["timeZone"])
    moment = datetime.fromisoformat(when["dateTime"]).astimezone(zone) + timedelta(days)
    return {"dateTime": moment.isoformat(), "timeZone": when["timeZone"]}


def interval(fields: dict[str, Any], zone: str) -> tuple[int, int]:
    """Start and end in epoch milliseconds."""
    found: list[int] = []
    for name in ("start", "end"):
        when = fields[name]
        if "date" in when:
            day = date.fromisoformat(when["date"])
            moment = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
        else:
            moment = datetime.fromisoformat(when["dateTime"])
        found.append(int(moment.timestamp()) * 1_000)
    return found[0], found[1]
