"""New tables in a file, in the place of the live ones, while others read them, and fold into them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

from headrace.cli.rebuilding import in_file
from headrace.errors import BadInputError, LogMismatchError, UnavailableError, WriterLockedError
from headrace.log.sqlite import SqliteLog
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine
from headrace.projections.postgres_rebuild import Positions
from headrace.projections.sqlite import FILE, SqliteTables
from headrace.projections.sqlite_rebuild import FileRebuild, rebuilding_file
from tests.contract.rich_history import Author, mail, write
from tests.postgres.both import contents
from tests.rebuild.rebuilds import INSTALLED, REGISTRY, folded, truth

PATIENCE_SECONDS = 60.0
REBUILDS = 4
_LOOK = """
SELECT p.partition, p.next_offset, count(e.offset), max(e.offset)
FROM partitions p JOIN events e ON e.partition = p.partition GROUP BY p.partition
"""


def store(log: SqliteLog, directory: Path) -> SqliteTables:
    """The store's tables, folded."""
    tables = SqliteTables(directory / FILE, REGISTRY, INSTALLED)
    folded(log, tables)
    return tables


def asked(directory: Path, statement: str) -> Sequence[tuple[Any, ...]]:
    """As somebody with a shell of SQLite's."""
    connection = apsw.Connection(str(directory / FILE))
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def damage(directory: Path) -> None:
    """What a rebuild is for: rows that are not what the log says."""
    asked(directory, "UPDATE events SET note = 'damaged'")
    asked(directory, "DELETE FROM proposals WHERE id = 'p-1'")
    asked(directory, f"UPDATE {INSTALLED['mail.thread'].table} SET head_time = 1")


def beside(directory: Path) -> set[str]:
    """The names of the files in the store that are no part of log or tables."""
    known = {"writer.lock", "rebuild.lock"}
    return {one.name for one in directory.iterdir() if not one.name.startswith(("log.db", f"{FILE}-"))} - known


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the log is, and its tables are to be."""
    return tmp_path / "log"


def test_the_new_tables_hold_what_the_log_says(log: SqliteLog, directory: Path) -> None:
    with store(log, directory) as tables:
        damage(directory)
        with tables.snapshot() as early:
            told = in_file(log, directory, REGISTRY)
            assert early.rows("SELECT DISTINCT note FROM events", {}) == [{"note": "damaged"}], "a snapshot is one"
        assert told == {"tables": str(directory / FILE), "records": sum(log.describe().ends), "old": None}
        assert contents(tables, INSTALLED) == truth(log), "connections that were open before see the new tables"
    assert beside(directory) == {FILE}


def test_the_old_tables_are_kept_if_wished(log: SqliteLog, directory: Path) -> None:
    with store(log, directory) as tables:
        damage(directory)
        old = contents(tables, INSTALLED)
        for number in (1, 2):
            kept = Path(str(in_file(log, directory, REGISTRY, keep_old=True)["old"]))
            assert kept.name == f"{FILE}.old.{number}"
            with SqliteTables(kept, REGISTRY, INSTALLED, writable=False) as aside:
                assert contents(aside, INSTALLED) == (old if number == 1 else truth(log))


def test_the_new_tables_are_just_as_far(log: SqliteLog, directory: Path) -> None:
    with SqliteTables(directory / FILE, REGISTRY, INSTALLED) as tables:
        folded(log, tables, until=20)
        in_file(log, directory, REGISTRY)
        with SqliteTables.in_memory(REGISTRY, INSTALLED) as aside:
            assert contents(tables, INSTALLED) == contents(folded(log, aside, until=20), INSTALLED)
        assert contents(folded(log, tables), INSTALLED) == truth(log)


def test_where_nobody_runs_the_tables_are_folded_to_the_logs_end(log: SqliteLog, directory: Path) -> None:
    """As a replica's are, which is folded by nobody else."""
    with SqliteTables(directory / FILE, REGISTRY, INSTALLED) as tables:
        folded(log, tables, until=20)
    expected = truth(log)
    log.close()
    with SqliteLog.open(directory, writer=False) as reading:
        for _ in range(2):
            assert in_file(reading, directory, REGISTRY)["records"] == sum(reading.describe().ends)
            with SqliteTables(directory / FILE, REGISTRY, INSTALLED, writable=False) as tables:
                assert contents(tables, INSTALLED) == expected
    SqliteLog.open(directory).close()


