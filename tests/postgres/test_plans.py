"""What a lookup costs does not grow with the tables, also before PostgreSQL has ever analyzed them."""

from typing import Final

import psycopg
import pytest
from psycopg import sql

from headrace.processors.engine import Engine
from headrace.projections.postgres import PostgresTables
from tests.contract.rich_history import Author, MemoryLog, mail
from tests.contract.tables_recording import KINDS, REGISTRY

BATCH: Final = 25
BATCHES: Final = 70


@pytest.fixture(scope="module")
def history() -> tuple[MemoryLog, int]:
    """Facts, and then proposals, one for each."""
    log = MemoryLog(1)
    author = Author(log)
    heads = [author.fact("mail.received", f"t-{n}", f"m-{n}", mail(n)) for n in range(BATCH * BATCHES)]
    facts = len(log.records[author.partition])
    for number, head in enumerate(heads):
        thread = f"mail.thread/t-{number}"
        author.propose(f"p-{number}", "mail.archive", thread, [author.entity(thread, head)], {})
    return log, facts


def read(connection: psycopg.Connection[tuple[object, ...]], schema: str) -> dict[str, int]:
    """How many rows were read by each index of the tables."""
    found = connection.execute(
        "SELECT indexrelname, idx_tup_read FROM pg_stat_all_indexes WHERE schemaname = %s", (schema,)
    ).fetchall()
    return {str(name): int(str(count)) for name, count in found}


def test_a_lookup_takes_the_index_that_tells_most(database: str, schema: str, history: tuple[MemoryLog, int]) -> None:
    log, facts = history
    with (
        PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        for table in ("proposals", "events", "threads", "touches", "verdicts"):  # nobody analyzes them meanwhile
            off = sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)")
            connection.execute(off.format(sql.Identifier(schema, table)))
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 0, facts))

        def fold(batches: range) -> None:
            for batch in batches:
                engine.apply(0, log.read(0, facts + batch * BATCH, BATCH))
            for one in (tables.connection, tables.loading):
                one.execute("SELECT pg_stat_force_next_flush()")
                one.execute("SELECT 1")

        fold(range(BATCHES // 2))
        before = read(connection, schema)
        fold(range(BATCHES // 2, BATCHES))
        rows = {name: count - before[name] for name, count in read(connection, schema).items()}
    records = BATCH * (BATCHES // 2)
    assert max(rows.values()) <= 2 * records, rows
