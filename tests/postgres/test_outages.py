"""What goes wrong between a processor and PostgreSQL, and that nothing comes of it."""

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from headrace.errors import UnavailableError
from headrace.processors.core.memory import Memory
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from tests.contract.long_texts import write_long
from tests.contract.rich_history import Author, MemoryLog
from tests.contract.tables_recording import KINDS, REGISTRY, history
from tests.postgres.both import Contents, contents, fold_by
from tests.postgres.proxy import Proxy

Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    """A way to the database that can be cut."""
    found = Proxy(database)
    yield found
    found.close()


class WaitingLog(MemoryLog):
    """A log in memory that does not return at once where there is nothing new."""

    def wait(self, after: Any, timeout: float) -> frozenset[int]:
        """See :class:`headrace.log.port.Log`."""
        found = super().wait(after, timeout)
        if not found:
            threading.Event().wait(timeout)
        return found


def expected(log: MemoryLog, partition: int) -> Contents:
    """What the log folds to."""
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (1_000,))
        return contents(tables, KINDS)


def hosted(tables: PostgresTables, log: MemoryLog, partition: int) -> None:
    """Let a host fold the partition to its end, whatever happens meanwhile."""
    waiting = WaitingLog(len(log.records))
    waiting.records, waiting.log_id = log.records, log.log_id
    host = EmbeddedHost(waiting, Engine(REGISTRY, KINDS, tables))
    host.start()
    try:
        assert host.applied.wait(partition, len(log.records[partition]) - 1, 60)
    finally:
        assert host.stop()
    assert host.applied.failure is None


@pytest.mark.parametrize("lose", [Proxy.lose_answer, Proxy.lose_question])
def test_a_commit_whose_outcome_is_unknown_is_never_repeated(
    proxy: Proxy, schema: str, lose: Callable[[Proxy], None]
) -> None:
    log, partition = history()
    with PostgresTables(proxy.address, REGISTRY, KINDS, schema=schema) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 20))
        lose(proxy)
        with pytest.raises(UnavailableError, match="is not known"):
            engine.apply(partition, log.read(partition, 20, 20))
        assert proxy.lost == 1
        went_through = lose is Proxy.lose_answer
        assert engine.resume(log, partition) == (40 if went_through else 20)
        fold_by(engine, log, partition, (7,))
        assert contents(tables, KINDS)["events"] == expected(log, partition)["events"]


@pytest.mark.parametrize("lose", [Proxy.lose_answer, Proxy.lose_question])
def test_the_host_goes_on_from_where_the_tables_are(
    proxy: Proxy, schema: str, lose: Callable[[Proxy], None], caplog: pytest.LogCaptureFixture
) -> None:
    log, partition = history()
    with PostgresTables(proxy.address, REGISTRY, KINDS, schema=schema) as tables:
        lose(proxy)
        hosted(tables, log, partition)
        assert proxy.lost == 1
        assert "is paused" in caplog.text
        there, wanted = contents(tables, KINDS), expected(log, partition)
        there["partitions"] = [row for row in there["partitions"] if row[0] == partition]
        others = [row for row in there["events"] if row[0] != partition]
        assert [row for row in there["events"] if row not in others] == wanted["events"]
        assert there["partitions"] == wanted["partitions"]
        assert {name: there[name] for name in wanted if name not in ("events", "partitions")} == {
            name: wanted[name] for name in wanted if name not in ("events", "partitions")
        }


def test_a_connection_that_breaks_is_made_anew(database: str, schema: str, ask: Ask) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 20))
        with tables.snapshot() as reader:
            ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s", f"%{schema}")
            with pytest.raises(UnavailableError, match="cannot be read now"):
                reader.rows("SELECT count(*) AS n FROM events", {})
        with pytest.raises(UnavailableError):
            engine.apply(partition, log.read(partition, 20, 20))
        fold_by(engine, log, partition, (50,))
        assert contents(tables, KINDS) == expected(log, partition)


def test_a_database_that_is_not_there_is_unavailable(database: str) -> None:
    missing = make_conninfo(database, dbname="no_such_database", password="secret")
    with pytest.raises(UnavailableError, match="no_such_database") as caught:
        PostgresTables(missing, REGISTRY, KINDS)
    assert "secret" not in str(caught.value)
    for wrong in ("postgresql://host/x?no_such_setting=1", "nonsense"):
        with pytest.raises(UnavailableError, match="address cannot be read"):
            PostgresTables(wrong, REGISTRY, KINDS)


