"""The moment of the switch in PostgreSQL: who waits for whom, and that nobody meets tables of two ages."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from headrace.cli.rebuilding import in_database
from headrace.errors import LogMismatchError, UnavailableError
from headrace.log.sqlite import SqliteLog
from headrace.projections import postgres_rebuild
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_rebuild import Positions, Rebuild, rebuilding
from tests.postgres.both import contents
from tests.rebuild.conftest import Ask
from tests.rebuild.rebuilds import INSTALLED, REGISTRY, damage, folded, schemas, tables_in, truth, until_waiting

PATIENCE_SECONDS = 60.0
_AGES = (
    "SELECT DISTINCT e.tableoid::bigint, p.tableoid::bigint FROM {schema}.events e JOIN {schema}.partitions p ON true"
)

Ages = list[tuple[int, int]]
"""Which tables a statement read, as PostgreSQL numbers them: ``events`` and ``partitions``."""


def ages(database: str, schema: str) -> Ages:
    """Of one statement that names ``events`` first."""
    with psycopg.connect(database, autocommit=True, application_name=f"stranger {schema}") as connection:
        return connection.execute(sql.SQL(_AGES).format(schema=sql.Identifier(schema))).fetchall()


class Knots:
    """So often when a switch has locked ``partitions``, a stranger's statement takes ``events`` and waits for that."""

    def __init__(self, database: str, schema: str, times: int) -> None:
        self._database, self._schema, self._times = database, schema, times
        self._run = Rebuild._run  # pyright: ignore[reportPrivateUsage]
        self._threads = ThreadPoolExecutor(1)
        self.found: list[Future[Ages]] = []

    def run(self, rebuild: Rebuild, statement: LiteralString, **names: sql.Composable) -> Any:
        """In the place of :meth:`Rebuild._run`."""
        done = self._run(rebuild, statement, **names)
        locked = "IN ACCESS EXCLUSIVE" in statement and names["table"] == sql.Identifier("partitions")
        if locked and len(self.found) < self._times:
            self.found.append(self._threads.submit(ages, self._database, self._schema))
            until_waiting(self._database, f"stranger {self._schema}")
        return done

    def told(self) -> list[Ages]:
        """What the statements read."""
        self._threads.shutdown()
        return [one.result(PATIENCE_SECONDS) for one in self.found]


def knotted(monkeypatch: pytest.MonkeyPatch, knots: Knots) -> None:
    """Tie them."""

    def run(self: Rebuild, statement: LiteralString, **names: sql.Composable) -> Any:
        return knots.run(self, statement, **names)

    monkeypatch.setattr(Rebuild, "_run", run)


