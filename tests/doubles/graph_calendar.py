"""Microsoft Graph's calendar, as its documents say: calendarView, its delta, events.

[delta]  https://learn.microsoft.com/graph/api/event-delta: startDateTime and endDateTime in the first request, none of
         $select, $expand, $filter, $orderby, $search; ``@removed`` for what left the range, and for what changed out
         of it
[view]   https://learn.microsoft.com/graph/api/calendar-list-calendarview: occurrences, exceptions and single events,
         never masters; $top up to 1000
[times]  the Prefer header outlook.timezone; UTC where it is absent
[ids]    https://learn.microsoft.com/graph/api/resources/event: iCalUId is another for each occurrence; type,
         seriesMasterId
[recur]  https://learn.microsoft.com/graph/api/resources/recurrencerange
[make]   https://learn.microsoft.com/graph/api/user-post-events: transactionId
[change] https://learn.microsoft.com/graph/api/event-update
[gone]   https://learn.microsoft.com/graph/api/event-delete
[extended] https://learn.microsoft.com/graph/api/singlevaluelegacyextendedproperty-get
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.doubles.graph import BASE, IMMUTABLE, GraphDouble, Round, error, moment, page_size, selected
from tests.doubles.http import Reply, Request

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
CALENDAR: Final = "AAkCal1="
_ONE: Final = re.compile(r"me/events/([^/]+)\Z")
_EXPANDED: Final = re.compile(r"singleValueExtendedProperties\(\$filter=id eq '([^']+)'\)\Z")
_VIEW: Final = re.compile(r"me/(?:calendars/([^/]+)/)?calendarView(/delta)?\Z")


@dataclass
class Event:
    """A single event, or a series: every ``every`` days, ``count`` times or without an end (``count`` is 0);
    ``moved`` are its exceptions by number (start, cancelled), ``None`` where the occurrence was deleted."""

    id: str
    uid: str
    start: int
    length: int = HOUR
    title: str = "Lunch"
    every: int = 0
    count: int = 0
    moved: dict[int, tuple[int, bool] | None] = field(default_factory=dict)
    attendees: dict[str, str] = field(default_factory=dict)
    show: str = "busy"
    cancelled: bool = False
    all_day: bool = False
    words: str = ""
    transaction: str | None = None
    extended: dict[str, str] = field(default_factory=dict)
    version: int = 1
    modified: int = 0


@dataclass
class Occurrence:
    """When an event happens: one of many, or the only time."""

    id: str
    kind: str
    start: int
    cancelled: bool


class CalendarDouble:
    """One person's calendar, and what people do in it, at the same Graph as her mailbox."""

    def __init__(self, graph: GraphDouble) -> None:
        self.graph: Final = graph
        self.events: Final[dict[str, Event]] = {}
        self.owner_answer: dict[str, str] = {}
        self._changes: Final[list[str]] = []
        self._rounds: Final[dict[str, tuple[Round, int, int]]] = {}
        self._shown: Final[dict[str, set[str]]] = {}
        self._number = 0
        graph.parts.append(self.answer)

    # What people do.

    def book(self, start: int, *, uid: str | None = None, **more: Any) -> Event:
        self._number += 1
        n = self._number
        event = Event(f"AAkEv{n}=", uid or f"0400{n}", start, **more)
        self.events[event.id] = event
        self.touch(event)
        return event

    def touch(self, event: Event) -> None:
        """Something about it changed."""
        self.graph.now += 1_000
        event.version += 1
        event.modified = self.graph.now
        self._changes.append(event.id)

    def move(self, event: Event, start: int) -> None:
        event.start = start
        event.moved.clear()
        self.touch(event)

    def move_one(self, event: Event, number: int, start: int, *, cancelled: bool = False) -> None:
        """Make an exception of an occurrence: the master stays as it is."""
        event.moved[number] = (start, cancelled)
        self._changes.append(event.id)

    def delete_one(self, event: Event, number: int) -> None:
        """Delete an occurrence: the master stays as it is."""
        event.moved[number] = None
        self._changes.append(event.id)

    def delete(self, event: Event) -> None:
        del self.events[event.id]
        self._changes.append(event.id)

    def forget(self) -> None:
        self._rounds.clear()

    def happens(self, event: Event, start: int, end: int) -> list[Occurrence]:
        """What of an event is in a range."""
        return [one for one in self._all(event, end) if one.start < end and one.start + event.length > start]

    def _all(self, event: Event, end: int) -> Iterator[Occurrence]:
        if not event.every:
            yield Occurrence(event.id, "singleInstance", event.start, event.cancelled)
            return
        number = 0
        while not event.count or number < event.count:
            start = event.start + number * event.every * DAY
            if start >= end and number > max(event.moved, default=-1):
                return
            if number not in event.moved:
                yield Occurrence(f"{event.id}{number}", "occurrence", start, event.cancelled)
            elif (moved := event.moved[number]) is not None:
                yield Occurrence(f"{event.id}{number}", "exception", moved[0], event.cancelled or moved[1])
            number += 1

    # What its API answers.

    def answer(self, path: str, request: Request) -> Reply | None:
        """One of the parts of :class:`tests.doubles.graph.GraphDouble`."""
        if path == "me/calendar":
            return Reply.json(200, {"id": CALENDAR})
        if request.method != "GET":
            return self._written(path, request)
        one, view = _ONE.match(path), _VIEW.match(path)
        if one is not None:
            event = self.events.get(one.group(1))
            if event is None or IMMUTABLE not in request.headers.get("prefer", ""):
                return error(404, "ErrorItemNotFound")
            return Reply.json(200, self._event(event, None, selected(request), request.one("$expand")))
        if view is None or view.group(1) not in (None, CALENDAR):
            return None
        if "Calendars.Read" not in self.graph.grant.scopes:
            return error(403, "ErrorAccessDenied")
        return self._delta(path, request) if view.group(2) else self._view(request, path)

    def _range(self, request: Request) -> tuple[int, int] | None:
        found: list[int] = []
        for name in ("startDateTime", "endDateTime"):
            try:
                found.append(round(datetime.fromisoformat(request.one(name) or "").timestamp() * 1000))
            except ValueError:
                return None
        return (found[0], found[1]) if found[0] < found[1] <= found[0] + 1825 * DAY else None

    def _delta(self, path: str, request: Request) -> Reply:
        names = {name for name, _ in request.query}
        token = request.one("$deltatoken") or request.one("$skiptoken")
        if token is not None:
            held = self._rounds.get(token)
            if held is None or len(names) > 1:
                return self.graph.lost(request)
            this, start, end = held
        else:
            bounds = self._range(request)
            if bounds is None or names - {"startDateTime", "endDateTime"}:  # [delta] no $select
                return error(400, "ErrorInvalidUrlQuery")
            (start, end), this = bounds, Round("view", frozenset(), -1)
        left, upto = this.left, this.since
        if left is None:
            upto = len(self._changes)
            left = self._told(this, start, end)
        size = min(page_size(request), self.graph.page)
        more = len(left) > size
        name = f"v{len(self._rounds)}.{self._number}.{upto}"
        self._rounds[name] = (Round("view", frozenset(), upto, left[size:] if more else None), start, end)
        link = f"{BASE}{path}?${'skip' if more else 'delta'}token={name}"
        return Reply.json(200, {"value": left[:size], "@odata.nextLink" if more else "@odata.deltaLink": link})

    def _told(self, this: Round, start: int, end: int) -> list[dict[str, Any]]:
        graph = self.graph
        every = this.since < 0
        since = max(0, this.since - 2) if graph.replaying else this.since
        ids = list(self.events) if every else self._changes[since:]
        ids = ids if graph.repeating else list(dict.fromkeys(ids))
        told: list[dict[str, Any]] = []
        for named in ids:
            event = self.events.get(named)
            if event is None:
                told.append({"id": named, "@removed": {"reason": "deleted"}})
                continue
            now = self.happens(event, start, end)
            before = self._shown.setdefault(f"{named} {start}", set())
            told += [self._short(event, one) for one in now]
            if event.every and now:
                told.append(self._event(event, None, frozenset()))
            told += [{"id": one, "@removed": {"reason": "deleted"}} for one in sorted(before - {o.id for o in now})]
            if not now and not every:
                told.append({"id": named, "@removed": {"reason": "deleted"}})  # [delta] what changed outside, too
            self._shown[f"{named} {start}"] = {one.id for one in now}
        return told[1::2] + told[::2] if graph.shuffled else told

    def _short(self, event: Event, one: Occurrence) -> dict[str, Any]:
        if self.graph.partial and one.kind == "singleInstance":
            return {"id": one.id, "subject": event.title}  # an update brings at least what changed
        if one.kind == "occurrence":
            times = _times(one.start, event.length)
            return {"id": one.id, "type": one.kind, "seriesMasterId": event.id, **times}
        return self._event(event, one, frozenset())

    def _view(self, request: Request, path: str) -> Reply:
        bounds, top = self._range(request), request.one("$top", "10") or ""
        names = {name for name, _ in request.query}
        allowed = {"startDateTime", "endDateTime", "$select", "$expand", "$top", "$skip"}
        if bounds is None or names - allowed or not top.isdigit() or not 0 < int(top) <= 1000:
            return error(400, "ErrorInvalidUrlQuery")
        shown = [(event, one) for event in self.events.values() for one in self.happens(event, *bounds)]
        shown.sort(key=lambda pair: (pair[1].start, pair[1].id))
        skip, size = int(request.one("$skip") or 0), min(int(top), self.graph.page)
        select, expand = selected(request), request.one("$expand")
        value = [self._event(event, one, select, expand) for event, one in shown[skip : skip + size]]
        said: dict[str, Any] = {"value": value}
        if len(shown) > skip + size:
            query = "&".join(f"{name}={value}" for name, value in request.query if name != "$skip")
            said["@odata.nextLink"] = f"{BASE}{path}?{query}&$skip={skip + size}"
        return Reply.json(200, said)

    def _written(self, path: str, request: Request) -> Reply | None:
        """[make] a repeated transactionId makes nothing new; [change] If-Match; [gone]"""
        one = _ONE.match(path)
        if one is None and path != "me/events":
            return None
        if "Calendars.ReadWrite" not in self.graph.grant.scopes:
            return error(403, "ErrorAccessDenied")
        if path == "me/events" and request.method == "POST":
            body = request.json()
            made = next((e for e in self.events.values() if e.transaction == body["transactionId"]), None)
            made = made or self.book(0, transaction=body["transactionId"])
            return self._change(made, body)
        event = self.events.get(one.group(1)) if one is not None else None
        if event is None:
            return error(404, "ErrorItemNotFound")
        if request.headers.get("if-match", _etag(event)) != _etag(event):
            return error(412, "ErrorIrresolvableConflict")
        if request.method == "DELETE":
            self.delete(event)
            return Reply(204)
        return self._change(event, request.json())

    def _change(self, event: Event, body: dict[str, Any]) -> Reply:
        for name, field_ in (("subject", "title"), ("bodyPreview", "words")):
            setattr(event, field_, body.get(name, getattr(event, field_)))
        if "start" in body:
            start, end = (datetime.fromisoformat(body[name]["dateTime"]) for name in ("start", "end"))
            event.start = round(start.replace(tzinfo=UTC).timestamp() * 1000)
            event.length = round((end - start).total_seconds() * 1000)
        event.extended |= {one["id"]: one["value"] for one in body.get("singleValueExtendedProperties", [])}
        self.touch(event)
        return Reply.json(200, self._event(event, None, frozenset()))

    def _event(
        self, event: Event, one: Occurrence | None, select: frozenset[str], expand: str | None = None
    ) -> dict[str, Any]:
        master = one is None and event.every > 0
        start = one.start if one is not None else event.start
        person = {"name": "Ann", "address": self.graph.address}
        said: dict[str, Any] = {
            "type": one.kind if one is not None else "seriesMaster" if master else "singleInstance",
            "seriesMasterId": event.id if one is not None and event.every else None,
            "iCalUId": event.uid if one is None or not event.every else f"{event.uid}/{one.id}",  # [ids]
            "changeKey": f"CK{event.version}",
            "subject": event.title,
            "bodyPreview": event.words,
            "transactionId": event.transaction,
            "location": {"displayName": "Café"},
            **_times(start, event.length),
            "isAllDay": event.all_day,
            "isCancelled": one.cancelled if one is not None else event.cancelled,
            "showAs": event.show,
            "organizer": {"emailAddress": person},
            "attendees": [
                {"type": "required", "status": {"response": answer}, "emailAddress": {"name": who, "address": who}}
                for who, answer in event.attendees.items()
            ],
            "responseStatus": {"response": self.owner_answer.get(event.id, "organizer")},
            "lastModifiedDateTime": moment(event.modified),
            "originalStartTimeZone": "Pacific Standard Time",
            "recurrence": _recurrence(event) if master else None,
        }
        shown = {name: value for name, value in said.items() if not select or name in select}
        asked = _EXPANDED.match(expand or "")
        if asked is not None and asked.group(1) in event.extended:  # [extended] only what is asked for, by its id
            shown["singleValueExtendedProperties"] = [{"id": asked.group(1), "value": event.extended[asked.group(1)]}]
        return {"id": one.id if one is not None else event.id, "@odata.etag": _etag(event), **shown}


def _etag(event: Event) -> str:
    return f'W/"CK{event.version}"'


def _times(start: int, length: int) -> dict[str, Any]:
    """[times]"""
    return {
        name: {"dateTime": _instant(at), "timeZone": "UTC"} for name, at in (("start", start), ("end", start + length))
    }


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.0000000")


def _recurrence(event: Event) -> dict[str, Any]:
    """[recur]"""
    first = datetime.fromtimestamp(event.start / 1000, UTC).date()
    last = first + timedelta(days=event.every * max(0, event.count - 1))
    bounds: dict[str, Any] = {"type": "noEnd", "startDate": str(first), "endDate": "0001-01-01"}
    if event.count % 2:
        bounds |= {"type": "numbered", "numberOfOccurrences": event.count}
    elif event.count:
        bounds |= {"type": "endDate", "endDate": str(last), "numberOfOccurrences": 0}
    return {"pattern": {"type": "daily", "interval": event.every}, "range": bounds}
