"""What the labels of a thread's messages make of the thread, and how its story is told.

Gmail labels messages, and Outlook and IMAP are read as if they did; the log speaks of threads. A thread's picture is
made of all its messages but drafts and chats. What leads from the state that the log holds to a picture is found by
evolving that state, event by event, as the fold will.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from headrace.processors.core.model import Event, State
from headrace.processors.kinds.mail_thread import INBOX, KIND, TRASH
from headrace.schemas.refs import ActorRef

SENT: Final = "SENT"
UNREAD: Final = "UNREAD"
_NO_MAIL: Final = frozenset({"DRAFT", "CHAT"})
"""No facts: every edit of a draft is a new message (https://developers.google.com/gmail/api/guides/drafts)."""
OWN_WORDS: Final = frozenset({SENT, UNREAD, TRASH, *_NO_MAIL})
"""Labels that the log has words of its own for."""
_SYSTEM: Final = ActorRef("system", "sync")


class Picture(NamedTuple):
    """A thread as far as it is decided on. ``archived`` is ``None`` where nothing can be said: somebody who only ever
    sent has not archived."""

    labels: frozenset[str]
    unread: bool
    archived: bool | None
    trashed: bool
    deleted: bool


def is_mail(labels: frozenset[str]) -> bool:
    """Whether a message with these labels was received or sent."""
    return not labels & _NO_MAIL


def picture(messages: Iterable[frozenset[str]]) -> Picture:
    """The thread whose messages have these labels. What is in the trash counts only where all of it is."""
    mail = [labels for labels in messages if is_mail(labels)]
    shown = [labels for labels in mail if TRASH not in labels]
    counted = shown or mail
    trashed = not shown
    labels = frozenset[str]().union(*counted) - OWN_WORDS
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
