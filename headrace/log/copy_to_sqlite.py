"""A log copied into a SQLite file: the append times go into their own column.

Until the copy is finished the file has a table ``copying``, and nobody opens it as a log. What becomes of it is one
transaction: the log itself, with its ``log.moved`` records, or a replica. A replica takes no appends (its successor is
the log it was copied from), has no records of its own, and can be copied on later.
"""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, Self

import apsw

from headrace.errors import BadInputError, LogMismatchError, NotFoundError
from headrace.log import sqlite_file
from headrace.log.carrying import new_copy
from headrace.log.framing import pack_headers
from headrace.log.port import LogDescription, Record, Stored
from headrace.log.writer_lock import WriterLock

_REPLICA: Final = "replica"
_MOVED: Final = "moved"
_STATES: Final = (sqlite_file.COPYING, _REPLICA, _MOVED)
_TABLE: Final = "CREATE TABLE {} (copy TEXT NOT NULL, origin TEXT NOT NULL, ends TEXT) STRICT"
_INSERT: Final = (
    'INSERT INTO records (partition, "offset", appended_at, log_append, key, headers, value) '
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class _Found(NamedTuple):
    """What a file is: the name of the one table of the three that it has, or ``None`` for a log of its own. ``ends``:
    where the copied parts of a moved log end."""

    state: str | None = None
    copy: str = ""
    ends: tuple[int, ...] | None = None


class SqliteDestination:
    """See :class:`headrace.log.copying.Destination`. One process at a time; close it when done."""

    def __init__(
        self, directory: Path, lock: WriterLock, connection: apsw.Connection, found: _Found, origin: str
    ) -> None:
        """For :meth:`open` only."""
        self.name: Final = address_of(directory)
        self.copy: Final = found.copy
        self._moved: Final = found.ends
        self._origin: Final = origin
        self._path: Final = directory / sqlite_file.NAME
        self._lock: Final = lock
        self._connection: Final = connection

    @classmethod
    def open(cls, directory: Path, origin: LogDescription, named: str, *, moving: bool) -> Self:
        """Begin a copy in ``directory``, or go on with the one that is there.

        :param origin: the log to be copied, ``named`` so.
        :raises BadInputError: there is another log, or a finished one.
        :raises WriterLockedError: another process has it open.
        :raises UnavailableError: the directory or the file cannot be written.
        """
        sqlite_file.make_directory(directory)
        with ExitStack() as undo:
            lock = WriterLock(directory / "writer.lock", "a copy of a log")
            undo.callback(lock.release)
            path = directory / sqlite_file.NAME
            if not _is_there(path):
                connection, _ = sqlite_file.create(directory, origin.partitions, "")
                sqlite_file.close(connection)
            with sqlite_file.opening(path, "", apsw.SQLITE_OPEN_READWRITE) as connection:
                undo.callback(sqlite_file.close, connection)
                found = _look(connection)
                there = sqlite_file.describe(connection)
                _check_same(path, found, there, origin, moving=moving)
                connection.pragma("synchronous", "NORMAL")  # what a crash takes back is copied again
                if found.state is None or (moving and found.state == _REPLICA):
                    found = _Found(sqlite_file.COPYING, found.copy or new_copy())
                    _become(connection, found, named, there.successor)
                undo.pop_all()
                return cls(directory, lock, connection, found, named)

    def close(self) -> None:
        """Let go of the file and the lock. Harmless when repeated."""
        sqlite_file.close(self._connection)
        self._lock.release()

    def ends(self) -> tuple[int, ...]:
        """See :class:`headrace.log.copying.Destination`."""
        if self._moved is not None:
            return self._moved
        try:
            return sqlite_file.describe(self._connection).ends
        except apsw.Error as error:
            raise sqlite_file.translated(self._path, error) from error

    def write(self, records: Sequence[Stored]) -> None:
        """See :class:`headrace.log.copying.Destination`."""
        try:
            with self._connection:
                self._connection.executemany(_INSERT, map(_row, records))
        except apsw.ConstraintError as error:
            raise LogMismatchError(
                f"{self._path} has other records than its origin: throw the copy away with --discard and begin again"
            ) from error
        except apsw.Error as error:
            raise sqlite_file.translated(self._path, error) from error

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :class:`headrace.log.copying.Destination`."""
        try:
            rows = self._connection.execute(sqlite_file.READ, (partition, offset, limit)).fetchall()
        except apsw.Error as error:
            raise sqlite_file.translated(self._path, error) from error
        return [sqlite_file.stored(self._path, row) for row in rows]

    def finish(self, movings: Sequence[Record], successor: str | None) -> None:
        """See :class:`headrace.log.copying.Destination`."""
        if self._moved is not None:
            return
        now = time.time_ns() // 1_000_000
        ends = self.ends()
        moved = [
            Stored(one.partition, ends[one.partition], now, True, one.key, one.headers, one.value) for one in movings
        ]
        try:
            self._connection.pragma("synchronous", "FULL")  # with this commit everything before it is on disk too
            with self._connection:
                self._connection.executemany(_INSERT, map(_row, moved))
                state = _Found(_MOVED, self.copy, ends) if movings else _Found(_REPLICA, self.copy)
                _become(self._connection, state, self._origin, successor)
        except apsw.Error as error:
            raise sqlite_file.translated(self._path, error) from error


def discard(directory: Path) -> None:
    """Delete an unfinished copy; never anything else.

    :raises NotFoundError: there is nothing.
    :raises BadInputError: what is there is no unfinished copy; nothing was deleted.
    :raises WriterLockedError: another process has it open.
    """
    path = directory / sqlite_file.NAME
    if not _is_there(path):
        raise NotFoundError(f"there is no log in {directory}: nothing to discard")
    lock = WriterLock(directory / "writer.lock", "a copy being discarded")
    try:
        with sqlite_file.opening(path, "", apsw.SQLITE_OPEN_READWRITE) as connection:
            state = _look(connection).state
            sqlite_file.close(connection)
        if state != sqlite_file.COPYING:
            raise BadInputError(f"{path} is no unfinished copy: nothing was deleted")
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    finally:
        lock.release()


def address_of(directory: Path) -> str:
    """The directory's log as an address."""
    return f"sqlite:{directory.absolute()}"


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _look(connection: apsw.Connection) -> _Found:
    for state in _STATES:
        if connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", (state,)).get:
            copy, ends = connection.execute(f"SELECT copy, ends FROM {state}").fetchall()[0]  # noqa: S608 - ours
            return _Found(state, str(copy), None if ends is None else tuple(json.loads(str(ends))))
    return _Found()


def _check_same(path: Path, found: _Found, there: LogDescription, origin: LogDescription, *, moving: bool) -> None:
    if there.partitions != origin.partitions:
        raise BadInputError(
            f"{path} has {there.partitions} partitions, the log to copy has {origin.partitions}: name another directory"
        )
    if any(there.ends) and (found.state is None or (found.state == _MOVED and not moving)):
        raise BadInputError(f"{path} is a log of its own, and no copy: name another directory")
    if there.log_id is not None and there.log_id != origin.log_id:
        raise BadInputError(f"{path} is a copy of another log: name another directory, or --discard it if unfinished")


def _become(connection: apsw.Connection, found: _Found, origin: str, successor: str | None) -> None:
    with connection:
        for name in _STATES:
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        assert found.state is not None
        connection.execute(_TABLE.format(found.state))
        ends = json.dumps(found.ends) if found.ends is not None else None
        connection.execute(
            f"INSERT INTO {found.state} VALUES (?, ?, ?)",  # noqa: S608 - one of three names of ours
            (found.copy, origin, ends),
        )
        connection.execute("UPDATE meta SET successor = ?", (successor,))


def _row(record: Stored) -> tuple[int, int, int, int, bytes | None, bytes, bytes]:
    partition, offset, appended_at, log_append, key, headers, value = record
    return partition, offset, appended_at, int(log_append), key, pack_headers(headers), value