def _holding(database: str, schema: str, stack: ExitStack, *, copying: bool) -> psycopg.Connection[Any]:
    """A worker that was stopped within its transaction: it holds partition rows and says no more."""
    connection = psycopg.connect(database, autocommit=True, application_name=f"headrace processor {schema}")
    stack.callback(connection.close)
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
    connection.execute("BEGIN")
    connection.execute("UPDATE partitions SET next_offset = next_offset")
    if copying:
        connection.pgconn.exec_(b"COPY events FROM STDIN")
    return connection


@pytest.mark.parametrize("copying", [False, True])
def test_a_worker_stopped_within_a_transaction_is_thrown_out(
    database: str, schema: str, ask: Ask, copying: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log, partition = history()
    with ExitStack() as stack, PostgresTables(database, REGISTRY, KINDS, schema=schema, patience=0.2) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 20))
        stalled = _holding(database, schema, stack, copying=copying)
        refused = 0
        while True:
            try:
                engine.apply(partition, log.read(partition, 20, 20))
                break
            except UnavailableError:
                refused += 1
                assert refused < 20, "the stalled worker was never thrown out"
                assert engine.resume(log, partition) == 20
        assert refused > 0
        assert "threw out backend" in caplog.text
        assert ask("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", stalled.info.backend_pid) == [(0,)]
        fold_by(engine, log, partition, (50,))
        assert contents(tables, KINDS) == expected(log, partition)


def test_a_transaction_that_waited_too_long_for_its_verdicts_is_done_again(
    database: str, schema: str, ask: Ask
) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema, patience=0.05) as tables:
        backend = tables.connection.info.backend_pid

        def wait() -> None:
            while ask("SELECT pg_sleep(0.01) FROM pg_stat_activity WHERE pid = %s", backend):
                """Nobody takes the verdicts, and the session is still there."""

        def publish(_: Memory) -> Callable[[], None]:
            return wait

        engine = Engine(REGISTRY, KINDS, tables, publish=publish)
        engine.resume(log, partition)
        with pytest.raises(UnavailableError, match=r"took too long .* nothing of it was written"):
            engine.apply(partition, log.read(partition, 0, 50))
        assert engine.resume(log, partition) == 0
        engine.apply(partition, log.read(partition, 0, 50))  # on a new connection, whose verdicts are taken at once
        fold_by(engine, log, partition, (50,))
        assert contents(tables, KINDS) == expected(log, partition)


def test_one_that_only_waits_its_turn_is_not_thrown_out(database: str, schema: str) -> None:
    log, partition = history()
    with ExitStack() as stack, PostgresTables(database, REGISTRY, KINDS, schema=schema, patience=0.1) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 20))
        working = _holding(database, schema, stack, copying=False)
        with pytest.raises(UnavailableError):
            engine.apply(partition, log.read(partition, 20, 20))
        working.execute("COMMIT")
        assert engine.resume(log, partition) == 20
        engine.apply(partition, log.read(partition, 20, 20))


def test_more_readers_than_connections_wait_and_are_told(database: str, schema: str) -> None:
    with PostgresTables(database, REGISTRY, KINDS, schema=schema, readers=1, reader_wait=0.2) as tables:
        with tables.snapshot(), pytest.raises(UnavailableError), tables.snapshot():
            pass
        with tables.snapshot() as reader:
            assert reader.rows("SELECT count(*) AS n FROM events", {}) == [{"n": 0}]


def test_closed_tables_say_so(database: str, schema: str) -> None:
    tables = PostgresTables(database, REGISTRY, KINDS, schema=schema)
    with tables.snapshot() as reader:
        tables.close()
        assert reader.rows("SELECT count(*) AS n FROM partitions", {}) == [{"n": 0}]
    with pytest.raises(UnavailableError, match="closed"), tables.snapshot():
        pass
    with pytest.raises(UnavailableError, match="closed"):
        tables.resume(0)


