"""New tables in a file beside the live one, and the switch from one to the other.

The switch writes the new file over the live one in one transaction of SQLite's: who reads goes on with the old rows
until the next snapshot, also in another process, and a crash leaves either. From the first moment of that transaction
nobody else commits, so the new tables can be brought exactly as far as the live ones; who folds waits for it, is told
that the tables were rebuilt, and goes on with those. (Putting another file in the old one's place would not do: whoever
has that open would meet the new one's write-ahead log.)

A run that dies leaves the live tables alone; what it built is dropped by the next one.
"""

import json
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from headrace.errors import BadInputError, HaltError, LogMismatchError, UnavailableError, WriterLockedError
from headrace.log.writer_lock import WriterLock
from headrace.projections.postgres_rebuild import Positions
from headrace.projections.sqlite_connection import translated

_BESIDE: Final = ("-wal", "-shm", "-journal")
_BUSY_MS: Final = 10_000
_UNREADABLE: Final = (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError, apsw.SQLError, apsw.FormatError)
_FOLDED: Final = "SELECT partition, log_id, next_offset, chain FROM partitions"
_CHAIN: Final = "SELECT chain FROM events WHERE partition = ? AND offset = ?"
_SHAPE: Final = "SELECT name, type, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"

Shape = dict[str, tuple[str, str]]
"""By name of what is in a file: its type, and the statement that made it."""


