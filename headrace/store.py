"""A store: a log, its tables, its keys. Here the parts are put together.

Embedded, all of it is in one directory, for one process that writes:

======================  =========================================================================
``log.db``              the log: synced to disk, never rewritten; back this up
``tables.db``           the log folded; can be deleted, the next start folds it again
``keys/master``         pseudonyms and payload hashes derive from it; back this up with the log
``sources.db``          how sources are connected, sealed; back this up too
``server.json``         where the running process answers, while one runs
======================  =========================================================================

Distributed (:class:`headrace.places.Places`), the log is in Kafka and the tables are in PostgreSQL, for as many
processes as there are; the directory holds the key, the settings and ``server.json``.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from headrace.errors import HeadraceError, LogMismatchError, NotFoundError, UnavailableError
from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas, schema_registry_at
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.sqlite import SqliteLog
from headrace.places import EMBEDDED, Places
from headrace.processors.applied import Applied
from headrace.processors.core.kind import Kind
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.processors.decode import read_opening
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine
from headrace.processors.fold_group import fold_group, tables_id
from headrace.processors.group_fold import GroupFold
from headrace.processors.verdict_topic import VerdictTopic, address_of, prepare
from headrace.producers.intake import Intake
from headrace.producers.opening import DEFAULT_PARTITIONS, check_key, open_log
from headrace.producers.vault_postgres import PostgresVault, make_vault
from headrace.producers.vault_sqlite import SqliteVault
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_listener import PostgresApplied
from headrace.projections.sqlite import FILE as TABLES_FILE
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.registry import Registry

if TYPE_CHECKING:
    from headrace.producers.connections import Connections

LOG_FILE: Final = "log.db"
KEY_FILE: Final = Path("keys") / "master"


class Host(Protocol):
    """Runs an engine over the log."""

    def start(self) -> None:
        """Begin folding."""
        ...

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the batch at hand; whether it ended in time."""
        ...


