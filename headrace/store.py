"""A store on this machine: a log, its tables, its keys, in one directory. Here the embedded parts are put together.

======================  =========================================================================
``log.db``              the log: synced to disk, never rewritten; back this up
``tables.db``           the log folded; can be deleted, the next start folds it again
``keys/master``         pseudonyms and payload hashes derive from it; back this up with the log
``server.json``         where the running process answers, while one runs
======================  =========================================================================
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from headrace.errors import LogMismatchError, NotFoundError
from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.sqlite import SqliteLog
from headrace.processors.applied import Applied
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine
from headrace.producers.intake import Intake
from headrace.producers.opening import DEFAULT_PARTITIONS, open_log
from headrace.projections.sqlite import FILE as TABLES_FILE
from headrace.projections.sqlite import SqliteTables

LOG_FILE: Final = "log.db"
KEY_FILE: Final = Path("keys") / "master"


class Store:
    """An open store. ``writer=True`` makes it if it is not there, folds it, and keeps every other writer out;
    ``writer=False`` only reads, also while another process writes.

    :raises WriterLockedError: another process has it open for writing.
    :raises NotFoundError: there is none to read.
    :raises HaltError: log and tables do not fit together, or this headrace lacks what the log asks for.
    """

    def __init__(
        self, directory: Path, *, writer: bool, partitions: int = DEFAULT_PARTITIONS, policy: Policy = DEFAULT_POLICY
    ) -> None:
        self.directory: Final = directory
        self.writer: Final = writer
        self.registry: Final = installed_schemas()
        self.kinds: Final = installed_kinds()
        self.applied: Final = Applied()
        self._host: EmbeddedHost | None = None
        with ExitStack() as opened:
            self.log: Final = _log(directory, partitions, writer=writer)
            opened.callback(self.log.close)
            if writer:
                open_log(self.log, self.registry, self.kinds, policy)
            self.keys: Final = Keys.at(directory / KEY_FILE, create=False)
            self.tables: Final = SqliteTables(directory / TABLES_FILE, self.registry, self.kinds, writable=writer)
            opened.callback(self.tables.close)
            if writer:
                engine = Engine(self.registry, self.kinds, self.tables, schemas=installed_schemas)
                self._host = EmbeddedHost(self.log, engine, self.applied)
                self._host.start()
            folded = self.tables.resume(0)
            in_force = {name: self.kinds[name] for name in folded.kinds if name in self.kinds} if folded else None
            self.intake: Final = Intake(self.registry, self.keys, self.log.describe().partitions, in_force)
            opened.pop_all()

    def close(self) -> None:
        """Stop folding and close the files."""
        if self._host is not None:
            self._host.stop()
        self.tables.close()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _log(directory: Path, partitions: int, *, writer: bool) -> SqliteLog:
    if not (directory / LOG_FILE).exists():
        if not writer:
            raise NotFoundError(f"there is no store at {directory}; `headrace dev --store {directory}` makes one")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        Keys.at(directory / KEY_FILE)  # before the log: to a log that is there no new key may be made
        return SqliteLog.create(directory, partitions)
    try:
        return SqliteLog.open(directory, writer=writer)
    except LogMismatchError:
        if not writer or (directory / TABLES_FILE).exists():
            raise
        # Nothing was ever folded: perhaps the log's creation was interrupted. Creating resumes that, and only that.
        return SqliteLog.create(directory, partitions)


def default_directory() -> Path:
    """Where a store lives unless somebody says otherwise: ``$XDG_DATA_HOME/headrace``, else
    ``~/.local/share/headrace``."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "headrace"
