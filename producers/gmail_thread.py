"""What a Gmail thread comes to: Gmail labels messages, the log speaks of threads.

A thread's picture is made of all its messages but drafts and chats. What leads from the state that the log holds to a
picture is found by evolving that state, event by event, as the fold will.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import Any, Final, NamedTuple

from headrace.processors.core.model import Event, State
from headrace.processors.kinds.mail_thread import INBOX, KIND, TRASH
from headrace.producers.event import KnownEntity, NewEvent
from headrace.producers.gmail_api import Message
from headrace.producers.gmail_text import plain_text
from headrace.producers.marks import MAIL_HEADER, message_mark
from headrace.schemas.envelope import rfc3339
from headrace.schemas.refs import ActorRef

SENT: Final = "SENT"
UNREAD: Final = "UNREAD"
_NO_MAIL: Final = frozenset({"DRAFT", "CHAT"})
"""No facts: every edit of a draft is a new message (https://developers.google.com/gmail/api/guides/drafts)."""
_OWN_WORDS: Final = frozenset({SENT, UNREAD, TRASH, *_NO_MAIL})
"""Labels that the log has words of its own for."""
_SYSTEM: Final = ActorRef("system", "sync")
_LAST_MS: Final = 253_402_300_800_000
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]+>")


class Picture(NamedTuple):
    """A thread as far as it is decided on. ``archived`` is ``None`` where nothing can be said: somebody who only ever
    sent has not archived."""

    labels: frozenset[str]
    unread: bool
    archived: bool | None
    trashed: bool
    deleted: bool


class Mailbox:
    """Names in one mailbox. ``pseudonym`` is the account's."""

    def __init__(self, address: str, pseudonym: Callable[[str], str]) -> None:
        self.pseudonym: Final = pseudonym
        self._prefix: Final = f"gmail:{pseudonym('gmail:' + address.lower())[2:14]}:"

    def entity(self, thread: str) -> str:
        """A thread's entity id. Delivery finds the thread by it."""
        return self._prefix + thread

    def thread(self, entity: str) -> str | None:
        """The thread of an entity id, ``None`` for one of another mailbox."""
        return entity.removeprefix(self._prefix) if entity.startswith(self._prefix) else None

    def labels(self, labels: Iterable[str]) -> frozenset[str]:
        """As they stand on the log: an id that holds an address does not."""
        return frozenset(self.pseudonym(one) if "@" in one else one for one in labels)

    def key(self, message: Message) -> str:
        """How the log names a message."""
        return self.pseudonym(message_key(message))

    def event_id(self, *parts: str) -> str:
        """The same for the same change, however often it is fetched."""
        return hashlib.sha256(json.dumps([self._prefix, *parts]).encode()).hexdigest()[:32]


def is_mail(labels: frozenset[str]) -> bool:
    """Whether a message with these labels was received or sent."""
    return not labels & _NO_MAIL


def picture(messages: Iterable[frozenset[str]]) -> Picture:
    """The thread whose messages have these labels. What is in the trash counts only where all of it is."""
    mail = [labels for labels in messages if is_mail(labels)]
    shown = [labels for labels in mail if TRASH not in labels]
    counted = shown or mail
    trashed = not shown
    labels = frozenset[str]().union(*counted) - _OWN_WORDS
    archived = False if INBOX in labels else True if any(SENT not in one for one in counted) else None
    return Picture(
        labels - {INBOX} if trashed else labels,
        any(UNREAD in one for one in counted),
        None if trashed else archived,
        trashed,
        not mail,
    )


class Story:
    """What is told of a thread, and the state that it leads to from ``state``."""

    def __init__(self, state: State | None) -> None:
        self.state = state or None
        self.told: list[tuple[str, Mapping[str, Any]]] = []

    def tell(self, event: str, body: Mapping[str, Any]) -> None:
        """The thread after one more event."""
        self.told.append((event, body))
        self.state = KIND.evolve(self.state, Event(event, body, _SYSTEM))

    def lead_to(self, wanted: Picture) -> None:
        """Tell what is missing until the state is ``wanted``. A thread of which no message was told is nothing yet."""
        state = self.state
        if state is None or state["deleted"]:
            return
        if wanted.deleted:
            self.tell("mail.deleted", {"message": None})
            return
        if wanted.trashed and not state["trashed"]:
            self.tell("mail.trashed", {"message": None})
        self._relabel(wanted)
        self._archive(wanted)
        state = self.state
        assert state is not None
        if wanted.unread != state["unread"]:
            self.tell("mail.unread" if wanted.unread else "mail.read", {"message": None})

    def _relabel(self, wanted: Picture) -> None:
        state = self.state
        assert state is not None
        has = frozenset(state["labels"])
        added, removed = set(wanted.labels - has), set(has - wanted.labels)
        if not wanted.trashed:
            removed.discard(INBOX)  # that is to archive it
            if state["trashed"]:
                removed.add(TRASH)
            if wanted.archived is False and state["archived"]:
                added.add(INBOX)
        if added or removed:
            self.tell("mail.labelled", {"message": None, "added": sorted(added), "removed": sorted(removed)})

    def _archive(self, wanted: Picture) -> None:
        state = self.state
        assert state is not None
        if wanted.trashed or INBOX in wanted.labels:
            return
        if INBOX in state["labels"] or (wanted.archived and not state["archived"]):
            self.tell("mail.archived", {"message": None})


