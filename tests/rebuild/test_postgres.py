"""New tables in PostgreSQL, in the place of the live ones: what they hold, who may read them, what is refused."""

import psycopg
import pytest
from psycopg import sql

from headrace.cli.rebuilding import in_database
from headrace.errors import FencedError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.sqlite import SqliteLog
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_listener import PostgresApplied
from headrace.projections.postgres_migrations import migrate
from headrace.projections.postgres_rebuild import rebuilding
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import Author, MemoryLog, write
from tests.postgres.both import contents
from tests.rebuild.conftest import Ask
from tests.rebuild.rebuilds import INSTALLED, REGISTRY, before_the_switch, damage, folded, schemas, tables_in, truth

PATIENCE_SECONDS = 60.0


def test_the_new_tables_hold_what_the_log_says(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    expected = truth(log)
    with tables_in(database, schema) as live:
        assert contents(folded(log, live), INSTALLED) == expected
        damage(ask)
        assert contents(live, INSTALLED) != expected
        before = schemas(database)
        told = in_database(log, database, schema, REGISTRY)
        assert told["records"] == sum(log.describe().ends)
        assert told["old"] is None
        assert contents(live, INSTALLED) == expected, "connections that were open before see the new tables"
    assert schemas(database) == before, "nothing is left behind"
    assert ask("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", schema) == [(None,)]


def test_the_old_tables_are_kept_if_wished(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    with tables_in(database, schema) as live:
        folded(log, live)
        damage(ask)
        old = contents(live, INSTALLED)
        kept = str(in_database(log, database, schema, REGISTRY, keep_old=True)["old"])
        with tables_in(database, kept, migrating=False) as aside:
            assert contents(aside, INSTALLED) == old
        in_database(log, database, schema, REGISTRY)
        assert kept in schemas(database), "the next rebuild leaves it alone"
        assert contents(live, INSTALLED) == truth(log)


def test_live_tables_that_went_on_meanwhile_are_never_ahead_of_the_new_ones(
    log: SqliteLog, database: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tables_in(database, schema) as live:
        folded(log, live, until=20)
        with before_the_switch(monkeypatch, lambda: folded(log, live)):
            in_database(log, database, schema, REGISTRY)
        assert contents(live, INSTALLED) == truth(log)


def test_the_new_tables_are_just_as_far(log: SqliteLog, database: str, schema: str) -> None:
    with tables_in(database, schema) as live, SqliteTables.in_memory(REGISTRY, INSTALLED) as aside:
        folded(log, live, until=20)
        in_database(log, database, schema, REGISTRY)
        assert contents(live, INSTALLED) == contents(folded(log, aside, until=20), INSTALLED)
        assert contents(folded(log, live), INSTALLED) == truth(log)


def test_who_folds_notices_and_goes_on_from_the_new_tables(
    log: SqliteLog, database: str, schema: str, ask: Ask
) -> None:
    """What it remembers of the old tables may be what was wrong with them."""
    with tables_in(database, schema) as live:
        engine = Engine(REGISTRY, INSTALLED, live)
        for partition in range(3):
            engine.resume(log, partition)
        engine.apply(0, log.read(0, 0, 5))
        damage(ask)
        in_database(log, database, schema, REGISTRY)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="were rebuilt"):
                engine.apply(0, log.read(0, 5, 5))
        assert engine.resume(log, 0) == 5
        engine.apply(0, log.read(0, 5, 5))
        engine.apply(1, log.read(1, 0, 5))  # it had nothing to remember
        assert contents(folded(log, live), INSTALLED) == truth(log)


def test_a_worker_that_was_overtaken_is_still_fenced(log: SqliteLog, database: str, schema: str) -> None:
    with tables_in(database, schema) as live, tables_in(database, schema) as other:
        zombie = Engine(REGISTRY, INSTALLED, other)
        zombie.resume(log, 0)
        zombie.apply(0, log.read(0, 0, 5))
        folded(log, live)
        with pytest.raises(FencedError):
            zombie.apply(0, log.read(0, 5, 1))


def test_commits_are_made_known_as_before(log: SqliteLog, database: str, schema: str) -> None:
    applied = Applied()
    with tables_in(database, schema) as live:
        folded(log, live, until=20)
        with PostgresApplied(database, applied, schema=schema, look_seconds=PATIENCE_SECONDS):
            in_database(log, database, schema, REGISTRY)
            ends = log.describe().ends
            folded(log, live)
            for partition, end in enumerate(ends):
                assert applied.wait(partition, end - 1, PATIENCE_SECONDS / 4)


def test_rights_are_carried_over(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    with tables_in(database, schema) as live:
        folded(log, live)
        role = f"dashboards_{schema[2:14]}"
        named = {"role": sql.Identifier(role), "schema": sql.Identifier(schema)}
        with psycopg.connect(database, autocommit=True) as connection:
            for statement in (
                "CREATE ROLE {role} NOLOGIN",
                "GRANT USAGE ON SCHEMA {schema} TO {role} WITH GRANT OPTION",
                "GRANT SELECT ON {schema}.events TO {role}",
                "GRANT SELECT (tenant, verdict) ON {schema}.proposals TO {role}",
                "GRANT SELECT ON {schema}.claims TO PUBLIC",
            ):
                connection.execute(sql.SQL(statement).format(**named))
            try:
                in_database(log, database, schema, REGISTRY)
                connection.execute(sql.SQL("SET ROLE {role}").format(**named))
                for good in ("events", "claims"):
                    connection.execute(sql.SQL("SELECT * FROM {schema}.{t}").format(t=sql.Identifier(good), **named))
                connection.execute(sql.SQL("SELECT tenant, verdict FROM {schema}.proposals").format(**named))
                for bad in ("SELECT * FROM {schema}.proposals", "SELECT * FROM {schema}.sources"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(sql.SQL(bad).format(**named))
            finally:
                connection.execute("RESET ROLE")
                connection.execute(sql.SQL("DROP OWNED BY {role}").format(**named))
                connection.execute(sql.SQL("DROP ROLE {role}").format(**named))


def test_tables_of_another_log_are_not_replaced(log: SqliteLog, database: str, schema: str) -> None:
    longer = MemoryLog(3)
    for account in ("a-1", "a-2", "a-3", "a-4", "a-5", "a-6"):
        write(Author(longer, account))
    with tables_in(database, schema) as live:
        for partition in range(3):
            engine = Engine(REGISTRY, INSTALLED, live)
            engine.resume(longer, partition)
            engine.apply(partition, longer.read(partition, 0, 10_000))
        before = contents(live, INSTALLED)
        with pytest.raises(LogMismatchError, match="another log"):
            in_database(log, database, schema, REGISTRY)
        assert contents(live, INSTALLED) == before


def test_tables_of_a_log_with_another_id_are_not_replaced(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    with tables_in(database, schema) as live:
        folded(log, live)
        ask("UPDATE partitions SET log_id = %s", bytes(16))
        with pytest.raises(LogMismatchError, match="another log"):
            in_database(log, database, schema, REGISTRY)


def test_tables_of_other_records_are_not_replaced(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    """The log was cut off and went on: the same id, other records."""
    with tables_in(database, schema) as live:
        folded(log, live)
        ask('UPDATE partitions SET chain = %s WHERE "partition" = 1', bytes(32))
        before = contents(live, INSTALLED), schemas(database)
        with pytest.raises(LogMismatchError, match=r"other records than this log has now \(partition 1\)"):
            in_database(log, database, schema, REGISTRY)
        assert (contents(live, INSTALLED), schemas(database)) == before


def test_where_nothing_is_nothing_is_built(log: SqliteLog, database: str, schema: str) -> None:
    with pytest.raises(NotFoundError, match="headrace migrate"):
        in_database(log, database, schema, REGISTRY)
    migrate(Address(database, schema), INSTALLED)
    assert in_database(log, database, schema, REGISTRY)["records"] == 0


def test_one_rebuild_at_a_time(log: SqliteLog, database: str, schema: str) -> None:
    with tables_in(database, schema) as live:
        folded(log, live)
        with rebuilding(Address(database, schema)), pytest.raises(UnavailableError, match="being rebuilt already"):
            in_database(log, database, schema, REGISTRY)
        in_database(log, database, schema, REGISTRY)
