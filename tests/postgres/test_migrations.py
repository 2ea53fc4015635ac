"""How the tables come to be, who may do what to them, and that they explain themselves."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.processors.audit import verify
from headrace.processors.core.kind import Column
from headrace.processors.engine import Engine
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections import postgres_migrations
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_migrations import Migration, migrate, migrations
from tests.contract.rich_history import START, Author, MemoryLog, meeting, write
from tests.contract.tables_recording import KINDS, REGISTRY, history
from tests.postgres.both import fold_by

Ask = Callable[..., list[tuple[Any, ...]]]
ROLES = Path(__file__).parents[2] / "infra" / "roles.sql"


class Wider(MailThread):
    """The built-in kind as another release might have it."""

    columns = (*MailThread.columns[:-1], Column("mood", "text", "The thread's mood."))


def test_migrating_again_does_nothing(database: str, schema: str, ask: Ask) -> None:
    address = Address(database, schema)
    assert migrate(address, KINDS) == [*(one.name for one in migrations()), *KINDS]
    assert migrate(address, KINDS) == []
    assert ask("SELECT version, name FROM migrations ORDER BY version") == [
        (one.version, one.name) for one in migrations()
    ]


def test_migrators_that_race_end_in_one_set_of_tables(database: str, schema: str, ask: Ask) -> None:
    together, ran = threading.Barrier(4), list[list[str]]()

    def run() -> None:
        together.wait()
        ran.append(migrate(Address(database, schema), KINDS))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, ran)) == [0, 0, 0, len(migrations()) + len(KINDS)]


def test_a_migration_that_fails_leaves_nothing(
    database: str, schema: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = migrations()
    broken = Migration(len(good) + 1, "9999_broken.sql", "CREATE TABLE late (x bigint); SELECT 1 / 0")
    whole = [*good, broken]
    monkeypatch.setattr(postgres_migrations, "migrations", lambda: whole)
    with pytest.raises(HaltError, match="division by zero"):
        migrate(Address(database, schema), KINDS)
    assert ask("SELECT count(*) FROM pg_namespace WHERE nspname = %s", schema) == [(0,)]
    monkeypatch.setattr(postgres_migrations, "migrations", lambda: good)
    migrate(Address(database, schema), KINDS)
    monkeypatch.setattr(postgres_migrations, "migrations", lambda: whole)
    with pytest.raises(HaltError):
        migrate(Address(database, schema), KINDS)
    assert ask("SELECT max(version) FROM migrations") == [(len(good),)]
    assert ask("SELECT to_regclass('late')") == [(None,)]


# How headrace 0.1 made what later migrations have changed since.
FORMER_KINDS = """
    DROP INDEX calendar_events_calendar, calendar_events_resource;
    CREATE INDEX calendar_events_calendar ON calendar_events (tenant, account, calendar);
    CREATE INDEX calendar_events_resource ON calendar_events (tenant, account, resource);
    CREATE OR REPLACE VIEW threads_view WITH (security_invoker) AS SELECT
        tenant, account, id, first_offset, head_offset, to_timestamp(head_time / 1000.0) AS head_time, state, intents,
        messages, last_message, last_sender, last_by_owner, unread, archived, trashed, deleted, labels, subject
    FROM threads;
"""
DEFINED = """
    SELECT replace(said, current_schema(), 'x') FROM (
        SELECT indexdef || coalesce(obj_description(to_regclass(indexname)), '') AS said
        FROM pg_indexes WHERE schemaname = current_schema()
        UNION ALL
        SELECT viewname || definition FROM pg_views WHERE schemaname = current_schema()
    ) AS found ORDER BY 1
