"""A store on this machine: a log, its tables, its keys, in one directory. The place where the embedded parts are put together.

======================  =========================================================================
``log.db``              the log: synced to disk, never rewritten; back this up
``tables.db``           the log folded; can be deleted, the next start folds it again
``keys/master``         pseudonyms and payload hashes derive from it; back this up with the log
``server.json``         where the running process answers, while one runs
======================  =========================================================================
"""

import os
from pathlib import Path
from typing import Final, Self

from headrace.errors import NotFoundError
from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.opening import DEFAULT_PARTITIONS, open_log
from headrace.log.sqlite import SqliteLog
from headrace.processors.applied import Applied
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine
from headrace.producers.intake import Intake
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
        exists = (directory / LOG_FILE).exists()
        if not writer and not exists:
            raise NotFoundError(f"there is no store at {directory}; `headrace dev --store {directory}` makes one")
        if writer and not exists:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.log = SqliteLog.create(directory, partitions)
        else:
            self.log = SqliteLog.open(directory, writer=writer)
        try:
            if writer:
                open_log(self.log, self.registry, self.kinds, policy)
            self.keys: Final = Keys.at(directory / KEY_FILE)
            self.tables: Final = SqliteTables(directory / TABLES_FILE, self.registry, self.kinds, writable=writer)
        except BaseException:
            self.log.close()
            raise
        self.intake: Final = Intake(self.registry, self.keys, self.log.describe().partitions)
        self._host: EmbeddedHost | None = None
        if writer:
            host = EmbeddedHost(self.log, Engine(self.registry, self.kinds, self.tables), self.applied)
            try:
                host.start()
            except BaseException:
                self.close()
                raise
            self._host = host

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


def default_directory() -> Path:
    """Where a store lives unless somebody says otherwise: ``$XDG_DATA_HOME/headrace``, else ``~/.local/share/headrace``."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "headrace"
