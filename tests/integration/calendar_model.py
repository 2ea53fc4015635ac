"""What the log's tables would hold of calendar events, as a dictionary."""

import hashlib
from collections.abc import Iterator, Set
from typing import Any

from headrace.producers.event import KnownEntity, NewEvent


def pseudonym(text: str) -> str:
    """Opaque and idempotent, as the account's real one is."""
    return text if text.startswith("p-") else "p-" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Model:
    """Folds the events that sources hand over, and is what they then know."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self.heads: dict[str, str] = {}
        self.ids: set[str] = set()

    def where(self, kind: str, **columns: str | Set[str]) -> Iterator[KnownEntity]:
        """As the protocol ``Known`` has it."""
        assert kind == "calendar.event"
        for entity, state in sorted(self.states.items()):
            held = {**state, "id": entity}
            if all(held[name] in ({wanted} if isinstance(wanted, str) else wanted) for name, wanted in columns.items()):
                yield KnownEntity(entity, state, self.heads[entity])

    def apply(self, event: NewEvent) -> None:
        """As the log does it: an id that was there before has no effect."""
        if event.id in self.ids:
            return
        self.ids.add(event.id)
        if event.type in {"calendar.created", "calendar.updated"}:
            assert (event.entity in self.states and not self.states[event.entity]["removed"]) == (
                event.type == "calendar.updated"
            )
            self.states[event.entity] = _hidden(event.body)
        else:
            state = self.states[event.entity]
            assert not state["removed"]
            if event.type == "calendar.cancelled":
                state.update(status="cancelled", removed=event.body["removed"], etag=event.body["etag"])
            else:
                assert event.type == "calendar.responded"
                answers = {pseudonym(one["who"]): one["response"] for one in event.body["responses"]}
                for one in state["attendees"]:
                    one["response"] = answers.get(one["who"], one["response"])
                state["etag"] = event.body["etag"]
        self.heads[event.entity] = f"{len(self.ids)}:{event.id}"


def _hidden(body: Any) -> dict[str, Any]:
    organizer = body["organizer"]
    return {
        **body,
        "calendar": pseudonym(body["calendar"]),
        "uid": pseudonym(body["uid"]),
        "resource": pseudonym(body["resource"]),
        "organizer": None if organizer is None else pseudonym(organizer),
        "attendees": [{"who": pseudonym(one["who"]), "response": one["response"]} for one in body["attendees"]],
        "removed": False,
    }
