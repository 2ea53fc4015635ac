"""The SQLite adapter keeps the tables port's promises."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import apsw
import pytest

from headrace.errors import HaltError, UnavailableError
from headrace.projections.sqlite import SqliteTables
from tests.contract.tables_conformance import TablesConformance
from tests.contract.tables_recording import KINDS, REGISTRY, Stores, fold, history


class SqliteStores:
    """Tables in one file."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self._statements = 0

    def fresh(self) -> SqliteTables:
        """See :class:`Stores`."""
        tables = self._stack.enter_context(SqliteTables(self._path, REGISTRY, KINDS))
        tables.connection.exec_trace = self._count
        return tables

    def second(self) -> SqliteTables:
        """See :class:`Stores`."""
        return self._stack.enter_context(SqliteTables(self._path, REGISTRY, KINDS))

    def statements(self) -> int:
        """See :class:`Stores`."""
        return self._statements

    def _count(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        self._statements += 1
        return True


class TestSqliteTables(TablesConformance):
    """The suite, unchanged."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[Stores]:
        """One file a test."""
        with ExitStack() as stack:
            yield SqliteStores(tmp_path / "tables.db", stack)


# What is SQLite's own


def test_a_reader_needs_tables_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"tables\.db"):
        SqliteTables(tmp_path / "tables.db", REGISTRY, KINDS, writable=False)


def test_a_file_that_is_no_database_halts(tmp_path: Path) -> None:
    path = tmp_path / "tables.db"
    path.write_bytes(b"this is no database, it is a text" * 100)
    for writable in (True, False):
        with pytest.raises(HaltError, match="delete that file"):
            SqliteTables(path, REGISTRY, KINDS, writable=writable)


def test_tables_of_a_newer_release_halt(tmp_path: Path) -> None:
    path = tmp_path / "tables.db"
    with SqliteTables(path, REGISTRY, KINDS) as tables:
        tables.connection.pragma("user_version", 1_000)
    for writable in (True, False):
        with pytest.raises(HaltError, match="newer release"):
            SqliteTables(path, REGISTRY, KINDS, writable=writable)


def test_a_kind_whose_table_was_another_halts(tmp_path: Path) -> None:
    path = tmp_path / "tables.db"
    with SqliteTables(path, REGISTRY, KINDS) as tables:
        tables.connection.execute("ALTER TABLE threads RENAME COLUMN subject TO title")
    for writable in (True, False):
        with pytest.raises(HaltError, match=r"mail\.thread"):
            SqliteTables(path, REGISTRY, KINDS, writable=writable)


def test_tables_damaged_while_they_are_in_use_halt(tmp_path: Path) -> None:
    path = tmp_path / "tables.db"
    log, partition = history()
    with SqliteTables(path, REGISTRY, KINDS) as tables:
        fold(tables, log, partition)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(HaltError, match="delete that file"), SqliteTables(path, REGISTRY, KINDS) as tables:
        fold(tables, log, partition)


def test_closed_tables_say_so(tmp_path: Path) -> None:
    tables = SqliteTables(tmp_path / "tables.db", REGISTRY, KINDS)
    with tables.snapshot() as reader:
        tables.close()
        assert reader.rows("SELECT count(*) AS n FROM partitions", {}) == [{"n": 0}]
    with pytest.raises(UnavailableError, match="closed"), tables.snapshot():
        pass


def test_tables_in_memory_are_each_their_own() -> None:
    log, partition = history()
    with SqliteTables.in_memory(REGISTRY, KINDS) as one, SqliteTables.in_memory(REGISTRY, KINDS) as other:
        fold(one, log, partition)
        assert other.resume(partition) is None


def test_a_locked_file_is_unavailable_and_comes_back(tmp_path: Path) -> None:
    log, partition = history()
    with SqliteTables(tmp_path / "tables.db", REGISTRY, KINDS) as tables:
        tables.connection.set_busy_timeout(1)
        other = apsw.Connection(str(tmp_path / "tables.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError):
            fold(tables, log, partition)
        other.execute("ROLLBACK")
        other.close()
        assert fold(tables, log, partition) == len(log.records[partition])
