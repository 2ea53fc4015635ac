"""Where the stores of these tests are: in their directories or, with ``--on kafka``, each in a topic and a schema of
its own. Tests open them here and know no difference.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, LiteralString
from urllib.parse import urlsplit

import apsw
import psycopg
from confluent_kafka.admin import AdminClient
from psycopg import sql

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.port import Record
from headrace.log.sqlite import SqliteLog
from headrace.places import EMBEDDED, Places
from headrace.processors.core.kind import Kind
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.producers.opening import DEFAULT_PARTITIONS
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_text import translated_sql
from headrace.projections.sqlite import FILE as TABLES_FILE
from headrace.projections.sqlite import SqliteTables
from headrace.store import Store
from tests.stack.databases import own_database

Parts = tuple[SqliteLog | KafkaLog, SqliteTables | PostgresTables]
"""A store's log and tables."""
_SECONDS: Final = 30.0
FEW: Final = 4
"""Partitions on Kafka where a test does not care: 64, the default, take two seconds longer to make."""


class Stores:
    """On Kafka and PostgreSQL: a topic and a schema for each directory, with random names."""

    def __init__(self, bootstrap: str, db_url: str) -> None:
        self._bootstrap: Final = bootstrap
        self._db_url: Final = db_url
        self._admin: Final = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._names: Final[dict[Path, tuple[str, str]]] = {}
        self._parts: Final[dict[Path, tuple[KafkaLog, PostgresTables]]] = {}

    def places(self, directory: Path) -> Places:
        """Of the store that a directory stands for."""
        name = f"t_{secrets.token_hex(8)}"
        topic, schema = self._names.setdefault(directory.resolve(), (name, name))
        return Places(f"kafka://{self._bootstrap}/{topic}?replication.factor=1", self._db_url, schema)

    def adopt_demo(self, directory: Path) -> None:
        """The topic and the schema that a demo has made, and kept, are this directory's store."""
        with psycopg.connect(self._db_url, autocommit=True) as connection:
            found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^headrace_demo_[0-9a-f]+$'")
            ((schema,),) = found.fetchall()
        self._names[directory.resolve()] = (schema.replace("_", "."), schema)

    @property
    def directories(self) -> set[Path]:
        """Of the stores that were made, or may have been."""
        return set(self._names)

    def parts(self, directory: Path) -> tuple[KafkaLog, PostgresTables]:
        """Log and tables for reading; open until they are removed, for they are asked for again and again."""
        place = directory.resolve()
        if place not in self._parts:
            log_url, db_url, schema, *_ = self.places(directory)
            assert log_url is not None
            assert db_url is not None
            log = KafkaLog.open(log_url, writer=False)
            tables = PostgresTables(db_url, installed_schemas(), installed_kinds(), schema=schema, migrating=False)
            self._parts[place] = log, tables
        return self._parts[place]

    def delete_log(self, directory: Path) -> None:
        """Take its topic away; return when the brokers know that."""
        topic, _ = self._names[directory.resolve()]
        self._admin.delete_topics([topic])[topic].result(_SECONDS)
        deadline = time.monotonic() + _SECONDS
        while topic in self._admin.list_topics(timeout=_SECONDS).topics:
            assert time.monotonic() < deadline, "the brokers do not learn of it"

    def remove(self, directory: Path) -> None:
        """Take its topic and its schema away."""
        topic, name = self._names.pop(directory)
        for part in self._parts.pop(directory, ()):
            part.close()
        self._admin.delete_topics([topic])  # nobody waits for the answer: some were never made
        with psycopg.connect(self._db_url, autocommit=True) as connection:
            for schema in (name, _whole(name), f"{name}_sources"):
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def _whole(schema: str) -> str:
    """The schema that keeps a copy of another's tables."""
    return f"{schema}_whole"


_kafka: Stores | None = None


@contextmanager
def on_kafka(bootstrap: str, dsn: str) -> Generator[None]:
    """While it lasts stores are on this Kafka, and in a database of their own on this PostgreSQL."""
    global _kafka  # noqa: PLW0603 - a run is on one of the two
    with own_database(dsn) as name:
        _kafka = Stores(bootstrap, urlsplit(dsn)._replace(path=f"/{name}").geturl())
        try:
            with removing():
                yield
        finally:
            _kafka = None


