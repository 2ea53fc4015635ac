"""What an Outlook conversation comes to: messages lie in folders, the log speaks of threads.

A conversation is a thread of mail. The labels of a message are its folder's (:mod:`headrace.producers.graph_folders`),
its categories, ``UNREAD``, and ``STARRED`` where it is flagged; what they make of a thread is as with Gmail
(:mod:`headrace.producers.mail_story`).
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from headrace.processors.kinds.mail_thread import KIND, TRASH
from headrace.producers.event import KnownEntity, NewEvent
from headrace.producers.graph_api import GRAPH, address, moment, text, yes
from headrace.producers.graph_folders import DRAFT, Folders, Labels, is_fact
from headrace.producers.mail_story import SENT, UNREAD, Picture, Story, picture
from headrace.producers.marks import message_mark
from headrace.schemas.envelope import rfc3339

SELECT: Final = (
    "id,conversationId,conversationIndex,parentFolderId,internetMessageId,isRead,isDraft,categories,flag,"
    "createdDateTime,receivedDateTime,sentDateTime,subject,from,toRecipients,ccRecipients,bccRecipients"
)
"""All of it is in reach of Mail.ReadBasic (https://learn.microsoft.com/graph/permissions-reference)."""
STATE: Final = "id,conversationId,parentFolderId,isRead,isDraft,categories,flag"
"""What decides on a thread's state, but for new messages."""
STARRED: Final = "STARRED"
_OWN_WORDS: Final = frozenset({SENT, UNREAD, TRASH, DRAFT})
_HEADER_BYTES: Final = 22
_LEVEL_BYTES: Final = 5
"""[MS-OXOMSG] 2.2.1.3, PidTagConversationIndex: a header, and five bytes more for each answer."""
_LONE: Final = "~"
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]+>")
_LAST_MS: Final = 253_402_300_800_000


class Message(NamedTuple):
    """A message as it is now. ``born`` is when it came to be what it is in this mailbox, ``date`` when it was sent or
    received, both in epoch milliseconds UTC; ``marks`` are its labels but for the folder's; ``place`` is where
    it stands among the answers; people are (address, shown)."""

    id: str
    thread: str
    folder: str
    key: str
    marks: Labels
    draft: bool
    born: int
    date: int | None
    subject: str | None
    sender: tuple[str | None, str | None]
    recipients: tuple[tuple[str | None, str | None], ...]
    place: bytes


class Mailbox:
    """Names in one mailbox. ``pseudonym`` is the account's."""

    def __init__(self, address_: str, pseudonym: Callable[[str], str]) -> None:
        self.address: Final = address_.lower()
        self.pseudonym: Final = pseudonym
        self._prefix: Final = f"graph:{pseudonym('graph:' + self.address)[2:14]}:"

    def entity(self, thread: str) -> str:
        """A thread's entity id. Delivery finds the conversation by it."""
        return self._prefix + thread.replace("/", ".")

    def thread(self, entity: str) -> str | None:
        """The thread of an entity id, ``None`` for one of another mailbox."""
        return entity.removeprefix(self._prefix).replace(".", "/") if entity.startswith(self._prefix) else None

    def category(self, name: str) -> str:
        """How the log names a category: people give them any name, so it is a pseudonym."""
        return self.pseudonym(f"category:{name}")

    def event_id(self, *parts: str) -> str:
        """The same for the same change, however often it is fetched."""
        return hashlib.sha256(json.dumps([self._prefix, *parts]).encode()).hexdigest()[:32]


class Reading(NamedTuple):
    """What it takes to say what a message is: the mailbox's names, and its folders."""

    mailbox: Mailbox
    folders: Folders

    def labels(self, message: Message) -> Labels | None:
        """All of a message's labels, ``None`` where it is in no folder that a person sees."""
        own = self.folders.labels(message.folder)
        if own is None:
            return None
        return own | message.marks | ({DRAFT} if message.draft else frozenset())

    def mail(self, messages: Iterable[Message]) -> list[Message]:
        """What was received or sent, in the order it came into the mailbox: no drafts, and nothing out of sight."""
        seen = [one for one in messages if is_fact(self.labels(one))]
        return sorted(seen, key=lambda one: (one.born, one.key, one.id))

    def picture(self, messages: Iterable[Message]) -> Picture:
        """The thread that has these messages."""
        labels = [self.labels(one) for one in messages]
        return picture([one for one in labels if one is not None])


