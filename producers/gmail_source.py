"""One Gmail mailbox, followed: by its history from the cursor on or, where Gmail has forgotten that, by comparing all
of its threads with what the log holds.

Which threads changed, the history says; what a thread is now, ``threads.get`` says. An event is told only for what
leads from what the log holds to that, so records that come twice, late or in disorder tell nothing new.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from headrace.errors import BadInputError, UnavailableError
from headrace.processors.kinds.mail_thread import KIND
from headrace.producers.aside import Aside
from headrace.producers.batches import batches
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.gmail_api import Change, GmailApi, Message, Thread
from headrace.producers.gmail_history import by_thread, retold, untold
from headrace.producers.gmail_thread import Mailbox, compared, message_event
from headrace.producers.mail_story import picture

_AT_ONCE: Final = 50
"""Threads held in memory together."""
_MOST_CHANGES: Final = 100_000
"""Of a longer history, comparing all threads is less work, and takes no more memory."""
_NUMBER_DIGITS: Final = 20


class _Work(NamedTuple):
    thread: str
    changes: list[Change]


class GmailSource:
    """The mailbox of ``address``, whose threads are entities. The cursor is a history id of Gmail's; it only grows.

    ``texts``: what messages say is kept as content, too (scope gmail.readonly); else subject, sender and recipients
    (gmail.metadata).
    """

    def __init__(self, api: GmailApi, mailbox: Mailbox, address: str, *, texts: bool = False) -> None:
        self._api: Final = api
        self._mailbox: Final = mailbox
        self._address: Final = address
        self._texts: Final = texts

    @property
    def feeds(self) -> tuple[str, ...]:
        """Mail threads, and nothing else."""
        return (KIND.name,)

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """See :class:`headrace.producers.event.Source`."""
        start = int(cursor) if cursor is not None and _is_number(cursor) else None
        found = self._history(start) if start is not None else None
        if start is None or found is None:
            yield from self._everything(start, known)
            return
        changes, end = found
        works = [_Work(thread, ones) for thread, ones in by_thread(changes).items()]
        yield from self._told(works, known, full=False)
        yield Changes((), str(max(start, end)), full=False)

    def _history(self, start: int) -> tuple[list[Change], int] | None:
        """All changes after ``start`` and where the history was when the first page was read; ``None`` when Gmail does
        not know, or there are too many."""
        changes: list[Change] = []
        page, end = None, None
        while True:
            found = self._api.history(start, page)
            if found is None:
                return None
            changes += found.changes
            end = found.history if end is None else min(end, found.history)
            if found.next is None:
                return changes, end
            if found.next == page:
                raise UnavailableError("Gmail names the same page of the history again; the sync begins anew")
            if len(changes) > _MOST_CHANGES:
                return None
            page = found.next

    def _everything(self, lost: int | None, known: Known) -> Iterator[Changes]:
        """Compare all threads. Where the mailbox is begins to count before the first is listed, so that what happens
        meanwhile is in the next history. A thread that has not changed since ``lost``, the cursor that Gmail forgot, is
        as the log holds it."""
        address, end = self._api.profile()
        if address.lower() != self._address.lower():
            raise BadInputError("the grant is for another mailbox than the source's address: connect the source again")
        unchanged = lost if lost is not None and lost <= end else -1
        with Aside() as aside:
            works: list[_Work] = []
            for page in self._listed():
                fresh = {thread: history for thread, history in page if not aside.has_seen(thread)}
                aside.see(fresh)
                held = self._held(known, [one for one, history in fresh.items() if history <= unchanged])
                works += [_Work(thread, []) for thread in fresh if thread not in held]
                whole = len(works) - len(works) % _AT_ONCE
                yield from self._told(works[:whole], known, full=True)
                works = works[whole:]
            yield from self._told(works, known, full=True)
            # A thread may have moved between two pages, unseen: whether it is gone, only asking for it says.
            missing = (_Work(thread, []) for thread in self._alive(known) if not aside.has_seen(thread))
            for works in batches(missing, _AT_ONCE):
                yield from self._told(works, known, full=True)
        yield Changes((), str(end), full=True)

    def _listed(self) -> Iterator[list[tuple[str, int]]]:
        page = None
        while True:
            found, following = self._api.threads(page)
            yield found
            if following is None:
                return
            if following == page:
                raise UnavailableError("Gmail names the same page of the threads again; the sync begins anew")
            page = following

    def _alive(self, known: Known) -> Iterator[str]:
        for entity in known.where(KIND.name):
            thread = self._mailbox.thread(entity.id)
            if thread is not None and entity.state and not entity.state["deleted"]:
                yield thread

    def _held(self, known: Known, threads: Iterable[str]) -> dict[str, KnownEntity]:
        """What the log holds of these threads."""
        by_id = {self._mailbox.entity(thread): thread for thread in threads}
        return {by_id[one.id]: one for one in known.where(KIND.name, id=by_id.keys())}

    def _told(self, works: list[_Work], known: Known, *, full: bool) -> Iterator[Changes]:
        for first in range(0, len(works), _AT_ONCE):
            yield from self._batch(works[first : first + _AT_ONCE], known, full=full)

    def _batch(self, works: list[_Work], known: Known, *, full: bool) -> Iterator[Changes]:
        """First what history tells exactly, and the messages of all other threads; then, held against the state that
        these led to, what else such a thread has come to."""
        shown = [self._api.thread(thread) for thread, _ in works]
        held = self._held(known, (thread for thread, _ in works))
        events: list[NewEvent] = []
        rest: list[tuple[str, Thread | None]] = []
        for (thread, changes), now in zip(works, shown, strict=True):
            before = held.get(thread)
            told = retold(self._mailbox, now, changes, before, self._whole) if now is not None and changes else None
            if told is not None:
                events += told
                continue
            rest.append((thread, now))
            if now is not None:
                events += self._messages(thread, untold(self._mailbox, now, changes, before))
        if events:
            yield Changes(tuple(events), None, full, more=True)
            held = self._held(known, (thread for thread, _ in rest))
        events = []
        for thread, now in rest:
            labels = [self._mailbox.labels(message.labels) for message in now.messages] if now is not None else []
            events += compared(self._mailbox, thread, picture(labels), held.get(thread))
        if events:
            yield Changes(tuple(events), None, full, more=True)

    def _messages(self, thread: str, messages: Iterable[Message]) -> Iterator[NewEvent]:
        for message in messages:
            labels = self._mailbox.labels(message.labels)
            yield message_event(self._mailbox, thread, message, labels, self._whole(message.id))

    def _whole(self, message: str) -> Message | None:
        """With its text, where that is wanted; ``None`` where not, or when it is gone meanwhile."""
        return self._api.whole_message(message) if self._texts else None


def _is_number(cursor: str) -> bool:
    return cursor.isascii() and cursor.isdigit() and len(cursor) <= _NUMBER_DIGITS
