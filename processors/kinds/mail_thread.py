"""``mail.thread``: a conversation in a mailbox.

The state is what is decided on; subjects, bodies and names are content. Messages are named by the pseudonym of their
Message-ID (RFC 5322 §3.6.4).
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from headrace.processors.core.kind import Column
from headrace.processors.core.model import Event, State
from headrace.schemas.refs import Touch

INBOX: Final = "INBOX"
TRASH: Final = "TRASH"
"""Taken off as a label, the thread is out of the trash again, wherever it went. Never among the labels itself."""
_NEW: Final[dict[str, Any]] = {
    "messages": 0,
    "last_message": None,
    "last_sender": None,
    "last_by_owner": False,
    "answered": [],
    "drafted": [],
    "labels": [],
    "unread": False,
    "archived": False,
    "trashed": False,
    "deleted": False,
}


@lru_cache(4096)
def _label(name: str) -> Touch:
    """A mailbox has few labels, and every event of a thread touches all of the thread's."""
    return Touch("mail.label", name)


def _with(names: Iterable[str], added: Iterable[str] = (), removed: Iterable[str] = ()) -> list[str]:
    return sorted((set(names) | set(added)) - set(removed))


def _arrived(state: dict[str, Any], body: Mapping[str, Any], *, by_owner: bool) -> None:
    state["messages"] += 1
    state["last_message"], state["last_sender"] = body["message"], body["sender"]
    state["last_by_owner"] = by_owner
    state["labels"] = _with(state["labels"], body["labels"])
    state["trashed"] = state["deleted"] = False
    if by_owner:
        if body["in_reply_to"] is not None:
            state["answered"] = _with(state["answered"], [body["in_reply_to"]])
            state["drafted"] = _with(state["drafted"], removed=[body["in_reply_to"]])
    else:
        state["unread"], state["archived"] = True, False


class MailThread:
    """The kind; see :class:`headrace.processors.core.kind.Kind` for what its functions promise."""

    name = "mail.thread"
    table = "threads"
    comment = "A mail thread: one row each, as the facts on the log leave it."
    containers = ("mail.label",)
    events = (
        "mail.received",
        "mail.sent",
        "mail.read",
        "mail.unread",
        "mail.labelled",
        "mail.archived",
        "mail.trashed",
        "mail.deleted",
    )
    proposals = ("mail.reply", "mail.label", "mail.archive")
    stamps = ()
    version = None
    columns = (
        Column("messages", "integer", "How many messages it has."),
        Column("last_message", "text", "Pseudonym of the newest message's Message-ID."),
        Column("last_sender", "text", "Pseudonym of who wrote it."),
        Column("last_by_owner", "boolean", "Whether the mailbox's owner wrote it."),
        Column("unread", "boolean", "Whether something in it is unread."),
        Column("archived", "boolean", "Whether it is out of the inbox."),
        Column("trashed", "boolean", "Whether it is in the trash."),
        Column("deleted", "boolean", "Whether it is gone for good."),
        Column("labels", "json", "Labels, sorted."),
        Column("subject", "text", "Subject of the newest message, where content is in clear.", content=True),
    )

    def evolve(self, state: State | None, event: Event) -> dict[str, Any]:
        """The thread after a fact."""
        new, body = dict(state if state is not None else _NEW), event.body
        match event.type:
            case "mail.received":
                _arrived(new, body, by_owner=False)
            case "mail.sent":
                _arrived(new, body, by_owner=True)
            case "mail.read":
                new["unread"] = False
            case "mail.unread":
                new["unread"] = True
            case "mail.labelled":
                new["labels"] = _with(new["labels"], body["added"], body["removed"])
                if INBOX in body["added"]:
                    new["archived"] = new["trashed"] = False
                if TRASH in body["removed"]:
                    new["trashed"] = False
            case "mail.archived":
                new["archived"], new["labels"] = True, _with(new["labels"], removed=[INBOX])
            case "mail.trashed":
                new["trashed"], new["labels"] = True, _with(new["labels"], removed=[INBOX])
            case "mail.deleted":
                new["deleted"], new["labels"] = True, []
            case _:
                pass
        return new

    def foresee(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The thread once the proposal is carried out."""
        new = dict(state if state is not None else _NEW)
        match proposal:
            case "mail.reply":
                answers = data["in_reply_to"] or new["last_message"]
                new["drafted"] = _with(new["drafted"], [answers] if answers else [])
            case "mail.label":
                new["labels"] = _with(new["labels"], data["added"], data["removed"])
            case "mail.archive":
                new["archived"], new["labels"] = True, _with(new["labels"], removed=[INBOX])
            case _:
                pass
        return new

    def guard(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> str | None:
        """The rule that forbids the proposal, if one does."""
        if state is None or not state["messages"]:
            return "no_such_thread"
        if state["deleted"] or state["trashed"]:
            return "thread_deleted"
        if proposal == "mail.archive":
            return "already_archived" if state["archived"] else None
        if proposal != "mail.reply":
            return None
        if state["archived"]:
            return "thread_archived"
        answers = data["in_reply_to"]
        if answers in state["answered"] or (answers is None and state["last_by_owner"]):
            return "already_replied"
        if (answers or state["last_message"]) in state["drafted"]:
            return "already_drafted"
        return None

    def footprint(self, state: State | None) -> tuple[Touch, ...]:
        """The labels it carries."""
        return tuple(map(_label, state["labels"])) if state is not None else ()


KIND: Final = MailThread()
