"""Audit: fold the log again beside the live tables, and compare every chain value, every verdict and every row.

Two passes over each partition. The first only walks the chain, from record 0 to where the tables are: it tells whether
the records are those that were folded (:mod:`headrace.processors.chain_walk`). Where they are, the second folds them again
into tables of its own and compares record by record; the tables without a place in one partition are compared at the
end, row by row in the order of their keys. Memory stays bounded; the disk needs as much as the tables take.

Where the log itself was changed, its rows are not compared: what a changed log folds to says nothing about the tables.
"""

import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from headrace.errors import HaltError, HeadraceError, LogMismatchError
from headrace.log.partitioner import partition_of
from headrace.log.port import Log, LogDescription
from headrace.processors.chain_walk import ChainWalk
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory
from headrace.processors.engine import Engine
from headrace.processors.findings import Finding, Findings, Report
from headrace.processors.replay import BATCH, Progress
from headrace.projections import rows
from headrace.projections.kind_tables import column_names
from headrace.projections.port import Reader, Tables
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import account_key
from headrace.schemas.registry import Registry

_KEYS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "touches": (rows.TOUCH_COLUMNS, ("tenant", "account", "container", "container_id", "offset", "ordinal")),
    "proposals": (rows.PROPOSAL_COLUMNS, ("tenant", "account", "id")),
    "verdicts": (rows.VERDICT_COLUMNS, ("partition", "offset")),
    "sources": (rows.SOURCE_COLUMNS, ("tenant", "account", "source")),
    "claims": (rows.CLAIM_COLUMNS, ("tenant", "account", "kind", "entity")),
    "quarantine": (rows.QUARANTINE_COLUMNS, ("partition", "offset")),
}
"""Columns and key of the tables that are compared as a whole; partitions and events are compared on the way."""

_EVENTS: Final = (
    f"SELECT {', '.join(rows.EVENT_COLUMNS)} FROM events"  # noqa: S608 - our own columns
    " WHERE partition = :partition AND offset >= :first AND offset < :end ORDER BY offset"
)
_PARTITIONS: Final = f"SELECT {', '.join(rows.PARTITION_COLUMNS)} FROM partitions"  # noqa: S608 - our own columns


def verify(
    log: Log,
    tables: Tables,
    registry: Registry,
    kinds: Mapping[str, Kind],
    progress: Progress | None = None,
    *,
    limit: int = 100,
    scratch: Path | None = None,
) -> Report:
    """Compare the tables with what the log folds to, as far as the tables are folded; both may go on growing meanwhile.

    :param progress: called with how many records are done and how many there are.
    :param limit: how many findings are described; the others are only counted.
    :param scratch: directory for the tables folded aside; ``None``: the system's for temporary files.
    :raises UnavailableError: log or tables cannot be read now.
    """
    with (
        tempfile.TemporaryDirectory(prefix="headrace-audit-", dir=scratch) as folder,
        SqliteTables(Path(folder) / "refolded.db", registry, kinds, scratch=True) as refolded,
        tables.snapshot() as live,
    ):
        audit = _Audit(log, live, refolded, registry, kinds, Findings(limit), progress)
        return audit.run()


