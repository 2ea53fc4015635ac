"""``calendar.event``: one event of a calendar, or one series (all components of one iCalendar UID, RFC 5545 §3.8.4.7).

Its calendar is a scope: the occurrences take up intervals of it, so an agent that had read an hour as free is
superseded by whoever fills it. Times are epoch milliseconds UTC; recurrence and time zones are the producer's business.
"""

from collections.abc import Mapping
from typing import Any, Final

from headrace.processors.core.kind import Column
from headrace.processors.core.model import Event, State
from headrace.schemas.refs import Touch

_NEW: Final[dict[str, Any]] = {
    "calendar": None,
    "uid": None,
    "resource": None,
    "etag": None,
    "sequence": 0,
    "status": "confirmed",
    "busy": True,
    "all_day": False,
    "occurrences": [],
    "unbounded_from": None,
    "organizer": None,
    "attendees": [],
    "removed": False,
}
_SNAPSHOT: Final = tuple(name for name in _NEW if name != "removed")
_GONE: Final = frozenset({"cancelled"})


class CalendarEvent:
    """The kind; see :class:`headrace.processors.core.kind.Kind` for what its functions promise."""

    name = "calendar.event"
    table = "calendar_events"
    comment = "A calendar event or series: one row each, as the facts on the log leave it."
    containers = ("calendar",)
    events = ("calendar.created", "calendar.updated", "calendar.cancelled", "calendar.responded")
    proposals = ("calendar.book", "calendar.move", "calendar.cancel")
    stamps = ("uid", "resource", "etag", "sequence")
    version = "etag"
    columns = (
        Column("calendar", "text", "Pseudonym of the calendar it is in.", indexed=True),
        Column("resource", "text", "Pseudonym of the provider's name of the object.", indexed=True),
        Column("etag", "text", "The provider's version."),
        Column("status", "text", "confirmed, tentative or cancelled."),
        Column("removed", "boolean", "Whether the object is gone at the provider."),
        Column("busy", "boolean", "Whether it takes up time."),
        Column("all_day", "boolean", "Whether it was given as dates."),
        Column("starts_at", "time", "Start of the first occurrence.", indexed=True),
        Column("ends_at", "time", "End of the first occurrence."),
        Column("unbounded_from", "time", "Of an endless series: it goes on from here."),
        Column("attendees", "json", "Who is asked and what they answered."),
        Column("title", "text", "Title, where content is in clear.", content=True),
        Column("location", "text", "Location, where content is in clear.", content=True),
    )

    def evolve(self, state: State | None, event: Event) -> dict[str, Any]:
        """The calendar event after a fact."""
        new, body = dict(state if state is not None else _NEW), event.body
        match event.type:
            case "calendar.created" | "calendar.updated":
                new |= {name: body[name] for name in _SNAPSHOT}
                new["removed"] = False
            case "calendar.cancelled":
                new["status"], new["removed"] = "cancelled", body["removed"]
                new["etag"] = body["etag"]
            case "calendar.responded":
                answers = {answer["who"]: answer for answer in body["responses"]}
                asked = [answers.pop(one["who"], one) for one in new["attendees"]]
                new["attendees"] = asked + [answers[who] for who in sorted(answers)]
                new["etag"] = body["etag"]
            case _:
                pass
        return _dated(new)

    def foresee(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The calendar event once the proposal is carried out."""
        new = dict(state if state is not None else _NEW)
        match proposal:
            case "calendar.book":
                new["calendar"], new["status"], new["removed"] = data["calendar"], "confirmed", False
                new["occurrences"] = [{"start": data["start"], "end": data["end"]}]
                new["attendees"] = [{"who": who, "response": "needs-action"} for who in data["attendees"]]
            case "calendar.move":
                new["occurrences"] = [{"start": data["start"], "end": data["end"]}]
            case "calendar.cancel":
                new["status"] = "cancelled"
            case _:
                pass
        return _dated(new)

    def guard(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> str | None:
        """The rule that forbids the proposal, if one does."""
        if proposal in ("calendar.book", "calendar.move") and data["start"] >= data["end"]:
            return "empty_interval"
        exists = state is not None and state["status"] not in _GONE
        if proposal == "calendar.book":
            return "already_exists" if exists else None
        if state is None or not exists:
            return "already_cancelled" if state is not None else "no_such_event"
        if proposal == "calendar.move" and (len(state["occurrences"]) > 1 or state["unbounded_from"] is not None):
            return "moves_a_series"
        return None

    def footprint(self, state: State | None) -> tuple[Touch, ...]:
        """The intervals of its calendar that it takes up; the calendar itself where it has no time."""
        if state is None or state["calendar"] is None or state["status"] in _GONE:
            return ()
        calendar = state["calendar"]
        touches = [Touch("calendar", calendar, one["start"], one["end"]) for one in state["occurrences"]]
        if state["unbounded_from"] is not None:
            touches.append(Touch("calendar", calendar, state["unbounded_from"], None))
        return tuple(touches) or (Touch("calendar", calendar),)


def _dated(state: dict[str, Any]) -> dict[str, Any]:
    first = state["occurrences"][0] if state["occurrences"] else None
    state["starts_at"] = first["start"] if first is not None else None
    state["ends_at"] = first["end"] if first is not None else None
    return state


KIND: Final = CalendarEvent()