def test_it_is_never_somebodys_query_that_gives_way(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that has one table waits for the next, which the switch has, while that waits for the first."""
    with tables_in(database, schema) as live:
        folded(log, live)
        old = ages(database, schema)
        knots = Knots(database, schema, 2)
        knotted(monkeypatch, knots)
        in_database(log, database, schema, REGISTRY)
        assert knots.told() == [old, old]
        [(events, partitions)] = ages(database, schema)
        assert not {events, partitions} & set(old[0])


def test_a_lock_on_one_table_would_not_do(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: the same statement then meets tables of two ages."""
    with tables_in(database, schema) as live:
        folded(log, live)
        old = ages(database, schema)
        monkeypatch.setattr(postgres_rebuild, "_LOCKED", "SELECT 'partitions', 'r' WHERE %s::text IS NOT NULL")
        knots = Knots(database, schema, 1)
        knotted(monkeypatch, knots)
        in_database(log, database, schema, REGISTRY)
        [[(events, partitions)]] = knots.told()
        assert events == old[0][0]
        assert partitions != old[0][1]


@pytest.mark.parametrize("planted", [None, "not caught up", "and nobody compares"])
def test_what_is_folded_at_the_last_moment_is_in_the_new_tables(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch, planted: str | None
) -> None:
    """Between the last look and the locks. With a planted bug it is noticed, and with two the tables go back."""
    switched, lock = Rebuild._switched, Rebuild._lock  # pyright: ignore[reportPrivateUsage]

    def hasty(self: Rebuild, catch_up: Callable[[Positions], object], *, keep_old: bool) -> str:
        return switched(self, catch_up if planted is None else len, keep_old=keep_old)

    with tables_in(database, schema) as live:
        folded(log, live, until=20)

        def late(self: Rebuild) -> None:
            folded(log, live)
            lock(self)

        monkeypatch.setattr(Rebuild, "_switched", hasty)
        monkeypatch.setattr(Rebuild, "_lock", late)
        if planted == "not caught up":
            with pytest.raises(LogMismatchError, match="other records"):
                in_database(log, database, schema, REGISTRY)
            return
        if planted is not None:
            monkeypatch.setattr(postgres_rebuild, "_DIFFERENT", "SELECT 0 WHERE false")
        in_database(log, database, schema, REGISTRY)
        assert (contents(live, INSTALLED) == truth(log)) == (planted is None)


def test_a_rebuild_that_stops_while_everybody_waits_for_it_is_thrown_out(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setattr(postgres_rebuild, "_NOT_STALLED", postgres_rebuild._NOT_STALLED.replace("60s", "100ms"))  # pyright: ignore[reportPrivateUsage]
    with tables_in(database, schema) as live:
        folded(log, live)
        with rebuilding(Address(database, schema)) as run:
            run.prepare()
            with tables_in(database, run.built) as built:

                def catch_up(_: Positions) -> None:
                    folded(log, built)
                    while ask("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = %s", events):
                        """Everybody waits, and the rebuild says no more."""

                events = ask("SELECT 'events'::regclass::oid")[0][0]
                with pytest.raises(UnavailableError, match="took too long"):
                    run.switch(catch_up, keep_old=False)
        assert contents(live, INSTALLED) == truth(log)


def test_a_vacuum_is_waited_for(log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by hand; an autovacuum that is in the way is ended by PostgreSQL. Nobody else waits meanwhile."""
    with tables_in(database, schema) as live, ThreadPoolExecutor(1) as threads:
        folded(log, live)
        monkeypatch.setattr(postgres_rebuild, "_VACUUM_SECONDS", PATIENCE_SECONDS)
        with psycopg.connect(database) as connection:
            lock = sql.SQL("LOCK TABLE {}.events IN SHARE UPDATE EXCLUSIVE MODE")  # what a vacuum holds
            connection.execute(lock.format(sql.Identifier(schema)))
            switching = threads.submit(in_database, log, database, schema, REGISTRY)
            until_waiting(database, f"headrace rebuild {schema}")
            assert contents(live, INSTALLED) == truth(log)
            folded(log, live)
            assert not switching.done()
        switching.result(PATIENCE_SECONDS)


def test_who_reads_without_a_pause_is_waited_for_and_then_told_of(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setattr(postgres_rebuild, "_MOST_LOCK_SECONDS", 0.1)
    with tables_in(database, schema) as live:
        folded(log, live)
        damage(ask)
        old, before = contents(live, INSTALLED), schemas(database)
        with rebuilding(Address(database, schema)) as run, live.snapshot() as reader:
            run.prepare()
            with tables_in(database, run.built) as built, pytest.raises(UnavailableError, match="without a pause"):
                run.switch(lambda _: folded(log, built), keep_old=False, patience=0.5)
            assert reader.rows("SELECT DISTINCT note FROM events", {}) == [{"note": "damaged"}]
        assert contents(live, INSTALLED) == old
        assert schemas(database) == before


def test_a_snapshot_is_of_the_old_tables_or_of_the_new(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    """One that began before the switch holds it up; one that comes while it waits is of the new tables."""
    monkeypatch.setattr(postgres_rebuild, "_lock_seconds", PATIENCE_SECONDS.__add__)

    def late(live: PostgresTables) -> dict[str, list[tuple[object, ...]]]:
        return contents(live, INSTALLED)

    with tables_in(database, schema) as live, ThreadPoolExecutor(2) as threads:
        folded(log, live)
        damage(ask)
        with live.snapshot() as early:
            switching = threads.submit(in_database, log, database, schema, REGISTRY)
            until_waiting(database, f"headrace rebuild {schema}")
            reading = threads.submit(late, live)
            until_waiting(database, f"headrace reader {schema}")
            assert early.rows("SELECT DISTINCT note FROM events", {}) == [{"note": "damaged"}]
            assert not switching.done()
            assert not reading.done()
        switching.result(PATIENCE_SECONDS)
        assert reading.result(PATIENCE_SECONDS) == truth(log)
