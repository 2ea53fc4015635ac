"""Migrations of the tables in PostgreSQL: numbered SQL files, each run once, one migrator at a time.

Everything pending runs in one transaction under an advisory lock: a migration that fails, or a migrator that dies,
leaves the tables as they were, and of two that start together one waits and finds nothing left to do.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final, NamedTuple

from psycopg import errors, sql
from psycopg.rows import tuple_row

from headrace.errors import HaltError, UnavailableError
from headrace.processors.core.kind import Kind
from headrace.projections.kind_tables import postgres_columns, postgres_ddl, postgres_renewal
from headrace.projections.postgres_connection import Address, Session, translated

LOCK: Final = 0x68656164  # "head"
"""With the schema's hash the key of the advisory lock that whoever changes tables holds."""
_GRANTS: Final = "grants.sql"
_KINDS_CHANGED: Final = 7
"""The last migration with which tables of kinds are another: :func:`postgres_renewal` brings older ones there."""
_FOUND: Final = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s), to_regclass(%s) IS NOT NULL"
_TABLE: Final = """
CREATE TABLE migrations (
    version    bigint      NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE migrations IS 'Which numbered migrations these tables have been through.';
COMMENT ON COLUMN migrations.version IS 'Number of the migration, from 1.';
COMMENT ON COLUMN migrations.name IS 'Name of its file.';
COMMENT ON COLUMN migrations.applied_at IS 'When, by the database''s clock.';
"""
_COLUMNS: Final = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND c.relkind = 'r'
    AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""

_LOCK_SECONDS: Final = 2
"""How long everybody may have to queue behind a migration that waits for a lock, at the most."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_MOST_PAUSE_SECONDS: Final = 2.0
"""Between two attempts; it doubles each time."""
_PATIENCE_SECONDS: Final = 600.0
_log: Final = logging.getLogger("headrace.migrate")

Columns = Mapping[str, Mapping[str, str]]
"""By table: its columns in order, each with PostgreSQL's name of its type."""


class Migration(NamedTuple):
    """One file: ``0001_core.sql`` is version 1."""

    version: int
    name: str
    script: str


def migrations() -> list[Migration]:
    """The migrations that this release ships, in order."""
    files = (file for file in _folder().iterdir() if file.name.endswith(".sql") and file.name != _GRANTS)
    ordered = sorted(files, key=lambda file: file.name)
    return [
        Migration(number, file.name, file.read_text(encoding="utf-8")) for number, file in enumerate(ordered, start=1)
    ]


def _folder() -> Traversable:
    return resources.files("headrace.projections") / "migrations" / "postgres"


def migrate(address: Address, kinds: Mapping[str, Kind], *, patience: float = _PATIENCE_SECONDS) -> list[str]:
    """Bring the tables to this release; the names of what was run. Safe to run at any time and by any number at once.

    It waits for locks a moment only, since everybody else queues behind it, and then tries again from the start.

    :param patience: seconds to try altogether while others hold locks on the tables.
    :raises HaltError: a newer release made the tables, a kind's table is another, or this role may not change them.
    :raises UnavailableError: the database does not answer, or somebody holds a lock for longer than that.
    """
    with translated(address.named, "migrated"), address.connect("migrator") as connection:
        deadline = time.monotonic() + patience
        pause, seconds = threading.Event(), _FIRST_PAUSE_SECONDS
        while True:
            try:
                return _migrated(address, connection, kinds)
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"somebody has been using the tables in {address.named} for longer than {patience:.0f} s"
                        " without a pause; pg_stat_activity shows who: end it, then migrate again"
                    ) from error
                _log.warning("the migration waits for somebody who uses the tables in %s", address.named)
            pause.wait(seconds)
            seconds = min(_MOST_PAUSE_SECONDS, seconds * 2)


def _migrated(address: Address, connection: Session, kinds: Mapping[str, Kind]) -> list[str]:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK, address.schema))
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'".encode())  # not for another migrator
        if not _one(connection, _FOUND, (address.schema, f"{address.schema}.migrations"))[0]:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(address.schema)))
        return _pending(address, connection, kinds)


def _pending(address: Address, connection: Session, kinds: Mapping[str, Kind]) -> list[str]:
    if not _one(connection, _FOUND, (address.schema, f"{address.schema}.migrations"))[1]:
        connection.execute(_TABLE)
    known, ran = migrations(), list[str]()
    done = _version(address, connection, len(known))
    there = columns(address, connection)
    standing = {name: kind for name, kind in kinds.items() if kind.table in there}
    _check_kinds(address, there, standing)
    renewals = [postgres_renewal(kind) for kind in standing.values() if done < _KINDS_CHANGED]
    _run(connection, (statement for long, _ in renewals for statement in long))
    for migration in known[done:]:
        connection.execute(migration.script.encode())
        connection.execute(
            "INSERT INTO migrations (version, name) VALUES (%s, %s)", (migration.version, migration.name)
        )
        ran.append(migration.name)
    for kind in kinds.values():
        if kind.name not in standing:
            _run(connection, postgres_ddl(kind))
            ran.append(kind.name)
    _run(connection, (statement for _, last in renewals for statement in last))
    connection.execute((_folder() / _GRANTS).read_text(encoding="utf-8").encode())
    return ran


def _run(connection: Session, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement.encode())


def check(address: Address, connection: Session, kinds: Mapping[str, Kind]) -> Columns | None:
    """The columns of the tables if they are this release's, ``None`` where something is left to migrate.

    :raises HaltError: a newer release made the tables, or a kind's table is another.
    """
    if not _one(connection, _FOUND, (address.schema, f"{address.schema}.migrations"))[1]:
        return None
    known = len(migrations())
    there = columns(address, connection)
    if _version(address, connection, known) < known or any(kind.table not in there for kind in kinds.values()):
        return None
    _check_kinds(address, there, kinds)
    return there


def _version(address: Address, connection: Session, known: int) -> int:
    done: int = _one(connection, "SELECT coalesce(max(version), 0) FROM migrations", ())[0]
    if done > known:
        raise HaltError(
            f"the tables in {address.named} are at version {done}, this headrace is at {known}: run the newer release,"
            " or drop that schema and let the log be folded again"
        )
    return done


def columns(address: Address, connection: Session) -> Columns:
    """What stands in the schema now."""
    found: dict[str, dict[str, str]] = {}
    with connection.cursor(row_factory=tuple_row) as cursor:
        for table, name, type_ in cursor.execute(_COLUMNS, (address.schema,)):
            found.setdefault(table, {})[name] = type_
    return found


def _check_kinds(address: Address, there: Columns, kinds: Mapping[str, Kind]) -> None:
    for kind in kinds.values():
        if list(there[kind.table].items()) != postgres_columns(kind):
            raise HaltError(
                f"the table {kind.table} in {address.named} is not the one that this release of {kind.name} keeps;"
                " `headrace replay --rebuild` folds the log into new ones"
            )


def _one(connection: Session, statement: str, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
    found = connection.execute(statement.encode(), parameters).fetchone()
    if found is None:
        raise HaltError(f"PostgreSQL gave no row to {statement[:40]}…: a bug in headrace")
    return found
