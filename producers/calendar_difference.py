"""What became of a calendar event: the one event that leads from the state the log holds to what a provider shows."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.producers.event import KnownEntity, NewEvent
from headrace.producers.ical import CalendarObject

KIND: Final = "calendar.event"
_PLAIN_FIELDS: Final = ("sequence", "status", "busy", "all_day", "unbounded_from")
_NAMED_FIELDS: Final = ("calendar", "uid", "resource", "organizer")


class Place:
    """Where an event is kept: a calendar and a resource in it. ``pseudonym`` is the account's."""

    def __init__(self, calendar: str, resource: str, pseudonym: Callable[[str], str]) -> None:
        self.calendar = calendar
        self.resource = resource
        self.pseudonym = pseudonym

    def event_id(self, entity: str, version: str, head: str) -> str:
        """The same for the same change however often it is fetched. The head keeps it apart from an earlier change
        to the same version: servers that derive etags from the text give an old one again when a person undoes."""
        parts = [self.pseudonym(self.calendar), self.pseudonym(self.resource), entity, version, head]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def shown(place: Place, found: CalendarObject, etag: str | None, known: KnownEntity | None) -> NewEvent | None:
    """The event that an object seen at ``place`` stands for; ``None`` when nothing is new about it.

    Only answers changed: ``calendar.responded``. An object that became cancelled where it is: ``calendar.cancelled``,
    not removed. Anything else, were it only the etag (a description is not part of the state), is the whole new state.
    """
    head = "" if known is None else known.head
    entity = place.pseudonym(found.uid)
    body: dict[str, Any] = {
        "calendar": place.calendar,
        "uid": found.uid,
        "resource": place.resource,
        "etag": etag,
        **found.body,
    }
    kind, told = "calendar.updated", body
    attendees: list[dict[str, str]] = body["attendees"]
    concerns: tuple[str, ...] = ()
    content: dict[str, Any] | None = found.content
    if known is None or known.state["removed"]:
        kind = "calendar.created"
    else:
        state = known.state
        unmoved = _same(body, state, place.pseudonym)
        answers = _answers(body["attendees"], place.pseudonym)
        before = _answers(state["attendees"], place.pseudonym)
        if unmoved and answers == before and etag == state["etag"]:
            return None
        if body["status"] == "cancelled" != state["status"] and _same_place(body, state, place.pseudonym):
            kind, told, content = "calendar.cancelled", {"removed": False, "etag": etag}, None
        elif unmoved and answers != before and answers.keys() == before.keys():
            changed = [one for one in attendees if _answered(one, before, place.pseudonym)]
            kind, told, content = "calendar.responded", {"responses": changed, "etag": etag}, None
            concerns = tuple(f"person:{one['who']}" for one in changed)
    return NewEvent(
        type=kind,
        kind=KIND,
        entity=entity,
        id=place.event_id(entity, f"etag:{etag or ''}", head),
        body=told,
        content=content,
        occurred_at=found.occurred_at,
        concerns=concerns,
    )


def removed(place: Place, known: KnownEntity) -> NewEvent:
    """``calendar.cancelled`` for an event that is no longer at ``place``, nor anywhere else in its calendar."""
    return NewEvent(
        type="calendar.cancelled",
        kind=KIND,
        entity=known.id,
        id=place.event_id(known.id, "gone", known.head),
        body={"removed": True, "etag": None},
    )


def _same(body: Mapping[str, Any], state: Mapping[str, Any], pseudonym: Callable[[str], str]) -> bool:
    """Whether all that is decided on is equal, but for the etag and the attendees."""
    return (
        all(body[field] == state[field] for field in _PLAIN_FIELDS)
        and all(_hidden(body[field], pseudonym) == _hidden(state[field], pseudonym) for field in _NAMED_FIELDS)
        and _times(body["occurrences"]) == _times(state["occurrences"])
    )


def _same_place(body: Mapping[str, Any], state: Mapping[str, Any], pseudonym: Callable[[str], str]) -> bool:
    return all(_hidden(body[field], pseudonym) == state[field] for field in ("calendar", "resource"))


def _hidden(text: str | None, pseudonym: Callable[[str], str]) -> str | None:
    return None if text is None else pseudonym(text)


def _times(occurrences: Any) -> list[tuple[int, int]]:
    return [(one["start"], one["end"]) for one in occurrences]


def _answers(attendees: Any, pseudonym: Callable[[str], str]) -> dict[str, str]:
    return {pseudonym(one["who"]): one["response"] for one in attendees}


def _answered(one: Mapping[str, str], before: Mapping[str, str], pseudonym: Callable[[str], str]) -> bool:
    return before[pseudonym(one["who"])] != one["response"]
