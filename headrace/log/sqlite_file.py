"""The file ``log.db``: its tables, how it is opened, and what SQLite's errors mean for whoever asked."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, cast

import apsw

from headrace.errors import BadInputError, HeadraceError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.admission import log_id_of
from headrace.log.framing import unpack_headers
from headrace.log.port import READ_BYTES, LogDescription, Stored

NAME: Final = "log.db"
FORMAT: Final = 1
MAX_PARTITIONS: Final = 65_536
BUSY_MILLISECONDS: Final = 5_000
"""How long to wait for somebody's lock on the file: a backup or a shell, never another headrace."""

# A record of usual size is 1 to 2 kB. With SQLite's default of 4 kB pages most would spill into an overflow page.
_PAGE_BYTES: Final = 8_192

_SCHEMA: Final = f"""
CREATE TABLE records (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    appended_at INTEGER NOT NULL,  -- epoch milliseconds UTC
    log_append  INTEGER NOT NULL,  -- 1: appended_at is the log's own time, 0: a client's
    key         BLOB,
    headers     BLOB    NOT NULL,  -- headrace.log.framing.pack_headers
    value       BLOB    NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (
    format     INTEGER NOT NULL CHECK (format = {FORMAT}),
    partitions INTEGER NOT NULL,
    successor  TEXT                -- set once the log is closed
) STRICT;
"""


COPYING: Final = "copying"
"""A table that is there while the file is the unfinished copy of another log; see
:mod:`headrace.log.copy_to_sqlite`."""

READ: Final = (
    'SELECT partition, "offset", appended_at, log_append, key, headers, value FROM records '
    'WHERE partition = ? AND "offset" >= ? ORDER BY "offset" LIMIT ?'
)

_Row = tuple[int, int, int, int, bytes | None, bytes, bytes]
_ROW_TYPES: Final = frozenset({(int, int, int, int, key, bytes, bytes) for key in (bytes, type(None))})
_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.FormatError)


def make_directory(directory: Path) -> None:
    """Make ``directory`` and see to it that its name survives a power cut.

    :raises UnavailableError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _sync_directory(directory.parent)
    except OSError as error:
        raise UnavailableError(f"cannot make {directory} ({error.strerror}); check the path and its rights") from error


def check_present(directory: Path, vfs: str) -> None:
    """Pass when ``directory`` has a log. A VFS of one's own may keep it elsewhere, so there SQLite decides.

    :raises NotFoundError: there is none.
    """
    if not vfs and not (directory / NAME).exists():
        raise NotFoundError(f"there is no log in {directory}; create it first, or check the path")


def create(directory: Path, partitions: int, vfs: str) -> tuple[apsw.Connection, LogDescription]:
    """The writing connection to a log that is there afterwards, whether it was before or not, and what it holds.

    :raises BadInputError: a partition count out of range, or another than the log has.
    :raises LogMismatchError: the file is damaged or something else's.
    :raises UnavailableError: the file cannot be written.
    """
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise BadInputError(f"a log has 1 to {MAX_PARTITIONS} partitions, not {partitions}")
    path = directory / NAME
    with opening(path, vfs, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
            connection.pragma("page_size", _PAGE_BYTES)
            _use_wal(connection, path)
            with connection:  # tables and the count land together, or a repeated create finds an empty file again
                connection.execute(_SCHEMA)
                connection.execute("INSERT INTO meta VALUES (?, ?, NULL)", (FORMAT, partitions))
            if not vfs:
                _sync_directory(directory)
        there = _partitions(connection, path)  # before anything is changed in a file that may be somebody else's
        if there != partitions:
            raise BadInputError(
                f"the log in {directory} has {there} partitions, not {partitions}; the count is fixed for a log's "
                f"life: ask for {there}, or create a new log in another directory"
            )
        _use_wal(connection, path)
        return connection, describe(connection)


def connect(directory: Path, vfs: str, *, writer: bool) -> tuple[apsw.Connection, LogDescription]:
    """A connection to a log that is there, and what it holds.

    :raises LogMismatchError: the file is damaged, not finished, or something else's.
    :raises UnavailableError: the file cannot be opened now.
    """
    path = directory / NAME
    with opening(path, vfs, apsw.SQLITE_OPEN_READWRITE if writer else apsw.SQLITE_OPEN_READONLY) as connection:
        _partitions(connection, path)
        if writer:
            _use_wal(connection, path)
        return connection, describe(connection)


def describe(connection: apsw.Connection) -> LogDescription:
    """What the file says of the log, all from one moment."""
    connection.execute("BEGIN")
    try:
        partitions, successor = _meta(connection)
        ends = tuple(end_of(connection, partition) for partition in range(partitions))
        opening = connection.execute(READ, (0, 0, 1)).fetchall() if ends[0] else []
    finally:
        if connection.in_transaction:  # some errors end the transaction themselves
            connection.execute("ROLLBACK")  # nothing was written
    headers = stored(Path(connection.filename), opening[0]).headers if opening else ()
    return LogDescription(log_id_of(headers), partitions, ends, successor)


def rows(connection: apsw.Connection, partition: int, offset: int, limit: int) -> list[tuple[object, ...]]:
    """What :data:`READ` finds, as far as one read goes."""
    found: list[tuple[object, ...]] = []
    cursor, left = connection.execute(READ, (partition, offset, limit)), READ_BYTES
    try:
        for row in cursor:
            found.append(row)
            value = row[-1]
            left -= len(value) if isinstance(value, bytes) else 0
            if left <= 0:
                break
    finally:
        cursor.close()
    return found


def end_of(connection: apsw.Connection, partition: int) -> int:
    """The next offset of ``partition``."""
    last = connection.execute('SELECT max("offset") FROM records WHERE partition = ?', (partition,)).get
    if last is None:
        return 0
    if not isinstance(last, int):
        raise mismatch(Path(connection.filename), f"partition {partition} ends in an offset that is no number")
    return last + 1


def stored(path: Path, row: tuple[object, ...]) -> Stored:
    """A row of ``records``, in the order of its columns, as a record.

    :raises LogMismatchError: the row is damaged.
    """
    if tuple(map(type, row)) not in _ROW_TYPES:  # a flipped bit can change a column's type; SQLite does not check
        raise mismatch(path, f"the record at {row[:2]} has values of wrong types")
    partition, offset, appended_at, log_append, key, headers, value = cast("_Row", row)
    return Stored(partition, offset, appended_at, bool(log_append), key, unpack_headers(headers), value)


def close(connection: apsw.Connection) -> None:
    """Let go of the file. What was acknowledged is on disk, so a failing disk may not keep us from leaving."""
    with suppress(apsw.Error):
        connection.close()


def translated(path: Path, error: apsw.Error | UnicodeDecodeError) -> HeadraceError:
    """headrace's word for what SQLite says."""
    if not isinstance(error, apsw.Error) or isinstance(error, _DAMAGE):
        return mismatch(path, str(error))
    return UnavailableError(advice(path, error))