def read_message(said: Mapping[str, Any], mailbox: Mailbox) -> Message:
    """A message as Graph shows it.

    :raises UnavailableError: it cannot be read; the field is named.
    """
    message_id = GRAPH.identifier(said, "id")
    said_id = text(said, "internetMessageId") or ""
    named = _MESSAGE_ID.search(said_id)
    marks = {mailbox.category(one) for one in GRAPH.some(said, "categories") if isinstance(one, str) and one}
    if not yes(said, "isRead"):
        marks.add(UNREAD)
    if text(GRAPH.optional(said, "flag"), "flagStatus") == "flagged":
        marks.add(STARRED)
    created, received, sent = (moment(said, f"{one}DateTime") for one in ("created", "received", "sent"))
    people = [
        address(GRAPH.mapping(one)) for name in ("to", "cc", "bcc") for one in GRAPH.some(said, f"{name}Recipients")
    ]
    return Message(
        message_id,
        thread_of(said, message_id),
        GRAPH.identifier(said, "parentFolderId"),
        named.group() if named else said_id.strip() or f"graph:{message_id}",
        frozenset(marks),
        yes(said, "isDraft"),
        max(filter(None, (created, sent)), default=0),
        received if received is not None else sent,
        text(said, "subject"),
        address(GRAPH.optional(said, "from")),
        tuple(people),
        _index(said),
    )


def thread_of(said: Mapping[str, Any], message: str) -> str:
    """The conversation; a message that is in none is a thread of its own."""
    return GRAPH.identifier(said, "conversationId") if said.get("conversationId") is not None else _LONE + message


def lone(thread: str) -> str | None:
    """The message of a thread that is no conversation."""
    return thread.removeprefix(_LONE) if thread.startswith(_LONE) else None


def _index(said: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(text(said, "conversationIndex") or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def answered(message: Message, thread: Iterable[Message]) -> str | None:
    """The message of its thread that it answers, as far as its place among the answers tells."""
    if len(message.place) < _HEADER_BYTES + _LEVEL_BYTES:
        return None
    above = message.place[:-_LEVEL_BYTES]
    return next((one.key for one in thread if one.place == above and one.key != message.key), None)


def message_event(
    reading: Reading,
    message: Message,
    copies: Iterable[Message],
    answers: str | None,
    said: str | None,
    *,
    mine: bool,
    again: str | None = None,
) -> NewEvent:
    """``mail.sent`` or ``mail.received``. ``copies`` are all of the message that lie in the mailbox: of what somebody
    writes to herself there are two, and they are one message. ``said`` is its text, where that is wanted; ``again`` the
    head of a thread that was deleted for good, and of which the message was got back."""
    mailbox = reading.mailbox
    version = ("message",) if again is None else ("again", again)
    labels = frozenset[str]().union(*(reading.labels(one) or () for one in copies))
    people = [at for at, _ in message.recipients if at is not None]
    recipients = list(dict.fromkeys(people))
    sender, shown = message.sender
    body = {
        "message": message.key,
        "in_reply_to": answers,
        "sender": sender or "unknown",
        "recipients": recipients,
        "labels": sorted(labels - _OWN_WORDS),
    }
    content = {
        "subject": message.subject,
        "text": said,
        "sender": shown,
        "recipients": [one for _, one in message.recipients if one is not None],
    }
    concerned = recipients if mine else [sender] if sender is not None else []
    return NewEvent(
        type="mail.sent" if mine else "mail.received",
        kind=KIND.name,
        entity=mailbox.entity(message.thread),
        id=mailbox.event_id(*version, message.thread, message.key),
        body=body,
        content=content,
        occurred_at=rfc3339(message.date) if message.date is not None and 0 <= message.date < _LAST_MS else None,
        concerns=(
            *(f"message:{one}" for one in (message.key, answers) if one is not None),
            *(f"person:{one}" for one in concerned),
        ),
        mark=message_mark(message.key) if mine else None,
    )


def untold(mailbox: Mailbox, mail: list[Message], touched: set[str] | None, known: KnownEntity | None) -> list[Message]:
    """The messages that the log may not know, one of each, oldest first; those it does know have the id they had.

    The log counts messages and names the last. Where the two fit what is there, only later ones are new. Where they do
    not (one is gone for good), those of ``touched`` may be, too: the ids that this sync was told of; ``None`` is all.
    """
    first: dict[str, Message] = {}
    for message in mail:
        first.setdefault(message.key, message)
    ones = list(first.values())
    state = known.state if known is not None else None
    if not state or state["deleted"]:
        return ones
    keys = [mailbox.pseudonym(one.key) for one in ones]
    last = keys.index(state["last_message"]) if state["last_message"] in keys else -1
    later = ones[last + 1 :] if last >= 0 else []
    if last >= 0 and last + 1 == state["messages"]:
        return later
    if touched is None:
        return ones
    new = {one.key for one in mail if one.id in touched} | {one.key for one in later}
    return [one for at, one in enumerate(ones) if one.key in new and at != last]


def compared(mailbox: Mailbox, thread: str, wanted: Picture, known: KnownEntity | None) -> list[NewEvent]:
    """What leads from what the log holds of a thread to ``wanted``, but for messages. Graph says of none of it when it
    happened. The head keeps the ids of a change apart from those of the same change earlier."""
    if known is None:
        return []
    story = Story(known.state)
    story.lead_to(wanted)
    return [
        NewEvent(event, KIND.name, known.id, mailbox.event_id("state", known.head, thread, event), body)
        for event, body in story.told
    ]
