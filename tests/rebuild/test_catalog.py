"""What is around new tables in PostgreSQL: everything that was around the old ones, or the rebuild is refused."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql

from headrace.cli import rebuilding as command
from headrace.cli.rebuilding import in_database
from headrace.errors import BadInputError, HaltError
from headrace.log.sqlite import SqliteLog
from headrace.processors.core.kind import Kind
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections.postgres import PostgresTables
from tests.postgres.both import contents
from tests.rebuild.conftest import Ask
from tests.rebuild.rebuilds import INSTALLED, REGISTRY, folded, tables_in, truth

# Everything that the catalog says of a schema, but for numbers that are the database's own.
_CATALOG = """
WITH live AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
used AS (SELECT c.* FROM pg_class c JOIN live ON c.relnamespace = live.oid)
SELECT 'schema', n.nspname::text, n.nspowner::regrole::text,
    (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(n.nspacl) a), obj_description(n.oid, 'pg_namespace')
FROM pg_namespace n JOIN live USING (oid)
UNION ALL
SELECT 'relation ' || relkind::text, relname, relowner::regrole::text,
    (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(relacl) a),
    concat_ws(' ', obj_description(oid, 'pg_class'), reloptions, relpersistence, relrowsecurity, relreplident)
FROM used
UNION ALL
SELECT 'column', relname || '.' || attname, format_type(atttypid, atttypmod),
    (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(attacl) a),
    concat_ws(' ', attnum, attnotnull, attcollation, attgenerated, attidentity, col_description(used.oid, attnum),
        pg_get_expr(d.adbin, d.adrelid))
FROM used JOIN pg_attribute a ON a.attrelid = used.oid
LEFT JOIN pg_attrdef d ON d.adrelid = used.oid AND d.adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'constraint', conname, relname, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint')
FROM used JOIN pg_constraint k ON k.conrelid = used.oid
UNION ALL
SELECT 'index', relname, pg_get_indexdef(oid), NULL, NULL FROM used WHERE relkind = 'i'
UNION ALL
SELECT 'view', relname, pg_get_viewdef(oid), NULL, NULL FROM used WHERE relkind = 'v'
ORDER BY 1, 2, 3
"""


def catalog(database: str, schema: str) -> list[tuple[object, ...]]:
    """What stands in a schema, with every right, owner, comment and definition."""
    with psycopg.connect(database) as connection:
        return connection.execute(_CATALOG.encode(), {"schema": schema}).fetchall()


@pytest.fixture
def roles(database: str) -> Iterator[Callable[[str], str]]:
    """Makes roles."""
    with psycopg.connect(database, autocommit=True) as connection, ExitStack() as stack:

        def make(name: str) -> str:
            role = f"{name}_{secrets.token_hex(6)}"
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            stack.callback(connection.execute, sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
            stack.callback(connection.execute, sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
            return role

        yield make


class OwnThread(MailThread):
    """A kind that a package of somebody's brings."""

    name = "own.thread"
    table = "own_threads"


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Kind]:
    """What is installed, with a kind of a user's own."""
    found: dict[str, Kind] = {**INSTALLED, "own.thread": OwnThread()}
    monkeypatch.setattr(command, "installed_kinds", found.copy)
    return found


def test_the_catalog_says_what_it_said(
    log: SqliteLog, database: str, ask: Ask, *, schema: str, kinds: dict[str, Kind], roles: Callable[[str], str]
) -> None:
    """With rights, owners and comments of an operator's."""
    owner, reader = roles("owner"), roles("reader")
    with PostgresTables(database, REGISTRY, kinds, schema=schema) as live:
        folded(log, live)
        for statement in (
            f"GRANT USAGE ON SCHEMA {schema} TO {reader}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}",
            f"GRANT UPDATE (note) ON events TO {reader} WITH GRANT OPTION",
            "GRANT SELECT ON own_threads TO PUBLIC",
            f"COMMENT ON SCHEMA {schema} IS 'ours, see the wiki'",
            f"ALTER TABLE quarantine OWNER TO {owner}",
            f"ALTER VIEW history OWNER TO {owner}",
            f"ALTER SCHEMA {schema} OWNER TO {owner}",
        ):
            ask(statement)
        before = catalog(database, schema)
        assert any("own_threads_view" in str(row) for row in before)
        for keep_old in (False, True, False):
            in_database(log, database, schema, REGISTRY, keep_old=keep_old)
            assert catalog(database, schema) == before


