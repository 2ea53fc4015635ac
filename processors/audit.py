"""Audit: fold the log again beside the live tables, and compare every chain value, every verdict and every row.

Two passes over each partition. The first only walks the chain, from record 0 to where the tables are: it tells whether
the records are those that were folded (:mod:`headrace.processors.chain_walk`). Where they are, the second folds them
again into tables of its own and compares the events index on the way; the other tables are compared at the end, row by
row in the order of their keys. Memory stays bounded; the disk needs once more what the tables take.

Where the log itself was changed, its rows are not compared: what a changed log folds to says nothing about the tables.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from headrace.errors import HaltError
from headrace.log.partitioner import partition_of
from headrace.log.port import Log, LogDescription
from headrace.processors.chain_walk import ChainWalk
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory
from headrace.processors.engine import Engine
from headrace.processors.findings import Finding, Findings, Report, named
from headrace.processors.replay import BATCH, Progress
from headrace.processors.row_comparison import RowComparison, Values
from headrace.projections import rows
from headrace.projections.kind_tables import column_names
from headrace.projections.port import Reader, Tables
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import account_key
from headrace.schemas.registry import Registry

_WHOLE: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "touches": (rows.TOUCH_COLUMNS, ("tenant", "account", "container", "container_id", "offset", "ordinal")),
    "proposals": (rows.PROPOSAL_COLUMNS, ("tenant", "account", "id")),
    "verdicts": (rows.VERDICT_COLUMNS, ("partition", "offset")),
    "sources": (rows.SOURCE_COLUMNS, ("tenant", "account", "source")),
    "claims": (rows.CLAIM_COLUMNS, ("tenant", "account", "kind", "entity")),
    "quarantine": (rows.QUARANTINE_COLUMNS, ("partition", "offset")),
}
"""Columns and key of the tables that are compared as a whole."""

_EVENTS: Final = (
    f"SELECT {', '.join(rows.EVENT_COLUMNS)} FROM events"  # noqa: S608 - our own columns
    " WHERE partition = :partition AND offset >= :first AND offset < :end ORDER BY offset"
)
_PARTITIONS: Final = f"SELECT {', '.join(rows.PARTITION_COLUMNS)} FROM partitions"  # noqa: S608 - our own columns
_LAST: Final = "SELECT max(offset) FROM events WHERE partition = :partition"


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
    """Compare the tables with what the log folds to, as far as the tables are folded; both may grow on meanwhile.

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
        engine = Engine(registry, kinds, refolded)
        return _Audit(log, live, refolded, engine, kinds, findings=Findings(limit), progress=progress).run()


