"""One Outlook mailbox, followed: by the delta links of its folders or, where Graph has forgotten one, by comparing all
of its threads with what the log holds.

Delta tells which messages changed, and which left a folder; what a thread is now, its messages say. An event is told
only for what leads from what the log holds to that, so items that come twice, late or in disorder tell nothing new, and
a move is one change, whichever of its two halves comes first.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from headrace.errors import BadInputError
from headrace.processors.kinds.mail_thread import KIND
from headrace.producers.aside import Aside
from headrace.producers.batches import batches
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.graph_api import GRAPH, GraphApi, SyncStateLostError, literal, segment, text
from headrace.producers.graph_folders import Cursor, Folders, all_folders, changed_folders, folder_path
from headrace.producers.graph_thread import (
    SELECT,
    STATE,
    Mailbox,
    Message,
    Reading,
    answered,
    compared,
    lone,
    message_event,
    read_message,
    thread_of,
    untold,
)
from headrace.producers.mail_story import SENT
from headrace.producers.provider_http import StatusError

_One = TypeVar("_One")
_AT_ONCE: Final = 50
"""Threads told together."""
_PAGE: Final = 1000
_IN_REPLY_TO: Final = "String 0x1042"
"""[MS-OXOMSG] 2.2.1.11, PidTagInReplyToId."""
_TEXT: Final = {
    "$select": "body",
    "$expand": f"singleValueExtendedProperties($filter=id eq '{_IN_REPLY_TO}')",
}
_MOST_CHARS: Final = 100_000
_NOT_FOUND: Final = 404


class _Touched(NamedTuple):
    """What a round told of: threads with the ids of their messages, messages of unknown threads, and those that left a
    folder; ``vacated`` are folders that are gone with all that was in them."""

    threads: dict[str, set[str]]
    unnamed: set[str]
    left: set[str]
    vacated: set[str]


class GraphMailSource:
    """The mailbox of ``mailbox.address``, whose conversations are entities.

    ``texts``: what messages say is kept as content, too (permission Mail.Read); else subject, sender and recipients
    (Mail.ReadBasic).
    """

    def __init__(self, api: GraphApi, mailbox: Mailbox, *, texts: bool = False) -> None:
        self._api: Final = api
        self._mailbox: Final = mailbox
        self._texts: Final = texts

    @property
    def feeds(self) -> tuple[str, ...]:
        """Mail threads, and nothing else."""
        return (KIND.name,)

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """See :class:`headrace.producers.event.Source`."""
        before = Cursor.read(cursor)
        seen = before.seen if before is not None else 0
        found = self._since(before) if before is not None else None
        if found is None:
            yield from self._everything(seen, known)
            return
        now, touched = found
        reading, newest = Reading(self._mailbox, now.folders), seen
        threads = self._threads(reading, touched, known)
        for batch in _batches(list(threads.items())):
            told = [(thread, ones, self._conversation(thread)) for thread, ones in batch]
            newest = max([newest, *(one.born for *_, ones in told for one in ones)])
            yield from self._told(reading, told, known, full=False)
        yield Changes((), now._replace(seen=newest).write(), full=False)

    # What changed

    def _since(self, before: Cursor) -> tuple[Cursor, _Touched] | None:
        """``None``: Graph cannot say."""
        touched = _Touched({}, set(), set(), set())
        links: dict[str, str] = {}
        try:
            folders, tree = changed_folders(self._api, before.folders, before.tree)
            for folder in folders.followed():
                link = before.links.get(folder)
                moved = folders.labels(folder) != before.folders.labels(folder)
                after = self._round(folder, None if moved else link, touched)
                if after is not None:
                    links[folder] = after
        except SyncStateLostError:
            return None
        touched.vacated.update(before.links.keys() - links.keys())
        return Cursor(folders, tree, links, before.seen), touched

    def _round(self, folder: str, link: str | None, touched: _Touched) -> str | None:
        """What changed in a folder, or all that is in it; the next link, ``None`` where the folder is gone."""
        path = f"{folder_path(folder)}/delta"
        pages = self._api.since(link) if link is not None else self._api.delta(path, {"$select": SELECT})
        after: str | None = None
        try:
            for page in pages:
                for said in page.items:
                    self._note(said, touched)
                after = page.link
        except StatusError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return after

    @staticmethod
    def _note(said: Mapping[str, Any], touched: _Touched) -> None:
        message = GRAPH.identifier(said, "id")
        if "@removed" in said:
            # Moved or deleted: Outlook's reason does not tell them apart.
            touched.left.add(message)
        elif said.get("conversationId") is not None:
            touched.threads.setdefault(thread_of(said, message), set()).add(message)
        else:
            touched.unnamed.add(message)  # an update may bring no more than what changed

    def _threads(self, reading: Reading, touched: _Touched, known: Known) -> dict[str, set[str]]:
        """The threads to look at, with the messages that this round told of."""
        there = {message for messages in touched.threads.values() for message in messages}
        gone = bool(touched.vacated)
        for message in sorted((touched.left | touched.unnamed) - there):
            said = self._api.found(f"me/messages/{segment(message)}", {"$select": "id,conversationId"})
            if said is not None:
                touched.threads.setdefault(thread_of(said, message), set()).add(message)
            gone = gone or said is None
        if not gone:
            return touched.threads
        return touched.threads | {one: set[str]() for one in self._bereft(reading, known) if one not in touched.threads}

    def _bereft(self, reading: Reading, known: Known) -> Iterator[str]:
        """Where a message was deleted for good, nothing says any more which thread it was in. So all are looked at,
        a thousand messages with a request: the threads that are not what the log holds."""
        with Aside() as aside:
            for said in self._api.listed("me/messages", {"$select": STATE, "$top": _PAGE}):
                message = GRAPH.identifier(said, "id")
                aside.put(thread_of(said, message), message, said)
            for thread, entity in self._alive(known):
                ones = [read_message(said, self._mailbox) for said in aside.of(thread)]
                if compared(self._mailbox, thread, reading.picture(ones), entity):
                    yield thread

    def _conversation(self, thread: str) -> list[Message]:
        """A thread's messages now, whatever folder they lie in."""
        message = lone(thread)
        if message is not None:
            said = self._api.found(f"me/messages/{segment(message)}", {"$select": SELECT})
            found = [read_message(said, self._mailbox)] if said is not None else []
        else:
            params = {"$filter": f"conversationId eq {literal(thread)}", "$select": SELECT, "$top": _PAGE}
            found = [read_message(one, self._mailbox) for one in self._api.listed("me/messages", params)]
        return list({one.id: one for one in found if one.thread == thread}.values())

    # Everything

    def _everything(self, lost: int, known: Known) -> Iterator[Changes]:
        """Compare all threads. Where the rounds begin counts before anything is told, so what happens meanwhile is in
        the next ones. ``lost``: up to when (but for a day) the cursor that Graph forgot had seen messages."""
        self._check_owner()
        folders, tree = all_folders(self._api)
        with Aside() as aside:
            newest, links = self._listed(folders, aside)
            reading = Reading(self._mailbox, folders)
            differing = self._differing(reading, aside, lost - 24 * 3_600_000, known)
            for works in batches(differing, _AT_ONCE):
                yield from self._told(reading, works, known, full=True)
            # A message may have moved between two folders' rounds, unseen: whether it is gone, only asking says.
            missing = (thread for thread, _ in self._alive(known) if not aside.owns(thread))
            for threads in batches(missing, _AT_ONCE):
                gone = [(thread, set[str](), self._conversation(thread)) for thread in threads]
                yield from self._told(reading, gone, known, full=True)
        yield Changes((), Cursor(folders, tree, links, newest).write(), full=True)

    def _differing(
        self, reading: Reading, aside: Aside, since: int, known: Known
    ) -> Iterator[tuple[str, set[str], list[Message]]]:
        """The threads that may not be what the log holds, the ids of their messages born after ``since``, and all their
        messages."""
        for batch in batches(aside.owners(), _AT_ONCE):
            shown = [[read_message(said, self._mailbox) for said in one] for one in batch]
            held = self._held(known, (ones[0].thread for ones in shown))
            for ones in shown:
                thread, recent = ones[0].thread, {one.id for one in ones if one.born > since}
                entity = held.get(thread)
                if entity is None:
                    yield thread, recent, sorted(ones, key=lambda one: one.born)
                elif self._differs(reading, ones, recent, entity):
                    yield thread, recent, self._conversation(thread)

    def _check_owner(self) -> None:
        said = self._api.get("me", {"$select": "id,mail,userPrincipalName"})
        names = {(text(said, field) or "").lower() for field in ("mail", "userPrincipalName")}
        if self._mailbox.address not in names:
            raise BadInputError("the grant is for another mailbox than the source's address: connect the source again")

    def _listed(self, folders: Folders, aside: Aside) -> tuple[int, dict[str, str]]:
        """Set all messages aside, each as it was seen last. Returns when the newest was born, and the links to what
        changes from now on."""
        newest = 0
        links: dict[str, str] = {}
        for folder in folders.followed():
            try:
                for page in self._api.delta(f"{folder_path(folder)}/delta", {"$select": SELECT}):
                    for said in page.items:
                        if "@removed" in said:
                            aside.drop(GRAPH.identifier(said, "id"))
                            continue
                        message = read_message(said, self._mailbox)
                        aside.put(message.thread, message.id, said, message.born)
                        newest = max(newest, message.born)
                    if page.link is not None:
                        links[folder] = page.link
            except StatusError as error:
                if error.status != _NOT_FOUND:
                    raise
        return newest, links

    def _differs(self, reading: Reading, ones: list[Message], recent: set[str], known: KnownEntity) -> bool:
        mail = reading.mail(ones)
        thread = ones[0].thread
        return bool(
            untold(self._mailbox, mail, recent, known)
            or compared(self._mailbox, thread, reading.picture(ones), known)
            or (mail and (not known.state or known.state["deleted"]))
        )

    # What is told

    def _told(
        self, reading: Reading, works: list[tuple[str, set[str], list[Message]]], known: Known, *, full: bool
    ) -> Iterator[Changes]:
        """First the messages; then, held against the state that these led to, what else a thread has come to."""
        threads = [thread for thread, *_ in works]
        held, events = self._held(known, threads), list[NewEvent]()
        for thread, touched, ones in works:
            mail = reading.mail(ones)
            new = untold(self._mailbox, mail, touched, held.get(thread))
            events += [self._message(reading, message, mail) for message in new]
        if events:
            yield Changes(tuple(events), None, full, more=True)
            held = self._held(known, threads)
        revived = list[NewEvent]()
        for thread, _, ones in works:
            mail, entity = reading.mail(ones), held.get(thread)
            if mail and entity is not None and entity.state and entity.state["deleted"]:
                revived.append(self._message(reading, mail[-1], mail, again=entity.head))
        if revived:
            yield Changes(tuple(revived), None, full, more=True)
            held = self._held(known, threads)
        events = []
        for thread, _, ones in works:
            events += compared(self._mailbox, thread, reading.picture(ones), held.get(thread))
        if events:
            yield Changes(tuple(events), None, full, more=True)

    def _held(self, known: Known, threads: Iterable[str]) -> dict[str, KnownEntity]:
        """What the log holds of these threads."""
        by_id = {self._mailbox.entity(thread): thread for thread in threads}
        return {by_id[one.id]: one for one in known.where(KIND.name, id=by_id.keys())}

    def _alive(self, known: Known) -> Iterator[tuple[str, KnownEntity]]:
        """The threads of this mailbox that the log takes to be there."""
        for entity in known.where(KIND.name):
            thread = self._mailbox.thread(entity.id)
            if thread is not None and entity.state and not entity.state["deleted"]:
                yield thread, entity

    def _message(self, reading: Reading, message: Message, mail: list[Message], again: str | None = None) -> NewEvent:
        copies = [one for one in mail if one.key == message.key]
        answers, said = answered(message, mail), None
        if self._texts:
            exact, said = self._text(message.id)
            answers = exact or answers
        return message_event(
            reading, message, copies, answers, said, mine=self._is_mine(reading, message, copies), again=again
        )

    def _text(self, message: str) -> tuple[str | None, str | None]:
        """What it answers, by its header, and what it says; nothing of a message that is gone meanwhile."""
        said = self._api.found(f"me/messages/{segment(message)}", _TEXT, prefer='outlook.body-content-type="text"')
        if said is None:
            return None, None
        extended = [GRAPH.mapping(one) for one in GRAPH.some(said, "singleValueExtendedProperties")]
        values = [text(one, "value") for one in extended if one.get("id") == _IN_REPLY_TO]
        body = text(GRAPH.optional(said, "body"), "content")
        return next((value.strip() for value in values if value and value.strip()), None), (body or "")[:_MOST_CHARS]

    def _is_mine(self, reading: Reading, message: Message, copies: Iterable[Message]) -> bool:
        """Whether she sent it: what is from her address and lies in Sent Items. Where only one of the two holds (an
        alias; an answer that Outlook saved next to what it answers; somebody who writes her address into a message; a
        message put among those sent), what came through a mail server is not hers."""
        in_sent = any(SENT in (reading.labels(one) or ()) for one in copies)
        from_her = message.sender[0] == self._mailbox.address
        if in_sent == from_her:
            return in_sent
        said = self._api.found(f"me/messages/{segment(message.id)}", {"$select": "internetMessageHeaders"})
        if said is None:
            return False
        names = {(text(GRAPH.mapping(one), "name") or "").lower() for one in GRAPH.some(said, "internetMessageHeaders")}
        return "received" not in names


def _batches(ones: list[_One]) -> Iterator[list[_One]]:
    for first in range(0, len(ones), _AT_ONCE):
        yield ones[first : first + _AT_ONCE]
