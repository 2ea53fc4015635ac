"""The marks on what agents' acts make at providers: by them a source knows an act of ours when it comes back.

Whoever delivers puts the mark on, sources read it; both are here, pure, and hold on nothing but the account's pseudonym
function (HMAC-SHA-256 under a key derived from the master key, :mod:`headrace.keys`), so nobody else can make one, and
what stands in the world tells nothing. A mark is the same however often the act is tried.

- A **message** carries it in its Message-ID (RFC 5322, section 3.6.4) and in the header ``X-Headrace-Mark``: some
  providers give a Message-ID of their own. Nobody writes on a message that was sent, so that is all.
- A **calendar event** carries :func:`calendar_mark`: the mark, the entity that the event was made for, a proof of both
  for this very event, and a seal on its words. A copy is another event, so its proof is wrong. Where somebody has
  changed the words since, the seal is broken: the event still is that entity, but what it shows is not the agent's act.
  (Times, people and the rest are what is decided on; ``delivery.attempted`` foresees those.)
"""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from headrace.schemas.refs import OPAQUE_ID

MAIL_HEADER: Final = "X-Headrace-Mark"
ICALENDAR_PROPERTY: Final = "X-HEADRACE-MARK"
"""A non-standard property (RFC 5545, section 3.8.8.2) of the VEVENT."""
GOOGLE_PROPERTY: Final = "headrace-mark"
"""A private extended property: of this copy of the event, kept by whoever edits it, at most 44 characters of a name and
1,024 of a value (https://developers.google.com/workspace/calendar/api/guides/extended-properties)."""
GRAPH_PROPERTY: Final = "String {6c5b9d1e-2f0a-4c58-9a3e-0d7f4b8e51c2} Name headrace-mark"
"""A single-value extended property (https://learn.microsoft.com/graph/api/resources/singlevaluelegacyextendedproperty)."""
MAIL_DOMAIN: Final = "headrace.invalid"
"""Of a Message-ID where whoever sends has no better one; who reads does not look at it."""
_WORDS: Final = ("title", "description", "location")
_MARK: Final = re.compile(r"p-[a-z2-7]{26}\Z")
_MESSAGE_ID: Final = re.compile(r"<(p-[a-z2-7]{26})@[^<>@\s]{1,255}>\Z")
_TAG: Final = re.compile(r"<(?:style|script)\b.*?</(?:style|script)\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_MOST_CHARS: Final = 1_024

Pseudonym = Callable[[str], str]


class CalendarMark(NamedTuple):
    """What an event of ours says of itself: the entity that it is, and the mark of the act that left it as it is now
    (``None``: somebody has changed its words since)."""

    entity: str
    mark: str | None


def mark_of(pseudonym: Pseudonym, proposal: str) -> str:
    """The mark of the one attempt to carry a proposal out: ``delivery.attempted`` names it, and so does, in
    ``causation``, a fact that was found on an object that carries it."""
    return pseudonym(f"\0mark\0{proposal}")


# Messages


def message_id(pseudonym: Pseudonym, proposal: str, domain: str = MAIL_DOMAIN) -> str:
    """The Message-ID to send a proposal's message under."""
    return f"<{mark_of(pseudonym, proposal)}@{domain}>"


def message_mark(said_id: str | None, header: str | None = None) -> str | None:
    """The mark of a message that the mailbox's owner sent, by its Message-ID or the header of ours. Of what is received
    it says nothing: whoever got a message of ours knows its Message-ID."""
    for form, said in ((_MARK, header), (_MESSAGE_ID, said_id)):
        found = form.match(said.strip()) if said is not None else None
        if found is not None:
            return found.group(found.re.groups)
    return None


# Calendar events


def own_uid(pseudonym: Pseudonym, entity: str) -> str:
    """The UID (RFC 5545, section 3.8.4.7), and the name of the resource, to book an entity's event under."""
    return pseudonym(f"\0uid\0{entity}")


def own_transaction(pseudonym: Pseudonym, entity: str) -> str:
    """The ``transactionId`` to book an entity's event under at Microsoft: the same one is booked once."""
    return pseudonym(f"\0transaction\0{entity}")


def calendar_mark(pseudonym: Pseudonym, *, proposal: str, entity: str, anchor: str, content: Mapping[str, Any]) -> str:
    """What to write on an event. ``anchor`` is what no other event has (its UID, its id, or the transaction that makes
    it), ``content`` its words as the source will show them (``title``, ``description``, ``location``)."""
    mark = mark_of(pseudonym, proposal)
    return "/".join((mark, entity, _proof(pseudonym, mark, entity, anchor), _seal(pseudonym, mark, entity, content)))


def read_calendar_mark(
    pseudonym: Pseudonym, said: str | None, anchors: Iterable[str | None], content: Mapping[str, Any]
) -> CalendarMark | None:
    """What the mark on an event says; ``None`` where there is none, or it was made for another event or by others."""
    parts = said.strip().split("/") if said is not None and len(said) <= _MOST_CHARS else []
    if len(parts) != 4 or not _MARK.match(parts[0]) or not OPAQUE_ID.match(parts[1]):
        return None
    mark, entity, proof, seal = parts
    if not any(anchor and proof == _proof(pseudonym, mark, entity, anchor) for anchor in anchors):
        return None
    return CalendarMark(entity, mark if seal == _seal(pseudonym, mark, entity, content) else None)


def _proof(pseudonym: Pseudonym, mark: str, entity: str, anchor: str) -> str:
    return pseudonym("\0proof\0" + json.dumps([mark, entity, anchor]))


def _seal(pseudonym: Pseudonym, mark: str, entity: str, content: Mapping[str, Any]) -> str:
    words = [_words(content.get(field)) for field in _WORDS]
    return pseudonym("\0seal\0" + json.dumps([mark, entity, words]))


def _words(text: str | None) -> str:
    """As a person reads it: providers rewrite white space, make HTML of text, and put accents together."""
    plain = html.unescape(_TAG.sub(" ", text)) if text else ""
    return " ".join(unicodedata.normalize("NFC", plain).split())
