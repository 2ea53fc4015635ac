"""One Outlook calendar, followed through a window of time.

``calendarView/delta`` is the one delta query of events that Graph has outside of its beta, and it expands series: it
tells that something changed, and of what. What the calendar shows then is listed, a thousand occurrences with a
request, and held against what the log holds: items that come twice, late, in disorder, or that leave the view for
another time tell nothing that is not so.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError
from headrace.producers.calendar_difference import KIND, Place, removed, shown
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.graph_api import GRAPH, GraphApi, Page, SyncStateLostError, segment, text, yes
from headrace.producers.graph_event import (
    EXPAND,
    SELECT,
    UTC_TIMES,
    Shown,
    calendar_object,
    etag,
    goes_on,
    is_master,
    read_shown,
)
from headrace.producers.ical import CalendarObject
from headrace.producers.marks import read_calendar_mark

_DAY_MS: Final = 86_400_000
_BEHIND_MS: Final = 31 * _DAY_MS
_AHEAD_MS: Final = 366 * _DAY_MS
_ROLL_MS: Final = 183 * _DAY_MS
"""With less than this ahead, the window is moved on."""
_PAGE: Final = 1000
_MOST_BYTES: Final = 64 * 1024
Interval = tuple[int, int]


class Window(NamedTuple):
    """Where a sync left off: the calendar's id, what is looked at (epoch milliseconds UTC), and the delta link."""

    calendar: str
    start: int
    end: int
    link: str

    def write(self) -> str:
        """As it stands on the log."""
        return "c1:" + base64.urlsafe_b64encode(zlib.compress(json.dumps(self).encode(), 9)).decode()

    @classmethod
    def read(cls, cursor: str | None) -> "Window | None":
        """``None`` for what is none: then everything is compared."""
        if cursor is None or not cursor.startswith("c1:"):
            return None
        try:
            packed = base64.b64decode(cursor[3:], altchars=b"-_", validate=True)
            calendar, start, end, link = json.loads(zlib.decompressobj().decompress(packed, _MOST_BYTES))
            return cls(str(calendar), int(start), int(end), str(link))
        except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
            return None


class _Told(NamedTuple):
    """What a round told of: events that changed, masters of which one did among them, and what left the view."""

    changed: set[str]
    left: set[str]
    link: str


class GraphCalendarSource:
    """The calendar of ``owner`` (an address): the default one, or that of the id ``calendar``.

    ``zone`` is where the days of her whole-day events are; ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        api: GraphApi,
        owner: str,
        pseudonym: Callable[[str], str],
        *,
        calendar: str | None,
        zone: tzinfo,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._owner, self._pseudonym = api, owner.lower(), pseudonym
        self._calendar, self._zone, self._clock = calendar, zone, clock
        self._path = f"me/calendars/{segment(calendar)}/calendarView" if calendar is not None else "me/calendarView"

    @property
    def feeds(self) -> tuple[str, ...]:
        """Calendar events, and nothing else."""
        return (KIND,)

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """See :class:`headrace.producers.event.Source`: all of it in one page; in two where the window moves on, for
        what changed in the old one comes first."""
        now = int(self._clock() * 1000)
        before = Window.read(cursor)
        told = self._since(before) if before is not None else None
        if before is not None and told is not None:
            due = now + _ROLL_MS > before.end
            events = self._compared(before, told, known, full=False) if told.changed or told.left else ()
            if not due:
                yield Changes(events, before._replace(link=told.link).write(), full=False)
                return
            if events:
                yield Changes(events, None, full=True, more=True)
        self._check_owner()
        start = (now - _BEHIND_MS) // _DAY_MS * _DAY_MS
        window = Window(self._found_calendar(), start, start + _BEHIND_MS + _AHEAD_MS, "")
        told = _round(self._api.delta(f"{self._path}/delta", window_params(window), prefer=UTC_TIMES))
        events = self._compared(window, told, known, full=True)
        yield Changes(events, window._replace(link=told.link).write(), full=True)

    def _since(self, before: Window) -> _Told | None:
        """What changed; ``None``: Graph cannot say."""
        try:
            return _round(self._api.since(before.link, prefer=UTC_TIMES))
        except SyncStateLostError:
            return None

    def _compared(self, window: Window, told: _Told, known: Known, *, full: bool) -> tuple[NewEvent, ...]:
        return tuple(_Comparison(self._api, window, told, known, self._place, full=full).events(self))

    def _check_owner(self) -> None:
        said = self._api.get("me", {"$select": "id,mail,userPrincipalName"})
        if self._owner not in {(text(said, field) or "").lower() for field in ("mail", "userPrincipalName")}:
            raise BadInputError("the grant is for another person than the source's address: connect the source again")

    def _found_calendar(self) -> str:
        if self._calendar is not None:
            return self._calendar
        return GRAPH.identifier(self._api.get("me/calendar", {"$select": "id"}), "id")

    def _place(self, calendar: str, resource: str) -> Place:
        return Place(calendar, resource, self._pseudonym)

    def listed(self, window: Window) -> list[Shown]:
        """What the calendar shows in the window, each once."""
        params = {**window_params(window), "$select": SELECT, "$expand": EXPAND, "$top": _PAGE}
        found = [read_shown(one, self._zone) for one in self._api.listed(self._path, params, prefer=UTC_TIMES)]
        return list({one.id: one for one in found}.values())

    def event(self, event: str) -> Mapping[str, Any] | None:
        """An event or the master of a series, wherever it is in time; ``None`` when it is gone."""
        return self._api.found(f"me/events/{segment(event)}", {"$select": SELECT, "$expand": EXPAND}, prefer=UTC_TIMES)

    def single(self, said: Mapping[str, Any]) -> Shown:
        """An event that was asked for by its id."""
        return read_shown(said, self._zone)

    @property
    def owner(self) -> str:
        """Whose calendar it is."""
        return self._owner

    @property
    def pseudonym(self) -> Callable[[str], str]:
        """The account's."""
        return self._pseudonym