def test_what_the_fold_does_not_make_stays(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    """The delivery journal, with what deliverers hang on it, and when the tables were migrated."""
    with tables_in(database, schema) as live:
        folded(log, live)
        for statement in (
            "INSERT INTO delivery_journal VALUES ('acme', 'a-1', 'p-1', 0, 5, 'accepted', '{}', '2026-01-02')",
            "CREATE INDEX of_ours ON delivery_journal (verdict)",
            f"CREATE VIEW public.to_do_{schema} AS SELECT * FROM {schema}.delivery_journal",
            f"""CREATE TABLE public.done_{schema} (tenant text, account text, proposal text, at bigint,
                FOREIGN KEY (tenant, account, proposal, at) REFERENCES {schema}.delivery_journal)""",
            "UPDATE migrations SET applied_at = '2026-01-01'",
        ):
            ask(statement)
        before = ask("SELECT * FROM delivery_journal"), ask("SELECT * FROM migrations ORDER BY 1")
        for keep_old in (True, False):
            in_database(log, database, schema, REGISTRY, keep_old=keep_old)
            assert (ask("SELECT * FROM delivery_journal"), ask("SELECT * FROM migrations ORDER BY 1")) == before
            assert ask(f"SELECT proposal FROM public.to_do_{schema}") == [("p-1",)]
        assert ask("SELECT indexdef LIKE %s FROM pg_indexes WHERE indexname = 'of_ours'", f"% {schema}.%") == [(True,)]
        ask(f"DROP TABLE public.done_{schema}")
        ask(f"DROP VIEW public.to_do_{schema}")


@pytest.mark.parametrize(
    ("statement", "named", "undo"),
    [
        ("VIEW public.board AS SELECT * FROM {}.events", "view public.board", "VIEW public.board"),
        ("MATERIALIZED VIEW public.board AS TABLE {}.claims", "view public.board", "MATERIALIZED VIEW public.board"),
        ("VIEW {0}.mine AS SELECT * FROM {0}.events", "view mine", "VIEW {}.mine"),
        ("TABLE {}.mine (x int)", "table mine", "TABLE {}.mine"),
        ("SEQUENCE {}.mine", "sequence mine", "SEQUENCE {}.mine"),
        ("INDEX mine ON {}.events (note)", "index mine", "INDEX {}.mine"),
        ("STATISTICS {0}.mine ON type, kind FROM {0}.events", "statistics object mine", "STATISTICS {}.mine"),
        ("FUNCTION {}.mine() RETURNS int LANGUAGE sql RETURN 1", r"function mine\(\)", "FUNCTION {}.mine()"),
        (
            "FUNCTION public.mine() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM {}.events)",
            r"function public.mine\(\)",
            "FUNCTION public.mine()",
        ),
        ("TYPE {}.mine AS ENUM ('x')", "type mine", "TYPE {}.mine"),
        ("PUBLICATION board FOR TABLE {}.events", "publication board", "PUBLICATION board"),
        ("PUBLICATION board FOR TABLES IN SCHEMA {}", "publication board", "PUBLICATION board"),
        ("POLICY mine ON {}.events USING (true)", "policy mine on events", "POLICY mine ON {}.events"),
        (
            "TABLE public.mine (t text, a text, i text, FOREIGN KEY (t, a, i) REFERENCES {}.proposals)",
            "foreign key",
            "TABLE public.mine",
        ),
    ],
)
def test_what_hangs_on_the_live_tables_is_not_lost(
    log: SqliteLog, database: str, schema: str, *, statement: str, named: str, undo: str
) -> None:
    with tables_in(database, schema) as live, psycopg.connect(database, autocommit=True) as connection:
        folded(log, live)
        before = catalog(database, schema)
        connection.execute(f"CREATE {statement.format(schema)}".encode())
        with pytest.raises(BadInputError, match=named):
            in_database(log, database, schema, REGISTRY)
        connection.execute(f"DROP {undo.format(schema)}".encode())
        assert catalog(database, schema) == before
        assert contents(live, INSTALLED) == truth(log)
        in_database(log, database, schema, REGISTRY)


def test_default_rights_are_not_lost(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    with tables_in(database, schema) as live:
        folded(log, live)
        default = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}"
        ask(f"{default} GRANT SELECT ON TABLES TO PUBLIC")
        with pytest.raises(BadInputError, match="default acl"):
            in_database(log, database, schema, REGISTRY)
        ask(f"{default} REVOKE SELECT ON TABLES FROM PUBLIC")


def test_tables_of_another_release_are_migrated_first(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    with tables_in(database, schema) as live:
        folded(log, live)
        ask("DELETE FROM migrations WHERE version = (SELECT max(version) FROM migrations)")
        with pytest.raises(BadInputError, match="headrace migrate"):
            in_database(log, database, schema, REGISTRY)


def test_a_kinds_table_of_another_shape_is_replaced(log: SqliteLog, database: str, schema: str, ask: Ask) -> None:
    """A kind's new release: its table differs, so that nobody opens these tables. A rebuild makes them its own."""
    table = INSTALLED["mail.thread"].table
    with tables_in(database, schema) as live:
        folded(log, live)
    ask(f"DROP VIEW {table}_view")
    ask(f"GRANT SELECT (archived) ON {table} TO PUBLIC")
    ask(f"ALTER TABLE {table} RENAME COLUMN archived TO put_away")
    with pytest.raises(HaltError, match="not the one that this release"):
        tables_in(database, schema)
    in_database(log, database, schema, REGISTRY)
    with tables_in(database, schema) as live:
        assert contents(live, INSTALLED) == truth(log)
