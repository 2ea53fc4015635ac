"""What can be said about the few entities of a history: small worlds meet often."""

from collections.abc import Mapping
from types import SimpleNamespace as Thing
from typing import Any, Final

from headrace.schemas.refs import EntityRef
from tests.core.scribe import HOUR, START, Account, Scribe

ENTITIES: Final = (
    ("mail.thread", "th1"),
    ("mail.thread", "th1"),
    ("mail.thread", "th2"),
    ("calendar.event", "ev1"),
    ("calendar.event", "ev1"),
    ("calendar.event", "ev2"),
    ("bank.account", "b1"),
    ("bank.account", "b1"),
)
CALENDARS: Final = ("c1", "c1", "c1", "c2")
LABELS: Final = ("INBOX", "urgent")
MESSAGES: Final = ("m1", "m2", "m3")


def entity(account: Account, choice: int) -> EntityRef:
    return account.entity(*ENTITIES[choice % len(ENTITIES)])


def hours(choice: int) -> tuple[int, int]:
    """An interval on a grid of hours, so that many just touch; some are empty."""
    start = START + choice % 4 * HOUR
    return start, start + choice // 4 % 3 * HOUR


def beginning(account: Account) -> tuple[tuple[EntityRef, str, dict[str, Any]], ...]:
    """What an account holds before anything else happens."""
    book: dict[str, Any] = {"calendar": "c1", "uid": "u", "occurrences": [{"start": START, "end": START + HOUR}]}
    return (
        (account.entity("mail.thread", "th1"), "mail.received", {"message": "m1", "sender": "x", "labels": ["INBOX"]}),
        (account.entity("calendar.event", "ev1"), "calendar.created", book),
        (account.entity("bank.account", "b1"), "account.opened", {"balance": 100}),
    )


def fact(kind: str, choice: int, detail: int) -> tuple[str, dict[str, Any]]:
    """A fact about an entity of this kind: its type and body."""
    match kind:
        case "mail.thread":
            return _mail(choice, detail)
        case "calendar.event":
            return _calendar(choice, detail)
        case _:
            if choice % 4 == 0:
                return "account.opened", {"balance": 100}
            return "account.adjusted", {"amount": detail % 100 - 50}


def _mail(choice: int, detail: int) -> tuple[str, dict[str, Any]]:
    message, label = MESSAGES[detail % 3], LABELS[detail % 2]
    match choice % 10:
        case 0 | 1 | 2:
            return "mail.received", {"message": message, "sender": "x", "labels": [label]}
        case 3:
            return "mail.sent", {"message": f"{message}s", "sender": "me", "in_reply_to": message}
        case 4:
            return "mail.labelled", {"added": [label], "removed": [LABELS[detail // 2 % 2]] if detail % 3 else []}
        case 5:
            return "mail.archived", {}
        case 6 if detail % 4 == 0:
            return ("mail.trashed", "mail.deleted")[detail // 4 % 2], {}
        case 6 | 7:
            return "mail.read", {}
        case 8:
            return "mail.unread", {"message": message}
        case _:
            return "account.opened", {"balance": 1}  # a type that the kind does not know


def _calendar(choice: int, detail: int) -> tuple[str, dict[str, Any]]:
    start, end = hours(detail)
    body: dict[str, Any] = {"calendar": CALENDARS[choice // 8 % 4], "uid": "u"}
    match choice % 8:
        case 0 | 1 | 2 | 3:
            body["occurrences"] = [{"start": start, "end": end}]
        case 4:
            body["unbounded_from"] = start
        case 5:
            body["attendees"] = [{"who": "x", "response": "needs-action"}]
        case 6:
            return "calendar.cancelled", {"removed": bool(detail % 2)}
        case _:
            return "calendar.responded", {"responses": [{"who": "x", "response": "accepted"}]}
    return ("calendar.created", "calendar.updated")[choice % 2], body


def proposal(kind: str, choice: int, detail: int) -> tuple[str, dict[str, Any]]:
    """What may be proposed on an entity of this kind: its type and data."""
    match kind:
        case "mail.thread":
            options = (
                ("mail.reply", {"in_reply_to": MESSAGES[detail % 3] if detail % 4 else None}),
                ("mail.label", {"added": [LABELS[detail % 2]]}),
                ("mail.archive", dict[str, Any]()),
            )
            return options[choice % 3]
        case "calendar.event":
            start, end = hours(detail)
            data: dict[str, Any] = {"start": start, "end": max(end, start + (detail % 5 > 0))}
            match choice % 4:
                case 0:
                    return "calendar.book", {**data, "calendar": CALENDARS[choice // 4 % 4]}
                case 1 | 2:
                    return "calendar.move", data
                case _:
                    return "calendar.cancel", {}
        case _:
            return "account.adjust", {"amount": (50, 20, -20, -20, -60, -200)[choice % 6]}


def scope(scribe: Scribe, choice: int, *, at: int) -> dict[str, Any]:
    """A scope that was read: a label, a calendar or a part of one."""
    if choice % 4 == 0:
        return scribe.scope("mail.label", LABELS[choice // 4 % 2], at=at)
    start, end = hours(choice // 4)
    calendar = CALENDARS[choice // 64]
    match choice % 4:
        case 1:
            return scribe.scope("calendar", calendar, at=at)
        case 2:
            return scribe.scope("calendar", calendar, None if choice % 8 == 2 else start, end, at=at)
        case _:
            return scribe.scope("calendar", calendar, start, None if choice % 16 == 3 else end, at=at)


def echo(intent: Thing, state: Mapping[str, Any] | None, choice: int) -> tuple[str, dict[str, Any]] | None:
    """The fact that a carried-out intent comes back as, where a source would report one."""
    match intent.type:
        case "mail.archive":
            return "mail.archived", {}
        case "mail.label":
            return "mail.labelled", {"added": intent.data["added"], "removed": intent.data["removed"]}
        case "mail.reply":
            answered = intent.data["in_reply_to"]
            return "mail.sent", {"message": f"{intent.id}s", "sender": "me", "in_reply_to": answered}
        case "account.adjust":
            return "account.adjusted", {"amount": intent.data["amount"], "operation": intent.id}
        case "calendar.cancel" if state is not None:
            return "calendar.cancelled", {"removed": bool(choice % 2), "etag": state["etag"]}
        case "calendar.book":
            times = [{"start": intent.data["start"], "end": intent.data["end"]}]
            return "calendar.created", {"calendar": intent.data["calendar"], "uid": "u", "occurrences": times}
        case "calendar.move" if state is not None and state["calendar"] and state["uid"]:
            kept = {name: state[name] for name in state if name not in ("removed", "starts_at", "ends_at")}
            return "calendar.updated", {**kept, "occurrences": [dict(intent.data)]}
        case _:
            return None
