"""Stopped anywhere, the tables are the fold of the log; and the engine stops where going on would be wrong."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import (
    FencedError,
    HaltError,
    KindError,
    LogMismatchError,
    SchemaMissingError,
    UnavailableError,
    UnsupportedFoldError,
)
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.engine import Engine, fold_all, require_kinds
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.registry import Registry, built_in
from tests.contract.rich_history import ANN, Author, MemoryLog, mail, write
from tests.contract.rich_history import KINDS as IN_FORCE

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
TABLES: Final = (
    "partitions",
    "events",
    "touches",
    "proposals",
    "verdicts",
    "sources",
    "claims",
    "quarantine",
    *(kind.table for kind in KINDS.values()),
)
Contents = dict[str, list[tuple[Any, ...]]]


class Crash(BaseException):
    """The process is gone."""


def history() -> MemoryLog:
    """A log of one partition with everything in it."""
    log = MemoryLog()
    write(Author(log))
    return log


def contents(tables: SqliteTables) -> Contents:
    """Every row of every table."""
    with tables.snapshot() as reader:
        return {table: sorted(reader.values(f"SELECT * FROM {table}", {}), key=repr) for table in TABLES}


def folded(log: MemoryLog, until: int | None = None) -> Contents:
    """What the log folds to, in one go."""
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 0, until=until)
        return contents(tables)


def fold_by(tables: SqliteTables, log: MemoryLog, sizes: Sequence[int]) -> None:
    """Fold to the end in batches of these sizes, over and over."""
    engine = Engine(REGISTRY, KINDS, tables)
    offset, turn = engine.resume(log, 0), 0
    while records := log.read(0, offset, sizes[turn % len(sizes)]):
        engine.apply(0, records)
        offset, turn = offset + len(records), turn + 1


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
    for statement in range(0, total, 3):
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


# -- where going on would be wrong ----------------------------------------------------------------------------------


def half_folded(path: Path, log: MemoryLog, until: int = 30) -> None:
    """Tables that hold the log up to an offset."""
    with SqliteTables(path, REGISTRY, KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 0, until=until)


def _replaced(log: MemoryLog) -> None:
    other = history()
    log.records, log.log_id = other.records, other.log_id


def _cut_off(log: MemoryLog) -> None:
    del log.records[0][29:]


def _emptied(log: MemoryLog) -> None:
    log.records[0].clear()


def _changed(log: MemoryLog) -> None:
    log.records[0][29] = log.records[0][29]._replace(value=log.records[0][29].value + b"x")


def _retimed(log: MemoryLog) -> None:
    log.records[0][29] = log.records[0][29]._replace(appended_at=1)


def _more_partitions(log: MemoryLog) -> None:
    log.records.append([])


@pytest.mark.parametrize("fault", [_replaced, _cut_off, _emptied, _changed, _retimed, _more_partitions])
def test_a_log_that_is_not_the_one_that_was_folded_halts(tmp_path: Path, fault: Callable[[MemoryLog], None]) -> None:
    log = history()
    half_folded(tmp_path / "t.db", log)
    fault(log)
    with SqliteTables(tmp_path / "t.db", REGISTRY, KINDS) as tables:
        before = contents(tables)
        with pytest.raises(LogMismatchError, match=r"rebuild|point"):
            Engine(REGISTRY, KINDS, tables).resume(log, 0)
        assert contents(tables) == before


def test_a_log_that_only_grew_goes_on(tmp_path: Path) -> None:
    log = history()
    for until in (1, 2, 29, 30):
        half_folded(tmp_path / "t.db", log, until)
        with SqliteTables(tmp_path / "t.db", REGISTRY, KINDS) as tables:
            assert Engine(REGISTRY, KINDS, tables).resume(log, 0) == until


def test_a_hole_in_what_is_read_halts(tmp_path: Path) -> None:
    log = history()
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        records = log.read(0, 0, 20)
        with pytest.raises(LogMismatchError, match="hole"):
            engine.apply(0, [*records[:7], *records[8:]])
        assert tables.resume(0) is None


@pytest.mark.parametrize("first", [1, 5])
def test_a_beginning_that_is_none_halts(first: int) -> None:
    log = history()
    log.records[0] = [record._replace(offset=n) for n, record in enumerate(log.records[0][first:])]
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        with pytest.raises(LogMismatchError, match=r"log\.opened"):
            engine.apply(0, log.read(0, 0, 5))
        assert tables.resume(0) is None


def test_another_logs_opening_on_one_partition_halts() -> None:
    log, other = MemoryLog(2), MemoryLog(2)
    Author(log)
    Author(other)
    log.records[1] = other.records[1]
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        for partition in (0, 1):
            engine.resume(log, partition)
        engine.apply(0, log.read(0, 0, 5))
        with pytest.raises(LogMismatchError, match="another log's opening"):
            engine.apply(1, log.read(1, 0, 5))
        assert tables.resume(1) is None


def test_a_missing_schema_halts_and_comes_back() -> None:
    log = history()
    before = folded(log)
    lacking = Registry(source for source in built_in() if source["headrace.type"] != "mail.labelled")
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        engine = Engine(lacking, KINDS, tables, schemas=installed_schemas)
        engine.resume(log, 0)
        with pytest.raises(SchemaMissingError, match="upgrade"):
            engine.apply(0, log.read(0, 0, 100))
        assert tables.resume(0) is None
        engine.look_for_schemas()
        engine.apply(0, log.read(0, 0, 100))
        assert contents(tables) == before


class Broken(MailThread):
    """A kind with a bug for one event type."""

    def evolve(self, state: Any, event: Any) -> dict[str, Any]:
        if event.type == "mail.trashed":
            raise ValueError("a bug")
        return super().evolve(state, event)


def test_a_bug_in_a_kind_halts_and_writes_nothing() -> None:
    log = history()
    kinds: dict[str, Kind] = {**KINDS, "mail.thread": Broken()}
    with SqliteTables.in_memory(REGISTRY, kinds) as tables:
        engine = Engine(REGISTRY, kinds, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 0, 10))
        before = contents(tables)
        for _ in range(2):
            with pytest.raises(KindError, match="a bug"):
                engine.apply(0, log.read(0, 10, 60))
        assert contents(tables) == before
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 10, 60))


@pytest.mark.parametrize("body", [{"fold_version": 99}, {"kinds": ["mail.thread", "no.such.kind"]}])
def test_what_the_log_asks_for_and_is_not_here_halts(body: dict[str, Any]) -> None:
    log = history()
    author = Author.__new__(Author)
    author.log, author.account, author.registry, author.partition = log, "a-4", REGISTRY, 0
    policy = REGISTRY.decode(log.records[0][0].value).body["policy"]
    author.own("policy.activated", "policy-9", {"policy": policy, "kinds": list(IN_FORCE), "fold_version": 1} | body)
    last = len(log.records[0]) - 1
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 0, last))
        with pytest.raises(UnsupportedFoldError, match=f"offset {last}"):
            engine.apply(0, log.read(0, last, 5))
        row = tables.resume(0)
        assert row is not None
        assert row.next_offset == last


def test_a_kind_of_the_tables_that_is_gone_halts_before_judging(tmp_path: Path) -> None:
    log = history()
    half_folded(tmp_path / "t.db", log)
    kinds = {"mail.thread": KINDS["mail.thread"]}
    with SqliteTables(tmp_path / "t.db", REGISTRY, kinds) as tables:
        engine = Engine(REGISTRY, kinds, tables)
        engine.resume(log, 0)
        with pytest.raises(UnsupportedFoldError, match=r"calendar\.event"):
            engine.apply(0, log.read(0, 30, 1))


def test_poison_is_set_aside_and_only_poison() -> None:
    log = MemoryLog()
    author = Author(log)
    good = log.append([])
    assert good == []
    author.fact("mail.received", "t-1", "m-1", mail(1))
    record = log.records[0][-1]
    headers = dict(record.headers)

    def damaged(**changes: Any) -> Stored:
        return replace_headers(record, {**headers, **changes})

    poison = [
        record._replace(value=record.value[:-3]),
        record._replace(value=record.value + b"\x00"),
        record._replace(value=b""),
        record._replace(key=None),
        record._replace(key=b"no-slash"),
        record._replace(key=b"\xff/a-1"),
        record._replace(headers=()),
        damaged(ce_type=b"mail.sent"),
        damaged(ce_type=b"\xff"),
        damaged(ce_specversion=b"0.3"),
        damaged(ce_subject=b"mail.thread"),
        damaged(ce_subject=b"account/x", ce_id=b"m-9"),
        damaged(ce_actor=b"nobody/x"),
        damaged(ce_id=b"ann@example.com"),
    ]
    for offset, one in enumerate(poison, start=len(log.records[0])):
        log.records[0].append(one._replace(offset=offset))
    author.fact("mail.read", "t-1", "m-2", {})
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 0)
        with tables.snapshot() as reader:
            aside = reader.rows("SELECT * FROM quarantine ORDER BY offset", {})
            kept = reader.rows("SELECT disposition FROM events WHERE disposition <> 'quarantined' ORDER BY offset", {})
    assert [row["offset"] for row in aside] == list(range(2, 2 + len(poison)))
    assert [(row["key"], row["value"]) for row in aside] == [(one.key, one.value) for one in poison]
    assert all(row["reason"] for row in aside)
    assert [row["disposition"] for row in kept] == ["noted", "applied", "applied"]


def replace_headers(record: Stored, headers: dict[str, bytes]) -> Stored:
    """The record with other headers."""
    return record._replace(headers=tuple(headers.items()))


def test_a_misrouted_record_is_set_aside() -> None:
    log = MemoryLog(2)
    author = Author(log)
    headers = to_headers(Envelope("m-1", "mailbox/ann", "mail.read", ANN, "mail.thread", "t-1"))
    author.raw(REGISTRY.encode("mail.read", {}), headers, b"acme/a-1")
    assert author.partition == 1
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 1)
        with tables.snapshot() as reader:
            (row,) = reader.rows("SELECT reason FROM quarantine", {})
    assert "partition 0" in row["reason"]


def test_an_answer_to_a_commit_that_got_lost_is_found_again(tmp_path: Path) -> None:
    log = history()
    with SqliteTables(tmp_path / "t.db", REGISTRY, KINDS) as tables:

        class Forgetful:
            resume, load, snapshot = tables.resume, tables.load, tables.snapshot

            def commit(self, memory: Any, batch: Sequence[Stored]) -> None:
                tables.commit(memory, batch)
                raise UnavailableError("the answer got lost")

        engine = Engine(REGISTRY, KINDS, Forgetful())
        for _ in range(len(log.records[0])):
            offset = engine.resume(log, 0)
            records = log.read(0, offset, 10)
            if not records:
                break
            with suppress(UnavailableError):
                engine.apply(0, records)
        assert contents(tables) == folded(log)


def test_a_zombie_that_stumbles_over_rows_of_the_future_is_no_bug(tmp_path: Path) -> None:
    log = history()
    kinds: dict[str, Kind] = {**KINDS, "mail.thread": Broken()}
    path = tmp_path / "t.db"
    with SqliteTables(path, REGISTRY, KINDS) as one, SqliteTables(path, REGISTRY, kinds) as two:
        zombie = Engine(REGISTRY, kinds, two)
        zombie.resume(log, 0)
        fold_by(one, log, [10])
        with pytest.raises(FencedError):
            zombie.apply(0, log.read(0, 0, 60))


def test_two_kinds_of_one_name_or_table_are_refused() -> None:
    thread = KINDS["mail.thread"]
    with pytest.raises(HaltError, match="two entity kinds"):
        require_kinds([thread, thread])

    class Other(MailThread):
        name = "other.thread"

    with pytest.raises(HaltError, match="two entity kinds"):
        require_kinds([thread, Other()])
