"""How a Google calendar and its events are named on the log, and the mark that headrace's own events carry."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from headrace.producers.google_calendar_api import Item
from headrace.schemas.refs import OPAQUE_ID

PROPOSAL: Final = "headrace-proposal"
ENTITY: Final = "headrace-entity"
"""Private extended properties: of this copy of the event, kept by whoever edits it, at most 44 characters of a name and
1,024 of a value (https://developers.google.com/workspace/calendar/api/guides/extended-properties)."""
_PREFIX: Final = "gcal:"
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_]{1,170}\Z")


class Mark(NamedTuple):
    """Whose proposal made an event, and the entity that it was about. It says who made the event, not who changed it
    last: that is told by the etag, which the answer to one's own write names."""

    proposal: str
    entity: str


def own_event_id(entity: str) -> str:
    """The id to insert an entity's event under: the same however often it is tried, so that Google refuses the second
    one (409 ``duplicate``). Lower-case base32hex, 5 to 1,024 characters, as events.insert wants it."""
    digest = hashlib.sha256(f"headrace:{entity}".encode()).digest()
    return base64.b32hexencode(digest).decode().rstrip("=").lower()


def marked(mark: Mark) -> dict[str, Any]:
    """What an event of ours has among its fields."""
    return {"extendedProperties": {"private": {PROPOSAL: mark.proposal, ENTITY: mark.entity}}}


def mark_of(item: Item) -> Mark | None:
    """The mark of an event that headrace made, ``None`` of any other: a copy of such an event has another id."""
    extended = item.body.get("extendedProperties")
    private = extended.get("private") if isinstance(extended, Mapping) else None
    said = private if isinstance(private, Mapping) else {}
    proposal, entity = said.get(PROPOSAL), said.get(ENTITY)
    if not isinstance(proposal, str) or not isinstance(entity, str):
        return None
    if not OPAQUE_ID.match(proposal) or not OPAQUE_ID.match(entity) or entity.startswith(_PREFIX):
        return None
    return Mark(proposal, entity) if own_event_id(entity) == item.id else None


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