def test_who_folds_notices_and_goes_on_from_the_new_tables(log: SqliteLog, directory: Path) -> None:
    with SqliteTables(directory / FILE, REGISTRY, INSTALLED) as tables:
        engine = Engine(REGISTRY, INSTALLED, tables)
        for partition in range(3):
            engine.resume(log, partition)
        engine.apply(0, log.read(0, 0, 5))
        in_file(log, directory, REGISTRY)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="were rebuilt"):
                engine.apply(0, log.read(0, 5, 5))
        assert engine.resume(log, 0) == 5
        engine.apply(0, log.read(0, 5, 5))
        assert contents(folded(log, tables), INSTALLED) == truth(log)


def test_queries_and_the_fold_go_on(log: SqliteLog, directory: Path) -> None:
    """One appends, one folds, two look, by snapshots of headrace's and as anybody may."""
    stop = threading.Event()

    def append() -> None:
        authors = [Author(log, f"r-{n}") for n in range(6)]
        n = 0
        while not stop.wait(0.002):
            authors[n % 6].fact("mail.received", "t-1", f"m-{n}", mail(n))
            n += 1

    def look(run: Callable[[], Sequence[tuple[Any, ...]]]) -> int:
        seen, looks = dict.fromkeys(range(3), 0), 0
        while not stop.is_set():
            for partition, end, count, last in run():
                assert (count, last) == (end, end - 1), "tables of two ages"
                assert end >= seen[partition], "went back"
                seen[partition] = end
            looks += 1
        return looks

    with store(log, directory) as tables, ThreadPoolExecutor(3) as threads:
        host = EmbeddedHost(log, Engine(REGISTRY, INSTALLED, tables))
        host.start()
        stranger = apsw.Connection(str(directory / FILE), flags=apsw.SQLITE_OPEN_READONLY)

        def ours() -> Sequence[tuple[Any, ...]]:
            with tables.snapshot() as reader:
                return list(reader.values(_LOOK, {}))

        def theirs() -> Sequence[tuple[Any, ...]]:
            return stranger.execute(_LOOK).fetchall()

        try:
            appending = threads.submit(append)
            looking = [
                threads.submit(look, ours),
                threads.submit(look, theirs),
            ]
            for _ in range(REBUILDS):
                in_file(log, directory, REGISTRY)
        finally:
            stop.set()
        appending.result(PATIENCE_SECONDS)
        assert all(one.result(PATIENCE_SECONDS) > REBUILDS for one in looking)
        for partition, end in enumerate(log.describe().ends):
            assert host.applied.wait(partition, end - 1, PATIENCE_SECONDS)
        assert host.applied.failure is None
        assert host.stop()
        stranger.close()
        assert contents(tables, INSTALLED) == truth(log)