def window_params(window: Window) -> dict[str, str]:
    """The bounds of the view."""
    return {"startDateTime": _iso(window.start), "endDateTime": _iso(window.end)}


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _round(pages: Iterable[Page]) -> _Told:
    changed: set[str] = set()
    left: set[str] = set()
    link = ""
    for page in pages:
        for said in page.items:
            event = GRAPH.identifier(said, "id")
            if "@removed" in said:
                left.add(event)
                continue
            changed.add(event)
            if said.get("seriesMasterId") is not None:
                changed.add(GRAPH.identifier(said, "seriesMasterId"))
        link = page.link or link
    return _Told(changed, left, link)


class _Comparison:
    """What the calendar shows, given what the log knows of it."""

    def __init__(
        self,
        api: GraphApi,
        window: Window,
        told: _Told,
        known: Known,
        place: Callable[[str, str], Place],
        *,
        full: bool,
    ) -> None:
        self._api, self._window, self._told, self._known, self._at, self._full = api, window, told, known, place, full
        self._mine: Final = place(window.calendar, "").pseudonym(window.calendar)
        self._placed: set[str] = set()
        self._vacated: set[str] = set()
        self._here: dict[str, KnownEntity] = {}

    def events(self, source: GraphCalendarSource) -> Iterator[NewEvent]:
        """The events, in the order of their ids at Graph; what is gone comes last."""
        pseudonym, listed = source.pseudonym, source.listed(self._window)
        singles = {one.id: one for one in listed if one.series is None}
        series: dict[str, list[Shown]] = {}
        for one in listed:
            if one.series is not None:
                series.setdefault(one.series, []).append(one)
        there = {pseudonym(one) for one in (*singles, *series)}
        touched = there | {pseudonym(one) for one in self._told.changed | self._told.left}
        self._here = {one.state["resource"]: one for one in self._alive(resource=touched)}
        asked = self._asked(source, (singles.keys() | series.keys()), pseudonym)
        self._vacated = {pseudonym(one) for one, said in asked.items() if said is None} | self._missing(source, there)
        for event in sorted(singles.keys() | series.keys() | asked.keys()):
            resource, said = pseudonym(event), asked.get(event)
            if event in series:
                said = self._master(source, event, series[event], self._here.get(resource))
            elif event in singles:
                said = singles[event].said
            if said is not None:
                yield from self._shown(source, event, said, series.get(event, []))
        for resource in sorted(self._vacated & self._here.keys()):
            if self._here[resource].id not in self._placed:
                yield removed(self._at(self._window.calendar, resource), self._here[resource])

    def _asked(
        self, source: GraphCalendarSource, listed: set[str], pseudonym: Callable[[str], str]
    ) -> dict[str, Mapping[str, Any] | None]:
        """What the log has here, changed, and is not in the view: gone, or at another time now."""
        away = (self._told.left | self._told.changed) - listed
        return {one: source.event(one) for one in sorted(away) if pseudonym(one) in self._here}

    def _missing(self, source: GraphCalendarSource, there: set[str]) -> set[str]:
        """Of a full comparison: what ought to be in the view, and is not. What moves while pages are turned may be
        passed over, so the view is listed once more before anything counts as gone."""
        if not self._full:
            return set()
        missing = set[str]()
        for entity in self._alive():
            resource = entity.state["resource"]
            if resource not in there and self._in_view(entity):
                self._here[resource] = entity
                missing.add(resource)
        if missing:
            missing -= {source.pseudonym(one.series or one.id) for one in source.listed(self._window)}
        return missing

    def _alive(self, **columns: Set[str]) -> Iterator[KnownEntity]:
        """What the log takes to be in this calendar."""
        found = self._known.where(KIND, calendar=self._mine, **columns)
        return (entity for entity in found if entity.state and not entity.state["removed"])

    def _in_view(self, entity: KnownEntity) -> bool:
        start, end, state = self._window.start, self._window.end, entity.state
        times: list[Interval] = [(one["start"], one["end"]) for one in state["occurrences"]]
        begins = any(first < end and last > start for first, last in times)
        return begins or (state["unbounded_from"] is not None and state["unbounded_from"] < end)

    def _master(
        self, source: GraphCalendarSource, master: str, ones: list[Shown], entity: KnownEntity | None
    ) -> Mapping[str, Any] | None:
        """A series' master, where it may have changed: that is asked for one by one."""
        if not self._full and entity is not None and master not in self._told.changed:
            held = [(one["start"], one["end"]) for one in entity.state["occurrences"]]
            if [one for one in held if one[1] > self._window.start] == _times(ones, cancelled=False):
                return None
        return source.event(master)

    def _shown(
        self, source: GraphCalendarSource, event: str, said: Mapping[str, Any], ones: list[Shown]
    ) -> Iterator[NewEvent]:
        resource = source.pseudonym(event)
        entity: KnownEntity | None = self._here.get(resource)
        unbounded: int | None = None
        times = _times(ones, cancelled=yes(said, "isCancelled"))
        if is_master(said):
            unbounded = self._window.end if goes_on(said, self._window.end) else None
            if unbounded is None and entity is not None and entity.state["unbounded_from"] is None:
                # A series that ends keeps what is behind the window.
                held = [(one["start"], one["end"]) for one in entity.state["occurrences"]]
                times = [one for one in held if one[1] <= self._window.start] + times
        else:
            single = source.single(said)
            times = [(single.starts, single.ends)]
        found = calendar_object(said, source.owner, times, unbounded)
        mark = read_calendar_mark(source.pseudonym, found.mark, (found.uid, _transaction(said)), found.content)
        plain, other = source.pseudonym(found.uid), f"{found.uid}#{event}"
        if entity is not None and plain not in {entity.id, entity.state["uid"]}:
            yield removed(self._at(self._window.calendar, resource), entity)
            name, entity = plain, self._elsewhere(plain)
        elif entity is not None:
            name = entity.id
        else:
            name, entity = self._named(mark.entity if mark is not None else plain, plain, source.pseudonym(other))
        if name == source.pseudonym(other):
            found = found._replace(uid=other)
        self._placed.add(name)
        for new in self._new(self._at(self._window.calendar, event), found, etag(said), entity):
            yield new._replace(entity=name, mark=mark.mark if mark is not None else None)

    def _named(self, made_for: str, plain: str, other: str) -> tuple[str, KnownEntity | None]:
        """What something that is new at its place is called: what it was made for, its UID, or, of a copy that has the
        UID of another event here, a name of its own."""
        for name in (made_for, plain):
            entity = self._elsewhere(name)
            there = entity if entity is not None and not entity.state["removed"] else None
            is_another = there is not None and plain not in {there.id, there.state["uid"]}
            if not is_another and name not in self._placed and not self._is_held(entity):
                return name, entity
        return other, self._elsewhere(other)

    @staticmethod
    def _new(
        place: Place, found: CalendarObject, version: str | None, entity: KnownEntity | None
    ) -> Iterator[NewEvent]:
        new = shown(place, found, version, entity)
        if new is not None and new.type == "calendar.cancelled" and entity is not None:
            # That it was cancelled is all that is told only where nothing else changed with it.
            cancelled = entity._replace(state={**entity.state, "status": "cancelled"})
            if shown(place, found, entity.state["etag"], cancelled) is not None:
                whole = {"calendar": place.calendar, "uid": found.body["uid"], "resource": place.resource}
                body = {**whole, "etag": version, **found.body}
                new = new._replace(type="calendar.updated", body=body, content=found.content)
        if new is not None:
            yield new

    def _elsewhere(self, entity: str) -> KnownEntity | None:
        """By its id and not by its place: it may come from another calendar of the account, or come back."""
        return next((one for one in self._known.where(KIND, id=entity) if one.state), None)

    def _is_held(self, entity: KnownEntity | None) -> bool:
        """Whether another event here has this UID: copies do."""
        if entity is None or entity.state["removed"]:
            return False
        resource = entity.state["resource"]
        is_here = entity.state["calendar"] == self._mine or resource in self._here
        return is_here and resource not in self._vacated


def _transaction(said: Mapping[str, Any]) -> str | None:
    return text(said, "transactionId")


def _times(ones: Iterable[Shown], *, cancelled: bool) -> list[Interval]:
    """When the occurrences are; those that are cancelled only where all of the series is."""
    return sorted({(one.starts, one.ends) for one in ones if cancelled or not one.cancelled})