def mismatch(path: Path, what: str) -> LogMismatchError:
    """The file is not what it was, or not a log."""
    return LogMismatchError(
        f"{path} is damaged or not this log ({what}); stop, keep the file and its -wal as they are, check the disk, "
        "and restore the log from a backup"
    )


def advice(path: Path, error: apsw.Error) -> str:
    """What happened to the file and what to do, for trouble that can pass."""
    if isinstance(error, apsw.FullError):
        return f"the disk of {path} is full; free some space and try again"
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return f"{path} is locked by another program (a backup, a shell); end that and try again"
    return f"{path} cannot be used now ({error}); check the disk and the file's rights, then try again"


@contextmanager
def opening(path: Path, vfs: str, flags: int) -> Generator[apsw.Connection, None, None]:
    """A new connection, closed again should its first use fail."""
    connection: apsw.Connection | None = None
    try:
        connection = apsw.Connection(str(path), flags=flags, vfs=vfs or None)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        yield connection
    except BaseException as error:
        if connection is not None:
            close(connection)
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise translated(path, error) from error
        raise


def _use_wal(connection: apsw.Connection, path: Path) -> None:
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise UnavailableError(f"{path} cannot use a write-ahead log here (mode {mode}); keep the log on a local disk")
    connection.pragma("synchronous", "FULL")


def _partitions(connection: apsw.Connection, path: Path) -> int:
    """The partition count of a file that is a log of a format we know.

    :raises LogMismatchError: it is not.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        raise LogMismatchError(
            f"{path} is empty: either its creation was interrupted (then create the log again, that resumes it), or "
            "it was cut off (then restore the log from a backup)"
        )
    if not {"records", "meta"} <= tables:
        raise mismatch(path, "it has other tables than a log's")
    if COPYING in tables:
        raise LogMismatchError(
            f"{path} is an unfinished copy of a log: repeat the `headrace log copy` that was making it and it goes on,"
            " or throw it away with --discard"
        )
    file_format = connection.execute("SELECT max(format) FROM meta").get
    if isinstance(file_format, int) and file_format > FORMAT:
        raise LogMismatchError(f"{path} has format {file_format}, this headrace knows {FORMAT}; use a newer headrace")
    return _meta(connection)[0]


def _meta(connection: apsw.Connection) -> tuple[int, str | None]:
    """Partition count and successor."""
    match connection.execute("SELECT format, partitions, successor FROM meta").fetchall():
        case [(int(known), int(partitions), str() | None as successor)] if (
            known == FORMAT and 1 <= partitions <= MAX_PARTITIONS
        ):
            return partitions, successor
        case rows:
            raise mismatch(Path(connection.filename), f"its meta table holds {str(rows)[:100]}")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
