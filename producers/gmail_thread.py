"""What a Gmail thread comes to: its events, for what its messages make of it (:mod:`headrace.producers.mail_story`)."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import Any, Final

from headrace.processors.kinds.mail_thread import KIND
from headrace.producers.event import KnownEntity, NewEvent
from headrace.producers.gmail_api import Message
from headrace.producers.gmail_text import plain_text
from headrace.producers.mail_story import OWN_WORDS, SENT, Picture, Story, is_mail
from headrace.producers.marks import MAIL_HEADER, message_mark
from headrace.schemas.envelope import rfc3339

_LAST_MS: Final = 253_402_300_800_000
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]+>")


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
        "labels": sorted(mailbox.labels(labels) - OWN_WORDS),
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