"""


def test_tables_of_an_earlier_release_become_those_of_this_one(
    database: str, schema: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(Address(database, schema), KINDS)
    now, known = ask(DEFINED), migrations()
    ask(f'DROP SCHEMA "{schema}" CASCADE')
    monkeypatch.setattr(postgres_migrations, "migrations", lambda: known[:5])
    log, partition = history()
    migrate(Address(database, schema), KINDS)
    ask(FORMER_KINDS)
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (1_000,))
    assert ask(DEFINED) != now
    monkeypatch.setattr(postgres_migrations, "migrations", lambda: known)
    assert migrate(Address(database, schema), KINDS) == [one.name for one in known[5:]]
    assert ask(DEFINED) == now
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        assert verify(log, tables, REGISTRY, KINDS).verified


def test_nobody_waits_behind_a_migration_that_waits(
    database: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, known = Address(database, schema), migrations()
    monkeypatch.setattr(postgres_migrations, "migrations", lambda: known[:4])
    with (
        PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables,
        psycopg.connect(database) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        log, partition = history()
        other.execute(f'LOCK TABLE "{schema}".proposals IN ACCESS SHARE MODE'.encode())
        step = Migration(5, known[4].name, known[4].script)
        monkeypatch.setattr(postgres_migrations, "migrations", lambda: [*known[:4], step])
        monkeypatch.setattr(postgres_migrations, "_LOCK_SECONDS", 1)
        with pytest.raises(UnavailableError, match="pg_stat_activity shows who"):
            migrate(address, KINDS, patience=0)
        migrating = pool.submit(migrate, address, KINDS)
        while "the migration waits" not in caplog.text:
            with tables.snapshot() as reader:
                assert reader.rows("SELECT count(*) AS n FROM proposals", {})
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (1_000,))
        assert not migrating.done()
        other.rollback()
        assert migrating.result(60) == [known[4].name]


def test_tables_of_a_newer_release_halt(database: str, schema: str, ask: Ask) -> None:
    migrate(Address(database, schema), KINDS)
    ask("INSERT INTO migrations (version, name) VALUES (1000, 'later')")
    with pytest.raises(HaltError, match="newer release"):
        PostgresTables(database, REGISTRY, KINDS, schema=schema)
    with pytest.raises(HaltError, match="newer release"):
        migrate(Address(database, schema), KINDS)


def test_a_kind_whose_table_was_another_halts(database: str, schema: str, ask: Ask) -> None:
    migrate(Address(database, schema), KINDS)
    with pytest.raises(HaltError, match=r"mail\.thread"):
        PostgresTables(database, REGISTRY, {**KINDS, "mail.thread": Wider()}, schema=schema)
    ask("ALTER TABLE calendar_events ADD COLUMN mood text")
    with pytest.raises(HaltError, match=r"calendar\.event"):
        PostgresTables(database, REGISTRY, KINDS, schema=schema)


def test_a_kind_installed_later_gets_its_table(database: str, schema: str, ask: Ask) -> None:
    some = {"mail.thread": KINDS["mail.thread"]}
    PostgresTables(database, REGISTRY, some, schema=schema).close()
    assert ask("SELECT to_regclass('calendar_events')") == [(None,)]
    with pytest.raises(HaltError, match="run `headrace migrate`, as the migrator's role"):
        PostgresTables(database, REGISTRY, KINDS, schema=schema, migrating=False)
    PostgresTables(database, REGISTRY, KINDS, schema=schema).close()
    assert ask("SELECT count(*) FROM calendar_events") == [(0,)]


def test_everything_has_a_comment(database: str, schema: str, ask: Ask) -> None:
    migrate(Address(database, schema), KINDS)
    silent = ask(
        "SELECT c.relname, a.attname FROM pg_class c LEFT JOIN pg_attribute a"
        " ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v')"
        " AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)"
    )
    assert silent == []
    told = ask("SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'")
    assert told == [(3 + len(KINDS),)]


def test_views_show_what_is_there(database: str, schema: str, ask: Ask) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (1_000,))
    end = len(log.records[partition])
    assert ask("SELECT count(*), min(at)::date::text FROM history") == [(end, "2026-11-18")]
    assert ask("SELECT verdict, overtaken_by, actor FROM decisions WHERE id = 'p-2'") == [
        ("superseded", "proposal.submitted", "agent/bot")
    ]
    assert ask("SELECT next_offset, policy FROM progress") == [(end, "stricter")]
    assert ask("SELECT title, extract(epoch FROM starts_at)::bigint FROM calendar_events_view WHERE id = 'e-1'")[0][0]


@pytest.mark.parametrize("log_time", [START, -(2**63), 2**63 - 1])
def test_a_time_that_postgresql_cannot_count_spoils_no_view(
    database: str, schema: str, ask: Ask, log_time: int
) -> None:
    log = MemoryLog(2)
    author = Author(log)
    edges = ((-(2**63), 2**63 - 1), (-210866803200000, 9224318015999999), (-210866803200001, 9224318016000000))
    for number, (start, end) in enumerate(edges):
        body = meeting(START) | {"occurrences": [{"start": start, "end": end}]}
        author.fact("calendar.created", f"x-{number}", f"x-{number}", body)
    write(author)
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, author.partition, (1_000,))
    for table in ("events", "proposals", "partitions"):
        ask(f"UPDATE {table} SET log_time = %s", log_time)
    seen = ask(
        "SELECT left(starts_at::text, 13), left(ends_at::text, 19)"
        " FROM calendar_events_view WHERE starts_with(id, 'x-') ORDER BY id"
    )
    beyond = ("-infinity", "infinity")
    assert seen == [beyond, ("4714-11-24 00", "294276-12-31 23:59:"), beyond]
    for view in ("history", "decisions", "progress", "threads_view", "calendar_events_view"):
        assert ask(f"SELECT count(found::text) > 0 FROM {view} AS found") == [(True,)]


# Roles


@pytest.fixture
def roles(database: str, schema: str) -> Iterator[Callable[[str], str]]:
    """Addresses of logins that are members of the roles in infra/roles.sql."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(ROLES.read_bytes())
        connection.execute(ROLES.read_bytes())  # it may be run again at any time
        for role in ("migrator", "processor", "reader"):
            connection.execute(f"CREATE ROLE {schema}_{role} LOGIN IN ROLE headrace_{role}".encode())
        connection.execute(f"ALTER ROLE {schema}_migrator SET role = 'headrace_migrator'".encode())

    yield lambda role: make_conninfo(database, user=f"{schema}_{role}")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())
        for role in ("migrator", "processor", "reader"):
            connection.execute(f"DROP ROLE {schema}_{role}".encode())