def message_event(
    mailbox: Mailbox, thread: str, message: Message, labels: frozenset[str], whole: Message | None
) -> NewEvent:
    """``mail.sent`` or ``mail.received`` for a message that had ``labels`` when it came; ``whole`` is the message with
    its text, where that is wanted."""
    mine = SENT in labels
    senders = _addresses(message, "from")
    recipients = list(dict.fromkeys(_addresses(message, "to", "cc", "bcc")))
    answered = _answered(message)
    people = recipients if mine else senders
    body = {
        "message": message_key(message),
        "in_reply_to": answered,
        "sender": senders[0] if senders else "unknown",
        "recipients": recipients,
        "labels": sorted(mailbox.labels(labels) - _OWN_WORDS),
    }
    content = {
        "subject": _readable(message.headers["subject"]) if "subject" in message.headers else None,
        "text": plain_text(whole.payload) if whole is not None else None,
        "sender": _readable(message.headers["from"]) if "from" in message.headers else None,
        "recipients": [_readable(message.headers[name]) for name in ("to", "cc", "bcc") if name in message.headers],
    }
    return NewEvent(
        type="mail.sent" if mine else "mail.received",
        kind=KIND.name,
        entity=mailbox.entity(thread),
        id=mailbox.event_id("message", message.id),
        body=body,
        content=content,
        occurred_at=_moment(message.date),
        concerns=(
            *(f"message:{one}" for one in (body["message"], answered) if one is not None),
            *(f"person:{one}" for one in people),
        ),
        mark=message_mark(message_key(message), message.headers.get(MAIL_HEADER.lower())) if mine else None,
    )


def flag_event(mailbox: Mailbox, thread: str, event: str, body: Mapping[str, Any], *version: str) -> NewEvent:
    """An event of :class:`Story` about the whole thread; Gmail says of none when it happened."""
    return NewEvent(event, KIND.name, mailbox.entity(thread), mailbox.event_id(*version, thread, event), body)


def compared(mailbox: Mailbox, thread: str, wanted: Picture, known: KnownEntity | None) -> list[NewEvent]:
    """What leads from what the log holds of a thread to ``wanted``, but for messages. The head keeps the ids of a
    change apart from those of the same change earlier."""
    if known is None:
        return []
    story = Story(known.state)
    story.lead_to(wanted)
    return [flag_event(mailbox, thread, event, body, "state", known.head) for event, body in story.told]


def in_order(messages: Iterable[Message]) -> list[Message]:
    """The mail of a thread, oldest first."""
    mail = [message for message in messages if is_mail(message.labels)]
    return sorted(mail, key=lambda message: (message.date or 0, message.id))


def message_key(message: Message) -> str:
    """The Message-ID (RFC 5322, section 3.6.4), by which an answer names it; Gmail's own id where it has none."""
    said = message.headers.get("message-id", "")
    found = _MESSAGE_ID.search(said)
    return found.group() if found else said.strip() or f"gmail:{message.id}"


def _answered(message: Message) -> str | None:
    """The first of ``In-Reply-To``, else the last of ``References``."""
    found = _MESSAGE_ID.findall(message.headers.get("in-reply-to", ""))
    if found:
        return str(found[0])
    found = _MESSAGE_ID.findall(message.headers.get("references", ""))
    return str(found[-1]) if found else None


def _addresses(message: Message, *names: str) -> list[str]:
    said = [message.headers[name] for name in names if name in message.headers]
    try:
        parsed = getaddresses(said)
    except RecursionError:  # comments in comments (RFC 5322, section 3.2.2), thousands deep
        return []
    return [address.strip().lower() for _, address in parsed if address.strip()]


def _readable(text: str) -> str:
    """A header as a person reads it: encoded words (RFC 2047) in clear, where they can be."""
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(text))).replace("\0", "\ufffd")
    except (HeaderParseError, LookupError, ValueError):
        return text


def _moment(date: int | None) -> str | None:
    return rfc3339(date) if date is not None and date < _LAST_MS else None
