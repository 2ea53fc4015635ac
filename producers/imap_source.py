"""One IMAP mailbox, followed: the index is brought up to what the server shows, and every thread that may differ from
the log is held against it.

An event is told only for what leads from what the log holds to what the mailbox shows, so it matters to nobody how
often the mailbox is looked at, nor whether the index was lost.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from headrace.errors import UnavailableError
from headrace.processors.kinds.mail_thread import KIND, TRASH
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.imap_connection import Header, ImapConnection, connection
from headrace.producers.imap_folders import labels
from headrace.producers.imap_index import RECEIVED, SENT, ImapIndex, IndexedMessage
from headrace.producers.imap_login import TIMEOUT_SECONDS, ImapSettings
from headrace.producers.imap_message import Mail, mail_of, text_of
from headrace.producers.imap_mirror import ImapMirror
from headrace.producers.imap_threads import file_messages
from headrace.producers.mail_story import SENT as SENT_LABEL
from headrace.producers.mail_story import UNREAD, Story, is_mail, picture
from headrace.producers.marks import message_mark
from headrace.producers.provider_http import Tokens
from headrace.schemas.envelope import rfc3339

_AT_ONCE: Final = 200
"""Threads held in memory together."""
_ASKED_ONE_BY_ONE: Final = 200
_LAST_MS: Final = 253_402_300_800_000
_OWN_WORDS: Final = frozenset({SENT_LABEL, UNREAD, TRASH})

Connect = Callable[[], AbstractContextManager[ImapConnection]]


class _Told(NamedTuple):
    """A message to tell of, and as what. ``again``: what keeps it apart from when it was told before."""

    thread: str
    message: IndexedMessage
    what: int
    again: str


class Names:
    """Names in one mailbox. ``pseudonym`` is the account's."""

    def __init__(self, address: str, pseudonym: Callable[[str], str]) -> None:
        self.pseudonym: Final = pseudonym
        self.address: Final = address.lower()
        self._prefix: Final = f"imap:{pseudonym('imap:' + self.address)[2:14]}:"

    def entity(self, thread: str) -> str:
        """A thread's entity id."""
        return self._prefix + thread

    def thread(self, entity: str) -> str | None:
        """The thread of an entity id, ``None`` for one of another mailbox."""
        return entity.removeprefix(self._prefix) if entity.startswith(self._prefix) else None

    def labels(self, message: IndexedMessage) -> frozenset[str]:
        """As they stand on the log: a name that holds an address does not."""
        return frozenset(self.pseudonym(one) if "@" in one else one for one in labels(message.places))

    def event_id(self, *parts: str) -> str:
        """The same for the same change, however often it is found."""
        return hashlib.sha256(json.dumps([self._prefix, *parts]).encode()).hexdigest()[:32]


class ImapSource:
    """The mailbox of ``settings``, whose threads are entities. It keeps its index between syncs: in ``file``, else in
    memory for as long as it lives. For one sync at a time.

    The cursor says where each folder was (for people), and names the state of the index that the log has caught up
    with.
    """

    def __init__(
        self,
        settings: ImapSettings,
        tokens: Tokens,
        pseudonym: Callable[[str], str],
        *,
        file: Path | None = None,
        timeout_s: float = TIMEOUT_SECONDS,
    ) -> None:
        self._settings: Final = settings
        self._names: Final = Names(settings.address, pseudonym)
        self._file: Final = file
        self._connect: Final[Connect] = lambda: connection(settings, tokens, timeout_s)
        self._kept: ImapIndex | None = None

    @property
    def feeds(self) -> tuple[str, ...]:
        """Mail threads, and nothing else."""
        return (KIND.name,)

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """See :class:`headrace.producers.event.Source`."""
        try:
            if self._file is None:
                self._kept = self._kept or ImapIndex.at(None)
                yield from self._pages(self._kept, cursor, known)
            else:
                with closing(ImapIndex.at(self._file)) as index:
                    yield from self._pages(index, cursor, known)
        except apsw.Error as error:
            raise UnavailableError(
                f"the mailbox's index cannot be used ({type(error).__name__}): is there room on the disk? It may be"
                " deleted at any time, and is made anew"
            ) from error

    def _pages(self, index: ImapIndex, cursor: str | None, known: Known) -> Iterator[Changes]:
        full = not index.take_up(cursor)
        with self._connect() as server:
            mirror = ImapMirror(server, index, self._settings.folders, self._names.pseudonym)
            mirror.refresh()
            log = _OnLog(known, self._names, full=full)
            file_messages(index, log)
            threads = index.dirty()
            if full:
                here = index.threads()
                orphans = [thread for thread in log.alive() if thread not in here] if mirror.complete else []
                threads = sorted({*threads, *orphans})
            batch = _Batch(index, mirror, server, self._names, self._settings, known)
            for first in range(0, len(threads), _AT_ONCE):
                yield from batch.pages(threads[first : first + _AT_ONCE], full=full)
        mark = _cursor(index)
        if mirror.complete or not full:  # else everything is compared again
            index.hand(mark, batch.left)
        yield Changes((), mark, full)