def test_nobody_commits_between_the_last_look_and_the_switch(
    log: SqliteLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fold tries to, waits, and is told."""
    with SqliteTables(directory / FILE, REGISTRY, INSTALLED) as tables, ThreadPoolExecutor(1) as threads:
        engine = Engine(REGISTRY, INSTALLED, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 0, 5))
        check, tried = FileRebuild._check_equal, []  # pyright: ignore[reportPrivateUsage]

        def checked(self: FileRebuild) -> None:
            tried.append(threads.submit(engine.apply, 0, log.read(0, 5, 5)))
            check(self)

        monkeypatch.setattr(FileRebuild, "_check_equal", checked)
        in_file(log, directory, REGISTRY)
        with pytest.raises(UnavailableError, match="were rebuilt"):
            tried[0].result(PATIENCE_SECONDS)
        assert engine.resume(log, 0) == 5


def test_tables_that_went_on_in_the_meantime_are_never_ahead_of_the_new_ones(
    log: SqliteLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteTables(directory / FILE, REGISTRY, INSTALLED) as tables:
        folded(log, tables, until=20)
        switch = FileRebuild.switch

        def late(self: FileRebuild, catch_up: Callable[[Positions], object], *, keep_old: bool) -> Path | None:
            folded(log, tables)
            return switch(self, catch_up, keep_old=keep_old)

        monkeypatch.setattr(FileRebuild, "switch", late)
        in_file(log, directory, REGISTRY)
        assert contents(tables, INSTALLED) == truth(log)


@pytest.mark.parametrize("what", ["gone", "no database", "cut in half", "empty"])
def test_tables_that_cannot_be_read_are_replaced_whole(log: SqliteLog, directory: Path, what: str) -> None:
    """The log is open for writing here: whoever runs on the store must stop first."""
    store(log, directory).close()
    file = directory / FILE
    match what:
        case "gone":
            file.unlink()
        case "no database":
            file.write_bytes(b"not a database at all" * 500)
        case "cut in half":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case _:
            file.write_bytes(b"")
    with pytest.raises(WriterLockedError, match="stop the headrace that runs on"):
        in_file(log, directory, REGISTRY)
    expected, ends = truth(log), log.describe().ends
    log.close()
    with SqliteLog.open(directory, writer=False) as reading:
        told = in_file(reading, directory, REGISTRY, keep_old=True)
    assert told["records"] == sum(ends)
    assert (told["old"] is None) == (what == "gone")
    with SqliteTables(file, REGISTRY, INSTALLED, writable=False) as tables:
        assert contents(tables, INSTALLED) == expected


def test_tables_of_another_release_are_replaced_while_nobody_runs(log: SqliteLog, directory: Path) -> None:
    store(log, directory).close()
    table = INSTALLED["mail.thread"].table
    asked(directory, f"ALTER TABLE {table} DROP COLUMN archived")
    asked(directory, "PRAGMA user_version = 1")
    with pytest.raises(WriterLockedError, match="another shape"):
        in_file(log, directory, REGISTRY)
    expected = truth(log)
    log.close()
    with SqliteLog.open(directory, writer=False) as reading:
        in_file(reading, directory, REGISTRY)
    with SqliteTables(directory / FILE, REGISTRY, INSTALLED, writable=False) as tables:
        assert contents(tables, INSTALLED) == expected


def test_what_stands_in_the_file_is_not_lost(log: SqliteLog, directory: Path) -> None:
    store(log, directory).close()
    for statement, named, undo in (
        ("CREATE TABLE mine (x)", "table mine", "DROP TABLE mine"),
        ("CREATE VIEW mine AS SELECT * FROM events", "view mine", "DROP VIEW mine"),
        ("CREATE INDEX mine ON events (note)", "index mine", "DROP INDEX mine"),
    ):
        asked(directory, statement)
        with pytest.raises(BadInputError, match=named):
            in_file(log, directory, REGISTRY)
        asked(directory, undo)
    in_file(log, directory, REGISTRY)


def test_tables_of_another_log_are_not_replaced(log: SqliteLog, directory: Path, tmp_path: Path) -> None:
    with SqliteLog.create(tmp_path / "other", 3) as other:
        for account in ("a-1", "a-2", "a-3"):
            write(Author(other, account))
        store(other, directory).close()
    before = (directory / FILE).read_bytes()
    with pytest.raises(LogMismatchError, match="another log"):
        in_file(log, directory, REGISTRY)
    assert (directory / FILE).read_bytes() == before


def test_tables_of_other_records_are_not_replaced(log: SqliteLog, directory: Path) -> None:
    """The log was cut off and went on: the same id, other records."""
    store(log, directory).close()
    asked(directory, "UPDATE partitions SET chain = x'00' WHERE partition = 1")
    with pytest.raises(LogMismatchError, match=f"delete {FILE}"):
        in_file(log, directory, REGISTRY)
    assert beside(directory) == {FILE}


def test_one_rebuild_at_a_time(log: SqliteLog, directory: Path) -> None:
    store(log, directory).close()
    with rebuilding_file(directory / FILE), pytest.raises(UnavailableError, match="being rebuilt already"):
        in_file(log, directory, REGISTRY)
    in_file(log, directory, REGISTRY)