class Store:
    """An open store. ``writer=True`` makes it if it is not there (unless ``make`` is false) and folds it (unless
    ``fold`` is false: others do); embedded, it keeps every other writer out. ``writer=False`` only reads, also while
    others write.

    :raises WriterLockedError: another process has it open for writing.
    :raises NotFoundError: there is none to read, or to write where none may be made.
    :raises HaltError: log and tables do not fit together, or this headrace lacks what the log asks for.
    :raises UnavailableError: the brokers or the database do not answer.
    """

    def __init__(
        self,
        directory: Path,
        *,
        writer: bool,
        partitions: int = DEFAULT_PARTITIONS,
        policy: Policy = DEFAULT_POLICY,
        places: Places = EMBEDDED,
        fold: bool = True,
        make: bool = True,
    ) -> None:
        self.directory: Final = directory
        self.writer: Final = writer
        self.places: Final = places.checked()
        self.key_file: Final = places.key_file if places.key_file is not None else directory / KEY_FILE
        self.kinds: Final = installed_kinds()
        self.applied: Final = Applied()
        making, folding = writer and make, writer and (fold or not places.shared)
        with ExitStack() as opened:
            self._confluent: Final = opened.enter_context(schema_registry_at(places))
            self.registry: Final = installed_schemas(self._confluent, register=writer)
            self.log: Final = self._open_log(partitions, making=making)
            opened.callback(self.log.close)
            self.keys: Final = Keys.at(self.key_file, create=False)
            if making:
                open_log(self.log, self.registry, self.kinds, policy, key_id=self.keys.id)
            opening = read_opening(self.log, self.registry)
            check_key(self.log, self.keys.id)
            self.tables: Final = _tables(directory, places, self.registry, self.kinds, making=making, writer=writer)
            opened.callback(self.tables.close)
            if writer and isinstance(self.tables, PostgresTables) and places.shared:
                opened.enter_context(_listening(self.tables, places, self.applied))
            self.group_fold: GroupFold | None = None
            if folding:
                host = self._host(opened)
                self.group_fold = host if isinstance(host, GroupFold) else None
                host.start()
                opened.callback(host.stop)
            folded = self.tables.resume(0)
            named = folded.kinds if folded is not None else opening["kinds"] if opening is not None else ()
            in_force = {name: self.kinds[name] for name in named if name in self.kinds}
            self.intake: Final = Intake(self.registry, self.keys, self.log.describe().partitions, in_force)
            self._opened: Final = opened.pop_all()

    def _open_log(self, partitions: int, *, making: bool) -> SqliteLog | KafkaLog:
        if self.places.log_url is None:
            return self._open_file(partitions, making=making)
        if making:
            log = self._make_topic(self.places.log_url, partitions)
        else:
            log = KafkaLog.open(self.places.log_url, writer=self.writer)
        left = log.describe().ends.count(0)
        if left and not making:
            log.close()
            raise UnavailableError(
                f"the log's creation was interrupted: {left} partitions are not opened yet; finish it with"
                " `headrace log create`"
            )
        return log

    def _make_topic(self, url: str, partitions: int) -> KafkaLog:
        """The key before the log: to a log that is there no new key may be made."""
        try:
            log = KafkaLog.open(url)
        except NotFoundError:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            Keys.at(self.key_file)
            return KafkaLog.create(url, partitions)
        if log.describe().log_id is None:
            Keys.at(self.key_file)
        return log

    def _open_file(self, partitions: int, *, making: bool) -> SqliteLog:
        directory = self.directory
        if not (directory / LOG_FILE).exists():
            if not making:
                raise NotFoundError(f"there is no store at {directory}; `headrace dev --store {directory}` makes one")
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            Keys.at(self.key_file)  # before the log: to a log that is there no new key may be made
            return SqliteLog.create(directory, partitions)
        try:
            return SqliteLog.open(directory, writer=self.writer)
        except LogMismatchError:
            if not making or (directory / TABLES_FILE).exists():
                raise
            # Nothing was ever folded: perhaps the log's creation was interrupted. Creating resumes that, and only that.
            return SqliteLog.create(directory, partitions)

    def _host(self, opened: ExitStack) -> Host:
        def schemas() -> Registry:
            return installed_schemas(self._confluent, register=False)

        if not isinstance(self.log, KafkaLog):
            return EmbeddedHost(self.log, Engine(self.registry, self.kinds, self.tables, schemas=schemas), self.applied)
        assert self.places.log_url is not None
        assert self.places.db_url is not None
        address = KafkaAddress.parse(self.places.log_url)
        prepare(address, self.log.describe().partitions)
        verdicts = opened.enter_context(VerdictTopic(address_of(address)))
        engine = Engine(self.registry, self.kinds, self.tables, schemas=schemas, publish=verdicts.publish)
        group = fold_group(tables_id(self.places.db_url, self.places.db_schema))
        return GroupFold(address, self.log, engine, _Told(self.applied), group=group)

    @cached_property
    def connections(self) -> "Connections":
        """The sources that are connected to this store. Opened when first asked for: not everybody may.

        :raises HaltError: this role may not use them, or nobody has made a place for them yet.
        :raises UnavailableError: they cannot be reached now.
        """
        # What providers are asked through takes 0.2 s to import, which commands that connect nothing should not pay.
        from headrace.producers.connections import Connections  # noqa: PLC0415

        if self.places.db_url is None:
            return Connections(SqliteVault(self.directory), self.keys)
        vault = self._opened.enter_context(PostgresVault(Address(self.places.db_url, self.places.db_schema)))
        return Connections(vault, self.keys)

    def close(self) -> None:
        """Stop folding and close the files and connections."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Told(Applied):
    """What the fold in this process says of itself, passed on. How far the tables are, whoever folds them, the database
    says."""

    def __init__(self, heard: Applied) -> None:
        super().__init__()
        self._heard: Final = heard

    def pause(self, partition: int, error: HeadraceError) -> None:
        super().pause(partition, error)
        self._heard.pause(partition, error)

    def fail(self, error: HeadraceError, partition: int | None = None) -> None:
        super().fail(error, partition)
        self._heard.fail(error, partition)


def _tables(
    directory: Path, places: Places, registry: Registry, kinds: Mapping[str, Kind], *, making: bool, writer: bool
) -> SqliteTables | PostgresTables:
    if places.db_url is None:
        return SqliteTables(directory / TABLES_FILE, registry, kinds, writable=writer)
    tables = PostgresTables(places.db_url, registry, kinds, schema=places.db_schema, migrating=making)
    if making:
        make_vault(tables.address)
    return tables


def _listening(tables: PostgresTables, places: Places, applied: Applied) -> PostgresApplied:
    assert places.db_url is not None
    return PostgresApplied(places.db_url, applied, schema=tables.address.schema)


def default_directory() -> Path:
    """Where a store lives unless somebody says otherwise: ``$XDG_DATA_HOME/headrace``, else
    ``~/.local/share/headrace``."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "headrace"