def test_each_role_may_do_its_work_and_no_more(roles: Callable[[str], str], schema: str) -> None:
    log, partition = history()
    migrate(Address(roles("migrator"), schema), KINDS)
    with PostgresTables(roles("processor"), REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (7,))
    owner = _told(roles("migrator"), schema, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = %s", schema)
    assert owner == [("headrace_migrator",)]
    with psycopg.connect(roles("reader"), autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{schema}"'.encode())
        for table in ("events", "proposals", "threads", "history", "decisions", "progress", "threads_view"):
            assert connection.execute(f"SELECT count(*) > 0 FROM {table}".encode()).fetchone() == (True,)

    never = {
        "processor": (
            "UPDATE events SET disposition = 'applied'",
            "DELETE FROM events",
            "DELETE FROM proposals",
            "UPDATE verdicts SET verdict = 'accepted'",
            "DELETE FROM quarantine",
            "TRUNCATE claims",
            "INSERT INTO migrations (version, name) VALUES (9, 'x')",
            "CREATE TABLE mine (x bigint)",
            "ALTER TABLE claims ADD COLUMN x bigint",
            "DROP TABLE claims",
            "CREATE SCHEMA mine",
            "CREATE TEMP TABLE mine (x bigint)",
        ),
        "reader": (
            "INSERT INTO claims VALUES ('t', 'a', 'k', 'e', 'c', 'h', 1, 1)",
            "UPDATE partitions SET next_offset = 0",
            "DELETE FROM claims",
            "CREATE TABLE mine (x bigint)",
            "CREATE SCHEMA mine",
        ),
    }
    for role, statements in never.items():
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                _told(roles(role), schema, statement)


def _told(address: str, schema: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{schema}"'.encode())
        return connection.execute(statement.encode(), parameters).fetchall()


def test_a_processor_without_tables_says_who_makes_them(roles: Callable[[str], str], schema: str) -> None:
    with pytest.raises(HaltError, match="migrator"):
        PostgresTables(roles("processor"), REGISTRY, KINDS, schema=schema)
    with pytest.raises(HaltError, match="migrator"):
        PostgresTables(roles("reader"), REGISTRY, KINDS, schema=schema, migrating=False)


def test_a_reader_that_folds_is_stopped(roles: Callable[[str], str], schema: str) -> None:
    log, partition = history()
    migrate(Address(roles("migrator"), schema), KINDS)
    with PostgresTables(roles("reader"), REGISTRY, KINDS, schema=schema) as tables:
        assert tables.resume(partition) is None
        with pytest.raises(HaltError, match=r"roles\.sql"):
            fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (10,))


def test_roles_made_later_get_their_rights_from_the_next_migration(
    database: str, schema: str, roles: Callable[[str], str]
) -> None:
    migrate(Address(roles("migrator"), schema), KINDS)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'REVOKE ALL ON ALL TABLES IN SCHEMA "{schema}" FROM headrace_reader'.encode())
    with pytest.raises(HeadraceError):
        PostgresTables(roles("reader"), REGISTRY, KINDS, schema=schema, migrating=False)
    migrate(Address(roles("migrator"), schema), KINDS)
    PostgresTables(roles("reader"), REGISTRY, KINDS, schema=schema, migrating=False).close()


def test_logs_of_two_products_live_in_two_schemas(database: str, schema: str) -> None:
    logs: list[MemoryLog] = []
    with (
        PostgresTables(database, REGISTRY, KINDS, schema=schema) as one,
        PostgresTables(database, REGISTRY, KINDS, schema=f"{schema}_b") as other,
    ):
        for tables in (one, other):
            log, partition = history()
            logs.append(log)
            fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (20,))
        rows = [tables.resume(partition) for tables in (one, other)]
    assert [row.log_id for row in rows if row is not None] == [log.log_id for log in logs]
