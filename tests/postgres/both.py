"""The same history in SQLite and in PostgreSQL, laid side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.log.port import Log
from headrace.processors.core.kind import Kind
from headrace.processors.engine import Engine
from headrace.projections import rows
from headrace.projections.kind_tables import column_names
from headrace.projections.port import Tables

Contents = dict[str, list[tuple[Any, ...]]]
_COLUMNS: Mapping[str, Sequence[str]] = {
    "partitions": rows.PARTITION_COLUMNS,
    "events": rows.EVENT_COLUMNS,
    "touches": rows.TOUCH_COLUMNS,
    "proposals": rows.PROPOSAL_COLUMNS,
    "verdicts": rows.VERDICT_COLUMNS,
    "sources": rows.SOURCE_COLUMNS,
    "claims": rows.CLAIM_COLUMNS,
    "quarantine": rows.QUARANTINE_COLUMNS,
}


def contents(tables: Tables, kinds: Mapping[str, Kind]) -> Contents:
    """Every row of every table. The only thing made alike is how a boolean looks."""
    found: Contents = {}
    columns = {**_COLUMNS, **{kind.table: column_names(kind) for kind in kinds.values()}}
    with tables.snapshot() as reader:
        for table, names in columns.items():
            run = reader.values(f"SELECT {', '.join(names)} FROM {table}", {})
            plain = (tuple(int(value) if isinstance(value, bool) else value for value in row) for row in run)
            found[table] = sorted(plain, key=repr)
    return found


def fold_by(engine: Engine, log: Log, partition: int, sizes: Sequence[int]) -> None:
    """Fold a partition to its end in batches of these sizes, over and over."""
    offset, turn = engine.resume(log, partition), 0
    while records := log.read(partition, offset, sizes[turn % len(sizes)]):
        engine.apply(partition, records)
        offset, turn = offset + len(records), turn + 1
