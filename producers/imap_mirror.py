"""Brings the index of a mailbox up to what the server shows, folder by folder.

What changed in a folder, the server says from where the folder was left (RFC 7162): with QRESYNC exactly; with
CONDSTORE all but what is gone, which is found by counting and, where the count is off, by comparing numbers; else by
comparing all numbers and flags. Where UIDVALIDITY is another, the numbers mean nothing any more and all headers are
read again.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from headrace.errors import UnavailableError
from headrace.producers.imap_client import NoError
from headrace.producers.imap_connection import HEADERS_AT_ONCE, Header, ImapConnection, ListedFolder, Standing
from headrace.producers.imap_folders import roles
from headrace.producers.imap_index import ImapIndex, KnownFolder, NewMessage
from headrace.producers.imap_message import mail_of

_WINDOW: Final = 50_000
"""UIDs of one folder asked about together: an answer's longest line (those that vanished) stays below 1 MB."""
_MOST_LOOKS: Final = 4
_NOT_OURS: Final = frozenset({"NOPERM", "NONEXISTENT"})
_log: Final = logging.getLogger(__name__)


class ImapMirror:
    """One mailbox at its server, and the index that mirrors it. ``given`` are folders' names by role."""

    def __init__(
        self,
        connection: ImapConnection,
        index: ImapIndex,
        given: Mapping[str, str],
        pseudonym: Callable[[str], str],
    ) -> None:
        self._connection: Final = connection
        self._index: Final = index
        self._given: Final = given
        self._pseudonym: Final = pseudonym
        self.complete = True
        """Whether every folder that is the user's could be looked at."""
        self.folders: dict[str, ListedFolder] = {}
        """By name, as listed last."""

    def refresh(self) -> None:
        """Look at every folder and, where messages have gone from one, again until they turn up in another or nothing
        moves any more: a message that is moved while we look may be missed in both.

        :raises UnavailableError: the server does not answer; what was seen so far is kept.
        """
        lost: set[int] = set()
        for _ in range(_MOST_LOOKS):
            moved = self._look()
            missing = self._index.lost()
            if not (missing - lost) or not moved:
                return
            lost = missing

    def _look(self) -> bool:
        """Whether any folder had changed."""
        listed = roles(self._connection.folders(), self._given)
        self.folders = {folder.name: folder for folder in listed}
        if not any(role == "inbox" for role in listed.values()):
            raise UnavailableError("the server lists no INBOX; it is asked again later")
        self.complete, moved = True, False
        known = self._index.folders()
        if not known and "sent" not in listed.values():
            _log.warning(
                "no folder of the mailbox is for sent mail, so replies by hand are not seen; give its name (sent)"
            )
        for gone in known.keys() - self.folders.keys():
            self._index.leave(gone)
            moved = True
        self._connection.close_folder()
        changed: list[tuple[ListedFolder, str]] = []
        for folder, role in listed.items():
            before = known.get(folder.name)
            now = self._connection.standing(folder) if before is not None and before.role == role else None
            if before is None or now is None or now != before.standing or not now.modseq:
                changed.append((folder, role))
        # What is new comes first, and what is gone after it: a message that is moved has a place all the time.
        for folder, role in changed:
            moved |= self._look_into(folder, role)
        return moved

    def _look_into(self, folder: ListedFolder, role: str) -> bool:
        try:
            now = self._connection.open(folder)
        except NoError as error:
            if role == "inbox":
                raise UnavailableError(f"the INBOX does not open: {error}") from None
            _log.warning("a folder of the mailbox does not open, and is left as it is known: %s", error)
            self.complete &= error.code in _NOT_OURS
            return False
        held = self._index.enter(folder.name, role, now.uidvalidity)
        if held.standing.messages or held.standing.uidnext:
            self._follow(held, now)
        else:
            self._compare(held.id, now.messages)
        self._index.settle(held.id, now)
        return now != held.standing

    def _follow(self, held: KnownFolder, now: Standing) -> None:
        """From where the folder was left."""
        if not held.standing.modseq or not now.modseq:
            self._compare(held.id, now.messages)
            return
        for first, last in self._index.windows(held.id, _WINDOW):
            flagged, gone = self._connection.changed(held.standing.modseq, first, last)
            self._read(held.id, self._index.reflag(held.id, flagged))
            self._index.gone(held.id, gone)
        if not self._connection.qresync and self._index.count(held.id) != now.messages:
            self._compare(held.id, now.messages)

    def _compare(self, folder: int, messages: int) -> None:
        """All numbers and flags."""
        first = 1
        for part in self._connection.all_flags(messages):
            self._read(folder, self._index.reflag(folder, part))
            if part:
                self._index.keep_only(folder, first, part[-1].uid, [one.uid for one in part])
                first = part[-1].uid + 1
        self._index.keep_only(folder, first, None, ())

    def _read(self, folder: int, uids: Sequence[int]) -> None:
        """Enter messages that are new here."""
        for first in range(0, len(uids), HEADERS_AT_ONCE):
            headers, unshown = self._connection.headers(uids[first : first + HEADERS_AT_ONCE])
            self._index.add(folder, [self._entry(header) for header in headers])
            if unshown:
                _log.warning("%d messages cannot be read and are left out: the server does not show them", len(unshown))
                self._index.add_unshown(folder, unshown)

    def _entry(self, header: Header) -> NewMessage:
        mail = mail_of(header)
        names = tuple(self._pseudonym(one) for one in mail.names)
        return NewMessage(header.uid, header.flags, self._pseudonym(mail.key), header.date, names)