class _Batch:
    """Some threads: first the messages that the log does not have, then, held against the state that these led to, what
    else such a thread has come to."""

    def __init__(  # noqa: PLR0917 - all that there is at hand in one sync
        self,
        index: ImapIndex,
        mirror: ImapMirror,
        server: ImapConnection,
        names: Names,
        settings: ImapSettings,
        known: Known,
    ) -> None:
        self._index, self._mirror, self._server, self._names = index, mirror, server, names
        self._settings, self._known = settings, known
        self.left: Final[set[str]] = set()
        """Threads of which something went while they were read: the next sync looks at them again."""

    def pages(self, threads: Sequence[str], *, full: bool) -> Iterator[Changes]:
        shown = {thread: self._index.messages(thread) for thread in threads}
        untold = [one for thread in threads for one in self._untold(thread, shown[thread], sure=not full)]
        while untold:
            events, told = self._messages(untold)
            if events:
                yield Changes(tuple(events), None, full, more=True)
            self._index.tell((one.message.id, one.what) for one in told)
            # Nothing has come of a thread whose messages the log had in another one: the index was lost, and what tied
            # them together is gone. They are told anew, once.
            untold = [one._replace(again=one.thread) for one in told if not one.again and self._is_nothing(one.thread)]
        events = list[NewEvent]()
        for thread in threads:
            if thread not in self.left:
                events += self._compared(thread, [self._names.labels(one) for one in shown[thread] if one.places])
        if events:
            yield Changes(tuple(events), None, full, more=True)

    def _entity(self, thread: str) -> KnownEntity | None:
        return next(iter(self._known.where(KIND.name, id=self._names.entity(thread))), None)

    def _is_nothing(self, thread: str) -> bool:
        entity = self._entity(thread)
        return entity is None or not entity.state

    def _untold(self, thread: str, messages: Sequence[IndexedMessage], *, sure: bool) -> list[_Told]:
        """What the log does not have. ``sure``: the index's marks say what it has. Else its count and the last message
        it has decide, where they fit; else the marks, as long as they are not more than the log counts; else all are
        told: what the log has already has the id that it had."""
        there = [(one, self._names.labels(one)) for one in messages if one.places]
        mail = [(one, SENT if SENT_LABEL in said else RECEIVED) for one, said in there if is_mail(said)]
        entity = self._entity(thread)
        state = entity.state if entity is not None else None
        if entity is None or not state:
            return [_Told(thread, one, what, "") for one, what in mail]
        if state["deleted"]:
            return [_Told(thread, one, what, entity.head) for one, what in mail]
        keys = [one.key for one, _ in mail]
        last = keys.index(state["last_message"]) + 1 if state["last_message"] in keys else 0
        if not sure and last == state["messages"]:
            self._index.tell((one.id, what) for one, what in mail[:last])
            return [_Told(thread, one, what, "") for one, what in mail[last:]]
        marked = sum(one.told > 0 for one in messages)
        trusted = 0 < marked <= state["messages"]
        return [_Told(thread, one, what, "") for one, what in mail if not (trusted and one.told & (what | SENT))]

    def _messages(self, untold: Sequence[_Told]) -> tuple[list[NewEvent], list[_Told]]:
        """The events in the order of ``untold``, and what of it they tell."""
        wanted: dict[str, dict[int, int]] = {}
        for at, one in enumerate(untold):
            place = min(one.message.places, key=lambda place: (place.role != "sent", place.folder, place.uid))
            wanted.setdefault(place.folder, {})[place.uid] = at
        found: dict[int, tuple[Header, str | None]] = {}
        for folder, uids in sorted(wanted.items()):
            self._server.open(self._mirror.folders[folder])
            numbers = sorted(uids)
            texts = self._server.texts(numbers) if self._settings.content == "text" else {}
            for header in self._server.headers(numbers)[0]:
                raw = texts.get(header.uid)
                found[uids[header.uid]] = (header, text_of(raw) if raw is not None else None)
        events: list[NewEvent] = []
        told: list[_Told] = []
        for at, one in enumerate(untold):
            if at in found:
                header, text = found[at]
                events.append(self._message(one, mail_of(header), text))
                told.append(one)
            else:
                self.left.add(one.thread)
        return events, told

    def _message(self, told: _Told, mail: Mail, text: str | None) -> NewEvent:
        mine = told.what == SENT
        body = {
            "message": mail.key,
            "in_reply_to": mail.answered,
            "sender": mail.senders[0] if mail.senders else "unknown",
            "recipients": list(mail.recipients),
            "labels": sorted(self._names.labels(told.message) - _OWN_WORDS),
        }
        content = {
            "subject": mail.subject,
            "text": text,
            "sender": mail.sender,
            "recipients": list(mail.recipient_lines),
        }
        people = mail.recipients if mine else mail.senders
        return NewEvent(
            type="mail.sent" if mine else "mail.received",
            kind=KIND.name,
            entity=self._names.entity(told.thread),
            id=self._names.event_id("sent" if mine else "received", told.message.key, told.again),
            body=body,
            content=content,
            occurred_at=_moment(told.message.date),
            concerns=(
                *(f"message:{one}" for one in (mail.key, mail.answered) if one is not None),
                *(f"person:{one}" for one in people),
            ),
            mark=message_mark(mail.key) if mine else None,
        )

    def _compared(self, thread: str, there: Iterable[frozenset[str]]) -> Iterator[NewEvent]:
        """What leads from what the log holds of a thread to what is there. The head keeps the ids of a change apart
        from those of the same change earlier."""
        entity = self._entity(thread)
        if entity is None:
            return
        story = Story(entity.state)
        story.lead_to(picture(there))
        for event, body in story.told:
            event_id = self._names.event_id("state", thread, entity.head, event)
            yield NewEvent(event, KIND.name, self._names.entity(thread), event_id, body)


