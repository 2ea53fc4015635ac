"""What a batch needs, out of PostgreSQL: a fixed number of statements, each with the wanted keys as arrays."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg.rows import dict_row

from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import ContainerKey, Memory
from headrace.processors.core.model import ClaimRow, EntityRow, Known
from headrace.projections import rows
from headrace.projections.kind_tables import parse_intents
from headrace.projections.port import Wants
from headrace.projections.postgres_arrays import Array, bytes_array, integer_array, text_array
from headrace.projections.postgres_connection import Session
from headrace.projections.postgres_text import unescaped, unescaped_json
from headrace.schemas.refs import EntityRef, Touch

_EVENT: Final = ", ".join(f'e."{name}"' for name in rows.EVENT_COLUMNS)

_PROPOSALS: Final = (
    "SELECT t.* FROM unnest(%b, %b, %b) AS w (tenant, account, id)"
    " JOIN proposals t ON t.tenant = w.tenant AND t.account = w.account AND t.id = w.id"
)
# Which of the wanted it is comes back as a number, not as three texts; json as text, for a loader written in C.
_ENTITIES: Final = (
    "SELECT w.n, t.first_offset, t.head_offset, t.head_check, t.head_time, t.state::text, t.intents::text, t.content,"
    " t.content_key FROM unnest(%b, %b, %b) WITH ORDINALITY AS w (tenant, account, id, n)"
    " JOIN {table} t ON t.tenant = w.tenant AND t.account = w.account AND t.id = w.id"
)
_IDENTITIES: Final = (
    'SELECT e.identity, e."offset", e.body_hash FROM unnest(%b) AS w (identity)'
    " JOIN events e ON e.identity = w.identity AND e.identity IS NOT NULL"
)
_SOURCES: Final = (
    "SELECT t.* FROM unnest(%b, %b) AS w (tenant, account)"
    " JOIN sources t ON t.tenant = w.tenant AND t.account = w.account"
)
_CLAIMS: Final = (
    "SELECT t.* FROM unnest(%b, %b, %b, %b) AS w (tenant, account, kind, entity)"
    " JOIN claims t ON t.tenant = w.tenant AND t.account = w.account AND t.kind = w.kind AND t.entity = w.entity"
)
_KNOWN: Final = (
    'SELECT e."offset", e.chain, e.effect IS NOT NULL, e.tenant, e.account, e.kind, e.entity, e.log_time'
    ' FROM unnest(%b) AS w (place) JOIN events e ON e."partition" = %s AND e."offset" = w.place'
)
_SINCE: Final = (
    f"SELECT {_EVENT} FROM unnest(%b, %b, %b, %b, %b)"  # noqa: S608 - ours
    " AS w (tenant, account, kind, entity, after) JOIN events e ON e.tenant = w.tenant AND e.account = w.account"
    ' AND e.kind = w.kind AND e.entity = w.entity AND e."offset" > w.after AND e.effect IS NOT NULL'
    ' ORDER BY e."offset"'
)
_TOUCHING: Final = (
    f"SELECT {_EVENT}, t.container, t.container_id, t.starts_at, t.ends_at"  # noqa: S608 - our names
    " FROM unnest(%b, %b, %b, %b, %b)"
    " AS w (tenant, account, container, container_id, after)"
    " JOIN touches t ON t.tenant = w.tenant AND t.account = w.account AND t.container = w.container"
    ' AND t.container_id = w.container_id AND t."offset" > w.after'
    ' JOIN events e ON e."partition" = %s AND e."offset" = t."offset" ORDER BY t."offset", t.ordinal'
)


def load(connection: Session, kinds: Mapping[str, Kind], memory: Memory, wants: Wants) -> None:
    """Put the wanted rows into ``memory``."""
    here = memory.partition.partition
    if wants.proposals:
        for row in _named(connection, _PROPOSALS, _texts(sorted(wants.proposals))):
            memory.proposals[row["tenant"], row["account"], row["id"]] = rows.proposal_row(row)
    if wants.entities:
        _load_entities(connection, kinds, memory, wants.entities)
    if wants.identities:
        for found in connection.execute(_IDENTITIES.encode(), [bytes_array(wants.identities)], binary=True):
            memory.identities[found[0]] = (found[1], found[2])
    if wants.accounts:
        for row in _named(connection, _SOURCES, _texts(sorted(wants.accounts))):
            source = rows.source_row(row)
            memory.sources.setdefault((source.tenant, source.account), {})[source.source] = source
    if wants.claims:
        for row in _named(connection, _CLAIMS, _texts(sorted(wants.claims))):
            ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
            memory.claims[ref] = ClaimRow(ref, row["claim"], row["holder"], row["until"], row["offset"])
    if wants.known:
        for offset, chain, effective, *known, log_time in connection.execute(
            _KNOWN.encode(), [integer_array(sorted(wants.known)), here], binary=True
        ):
            memory.known[offset] = Known(chain[:8], EntityRef(*known) if effective else None, log_time)
    if wants.since:
        for row in _named(connection, _SINCE, _after(wants.since)):
            ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
            memory.since[ref].append(rows.effect_row(row, ref))
    if wants.touching:
        _load_touching(connection, memory, wants.touching)


def _load_entities(connection: Session, kinds: Mapping[str, Kind], memory: Memory, wanted: Iterable[EntityRef]) -> None:
    by_kind: dict[str, list[EntityRef]] = {}
    for ref in sorted(wanted):
        by_kind.setdefault(ref.kind, []).append(ref)
    for name, refs in by_kind.items():
        kind = kinds.get(name)
        if kind is None:
            continue
        statement = _ENTITIES.format(table=kind.table).encode()
        keys = _texts([(ref.tenant, ref.account, ref.id) for ref in refs])
        for place, first, head, check, time, state, intents, content, content_key in connection.execute(
            statement, keys, binary=True
        ):
            ref = refs[place - 1]
            memory.entities[ref] = EntityRow(
                ref,
                first,
                head,
                check,
                time,
                json.loads(unescaped_json(state)) if state is not None else None,
                parse_intents(unescaped_json(intents)),
                content,
                unescaped(content_key) if content_key is not None else None,
            )


def _load_touching(connection: Session, memory: Memory, touching: Mapping[ContainerKey, int]) -> None:
    for row in _named(connection, _TOUCHING, [*_after(touching), memory.partition.partition]):
        ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
        touch = Touch(row["container"], row["container_id"], row["starts_at"], row["ends_at"])
        key = (ref.tenant, ref.account, touch.container, touch.id)
        memory.touching[key].append((touch, rows.effect_row(row, ref)))


def _named(connection: Session, statement: str, parameters: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Rows by column name, their texts as they were written."""
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(statement.encode(), parameters):
            for name, value in row.items():
                if isinstance(value, str):
                    row[name] = unescaped(value)
            yield row


def _texts(keys: Iterable[Sequence[str]]) -> list[Array]:
    return [text_array(column) for column in zip(*keys, strict=True)]


def _after(wanted: Mapping[Any, int]) -> list[Any]:
    ordered = sorted(wanted.items())
    return [*_texts([key for key, _ in ordered]), integer_array([offset for _, offset in ordered])]
