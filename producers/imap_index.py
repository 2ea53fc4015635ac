"""What is where in a mailbox, as far as the server has told: a mirror kept between syncs, never the truth.

IMAP names what is gone by number only, and knows no threads. So what was at each number must be known, and to which
thread it belongs. All of it can be had again from the server: an index that is lost costs one full comparison.

Messages are named by pseudonyms; no header is kept. Folders and flags are in clear: they are labels.
"""

import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, Self

import apsw

from headrace.producers.imap_connection import Flagged, Standing

RECEIVED: Final = 1
SENT: Final = 2
_FORMAT: Final = 1
"""As the schema's ``user_version`` has it."""
_SCHEMA: Final = """
CREATE TABLE meta (before TEXT, handed TEXT) STRICT;
CREATE TABLE folders (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    role        TEXT    NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext     INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    messages    INTEGER NOT NULL
) STRICT;
CREATE TABLE messages (
    id     INTEGER PRIMARY KEY,
    key    TEXT    NOT NULL UNIQUE,       -- pseudonym of the Message-ID
    date   INTEGER,                       -- when the server took it in, epoch milliseconds
    thread TEXT,                          -- once it is filed; for ever
    told   INTEGER NOT NULL DEFAULT 0     -- RECEIVED + SENT: what of it is on the log
) STRICT;
CREATE INDEX messages_thread ON messages (thread, date);
CREATE TABLE places (
    folder  INTEGER NOT NULL,
    uid     INTEGER NOT NULL,
    message INTEGER,                      -- NULL: one that the server cannot show
    flags   TEXT    NOT NULL,
    PRIMARY KEY (folder, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX places_message ON places (message);
CREATE TABLE names (
    message INTEGER NOT NULL,
    near    INTEGER NOT NULL,             -- 0: the message it answers
    key     TEXT    NOT NULL,
    PRIMARY KEY (message, near)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_key ON names (key);
CREATE TABLE dirty (thread TEXT PRIMARY KEY, done INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES (NULL, NULL);
PRAGMA user_version = 1;
"""
_BEYOND: Final = 2**32


class NewMessage(NamedTuple):
    """A message that was not known at this place."""

    uid: int
    flags: frozenset[str]
    key: str
    date: int | None
    names: tuple[str, ...]


class Place(NamedTuple):
    """Where a message is: ``role`` as of :mod:`headrace.producers.imap_folders`."""

    folder: str
    role: str
    uid: int
    flags: frozenset[str]


class IndexedMessage(NamedTuple):
    """A message of a thread, with all places where it is now."""

    id: int
    key: str
    date: int | None
    told: int
    places: tuple[Place, ...]


class KnownFolder(NamedTuple):
    """A folder as it was looked at last."""

    id: int
    name: str
    role: str
    standing: Standing