class _OnLog:
    """Which threads of this mailbox the log has: asked often, or where all are to be compared, read at once."""

    def __init__(self, known: Known, names: Names, *, full: bool) -> None:
        self._known, self._names = known, names
        self._asked = 0
        self._all: dict[str, KnownEntity] | None = self._read() if full else None
        self._ends = {one.state["last_message"]: thread for thread, one in (self._all or {}).items()}

    def has(self, thread: str) -> bool:
        self._asked += 1
        if self._asked > _ASKED_ONE_BY_ONE and self._all is None:
            self._all = self._read()
        if self._all is not None:
            return thread in self._all
        return any(one.state for one in self._known.where(KIND.name, id=self._names.entity(thread)))

    def ending(self, key: str) -> str | None:
        """Only where the index may have been lost is it worth asking: else what is new here is new to the log."""
        return self._ends.get(key)

    def alive(self) -> list[str]:
        return [thread for thread, one in (self._all or {}).items() if not one.state["deleted"]]

    def _read(self) -> dict[str, KnownEntity]:
        found: dict[str, KnownEntity] = {}
        for entity in self._known.where(KIND.name):
            thread = self._names.thread(entity.id)
            if thread is not None and entity.state:
                found[thread] = entity
        return found


def _cursor(index: ImapIndex) -> str:
    """Folders by a digest of their names, which are not for the log."""
    standings = {name: one.standing for name, one in sorted(index.folders().items())}
    at = {
        hashlib.sha256(name.encode()).hexdigest()[:8]: [one.uidvalidity, one.uidnext, one.modseq]
        for name, one in standings.items()
    }
    return json.dumps({"index": index.fresh_mark(), "folders": at}, separators=(",", ":"))


def _moment(date: int | None) -> str | None:
    return rfc3339(date) if date is not None and 0 <= date < _LAST_MS else None
