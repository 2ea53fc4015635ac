"""Folds records through the real engine into real tables, and lays the tables bare."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from headrace.log.port import LogDescription, Record, Stored
from headrace.processors.core.kind import Kind
from headrace.processors.engine import Engine
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import Position
from tests.core.scribe import KINDS, LOG_ID, PARTITION, PARTITIONS, REGISTRY

Rows = list[dict[str, Any]]


class ListLog:
    """A log that is a list: one partition's records."""

    def __init__(self, records: Sequence[Stored]) -> None:
        self._records = records

    def append(self, records: Sequence[Record]) -> list[Position]:
        raise AssertionError("folding appends nothing")

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        assert partition == PARTITION
        return list(self._records[offset : offset + limit])

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        raise AssertionError("folding waits for nothing")

    def describe(self) -> LogDescription:
        ends = [0] * PARTITIONS
        ends[PARTITION] = len(self._records)
        return LogDescription(LOG_ID, PARTITIONS, tuple(ends), None)


class Folded(NamedTuple):
    """Every row of every table."""

    tables: dict[str, Rows]

    @property
    def events(self) -> Rows:
        return sorted(self.tables["events"], key=lambda row: row["offset"])

    @property
    def dispositions(self) -> list[str]:
        """What became of each record, by offset."""
        return [row["disposition"] for row in self.events]

    @property
    def verdicts(self) -> dict[int, str]:
        """The canonical text of each verdict by the offset it was reached at."""
        return {row["offset"]: row["text"] for row in self.tables["verdicts"]}

    @property
    def names(self) -> dict[int, str]:
        """Each verdict's name by offset."""
        return {row["offset"]: row["verdict"] for row in self.tables["verdicts"]}

    def digest(self) -> str:
        """One text for all of it."""
        return hashlib.sha256(repr(sorted(self.tables.items())).encode()).hexdigest()


def fold(
    records: Sequence[Stored],
    sizes: Iterable[int] = (1_000_000,),
    *,
    kinds: Mapping[str, Kind] = KINDS,
    restart: bool = False,
) -> Folded:
    """Fold ``records`` in batches of these sizes, over and over; ``restart``: by a new engine each."""
    log = ListLog(records)
    with SqliteTables.in_memory(REGISTRY, kinds) as tables:
        engine = Engine(REGISTRY, kinds, tables)
        offset = engine.resume(log, PARTITION)
        for size in cycle(sizes):
            if offset >= len(records):
                break
            if restart:
                engine = Engine(REGISTRY, kinds, tables)
                assert engine.resume(log, PARTITION) == offset
            batch = records[offset : offset + size]
            engine.apply(PARTITION, batch)
            offset += len(batch)
        return laid_bare(tables)


def laid_bare(tables: SqliteTables) -> Folded:
    """Every row that the tables hold."""
    with tables.snapshot() as reader:
        names = reader.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", {})
        return Folded({row["name"]: sorted(reader.rows(f"SELECT * FROM {row['name']}", {}), key=repr) for row in names})