class ImapIndex:
    """One mailbox's. Not for several threads at once. Every method that changes it does so whole or not at all."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db: Final = connection

    @classmethod
    def at(cls, file: Path | None) -> Self:
        """The index in ``file``, for this process alone while it is open; an empty one where that is damaged, of
        another format, or another process's now, and for ``None``: in memory, or in place of what was there."""
        if file is not None:
            for _ in range(2):
                try:
                    return cls._opened(file)
                except apsw.BusyError:
                    break  # another worker holds it: whose sync is the later one counts, so both may go on
                except apsw.Error:
                    for end in ("", "-journal", "-wal", "-shm"):
                        with suppress(OSError):
                            Path(f"{file}{end}").unlink()
        made = apsw.Connection(":memory:")
        made.execute(_SCHEMA)
        return cls(made)

    @classmethod
    def _opened(cls, file: Path) -> Self:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        made = apsw.Connection(str(file))
        try:
            made.execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL")
            if made.execute("PRAGMA user_version").fetchone() == (0,):
                with made:
                    made.execute(_SCHEMA)
            sound = made.execute("SELECT user_version FROM pragma_user_version").fetchone() == (_FORMAT,)
            made.execute("UPDATE meta SET handed = handed")  # takes the lock now, not in the middle of a sync
            if not sound or made.pragma("quick_check") != "ok":
                _refuse(file)
        except BaseException:
            made.close()
            raise
        return cls(made)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def clear(self) -> None:
        """Forget where everything is. What has been filed stays filed."""
        with self._db:
            self._db.execute("DELETE FROM places; DELETE FROM folders")

    # What the log has, and what it may not have yet

    def take_up(self, cursor: str | None) -> bool:
        """A sync begins where the log has ``cursor``; whether this index knows which threads may differ from the log.
        If not, all of them may. ``None`` where a sync was complete before: look at everything anew."""
        [(before, handed)] = self._rows("SELECT before, handed FROM meta")
        trusted = cursor is not None and cursor in {before, handed}
        with self._db:
            if trusted and cursor == handed:
                self._db.execute("DELETE FROM dirty WHERE done = 1")
            if not trusted:
                everything = "SELECT DISTINCT thread, 0 FROM messages WHERE thread NOTNULL"
                self._db.execute(f"INSERT OR IGNORE INTO dirty {everything}")
            self._db.execute("UPDATE dirty SET done = 0")
            self._db.execute("UPDATE meta SET before = ?, handed = NULL", (cursor,))
        if cursor is None and not (before is None and handed is None):
            self.clear()
        return trusted

    def hand(self, cursor: str, but: Iterable[str] = ()) -> None:
        """All that differed is on the log, ``but`` some threads; it gets ``cursor`` now. That counts once a sync has
        taken up from there."""
        with self._db:
            self._db.execute("UPDATE dirty SET done = 1")
            left = [(thread,) for thread in but]
            self._db.executemany("INSERT INTO dirty VALUES (?, 0) ON CONFLICT DO UPDATE SET done = 0", left)
            self._db.execute("UPDATE meta SET handed = ?", (cursor,))

    def fresh_mark(self) -> str:
        """Names one state of this index among all."""
        return secrets.token_hex(6)

    def dirty(self) -> list[str]:
        """Threads that may differ from the log."""
        return [thread for (thread,) in self._rows("SELECT thread FROM dirty WHERE done = 0 ORDER BY thread")]

    def threads(self) -> set[str]:
        """All threads."""
        return {thread for (thread,) in self._rows("SELECT DISTINCT thread FROM messages WHERE thread NOTNULL")}

    # Folders

    def folders(self) -> dict[str, KnownFolder]:
        """By name."""
        rows = self._rows("SELECT id, name, role, uidvalidity, uidnext, modseq, messages FROM folders")
        return {row[1]: KnownFolder(row[0], row[1], row[2], Standing(*row[3:])) for row in rows}

    def enter(self, name: str, role: str, uidvalidity: int) -> KnownFolder:
        """The folder; with nothing in it where it is new, or its numbers mean other messages than before."""
        known = self.folders().get(name)
        with self._db:
            if known is not None and known.standing.uidvalidity != uidvalidity:
                self._forget(known.id)
                known = None
            if known is None:
                nowhere = (name, role, uidvalidity)
                self._db.execute("INSERT INTO folders VALUES (NULL, ?, ?, ?, 0, 0, 0)", nowhere)
            elif known.role != role:
                self._db.execute("UPDATE folders SET role = ? WHERE id = ?", (role, known.id))
                self._touch("folder = ?", (known.id,))
        return self.folders()[name]

    def settle(self, folder: int, standing: Standing) -> None:
        """All that there was up to ``standing`` is entered."""
        with self._db:
            self._db.execute(
                "UPDATE folders SET uidnext = ?, modseq = ?, messages = ? WHERE id = ?",
                (standing.uidnext, standing.modseq, standing.messages, folder),
            )

    def leave(self, name: str) -> None:
        """The folder is gone, with all that was in it."""
        with self._db:
            self._forget(self.folders()[name].id)

    # Places

    def count(self, folder: int) -> int:
        """How many messages are in a folder."""
        [(count,)] = self._rows("SELECT count(*) FROM places WHERE folder = ?", (folder,))
        return int(count)

    def windows(self, folder: int, size: int) -> list[tuple[int, int | None]]:
        """Ranges of UIDs with at most ``size`` known messages in each; the last one is open."""
        sql = """SELECT uid FROM (SELECT uid, row_number() OVER (ORDER BY uid) AS n FROM places WHERE folder = ?)
                 WHERE n % ? = 0 ORDER BY uid"""
        ends = [uid for (uid,) in self._rows(sql, (folder, size))]
        starts = [1, *(end + 1 for end in ends)]
        return list(zip(starts, [*ends, None], strict=True))

    def reflag(self, folder: int, flagged: Sequence[Flagged]) -> list[int]:
        """Take over flags; returns the UIDs that are not known, ascending."""
        unknown: list[int] = []
        with self._db:
            for uid, flags in flagged:
                text = _packed(flags)
                held = self._rows("SELECT flags FROM places WHERE folder = ? AND uid = ?", (folder, uid))
                if not held:
                    unknown.append(uid)
                elif held != [(text,)]:
                    at = (folder, uid)
                    self._db.execute("UPDATE places SET flags = ? WHERE folder = ? AND uid = ?", (text, *at))
                    self._touch("folder = ? AND uid = ?", at)
        return sorted(unknown)

    def keep_only(self, folder: int, first: int, last: int | None, uids: Iterable[int]) -> None:
        """Of the known UIDs from ``first`` to ``last`` (``None``: the end), those not among ``uids`` are gone."""
        held = self._rows(
            "SELECT uid FROM places WHERE folder = ? AND uid BETWEEN ? AND ?", (folder, first, last or _BEYOND)
        )
        self.gone(folder, [(uid, uid) for uid in sorted({uid for (uid,) in held} - set(uids))])

    def gone(self, folder: int, ranges: Iterable[tuple[int, int]]) -> None:
        """These UIDs are there no more. Ranges may be wider than what is known."""
        with self._db:
            for first, last in ranges:
                at = (folder, first, last)
                self._touch("folder = ? AND uid BETWEEN ? AND ?", at)
                self._db.execute("DELETE FROM places WHERE folder = ? AND uid BETWEEN ? AND ?", at)

    def add(self, folder: int, messages: Iterable[NewMessage]) -> None:
        """Messages at places that were not known."""
        with self._db:
            for new in messages:
                self._db.execute("INSERT OR IGNORE INTO messages (key, date) VALUES (?, ?)", (new.key, new.date))
                if self._db.changes():
                    rows = [(self._db.last_insert_rowid(), near, key) for near, key in enumerate(new.names)]
                    self._db.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
                [(message,)] = self._rows("SELECT id FROM messages WHERE key = ?", (new.key,))
                place = (folder, new.uid, message, _packed(new.flags))
                self._db.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", place)
                self._touch("folder = ? AND uid = ?", (folder, new.uid))

    def add_unshown(self, folder: int, uids: Iterable[int]) -> None:
        """Messages that the server cannot show: not asked for again while they stay where they are."""
        with self._db:
            rows = [(folder, uid) for uid in uids]
            self._db.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, NULL, '')", rows)

    def lost(self) -> set[int]:
        """Messages of threads that may differ from the log, which are nowhere now."""
        sql = """SELECT m.id FROM dirty d JOIN messages m ON m.thread = d.thread
                 WHERE NOT EXISTS (SELECT 1 FROM places p WHERE p.message = m.id)"""
        return {message for (message,) in self._rows(sql)}

    # Threads

    def unfiled(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """Messages that belong to no thread yet, oldest first: id, key, and the names in them, nearest first."""
        rows = self._rows("SELECT id, key FROM messages WHERE thread IS NULL ORDER BY date IS NULL, date, key")
        sql = "SELECT key FROM names WHERE message = ? ORDER BY near"
        return [(message, key, tuple(name for (name,) in self._rows(sql, (message,)))) for message, key in rows]

    def file(self, message: int, thread: str) -> None:
        """The message belongs to the thread, for ever."""
        self._db.execute("UPDATE messages SET thread = ? WHERE id = ?", (thread, message))
        self._db.execute("INSERT INTO dirty VALUES (?, 0) ON CONFLICT DO UPDATE SET done = 0", (thread,))

    def filing(self) -> apsw.Connection:
        """As a context: what is filed within is filed whole or not at all."""
        return self._db

    def has_thread(self, thread: str) -> bool:
        """Whether a message was filed there."""
        return bool(self._rows("SELECT 1 FROM messages WHERE thread = ? LIMIT 1", (thread,)))

    def thread_of(self, key: str) -> str | None:
        """The thread of the message of this name."""
        rows = self._rows("SELECT thread FROM messages WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def thread_naming(self, key: str) -> str | None:
        """The thread of the first message filed that names this one."""
        sql = """SELECT m.thread FROM names n JOIN messages m ON m.id = n.message
                 WHERE n.key = ? AND m.thread NOTNULL ORDER BY m.id LIMIT 1"""
        rows = self._rows(sql, (key,))
        return rows[0][0] if rows else None

    def messages(self, thread: str) -> list[IndexedMessage]:
        """All messages of a thread that ever were, oldest first."""
        sql = """SELECT m.id, m.key, m.date, m.told, f.name, f.role, p.uid, p.flags FROM messages m
                 LEFT JOIN places p ON p.message = m.id LEFT JOIN folders f ON f.id = p.folder
                 WHERE m.thread = ? ORDER BY m.date IS NULL, m.date, m.key, f.name, p.uid"""
        found: dict[int, IndexedMessage] = {}
        for message, key, date, told, folder, role, uid, flags in self._rows(sql, (thread,)):
            one = found.setdefault(message, IndexedMessage(message, key, date, told, ()))
            if folder is not None:
                place = Place(folder, role, uid, _unpacked(flags))
                found[message] = one._replace(places=(*one.places, place))
        return list(found.values())

    def tell(self, told: Iterable[tuple[int, int]]) -> None:
        """These messages are on the log, as :data:`RECEIVED` or :data:`SENT`."""
        with self._db:
            rows = [(what, message) for message, what in told]
            self._db.executemany("UPDATE messages SET told = told | ? WHERE id = ?", rows)

    def _touch(self, where: str, bindings: tuple[object, ...]) -> None:
        sql = f"""INSERT INTO dirty SELECT DISTINCT m.thread, 0 FROM places p JOIN messages m ON m.id = p.message
                  WHERE {where} AND m.thread NOTNULL ON CONFLICT DO UPDATE SET done = 0"""  # noqa: S608 - our own
        self._db.execute(sql, bindings)

    def _forget(self, folder: int) -> None:
        self._touch("folder = ?", (folder,))
        self._db.execute("DELETE FROM places WHERE folder = ?", (folder,))
        self._db.execute("DELETE FROM folders WHERE id = ?", (folder,))

    def _rows(self, sql: str, bindings: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, bindings).fetchall()


def _refuse(file: Path) -> NoReturn:
    raise apsw.CorruptError(f"{file.name} is not an index of this format")


def _packed(flags: frozenset[str]) -> str:
    return " ".join(sorted(flags))


def _unpacked(flags: str) -> frozenset[str]:
    return frozenset(flags.split(" ")) - {""}