class FileRebuild:
    """Of the tables in the file ``live``; from :func:`rebuilding_file`. ``built`` is where the new ones are made."""

    def __init__(self, live: Path) -> None:
        self.live: Final = live
        self._writer: WriterLock | None = None
        self.built: Final = live.with_name(f"{live.name}.rebuild")

    @property
    def alone(self) -> bool:
        """Whether no other process runs on the store, nor can start while this goes on."""
        if self._writer is None:
            with suppress(WriterLockedError):
                self._writer = WriterLock(self.live.with_name("writer.lock"), "a rebuild of the tables")
        return self._writer is not None

    def positions(self) -> Positions | None:
        """How far the live tables are; ``None`` where there are none, or none that can be read."""
        try:
            with self._reading(self.live) as connection:
                return {int(partition): int(end) for partition, _, end, _ in connection.execute(_FOLDED)}
        except _UNREADABLE:
            return None

    def log_ids(self) -> set[bytes]:
        """Of which logs the live tables say that they were folded."""
        with self._reading(self.live) as connection:
            return {bytes(log_id) for _, log_id, _, _ in connection.execute(_FOLDED)}

    def check(self) -> None:
        """Refuse what a switch would lose; the new tables are made by now.

        :raises BadInputError: there is something in the live file that the new one does not have; the message names it.
        """
        live, built = self._shape(self.live), self._shape(self.built)
        more = [f"{live[name][0]} {name}" for name in sorted(live.keys() - built.keys())]
        if more:
            raise BadInputError(
                f"{self.live} cannot be replaced while something that is not headrace's stands in it:"
                f" {', '.join(more)}. Drop it, rebuild, and make it again"
            )

    def switch(self, catch_up: Callable[[Positions], object], *, keep_old: bool) -> Path | None:
        """Write the new tables over the live ones; the file that keeps the old ones, if any.

        :param catch_up: folds into the new tables up to these positions, and not beyond while somebody else folds.
        :raises WriterLockedError: a process runs on the store that would not understand the new tables.
        :raises LogMismatchError: the live tables were not folded from the same records.
        :raises UnavailableError: somebody else keeps writing to the file, or the disk is full.
        """
        self._check_sound()
        if self._shape(self.live) != self._shape(self.built):
            self._require_alone("the new tables have another shape than those it uses")
        kept: Path | None = None
        with (
            translated(str(self.live), "rebuilt"),
            closing(apsw.Connection(str(self.live), flags=apsw.SQLITE_OPEN_READWRITE)) as target,
            closing(apsw.Connection(str(self.built), flags=apsw.SQLITE_OPEN_READONLY)) as source,
        ):
            target.set_busy_timeout(_BUSY_MS)
            with target.backup("main", source, "main") as backup:
                backup.step(0)  # copies nothing yet, and from here on nobody else commits
                catch_up(self.positions() or {})
                self._check_equal()
                kept = _keep(self.live) if keep_old else None
                while not backup.step(-1):
                    pass
        return kept

    def put(self, *, keep_old: bool) -> Path | None:
        """Put the new file where there is none, or none that can be read.

        :raises WriterLockedError: a process runs on the store.
        """
        self._require_alone("its tables cannot be read and are to be replaced whole")
        self._check_sound()
        kept = None
        if keep_old and self.live.exists():
            kept = _free(self.live)
            self.live.rename(kept)
        for suffix in _BESIDE:
            self.live.with_name(self.live.name + suffix).unlink(missing_ok=True)
        self.built.replace(self.live)
        return kept

    def clean_up(self) -> None:
        """Delete what was built and not put in place."""
        for suffix in ("", *_BESIDE):
            self.built.with_name(self.built.name + suffix).unlink(missing_ok=True)

    def release(self) -> None:
        """Let others run on the store."""
        if self._writer is not None:
            self._writer.release()

    def _require_alone(self, why: str) -> None:
        if not self.alone:
            raise WriterLockedError(f"stop the headrace that runs on {self.live.parent}, then rebuild: {why}")

    def _check_equal(self) -> None:
        """That the last record that the live tables know is the same in the new ones, and with it all before it."""
        with self._reading(self.live) as live, self._reading(self.built) as built:
            for partition, _, end, value in live.execute(_FOLDED).fetchall():
                if end and built.execute(_CHAIN, (partition, int(end) - 1)).fetchall() != [(value,)]:
                    raise LogMismatchError(
                        f"the tables in {self.live} were folded from other records than this log has now (partition"
                        f" {partition}): it was replaced, or cut off and went on. Restore it; if it is the log from now"
                        f" on, delete {self.live.name} and the next start folds it"
                    )

    def _check_sound(self) -> None:
        with closing(apsw.Connection(str(self.built), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            found = connection.pragma("quick_check")
        if found != "ok":
            raise HaltError(f"what was written to {self.built} is not what is there ({found}): check the disk")

    def _shape(self, path: Path) -> Shape:
        with translated(str(path), "read"), self._reading(path) as connection:
            found = {str(name): (str(type_), str(sql)) for name, type_, sql in connection.execute(_SHAPE)}
            found["user_version"] = ("version", json.dumps(connection.pragma("user_version")))
            return found

    @contextmanager
    def _reading(self, path: Path) -> Generator[apsw.Connection]:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            connection.set_busy_timeout(_BUSY_MS)
            yield connection


@contextmanager
def rebuilding_file(live: Path) -> Generator[FileRebuild]:
    """One rebuild at a time; what it built is deleted at the end, and what an earlier one left at the beginning.

    :raises UnavailableError: another one is under way.
    """
    try:
        lock = WriterLock(live.with_name("rebuild.lock"), "a rebuild of the tables")
    except WriterLockedError as error:
        raise UnavailableError(f"{live} is being rebuilt already: wait for that one to end") from error
    rebuild = FileRebuild(live)
    try:
        rebuild.clean_up()
        yield rebuild
    finally:
        rebuild.clean_up()
        rebuild.release()
        lock.release()


def _free(live: Path) -> Path:
    number = 1
    while (kept := live.with_name(f"{live.name}.old.{number}")).exists():
        number += 1
    return kept


def _keep(live: Path) -> Path:
    """A copy of the live tables, whole, at one moment."""
    kept = _free(live)
    with (
        closing(apsw.Connection(str(live), flags=apsw.SQLITE_OPEN_READONLY)) as source,
        closing(apsw.Connection(str(kept))) as copy,
        copy.backup("main", source, "main") as backup,
    ):
        backup.step()
    return kept