@contextmanager
def removing() -> Generator[None]:
    """Afterwards the topics and schemas that were made meanwhile are removed."""
    stores = _kafka
    before = stores.directories if stores is not None else set[Path]()
    try:
        yield
    finally:
        if stores is not None:
            for directory in stores.directories - before:
                stores.remove(directory)


def shared() -> bool:
    """Whether stores are on Kafka."""
    return _kafka is not None


def places_of(directory: Path) -> Places:
    """Where the parts of this directory's store are."""
    return _kafka.places(directory) if _kafka is not None else EMBEDDED


def open_store(
    directory: Path,
    *,
    writer: bool,
    partitions: int | None = None,
    policy: Policy = DEFAULT_POLICY,
    fold: bool = True,
    make: bool = True,
) -> Store:
    """The store of this directory. ``partitions``: where a test cares."""
    places = places_of(directory)
    count = partitions or (FEW if places.shared else DEFAULT_PARTITIONS)
    return Store(directory, writer=writer, partitions=count, policy=policy, places=places, fold=fold, make=make)


def partitions_of_any() -> int:
    """How many a store has for which a test names none."""
    return FEW if shared() else DEFAULT_PARTITIONS


def no_store(directory: Path, place: Path) -> str:
    """What is said where there is no store: embedded at ``place``, or where this directory's variables lead."""
    log_url = places_of(directory).log_url
    if log_url is None:
        return f"there is no store at {place}; `headrace dev --store {place}` makes one"
    return f"there is no log at {KafkaAddress.parse(log_url)}; `headrace log create` makes one"


def variables(directory: Path) -> dict[str, str]:
    """What tells another process where the parts of this directory's store are."""
    places = places_of(directory)
    said = {"LOG_URL": places.log_url, "DB_URL": places.db_url, "DB_SCHEMA": places.db_schema}
    return {f"HEADRACE_{name}": value for name, value in said.items() if value is not None} if places.shared else {}


def prepare(directory: Path) -> None:
    """On Kafka, begin to make the store: with a few partitions, whoever goes on with it."""
    log_url = places_of(directory).log_url
    if log_url is not None:
        KafkaLog.create(log_url, FEW).close()


@contextmanager
def others_fold(directory: Path) -> Generator[Store | None]:
    """On Kafka the store is there and somebody folds it meanwhile: commands only append. Embedded they do all of it
    themselves, and nobody else may."""
    if not shared():
        yield None
        return
    with open_store(directory, writer=True) as store:
        yield store


@contextmanager
def read_log(store: Store) -> Generator[SqliteLog | KafkaLog]:
    """Another reader of a store's log than the store itself."""
    log_url = store.places.log_url
    with KafkaLog.open(log_url, writer=False) if log_url else SqliteLog.open(store.directory, writer=False) as log:
        yield log


def adopt_demo(directory: Path) -> None:
    """A demo has kept its store: here."""
    if _kafka is not None:
        _kafka.adopt_demo(directory)


def fresh_tables(kinds: Mapping[str, Kind], place: Path | None = None) -> SqliteTables | PostgresTables:
    """Tables of all schemas and these kinds, empty at first; at ``place`` they can be opened again."""
    registry = installed_schemas()
    _, db_url, schema, *_ = places_of(place or Path(secrets.token_hex(8)))
    if db_url is not None:
        return PostgresTables(db_url, registry, kinds, schema=schema)
    return SqliteTables(place, registry, kinds) if place is not None else SqliteTables.in_memory(registry, kinds)


@contextmanager
def made_parts(directory: Path, partitions: int) -> Generator[Parts]:
    """A new store's log and tables, to write them by hand."""
    log_url, db_url, schema, *_ = places_of(directory)
    registry, kinds = installed_schemas(), installed_kinds()
    if log_url is None or db_url is None:
        file = directory / TABLES_FILE
        with SqliteLog.create(directory, partitions) as log, SqliteTables(file, registry, kinds) as tables:
            yield log, tables
        return
    with (
        KafkaLog.create(log_url, partitions) as shared_log,
        PostgresTables(db_url, registry, kinds, schema=schema) as shared_tables,
    ):
        yield shared_log, shared_tables