class _Audit:
    def __init__(
        self,
        log: Log,
        live: Reader,
        refolded: SqliteTables,
        engine: Engine,
        kinds: Mapping[str, Kind],
        *,
        findings: Findings,
        progress: Progress | None,
    ) -> None:
        self._log: Final = log
        self._live: Final = live
        self._refolded: Final = refolded
        self._engine: Final = engine
        self._kinds: Final = kinds
        self._findings: Final = findings
        self._progress: Final = progress
        self._events: Final = RowComparison("events", rows.EVENT_COLUMNS, ("partition", "offset"), findings)
        self._skipped: Final[set[int]] = set()
        self._done = self._total = self._rows = 0

    def run(self) -> Report:
        """Everything, in order."""
        described = self._log.describe()
        chains: dict[int, str] = {}
        try:
            at = {values[0]: values for values in self._live.values(_PARTITIONS, {})}
            if self._same_log(at, described):
                self._total = sum(values[3] for partition, values in at.items() if partition < described.partitions)
                chains = self._partitions(at, described)
                self._strays(described.partitions)
                self._whole_tables(described.partitions)
        except HaltError as error:
            self._findings.add(Finding("halt", f"the tables cannot be compared: {error}"))
        return Report(
            described.log_id.hex() if described.log_id is not None else None,
            described.partitions,
            self._done,
            self._rows,
            chains,
            tuple(sorted(self._skipped)),
            tuple(self._findings.kept),
            self._findings.count,
        )

    def _same_log(self, at: Mapping[int, Values], described: LogDescription) -> bool:
        if not at or any(values[1] == described.log_id for values in at.values()):
            return True
        ids = ", ".join(sorted({values[1].hex() for values in at.values()}))
        here = described.log_id.hex() if described.log_id is not None else "none"
        message = f"the tables were folded from log {ids}, this is log {here}; point at the log that they belong to"
        self._findings.add(Finding("log", message))
        return False

    def _partitions(self, at: Mapping[int, Values], described: LogDescription) -> dict[int, str]:
        """Every partition for itself; the chain values of those that are sound, in hexadecimal."""
        chains: dict[int, str] = {}
        for partition, end in enumerate(described.ends):
            try:
                value = self._partition(partition, end, at.get(partition))
            except HaltError as error:
                message = f"partition {partition} cannot be folded again and compared: {error}"
                self._findings.add(Finding("halt", message, partition))
                self._skipped.add(partition)
            else:
                chains |= {partition: value.hex()} if value is not None else {}
        return chains

    # -- one partition --------------------------------------------------------------------------------------------

    def _partition(self, partition: int, end: int, at: Values | None) -> bytes | None:
        """Walk, refold and compare one partition; its chain value where the log is sound.

        :raises HaltError: this installation cannot fold it, or what is in the tables cannot be read.
        """
        claimed, said = (at[3], at[4]) if at is not None else (0, None)
        last = next(self._live.values(_LAST, {"partition": partition}))[0]
        indexed = last + 1 if last is not None else 0
        folded = claimed
        walk = ChainWalk(self._log, self._live, partition, min(folded, end))
        if claimed != indexed and (claimed > end or walk.chain != said):
            folded = indexed  # the partition's row is not to be believed; the comparison will say so
            walk = ChainWalk(self._log, self._live, partition, min(folded, end))
        before = self._findings.count
        for finding in walk.damage(said):
            self._findings.add(finding)
        if folded > end:
            message = (
                f"partition {partition} of the log ends at {end}, the tables were folded up to {folded}: the log was"
                " cut off or replaced; restore it from a backup"
            )
            self._findings.add(Finding("log", message, partition, end))
        if self._findings.count > before:
            self._skipped.add(partition)
            return None
        self._refold(partition, folded, indexed)
        row = self._refolded.resume(partition)
        self._rows += RowComparison("partitions", rows.PARTITION_COLUMNS, ("partition",), self._findings).run(
            iter([at] if at is not None else []), iter([rows.partition_values(row)] if row is not None else [])
        )
        return walk.chain

    def _refold(self, partition: int, folded: int, indexed: int) -> None:
        """Fold the partition again and compare its events."""
        offset = self._engine.resume(self._log, partition) if folded else 0
        while offset < folded:
            records = self._log.read(partition, offset, min(BATCH, folded - offset))
            memory = self._engine.apply(partition, records)
            self._compare_events(memory, partition, offset, offset + len(records))
            offset += len(records)
            self._done += len(records)
            if self._progress is not None:
                self._progress(self._done, max(self._total, self._done))
        self._compare_events(None, partition, folded, max(indexed, folded))

    def _compare_events(self, memory: Memory | None, partition: int, first: int, end: int) -> None:
        marks = memory.marks if memory is not None else []
        notes = memory.notes if memory is not None else {}
        refolded = (rows.event_values(partition, mark, notes.get(mark.entry.offset)) for mark in marks)
        live = self._live.values(_EVENTS, {"partition": partition, "first": first, "end": end})
        self._rows += self._events.run(live, refolded)

    def _strays(self, partitions: int) -> None:
        """Rows of partitions that this log does not have."""
        for table, place in (("partitions", "next_offset"), ("events", "offset")):
            sql = (
                f"SELECT partition, {place} FROM {table}"  # noqa: S608 - our own names
                " WHERE partition < 0 OR partition >= :partitions ORDER BY partition"
            )
            for partition, offset in self._live.values(sql, {"partitions": partitions}):
                key = {"partition": partition, place: offset}
                message = f"{table}: the row {named(key)} belongs to no partition of this log"
                self._findings.add(Finding("unexpected", message, table=table, key=key))

    # -- whole tables ---------------------------------------------------------------------------------------------

    def _whole_tables(self, partitions: int) -> None:
        with self._refolded.snapshot() as refolded:
            for table, columns, key in self._tables():
                self._compare(refolded, table, columns, key, partitions)

    def _tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
        for table, (columns, key) in _WHOLE.items():
            yield table, columns, key
        for _, kind in sorted(self._kinds.items()):
            yield kind.table, column_names(kind), ("tenant", "account", "id")

    def _compare(
        self, refolded: Reader, table: str, columns: Sequence[str], key: Sequence[str], partitions: int
    ) -> None:
        sql = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(key)}"  # noqa: S608 - our own names
        live, expected = self._live.values(sql, {}), refolded.values(sql, {})
        if self._skipped:
            compared = self._compared(columns, partitions)
            live, expected = filter(compared, live), filter(compared, expected)
        try:
            self._rows += RowComparison(table, columns, key, self._findings).run(live, expected)
        except HaltError as error:
            self._findings.add(Finding("row", f"{table} cannot be read to its end: {error}", table=table))

    def _compared(self, columns: Sequence[str], partitions: int) -> Callable[[Values], bool]:
        """Whether a row is of a partition that was folded again."""
        if "partition" in columns:
            place = columns.index("partition")
            return lambda values: values[place] not in self._skipped
        tenant, account = columns.index("tenant"), columns.index("account")
        return lambda values: (
            partition_of(account_key(values[tenant], values[account]), partitions) not in self._skipped
        )