class _Audit:
    def __init__(
        self,
        log: Log,
        live: Reader,
        refolded: SqliteTables,
        registry: Registry,
        kinds: Mapping[str, Kind],
        findings: Findings,
        progress: Progress | None,
    ) -> None:
        self._log: Final = log
        self._live: Final = live
        self._refolded: Final = refolded
        self._registry: Final = registry
        self._kinds: Final = kinds
        self._engine: Final = Engine(registry, kinds, refolded)
        self._findings: Final = findings
        self._progress: Final = progress
        self._skipped: Final[set[int]] = set()
        self._records = self._rows = 0

    def run(self) -> Report:
        """Everything, in order."""
        at = {values[0]: values for values in self._live.values(_PARTITIONS, {})}
        described = self._log.describe()
        chains: dict[int, str] = {}
        if self._same_log(at, described):
            ends = {p: self._folded(p, at.get(p)) for p in range(described.partitions)}
            self._total = sum(ends.values())
            for partition, folded in ends.items():
                chains |= self._partition(partition, folded, described.ends[partition], at.get(partition))
            self._strays(described.partitions)
            with self._refolded.snapshot() as refolded:
                for table, columns, key in self._tables():
                    self._compare(refolded, table, columns, key, described.partitions)
        return Report(
            described.log_id.hex() if described.log_id is not None else None,
            described.partitions,
            self._records,
            self._rows,
            chains,
            tuple(sorted(self._skipped)),
            tuple(self._findings.kept),
            self._findings.count,
        )

    def _tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
        for table, (columns, key) in _KEYS.items():
            yield table, columns, key
        for name in sorted(self._kinds):
            yield self._kinds[name].table, column_names(self._kinds[name]), ("tenant", "account", "id")

    def _same_log(self, at: Mapping[int, tuple[Any, ...]], described: LogDescription) -> bool:
        if not at or any(values[1] == described.log_id for values in at.values()):
            return True
        ids = ", ".join(sorted({values[1].hex() for values in at.values()}))
        log_id = described.log_id.hex() if described.log_id is not None else "none"
        self._findings.add(
            Finding("log", f"the tables were folded from log {ids}, this is log {log_id}: point at the log they belong to")
        )
        return False

    def _folded(self, partition: int, at: tuple[Any, ...] | None) -> int:
        """How far the tables say the partition is folded; the events index has a say, should one of the two be forged."""
        last = next(self._live.values("SELECT max(offset) FROM events WHERE partition = :p", {"p": partition}))[0]
        return max(at[3] if at is not None else 0, last + 1 if last is not None else 0)

    # -- one partition --------------------------------------------------------------------------------------------

    def _partition(self, partition: int, folded: int, end: int, at: tuple[Any, ...] | None) -> dict[int, str]:
        """Walk, refold and compare one partition; its chain value, in hexadecimal, where the log is sound."""
        if folded == 0:
            return {}
        if folded > end and at is not None and at[3] > folded - 1 >= end:
            last = next(self._live.values("SELECT max(offset) FROM events WHERE partition = :p", {"p": partition}))[0]
            folded = max(end, last + 1 if last is not None else 0)  # only the row of the partition says more
        walk = ChainWalk(self._log, self._live, partition, self._registry)
        if folded > end:
            self._findings.add(
                Finding(
                    "log",
                    f"partition {partition} of the log ends at {end}, the tables were folded up to {folded}: the log was"
                    " truncated or replaced; restore it",
                    partition,
                    end,
                )
            )
        damaged = list(walk.damage(min(folded, end), at[4] if at is not None else None))
        for finding in damaged:
            self._findings.add(finding)
        if damaged or folded > end:
            self._skipped.add(partition)
            self._advance(folded)
            return {}
        try:
            self._refold(partition, folded)
        except HaltError as error:
            self._findings.add(Finding("halt", f"partition {partition} cannot be folded again: {error}", partition))
            self._skipped.add(partition)
            return {}
        self._compare_partition(partition, at)
        return {partition: walk.chain.hex()}

    def _refold(self, partition: int, folded: int) -> None:
        offset = self._engine.resume(self._log, partition)
        while offset < folded:
            records = self._log.read(partition, offset, min(BATCH, folded - offset))
            memory = self._engine.apply(partition, records)
            self._compare_events(memory, offset, offset + len(records))
            offset += len(records)
            self._advance(len(records))

    def _advance(self, records: int) -> None:
        self._records += records
        if self._progress is not None:
            self._progress(self._records, self._total)

    def _compare_events(self, memory: Memory, first: int, end: int) -> None:
        partition = memory.partition.partition
        expected = (rows.event_values(partition, mark, memory.notes.get(mark.entry.offset)) for mark in memory.marks)
        sql = _EVENTS
        live = self._live_rows("events", sql, {"partition": partition, "first": first, "end": end})
        self._merge("events", rows.EVENT_COLUMNS, (0, 1), live, expected)

    def _compare_partition(self, partition: int, at: tuple[Any, ...] | None) -> None:
        row = self._refolded.resume(partition)
        expected = iter([rows.partition_values(row)] if row is not None else [])
        self._merge("partitions", rows.PARTITION_COLUMNS, (0,), iter([at] if at is not None else []), expected)

    def _strays(self, partitions: int) -> None:
        """Rows of partitions that this log does not have."""
        for table in ("partitions", "events"):
            offset = "offset" if table == "events" else "next_offset"
            sql = (
                f"SELECT partition, {offset} FROM {table}"  # noqa: S608 - our own names
                " WHERE partition < 0 OR partition >= :partitions ORDER BY partition"
            )
            for partition, place in self._live.values(sql, {"partitions": partitions}):
                key = {"partition": partition, offset: place}
                self._findings.add(
                    Finding("unexpected", f"{table}: {_key(key)} belongs to no partition of this log", table=table, key=key)
                )

    # -- whole tables ---------------------------------------------------------------------------------------------

    def _compare(
        self, refolded: Reader, table: str, columns: Sequence[str], key: Sequence[str], partitions: int
    ) -> None:
        sql = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(key)}"  # noqa: S608 - our own names
        places = tuple(columns.index(name) for name in key)
        live, expected = self._live_rows(table, sql, {}), refolded.values(sql, {})
        if self._skipped:
            belongs = _belonging(columns, self._skipped, partitions)
            live, expected = filter(belongs, live), filter(belongs, expected)
        self._merge(table, columns, places, live, expected)

    def _live_rows(self, table: str, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._live.values(sql, parameters)
        except HaltError as error:
            self._findings.add(Finding("row", f"{table} cannot be read to its end: {error}", table=table))

    def _merge(
        self,
        table: str,
        columns: Sequence[str],
        places: tuple[int, ...],
        live: Iterator[tuple[Any, ...]],
        expected: Iterator[tuple[Any, ...]],
    ) -> None:
        """Compare two runs of rows in the order of their keys."""
        key_of = _key_of(places)
        mine, theirs = next(live, None), next(expected, None)
        while mine is not None or theirs is not None:
            self._rows += 1
            if mine == theirs:
                mine, theirs = next(live, None), next(expected, None)
                continue
            if theirs is None or (mine is not None and key_of(mine) < key_of(theirs)):
                assert mine is not None
                self._row("unexpected", table, columns, places, mine, "is in the tables, but the log does not lead to it")
                mine = next(live, None)
            elif mine is None or key_of(theirs) < key_of(mine):
                self._row("missing", table, columns, places, theirs, "follows from the log, but is not in the tables")
                theirs = next(expected, None)
            else:
                self._differences(table, columns, places, mine, theirs)
                mine, theirs = next(live, None), next(expected, None)

    def _row(
        self,
        what: str,
        table: str,
        columns: Sequence[str],
        places: tuple[int, ...],
        values: tuple[Any, ...],
        why: str,
    ) -> None:
        key = {columns[place]: values[place] for place in places}
        self._findings.add(Finding(what, f"{table}: the row {_key(key)} {why}", **_place(columns, values), table=table, key=key))

    def _differences(
        self,
        table: str,
        columns: Sequence[str],
        places: tuple[int, ...],
        mine: tuple[Any, ...],
        theirs: tuple[Any, ...],
    ) -> None:
        key = {columns[place]: theirs[place] for place in places}
        for column, live, refolded in zip(columns, mine, theirs, strict=True):
            if live != refolded:
                message = f"{table}: {column} of the row {_key(key)} is not what the log leads to"
                self._findings.add(
                    Finding("row", message, **_place(columns, theirs), table=table, key=key, column=column, live=live, refolded=refolded)
                )
