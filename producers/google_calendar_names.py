"""How a Google calendar and its events are named on the log, and where the mark of headrace's own events stands."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.producers.google_calendar_api import Item
from headrace.producers.marks import GOOGLE_PROPERTY

_PREFIX: Final = "gcal:"
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_]{1,170}\Z")


def own_event_id(entity: str) -> str:
    """The id to insert an entity's event under: the same however often it is tried, so that Google refuses the second
    one (409 ``duplicate``). Lower-case base32hex, 5 to 1,024 characters, as events.insert wants it."""
    digest = hashlib.sha256(f"headrace:{entity}".encode()).digest()
    return base64.b32hexencode(digest).decode().rstrip("=").lower()


def marked(mark: str) -> dict[str, Any]:
    """What an event with this mark (:func:`headrace.producers.marks.calendar_mark`, anchored at its id) has among its
    fields."""
    return {"extendedProperties": {"private": {GOOGLE_PROPERTY: mark}}}


def mark_said(item: Item) -> str | None:
    """What an event carries as a mark, unread."""
    extended = item.body.get("extendedProperties")
    private = extended.get("private") if isinstance(extended, Mapping) else None
    said = private.get(GOOGLE_PROPERTY) if isinstance(private, Mapping) else None
    return said if isinstance(said, str) else None


class CalendarNames:
    """Names in one calendar. ``pseudonym`` is the account's."""

    def __init__(self, calendar: str, pseudonym: Callable[[str], str]) -> None:
        self.calendar: Final = calendar
        self.pseudonym: Final = pseudonym
        self._prefix: Final = f"{_PREFIX}{pseudonym(_PREFIX + calendar)[2:14]}:"

    def entity(self, event: str) -> str:
        """The entity id of a single event or a series."""
        return self._prefix + (event if _PLAIN_ID.match(event) else self.pseudonym(event))

    def event(self, entity: str, resource: str) -> str | None:
        """The event's id, by which delivery and a full sync find it; ``resource`` is the id's pseudonym. ``None`` for
        the few ids that cannot stand in an entity's."""
        own = entity.removeprefix(self._prefix) if entity.startswith(self._prefix) else own_event_id(entity)
        return own if self.pseudonym(own) == resource and own != resource else None