@contextmanager
def read_parts(directory: Path) -> Generator[Parts]:
    """A store's log and tables, for reading."""
    if _kafka is not None:
        yield _kafka.parts(directory)
        return
    registry, kinds = installed_schemas(), installed_kinds()
    with (
        SqliteLog.open(directory, writer=False) as log,
        SqliteTables(directory / TABLES_FILE, registry, kinds, writable=False) as tables,
    ):
        yield log, tables


@contextmanager
def to_tamper_with(directory: Path, aside: Path) -> Generator[Path]:
    """A store like that in ``directory``, whose tables may be changed at will: a copy at ``aside``; on Kafka the same
    one, and afterwards its tables are what they were."""
    _, db_url, schema, *_ = places_of(directory)
    if db_url is None:
        yield Path(shutil.copytree(directory, aside))
        return
    names = {"here": sql.Identifier(schema), "whole": sql.Identifier(_whole(schema))}
    with psycopg.connect(db_url, autocommit=True) as connection:

        def each(statement: LiteralString) -> None:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'migrations'", (schema,)
            )
            made = [sql.SQL(statement).format(**names, table=sql.Identifier(table)) for (table,) in tables]
            connection.execute(sql.SQL("; ").join(made))

        if not connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (_whole(schema),)).fetchall():
            connection.execute(sql.SQL("CREATE SCHEMA {whole}").format(**names))
            each("CREATE TABLE {whole}.{table} AS TABLE {here}.{table}")
        try:
            yield directory
        finally:
            each("TRUNCATE {here}.{table}; INSERT INTO {here}.{table} TABLE {whole}.{table}")


def replace_log(directory: Path) -> None:
    """In the place of a store's topic another one, to which the same records were appended."""
    assert _kafka is not None
    url = places_of(directory).log_url
    assert url is not None
    with KafkaLog.open(url, writer=False) as old:
        runs = [old.read(partition, 0, max(end, 1)) for partition, end in enumerate(old.describe().ends)]
    _kafka.delete_log(directory)
    with KafkaLog.create(url, len(runs)) as new:
        for part in (slice(0, 1), slice(1, None)):
            records = [Record(one.partition, one.key, one.headers, one.value) for run in runs for one in run[part]]
            new.append(records)


class Stall:
    """Keeps a store's tables from being written until :meth:`end`: somebody holds what whoever writes them needs."""

    def __init__(self, store: Store) -> None:
        self._let_go: Callable[[], None]
        if store.places.db_url is None:
            connection = apsw.Connection(str(store.directory / TABLES_FILE))
            connection.set_busy_timeout(20_000)
            connection.execute("BEGIN IMMEDIATE")
            self._let_go = connection.close
        else:
            session = Address(store.places.db_url, store.places.db_schema).connect("stall")
            session.execute("BEGIN; LOCK TABLE partitions IN EXCLUSIVE MODE")
            self._let_go = session.close

    def end(self) -> None:
        """Let them be written again. Harmless when repeated."""
        self._let_go()


def drop_tables(directory: Path) -> None:
    """Away with the tables of a store that nobody has open."""
    places = places_of(directory)
    if places.db_url is None:
        for file in directory.glob(f"{TABLES_FILE}*"):
            file.unlink()
        return
    with psycopg.connect(places.db_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(places.db_schema)))


def tamper(directory: Path, statement: str, *values: Any) -> int:
    """Run a statement (``?`` for values) against a store's tables, behind everybody's back; how many rows changed."""
    places = places_of(directory)
    if places.db_url is None:
        connection = apsw.Connection(str(directory / TABLES_FILE))
        try:
            connection.execute(statement, values)
            return connection.changes()
        finally:
            connection.close()
    with Address(places.db_url, places.db_schema).connect("tamperer") as session:
        return session.execute(translated_sql(statement).replace("?", "%s").encode(), values).rowcount
