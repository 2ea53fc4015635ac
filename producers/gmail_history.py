"""The history of one thread, told again: from what its messages are now, back to what they were, and forward."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final, NamedTuple

from headrace.producers.event import KnownEntity, NewEvent
from headrace.producers.gmail_api import Change, Message, Thread
from headrace.producers.gmail_thread import Mailbox, flag_event, in_order, message_event
from headrace.producers.mail_story import Story, is_mail, picture

_MOST_CHANGES: Final = 2_000
"""In one thread: with more, only what they come to is told."""
Labels = frozenset[str]
Whole = Callable[[str], Message | None]


class _Step(NamedTuple):
    """What a record did to a message: ``None`` is a message that is not there."""

    record: int
    message: str
    after: Labels | None


def by_thread(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Each change once, in the order of the records' numbers. Gmail repeats records, and does not always sort them
    (https://github.com/googleapis/google-api-nodejs-client/issues/3508)."""
    found: dict[str, list[Change]] = {}
    for change in sorted(dict.fromkeys(changes), key=lambda change: change.record):
        found.setdefault(change.thread, []).append(change)
    return found


def retold(
    mailbox: Mailbox, thread: Thread, changes: list[Change], known: KnownEntity | None, whole: Whole
) -> list[NewEvent] | None:
    """The events of ``changes`` (sorted, each once), one record after the other, under ids of their own.

    ``None`` where that cannot be said: the thread has moved on since, or what it was before the first of them is not
    what the log holds (a sync that broke off has told some of them, or a message is gone whose labels nobody knows).
    """
    if len(changes) > _MOST_CHANGES or thread.history > changes[-1].record:
        return None
    names = {message.id: message for message in thread.messages}
    now, steps = _undone({message.id: mailbox.labels(message.labels) for message in thread.messages}, changes)
    if not _is_held(now, known):
        return None
    story = Story(known.state if known is not None else None)
    events: list[NewEvent] = []
    last = known.state.get("last_message") if known is not None else None
    told = {message for message, labels in now.items() if is_mail(labels)}
    told |= {message.id for message in thread.messages if mailbox.key(message) == last}
    for record, group in groupby(steps, key=lambda step: step.record):
        for step in group:
            if step.after is None:
                now.pop(step.message, None)
            else:
                now[step.message] = step.after
        new = [names[one] for one in now.keys() - told if is_mail(now[one])]
        for message in in_order(new):
            told.add(message.id)
            event = message_event(mailbox, thread.id, message, now[message.id], whole(message.id))
            story.tell(event.type, event.body)
            events.append(event)
        before = len(story.told)
        story.lead_to(picture(now.values()))
        events += (
            flag_event(mailbox, thread.id, event_type, body, "record", str(record))
            for event_type, body in story.told[before:]
        )
    return events


def _undone(now: dict[str, Labels], changes: list[Change]) -> tuple[dict[str, Labels], list[_Step]]:
    """The messages before the changes, and what leads from there to ``now``."""
    steps: list[_Step] = []
    for change in reversed(changes):
        labels = now.get(change.message)
        if labels is None:
            continue  # gone for good by now: what it was nobody can say
        steps.append(_Step(change.record, change.message, labels))
        match change.what:
            case "added":
                del now[change.message]
            case "labels+":
                now[change.message] = labels - change.labels
            case "labels-":
                now[change.message] = labels | change.labels
            case _:
                steps.pop()
    steps.reverse()
    return now, steps


def _is_held(messages: dict[str, Labels], known: KnownEntity | None) -> bool:
    """Whether the log holds what these messages come to."""
    wanted = picture(messages.values())
    if known is None or not known.state or known.state["deleted"]:
        return wanted.deleted
    story = Story(known.state)
    story.lead_to(wanted)
    return not story.told


def untold(mailbox: Mailbox, thread: Thread, changes: list[Change], known: KnownEntity | None) -> list[Message]:
    """The messages that the log may not know, oldest first; those it does know have the id that they had.

    With ``changes`` since a cursor: what was there at the cursor is known. Without: the log counts messages and names
    the last, and where the two do not fit all of them are told.
    """
    mail = in_order(thread.messages)
    state = known.state if known is not None else None
    if not mail or not state or state["deleted"]:
        return mail
    keys = [mailbox.key(message) for message in mail]
    last = keys.index(state["last_message"]) if state["last_message"] in keys else -1
    if not changes:
        return mail[last + 1 :] if last + 1 == state["messages"] else mail
    new = {change.message for change in changes if change.what == "added" or not is_mail(change.labels)}
    if last >= 0:  # newer ones came while the history was read
        new |= {message.id for message in mail[last + 1 :]}
    return [message for at, message in enumerate(mail) if message.id in new and at != last]
