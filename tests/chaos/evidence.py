"""Everything the checker looks at, as plain data: what clients say, what the log holds, what the tables hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from headrace.log.framing import GENESIS, chain
from headrace.log.port import Log, LogDescription, Record, Stored
from headrace.processors.core.kind import Kind
from headrace.projections import rows
from headrace.projections.kind_tables import column_names
from headrace.projections.port import Tables
from headrace.schemas.refs import Position, parse_account_key
from headrace.schemas.registry import Registry
from tests.chaos.history import Operation

Row = Mapping[str, Any]
_READ_AT_ONCE: Final = 1_000
_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "partitions": rows.PARTITION_COLUMNS,
    "events": rows.EVENT_COLUMNS,
    "touches": rows.TOUCH_COLUMNS,
    "proposals": rows.PROPOSAL_COLUMNS,
    "verdicts": rows.VERDICT_COLUMNS,
    "sources": rows.SOURCE_COLUMNS,
    "claims": rows.CLAIM_COLUMNS,
    "quarantine": rows.QUARANTINE_COLUMNS,
}


class Landed(NamedTuple):
    """A record of an account, as its headers name it."""

    position: Position
    key: tuple[str, str, str]
    type: str
    source: str


class Violation(NamedTuple):
    """A rule that does not hold, and where."""

    rule: str
    message: str


@dataclass(frozen=True)
class Evidence:
    """``log`` has every record of every partition from offset 0 on, ``tables`` every row of every table by name."""

    history: Sequence[Operation]
    log: Sequence[Sequence[Stored]]
    tables: Mapping[str, Sequence[Row]]
    registry: Registry
    kinds: Mapping[str, Kind]

    @cached_property
    def landed(self) -> tuple[Landed, ...]:
        """The accounts' records, partition by partition in log order."""
        found: list[Landed] = []
        for run in self.log:
            for stored in run:
                if stored.key is None:
                    continue
                headers = dict(stored.headers)
                key = (*parse_account_key(stored.key), headers["ce_id"].decode())
                kind, source = headers["ce_type"].decode(), headers["ce_source"].decode()
                found.append(Landed(Position(stored.partition, stored.offset), key, kind, source))
        return tuple(found)

    @cached_property
    def chains(self) -> tuple[tuple[bytes, ...], ...]:
        """The chain's value at every record, computed anew."""
        found: list[tuple[bytes, ...]] = []
        for run in self.log:
            value, values = GENESIS, list[bytes]()
            for stored in run:
                value = chain(value, stored)
                values.append(value)
            found.append(tuple(values))
        return tuple(found)

    @cached_property
    def log_id(self) -> bytes:
        """As partition 0's opening says."""
        body = self.registry.decode(self.log[0][0].value).body
        return bytes.fromhex(body["log_id"])

    @cached_property
    def verdicts(self) -> dict[Position, Row]:
        """The rows of ``verdicts`` by position."""
        return {Position(row["partition"], row["offset"]): row for row in self.tables["verdicts"]}

    @cached_property
    def events(self) -> dict[Position, Row]:
        """The rows of ``events`` by position."""
        return {Position(row["partition"], row["offset"]): row for row in self.tables["events"]}


class Recorded:
    """The records of an evidence as a log to read from, for folding them again."""

    def __init__(self, evidence: Evidence) -> None:
        self._log: Final = evidence.log
        self._id: Final = evidence.log_id

    def append(self, records: Sequence[Record]) -> list[Position]:
        """Nothing is added to evidence."""
        raise AssertionError("evidence is read, never written")

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :class:`headrace.log.port.Log`."""
        return list(self._log[partition][offset : offset + limit])

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """See :class:`headrace.log.port.Log`; never blocks."""
        return frozenset(partition for partition, offset in after.items() if len(self._log[partition]) > offset)

    def describe(self) -> LogDescription:
        """See :class:`headrace.log.port.Log`."""
        return LogDescription(self._id, len(self._log), tuple(map(len, self._log)), None)


def gathered(
    history: Sequence[Operation], log: Log, tables: Tables, registry: Registry, kinds: Mapping[str, Kind]
) -> Evidence:
    """The evidence that an open log and open tables give."""
    runs: list[list[Stored]] = []
    for partition, end in enumerate(log.describe().ends):
        run: list[Stored] = []
        while len(run) < end:
            run += log.read(partition, len(run), min(_READ_AT_ONCE, end - len(run)))
        runs.append(run)
    return Evidence(history, runs, contents(tables, kinds), registry, kinds)


def contents(tables: Tables, kinds: Mapping[str, Kind]) -> dict[str, list[Row]]:
    """Every row of every table. The only thing made alike between adapters is how a boolean looks."""
    found: dict[str, list[Row]] = {}
    columns = {**_COLUMNS, **{kind.table: column_names(kind) for kind in kinds.values()}}
    with tables.snapshot() as reader:
        for table, names in columns.items():
            run = reader.values(f"SELECT {', '.join(names)} FROM {table}", {})
            found[table] = [
                dict(zip(names, (int(one) if isinstance(one, bool) else one for one in row), strict=True))
                for row in run
            ]
    return found
