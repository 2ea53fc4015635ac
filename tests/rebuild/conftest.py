"""A PostgreSQL for these tests, and tables to rebuild."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from headrace.log.sqlite import SqliteLog
from tests.contract.rich_history import Author, write
from tests.stack.databases import own_database
from tests.stack.parts import postgres_dsn

__all__ = ("postgres_dsn",)

PARTITIONS = 3

Ask = Callable[..., list[tuple[object, ...]]]
"""Runs a statement; the rows."""


@pytest.fixture(scope="module")
def database(postgres_dsn: str) -> Iterator[str]:
    """The address of an empty database of the test module's own."""
    with own_database(postgres_dsn) as name:
        yield make_conninfo(postgres_dsn, dbname=name)


@pytest.fixture
def schema() -> str:
    """The name of a schema of the test's own, as long as one may be."""
    return f"t_{secrets.token_hex(6)}_with_quite_a_long_name"


@pytest.fixture
def ask(database: str, schema: str) -> Ask:
    """Run a statement where the test's tables are, on a connection of its own."""

    def run(statement: str, *parameters: object) -> list[tuple[object, ...]]:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    return run


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """A log with everything in it that a log can hold."""
    with SqliteLog.create(tmp_path / "log", PARTITIONS) as opened:
        for account in ("a-1", "a-2", "a-3"):
            write(Author(opened, account))
        yield opened