def test_only_the_connection_that_folds_does_not_wait_for_the_disk(database: str, schema: str) -> None:
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        names = ("synchronous_commit", "idle_in_transaction_session_timeout", "lock_timeout")
        folding = [tables.connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
        assert folding == [("off",), ("10s",), ("5s",)]
        with tables.snapshot() as reader:
            found = reader.rows("SELECT current_setting('synchronous_commit') AS said", {})
            assert found != [{"said": "off"}]
            with pytest.raises(UnavailableError, match="read-only"):
                reader.rows("DELETE FROM claims RETURNING claim", {})


def test_a_commit_is_made_known_after_it_is_done(database: str, schema: str) -> None:
    log, partition = history()
    with (
        PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables,
        psycopg.connect(database, autocommit=True) as listener,
    ):
        listener.execute(f'LISTEN "{schema}_applied"'.encode())
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (40,))
        end = len(log.records[partition])
        heard = [found.payload for found in listener.notifies(timeout=20, stop_after=-(-end // 40))]
        assert heard == [f"{partition}:{min(offset, end)}" for offset in range(40, end + 40, 40)]
        seen = listener.execute(f"SELECT next_offset FROM {schema}.partitions".encode()).fetchone()
        assert seen == (end,)


def test_a_commit_that_cannot_be_made_known_is_done_all_the_same(
    database: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:

        class Cut(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
                if b"pg_notify" in (query if isinstance(query, bytes) else str(query).encode()):
                    self.connection.close()
                return super().execute(query, *args, **kwargs)

        tables.connection.cursor_factory = Cut
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        with caplog.at_level(logging.WARNING):
            engine.apply(partition, log.read(partition, 0, 20))
        assert "was not made known" in caplog.text
        fold_by(engine, log, partition, (50,))
        assert contents(tables, KINDS) == expected(log, partition)


def test_a_text_that_somebodys_own_index_does_not_take_is_named(database: str, schema: str, ask: Ask) -> None:
    log = MemoryLog(2)
    author = Author(log)
    write_long(author)
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        ask("CREATE INDEX mine ON touches (container_id)")
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, author.partition)
        with pytest.raises(UnavailableError, match=r"partition 1 from offset 0 to 9 .*\"mine\".* drop it"):
            engine.apply(author.partition, log.read(author.partition, 0, 10))
        ask("DROP INDEX mine")
        fold_by(engine, log, author.partition, (5,))
        assert contents(tables, KINDS) == expected(log, author.partition)


FULL = """
    CREATE OR REPLACE FUNCTION {schema}.no_space() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER no_space BEFORE INSERT ON {schema}.events EXECUTE FUNCTION {schema}.no_space();
"""


def troubled(tables: PostgresTables, healthy: int, trouble: Callable[[], AbstractContextManager[object]]) -> list[str]:
    """What was said of batches that met with trouble, among them one after ``healthy`` that did not; in the end
    everything is as it must be."""
    log, partition = history()
    engine, said = Engine(REGISTRY, KINDS, tables), list[str]()
    at = engine.resume(log, partition)
    for batches in (0, healthy, *[1] * 12):
        for _ in range(batches):
            engine.apply(partition, log.read(partition, at, 2))
            at += 2
        with trouble():
            try:
                engine.apply(partition, log.read(partition, at, 2))
                at += 2
            except UnavailableError as error:
                said.append(str(error))
        assert engine.resume(log, partition) == at
    fold_by(engine, log, partition, (2,))
    assert contents(tables, KINDS) == expected(log, partition)
    return said


@pytest.mark.parametrize("healthy", range(8))
def test_a_disk_that_is_full_now_and_then(database: str, schema: str, healthy: int) -> None:
    """Whichever statement is prepared just then: the server never saw those that follow the one that failed."""
    named = sql.Identifier(schema)
    with (
        psycopg.connect(database, autocommit=True) as other,
        PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables,
    ):

        @contextmanager
        def full() -> Generator[None]:
            other.execute(sql.SQL(FULL).format(schema=named))
            yield
            other.execute(sql.SQL("DROP TRIGGER no_space ON {}.events").format(named))

        said = troubled(tables, healthy, full)
    assert len(said) == 14
    assert all("is full" in one for one in said)


@pytest.mark.parametrize("healthy", range(8))
def test_tables_that_are_locked_now_and_then(database: str, schema: str, healthy: int) -> None:
    """The same where rows are loaded."""
    with (
        psycopg.connect(database) as other,
        PostgresTables(database, REGISTRY, KINDS, schema=schema, patience=0.05) as tables,
    ):

        @contextmanager
        def locked() -> Generator[None]:
            other.execute(sql.SQL("LOCK {}.proposals").format(sql.Identifier(schema)))
            yield
            other.rollback()

        assert troubled(tables, healthy, locked)
