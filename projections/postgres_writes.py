"""What a batch changed, into PostgreSQL: a fixed number of statements, none of them row by row.

History is only added to, by ``COPY``; a few rows by an ``INSERT`` that is planned once, which answers sooner. Current
state is put in place by one ``INSERT … SELECT … FROM unnest(…) ON CONFLICT DO UPDATE`` a table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory
from headrace.processors.core.model import EntityRow, Poison
from headrace.processors.core.verdicts import canonical
from headrace.projections import rows
from headrace.projections.kind_tables import (
    column_names,
    content_column_names,
    content_values,
    intents_text,
    state_values,
)
from headrace.projections.postgres_arrays import Array, arrays, text_array
from headrace.projections.postgres_connection import Session
from headrace.projections.postgres_migrations import Columns
from headrace.projections.postgres_text import escaped
from headrace.schemas.registry import Registry

_FEW: Final = 20
"""So many rows of history are inserted; more are copied."""
_ENTITY_KEY: Final = ("tenant", "account", "id")
_CLAIM_KEY: Final = ("tenant", "account", "kind", "entity")
_RELEASED: Final = (
    "DELETE FROM claims c USING unnest(%b, %b, %b, %b)"
    " AS w (tenant, account, kind, entity) WHERE c.tenant = w.tenant AND c.account = w.account AND c.kind = w.kind"
    " AND c.entity = w.entity"
)


class _Insert(NamedTuple):
    """A statement, and the types of its parameters: one array a column."""

    statement: bytes
    types: tuple[str, ...]

    def run(self, connection: Session, values: Iterable[Sequence[Any]]) -> None:
        found = list(values)
        if found:
            connection.execute(self.statement, arrays(self.types, found))


class _History:
    """A table that is only added to. ``free`` names the columns whose text may hold any character; the others are ids
    and the like."""

    def __init__(self, table: str, names: Sequence[str], free: Sequence[str], columns: Columns) -> None:
        self._insert: Final = _insert(table, names, columns)
        self._copy: Final = f"COPY {table} ({_quoted(names)}) FROM STDIN".encode()
        self._free: Final = [names.index(name) for name in free]

    def add(
        self,
        connection: Session,
        count: int,
        values: Iterable[Sequence[Any]],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """``count`` rows. ``meanwhile`` is called while the server takes them in."""
        if count <= _FEW:
            self._insert.run(connection, values)
            meanwhile()
            return
        with connection.cursor() as cursor, cursor.copy(self._copy) as copy:
            for row in values:
                copy.write_row(self._clean(row))
            meanwhile()

    def _clean(self, row: Sequence[Any]) -> Sequence[Any]:
        for place in self._free:
            if row[place] is not None and escaped(row[place]) is not row[place]:
                row = [*row[:place], escaped(row[place]), *row[place + 1 :]]
        return row


class _Entities:
    """The table of a kind. Content is written where it was said anew; where not, it stays as it is in the table, and is
    neither read, decoded nor sent."""

    def __init__(self, registry: Registry, kind: Kind, columns: Columns) -> None:
        of_state = [name for name in column_names(kind) if name not in content_column_names(kind)]
        self._without: Final = _upsert(kind.table, of_state, _ENTITY_KEY, columns)
        self._whole: Final = _upsert(kind.table, [*of_state, *content_column_names(kind)], _ENTITY_KEY, columns)
        self._of_state: Final = state_values(kind)
        self._of_content: Final = content_values(registry, kind)

    def statements(self, partition: int, found: Iterable[EntityRow]) -> Iterable[tuple[_Insert, list[Array]]]:
        """What puts these rows in place."""
        whole: list[Sequence[Any]] = []
        without: list[Sequence[Any]] = []
        for row in found:
            values = self._values(partition, row)
            if row.renewed:
                whole.append((*values, row.content_key, row.content, *self._of_content(row)))
            else:
                without.append(values)
        for upsert, values in ((self._whole, whole), (self._without, without)):
            if values:
                yield upsert, arrays(upsert.types, values)

    def _values(self, partition: int, row: EntityRow) -> Sequence[Any]:
        tenant, account, _, id_ = row.ref
        return (
            tenant,
            account,
            id_,
            partition,
            row.first_offset,
            row.head_offset,
            row.head_check,
            row.head_time,
            canonical(row.state).decode() if row.state is not None else None,
            intents_text(row),
            *self._of_state(row),
        )


class Writer:
    """Writes what a batch changed, inside a transaction that is under way."""

    def __init__(self, registry: Registry, kinds: Mapping[str, Kind], columns: Columns) -> None:
        self._kinds: Final = kinds
        self._entities: Final = {name: _Entities(registry, kind, columns) for name, kind in kinds.items()}
        self._events: Final = _History("events", rows.EVENT_COLUMNS, ("proposal", "note"), columns)
        self._touches: Final = _History("touches", rows.TOUCH_COLUMNS, ("container_id",), columns)
        self._verdicts: Final = _History("verdicts", rows.VERDICT_COLUMNS, ("proposal", "text"), columns)
        self._quarantine: Final = _History("quarantine", rows.QUARANTINE_COLUMNS, ("reason",), columns)
        self._proposals: Final = _upsert("proposals", rows.PROPOSAL_COLUMNS, _ENTITY_KEY, columns)
        self._sources: Final = _upsert("sources", rows.SOURCE_COLUMNS, ("tenant", "account", "source"), columns)
        self._claims: Final = _upsert("claims", rows.CLAIM_COLUMNS, _CLAIM_KEY, columns)

    def write(self, connection: Session, memory: Memory, batch: Sequence[Stored]) -> None:
        """Everything but the partition's own row. A small batch is sent as a whole before any answer is waited for."""
        most = max(len(memory.marks), len(memory.touches), len(memory.judged))
        with connection.pipeline() if most <= _FEW else nullcontext():
            self._write(connection, memory, batch)

    def _write(self, connection: Session, memory: Memory, batch: Sequence[Stored]) -> None:
        partition, notes = memory.partition.partition, memory.notes
        changed: list[tuple[_Insert, list[Array]]] = []

        def prepare_entities() -> None:
            changed.extend(self._changed_entities(memory))

        events = (rows.event_values(partition, mark, notes.get(mark.entry.offset)) for mark in memory.marks)
        self._events.add(connection, len(memory.marks), events)
        # The server takes in what was sent while the entities are made ready here: it has a processor of its own.
        self._touches.add(connection, len(memory.touches), rows.touch_values(memory), prepare_entities)
        for upsert, columns in changed:
            connection.execute(upsert.statement, columns)
        self._proposals.run(
            connection, (rows.proposal_values(partition, row) for row in memory.changed_proposals.values())
        )
        self._verdicts.add(connection, len(memory.judged), rows.verdict_values(memory))
        self._sources.run(connection, (rows.source_values(row) for row in memory.changed_sources.values()))
        self._write_claims(connection, memory)
        poison = [
            rows.quarantine_values(mark, notes[mark.entry.offset], batch[mark.entry.offset - memory.first_offset])
            for mark in memory.marks
            if mark.disposition == "quarantined" or isinstance(mark.entry, Poison)
        ]
        self._quarantine.add(connection, len(poison), poison)

    def _changed_entities(self, memory: Memory) -> Iterable[tuple[_Insert, list[Array]]]:
        by_kind: dict[str, list[EntityRow]] = {}
        for ref, row in memory.changed_entities.items():
            by_kind.setdefault(ref.kind, []).append(row)
        for name, found in by_kind.items():
            yield from self._entities[name].statements(memory.partition.partition, found)

    def _write_claims(self, connection: Session, memory: Memory) -> None:
        released = [ref for ref, row in memory.changed_claims.items() if row is None]
        if released:
            connection.execute(_RELEASED, [text_array(column) for column in zip(*released, strict=True)])
        held = (rows.claim_values(row) for row in memory.changed_claims.values() if row is not None)
        self._claims.run(connection, held)


def _insert(table: str, names: Sequence[str], columns: Columns) -> _Insert:
    types = tuple(columns[table][name] for name in names)
    given = ", ".join("%b" for _ in types)
    statement = f"INSERT INTO {table} ({_quoted(names)}) SELECT * FROM unnest({given})"  # noqa: S608 - our names
    return _Insert(statement.encode(), types)


def _upsert(table: str, names: Sequence[str], key: Sequence[str], columns: Columns) -> _Insert:
    insert = _insert(table, names, columns)
    replaced = ", ".join(f'"{name}" = EXCLUDED."{name}"' for name in names if name not in key)
    conflict = f" ON CONFLICT ({_quoted(key)}) DO UPDATE SET {replaced}"
    return insert._replace(statement=insert.statement + conflict.encode())


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
