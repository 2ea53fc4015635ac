"""Stopped anywhere, the tables are the fold of the log."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import (
    FencedError,
)
from headrace.processors.engine import Engine
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import MemoryLog
from tests.integration.folding import KINDS, REGISTRY, TABLES, Contents, contents, fold_by, folded, history

pytestmark = pytest.mark.embedded(
    "stops between statements of SQLite; tests/postgres/test_outages.py breaks PostgreSQL's"
)


class Crash(BaseException):
    """The process is gone."""


def crashing_at(statement: int) -> Callable[[apsw.Cursor, str, Any], bool]:
    """A trace that lets no statement through from the given one on, as a process that is gone sends none."""
    left = [statement]

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Crash
        return True

    return trace


def crash(path: Path, log: MemoryLog, statement: int, sizes: Sequence[int]) -> bool:
    """Fold until the process "dies" before its n-th statement, leaving the files as they are then; whether it did."""
    tables = SqliteTables(path, REGISTRY, KINDS)
    tables.connection.exec_trace = crashing_at(statement)
    died = False
    try:
        fold_by(tables, log, sizes)
    except Crash:
        died = True
        for suffix in ("", "-wal"):  # what a killed process leaves: no rollback, no checkpoint
            shutil.copyfile(f"{path}{suffix}", f"{path}{suffix}.left")
    tables.connection.exec_trace = None
    tables.close()
    if died:
        for suffix in ("", "-wal"):
            Path(f"{path}{suffix}.left").replace(f"{path}{suffix}")
    return died


def statements(log: MemoryLog, path: Path, sizes: Sequence[int]) -> int:
    """How many statements the whole fold takes."""
    counted = [0]

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        counted[0] += 1
        return True

    with SqliteTables(path, REGISTRY, KINDS) as tables:
        tables.connection.exec_trace = trace
        fold_by(tables, log, sizes)
    return counted[0]


@pytest.mark.parametrize("size", [9, 40])
def test_stopped_before_any_statement_the_tables_are_the_fold(tmp_path: Path, size: int) -> None:
    log = history()
    whole = folded(log)
    total = statements(log, tmp_path / "count.db", [size])
    prefixes: dict[int, Contents] = {0: {table: [] for table in TABLES}}
    for until in range(size, len(log.records[0]), size):
        prefixes[until] = folded(log, until)
    for statement in range(total):
        path = tmp_path / f"{statement}.db"
        assert crash(path, log, statement, [size])
        with SqliteTables(path, REGISTRY, KINDS) as tables:
            row = tables.resume(0)
            assert contents(tables) == prefixes[row.next_offset if row is not None else 0]
            fold_by(tables, log, [size])
            assert contents(tables) == whole
    assert not crash(tmp_path / "last.db", log, total, [size])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deaths=st.lists(st.tuples(st.integers(0, 120), st.lists(st.integers(1, 50), min_size=1, max_size=4)), max_size=6),
    last=st.lists(st.integers(1, 80), min_size=1, max_size=5),
)
def test_killed_again_and_again_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[tuple[int, list[int]]], last: list[int]
) -> None:
    log = history()
    path = tmp_path_factory.mktemp("crash") / "tables.db"
    for statement, sizes in deaths:
        crash(path, log, statement, sizes)
        with SqliteTables(path, REGISTRY, KINDS) as tables:
            row = tables.resume(0)
            if row is not None:
                assert contents(tables) == folded(log, row.next_offset)
    with SqliteTables(path, REGISTRY, KINDS) as tables:
        fold_by(tables, log, last)
        assert contents(tables) == folded(log)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_any_split_into_batches_leads_to_the_same_tables(sizes: list[int]) -> None:
    log = history()
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_by(tables, log, sizes)
        assert contents(tables) == folded(log)


def test_a_zombie_writes_nothing(tmp_path: Path) -> None:
    log = history()
    with (
        SqliteTables(tmp_path / "t.db", REGISTRY, KINDS) as one,
        SqliteTables(tmp_path / "t.db", REGISTRY, KINDS) as two,
    ):
        zombie, owner = Engine(REGISTRY, KINDS, one), Engine(REGISTRY, KINDS, two)
        for engine in (zombie, owner):
            engine.resume(log, 0)
        zombie.apply(0, log.read(0, 0, 10))
        with pytest.raises(FencedError):
            owner.apply(0, log.read(0, 0, 20))
        owner.resume(log, 0)
        owner.apply(0, log.read(0, 10, 20))
        for _ in range(2):
            with pytest.raises(FencedError):
                zombie.apply(0, log.read(0, 10, 5))
        fold_by(two, log, [100])
        assert contents(one) == folded(log)
