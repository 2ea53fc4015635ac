"""The log in one SQLite file: the default, with nothing to set up.

Kept through apsw, which brings its own SQLite (3.54). The standard library's is the system's: Debian 12 has 3.40.1,
and SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when a checkpoint resets the log while another connection
writes (sqlite.org/wal.html#walresetbug, fixed in 3.51.3).

``synchronous=FULL``: the WAL is synced before an append returns. With NORMAL a power cut loses acknowledged records.
One process writes (:mod:`headrace.log.writer_lock`); any number of others read the same file meanwhile.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import apsw

from headrace.errors import AppendUnknownError, BadInputError, HeadraceError, UnavailableError
from headrace.log import sqlite_file
from headrace.log.admission import Admission, check_partition
from headrace.log.framing import pack_headers
from headrace.log.group_commit import GroupCommit, Waiting
from headrace.log.port import LogDescription, Record, Stored
from headrace.log.writer_lock import WriterLock
from headrace.schemas.refs import Position

MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
"""Key, headers and value of one record together. Larger things belong beside the log."""

POLL_SECONDS: Final = 0.02
"""How often a reader of another process's log asks whether it has grown."""

_INSERT: Final = (
    'INSERT INTO records (partition, "offset", appended_at, log_append, key, headers, value) '
    "VALUES (?, ?, ?, 1, ?, ?, ?)"
)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class SqliteLog:
    """A log in a directory. Made by :meth:`create` or :meth:`open`; safe to use from any thread; close it when done.

    Appends of many threads are gathered into one transaction (:mod:`headrace.log.group_commit`).
    """

    def __init__(
        self,
        directory: Path,
        opened: tuple[apsw.Connection, LogDescription],
        lock: WriterLock | None,
        clock: Callable[[], int],
        vfs: str,
    ) -> None:
        """For :meth:`create` and :meth:`open` only."""
        self._path = directory / sqlite_file.NAME
        self._connection, self._state = opened
        self._lock = lock
        self._clock = clock
        self._vfs = vfs
        self._process = os.getpid()
        self._closed = threading.Event()
        self._idle: list[apsw.Connection] = []
        self._idle_guard = threading.Lock()
        self._moved = threading.Condition()
        self._commits = 0
        self._broken: str | None = None
        self._group: GroupCommit | None = None
        if lock is None:
            self._idle.append(self._connection)
        else:
            self._group = GroupCommit(self._commit)

    @classmethod
    def create(
        cls, directory: Path | str, partitions: int = 64, *, clock: Callable[[], int] = _wall_clock, vfs: str = ""
    ) -> Self:
        """Create the log in ``directory`` (made if need be) and open it for writing.

        Resumable: repeat it after a crash, or on a log that is there already. The partitions' opening records are
        the caller's next appends.

        :param partitions: 1 to 65,536; fixed for the log's life.
        :param clock: epoch milliseconds UTC, asked once per transaction, for the append times.
        :param vfs: name of a registered SQLite VFS, to keep the file elsewhere or to test faults.
        :raises BadInputError: there is a log with another number of partitions.
        :raises WriterLockedError: another process writes to it.
        :raises LogMismatchError: ``log.db`` is damaged or something else's file.
        :raises UnavailableError: the directory or the file cannot be written.
        """
        directory = Path(directory)
        sqlite_file.make_directory(directory)
        with _owned(directory) as lock:
            return cls(directory, sqlite_file.create(directory, partitions, vfs), lock, clock, vfs)

    @classmethod
    def open(
        cls, directory: Path | str, *, writer: bool = True, clock: Callable[[], int] = _wall_clock, vfs: str = ""
    ) -> Self:
        """Open the log in ``directory``; with ``writer=False`` to read what another process writes.

        :param clock: as for :meth:`create`.
        :param vfs: as for :meth:`create`.
        :raises NotFoundError: there is no log.
        :raises WriterLockedError: another process writes to it.
        :raises LogMismatchError: ``log.db`` is damaged, not finished, or something else's file.
        :raises UnavailableError: the file cannot be opened.
        """
        directory = Path(directory)
        sqlite_file.check_present(directory, vfs)
        if not writer:
            return cls(directory, sqlite_file.connect(directory, vfs, writer=False), None, clock, vfs)
        with _owned(directory) as lock:
            return cls(directory, sqlite_file.connect(directory, vfs, writer=True), lock, clock, vfs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the appends that wait, then let go of the file and the lock. Harmless when repeated."""
        if self._process != os.getpid():
            return  # a forked child's copy: file, lock and thread are the parent's
        if self._group is not None:
            self._group.close()
        self._closed.set()
        with self._moved:
            self._moved.notify_all()
        with self._idle_guard:
            connections, self._idle = self._idle, []
        if self._lock is not None:
            connections.append(self._connection)  # last, so that it makes the final checkpoint
        for connection in connections:
            sqlite_file.close(connection)
        if self._lock is not None:
            self._lock.release()

    @property
    def commits(self) -> int:
        """Transactions committed since this object was made."""
        return self._commits

    @property
    def backlog(self) -> int:
        """Appends that wait for the transaction after the current one."""
        return self._group.backlog if self._group is not None else 0

    def append(self, records: Sequence[Record]) -> list[Position]:
        """See :meth:`headrace.log.port.Log.append`. Here an append lands whole or not at all.

        :raises UnavailableError: the disk is full or failed before the commit, or this object cannot write: nothing
            was appended.
        """
        self._check_usable()
        if self._group is None:
            raise UnavailableError(f"{self._path} is open for reading; open it with writer=True to append")
        for record in records:
            check_partition(record.partition, self._state.partitions)
        if not records:
            return []
        packed = [pack_headers(record.headers) for record in records]
        sizes = [len(r.value) + len(r.key or b"") + len(h) for r, h in zip(records, packed, strict=True)]
        if max(sizes) > MAX_RECORD_BYTES:
            raise BadInputError(
                f"a record of {max(sizes)} bytes is too large for the log: keep it under {MAX_RECORD_BYTES} and "
                "store the rest beside the log"
            )
        waiting = Waiting(tuple(records), packed, sum(sizes), Future())
        self._group.submit(waiting)
        return waiting.answer.result()

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :meth:`headrace.log.port.Log.read`.

        :raises BadInputError: no such partition, a negative offset, or a limit below 1.
        :raises LogMismatchError: also when the file is damaged or has a hole.
        :raises UnavailableError: the file cannot be read now.
        """
        check_partition(partition, self._state.partitions)
        if offset < 0 or limit < 1:
            raise BadInputError(f"cannot read {limit} records from offset {offset}: give offset >= 0 and limit >= 1")
        with self._reading() as connection:
            rows = sqlite_file.rows(connection, partition, offset, limit)
            end = offset if rows else sqlite_file.end_of(connection, partition)
        if offset > end:
            raise sqlite_file.mismatch(self._path, f"partition {partition} ends at {end}, before offset {offset}")
        found = [sqlite_file.stored(self._path, row) for row in rows]
        if found and (found[0].offset != offset or found[-1].offset != offset + len(found) - 1):
            raise sqlite_file.mismatch(self._path, f"partition {partition} has a hole after offset {offset}")
        return found

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """See :meth:`headrace.log.port.Log.wait`. A reader of another process's log notices within 20 ms.

        :raises BadInputError: no such partition.
        :raises UnavailableError: this object was closed meanwhile, or the file cannot be read now.
        """
        for partition in after:
            check_partition(partition, self._state.partitions)
        if self._group is None:
            return self._poll(after, timeout)
        deadline = time.monotonic() + timeout
        with self._moved:
            while True:
                self._check_usable()
                grown = _grown(self._state.ends, after)
                left = deadline - time.monotonic()
                if grown or left <= 0:
                    return grown
                self._moved.wait(min(left, threading.TIMEOUT_MAX))

    def describe(self) -> LogDescription:
        """See :meth:`headrace.log.port.Log.describe`.

        :raises UnavailableError: the file cannot be read now.
        """
        if self._group is not None:
            self._check_usable()
            return self._state
        with self._reading() as connection:
            return sqlite_file.describe(connection)

    def _poll(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        deadline = time.monotonic() + timeout
        with self._reading() as connection:
            seen = None
            while True:
                # The version is taken before the ends: a commit between the two is noticed once more, never missed.
                version = connection.pragma("data_version")
                if version != seen:
                    seen = version
                    grown = frozenset(p for p, o in after.items() if sqlite_file.end_of(connection, p) > o)
                    if grown:
                        return grown
                left = deadline - time.monotonic()
                if left <= 0:
                    return frozenset()
                if self._closed.wait(min(left, POLL_SECONDS)):
                    self._check_usable()

    def _commit(self, group: Sequence[Waiting]) -> None:
        """One transaction for ``group``, on the writer thread."""
        draft = Admission(self._state)
        admitted: list[tuple[Waiting, list[Position]]] = []
        refused: list[tuple[Waiting, HeadraceError]] = []
        for waiting in group:
            try:
                admitted.append((waiting, draft.admit(waiting.records)))
            except HeadraceError as error:
                refused.append((waiting, error))
        if admitted:
            state = draft.description()
            failure = self._write(admitted, state)
            if failure is not None:
                # Refusals too may rest on what did not land (a closing, say), so the whole group gets the failure.
                for waiting in group:
                    waiting.answer.set_exception(type(failure)(str(failure)))  # raised in many threads: one each
                return
            with self._moved:
                self._state = state
                self._commits += 1
                self._moved.notify_all()
        for waiting, positions in admitted:
            waiting.answer.set_result(positions)
        for waiting, refusal in refused:
            waiting.answer.set_exception(refusal)

    def _write(
        self, admitted: Sequence[tuple[Waiting, list[Position]]], state: LogDescription
    ) -> UnavailableError | None:
        """Write and commit; the failure, when it failed."""
        if self._broken is not None:
            return UnavailableError(self._broken)
        committing = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            now = self._clock()
            self._connection.executemany(_INSERT, _rows(admitted, now))
            if state.successor is not None:
                self._connection.execute("UPDATE meta SET successor = ?", (state.successor,))
            committing = True
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            return self._failed(error, committing=committing)
        return None

    def _failed(self, error: apsw.Error, *, committing: bool) -> UnavailableError:
        """What a failed transaction means for its callers, with the transaction rolled back.

        Before COMMIT nothing can have landed. At COMMIT a full disk refuses a write before the commit mark is
        whole, and a lock leaves the transaction open; anything else (a failed sync, above all) may have landed. After
        a failed sync the kernel may hold pages for clean that are not on disk, so this object writes no more.
        """
        rolled_back = True
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error:
                rolled_back = False
        definite = not committing or isinstance(error, apsw.FullError | apsw.BusyError)
        if not definite or not rolled_back:
            self._broken = (
                f"{self._path} failed while it was written ({error}); check the disk, then open the log again"
            )
        if not definite:
            return AppendUnknownError(f"{self._broken} and retry the same records: some may have landed")
        return UnavailableError(sqlite_file.advice(self._path, error) + "; nothing was appended")

    @contextmanager
    def _reading(self) -> Generator[apsw.Connection, None, None]:
        """A connection for this thread alone, for the moment."""
        self._check_usable()
        with self._idle_guard:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection, _ = sqlite_file.connect(self._path.parent, self._vfs, writer=False)
        kept = False
        try:
            yield connection
            with self._idle_guard:
                if not self._closed.is_set():
                    self._idle.append(connection)
                    kept = True
        except (apsw.Error, UnicodeDecodeError) as error:
            raise sqlite_file.translated(self._path, error) from error
        finally:
            if not kept:  # after an error too: the next caller gets a fresh one
                sqlite_file.close(connection)

    def _check_usable(self) -> None:
        if self._closed.is_set():
            raise UnavailableError(f"this object for {self._path} is closed; open the log again")
        if self._process != os.getpid():
            raise UnavailableError(f"{self._path} was opened before this process was forked; open it in this process")


@contextmanager
def _owned(directory: Path) -> Generator[WriterLock, None, None]:
    """The writer lock, given back should opening fail."""
    lock = WriterLock(directory / "writer.lock", "the writer of a headrace log")
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _grown(ends: Sequence[int], after: Mapping[int, int]) -> frozenset[int]:
    return frozenset(partition for partition, offset in after.items() if ends[partition] > offset)


def _rows(
    admitted: Sequence[tuple[Waiting, list[Position]]], now: int
) -> Iterator[tuple[int, int, int, bytes | None, bytes, bytes]]:
    for waiting, positions in admitted:
        for record, headers, position in zip(waiting.records, waiting.packed, positions, strict=True):
            yield position.partition, position.offset, now, record.key, headers, record.value
