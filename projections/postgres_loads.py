"""What a batch needs, out of PostgreSQL: a fixed number of statements, each with the wanted keys as arrays."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import dict_row

from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory
from headrace.processors.core.model import ClaimRow, EntityRow, Known
from headrace.projections import rows
from headrace.projections.kind_tables import put_intents
from headrace.projections.long_text import equal
from headrace.projections.port import Wants
from headrace.projections.postgres_arrays import Array, bytes_array, integer_array, text_array
from headrace.projections.postgres_connection import Session
from headrace.projections.postgres_text import unescaped, unescaped_json
from headrace.schemas.refs import EntityRef, Touch

_EVENT: Final = ", ".join(f'e."{name}"' for name in rows.EVENT_COLUMNS)

# Each wanted key is looked up in an index, whatever the statistics say: OFFSET 0 keeps a lookup what it is. A join
# may be turned round, and then all of a partition is gone through and held against the wanted keys.
_PROPOSALS: Final = (
    "SELECT t.* FROM unnest(%b, %b, %b) AS w (tenant, account, id) CROSS JOIN LATERAL (SELECT * FROM proposals t"
    " WHERE t.tenant = w.tenant AND t.account = w.account AND t.id = w.id OFFSET 0) t"
)
# Which of the wanted it is comes back as a number, not as three texts; json as text, for a loader written in C.
_ENTITIES: Final = (
    "SELECT w.n, t.first_offset, t.head_offset, t.head_check, t.head_time, t.state::text, t.intents::text, t.content,"
    " t.content_key FROM unnest(%b, %b, %b) WITH ORDINALITY AS w (tenant, account, id, n) CROSS JOIN LATERAL"
    " (SELECT * FROM {table} t WHERE t.tenant = w.tenant AND t.account = w.account AND t.id = w.id OFFSET 0) t"
)
_IDENTITIES: Final = (
    'SELECT e.identity, e."offset", e.body_hash FROM unnest(%b) AS w (identity) CROSS JOIN LATERAL'
    " (SELECT * FROM events e WHERE e.identity = w.identity AND e.identity IS NOT NULL OFFSET 0) e"
)
_SOURCES: Final = (
    "SELECT t.* FROM unnest(%b, %b) AS w (tenant, account) CROSS JOIN LATERAL (SELECT * FROM sources t"
    " WHERE t.tenant = w.tenant AND t.account = w.account OFFSET 0) t"
)
_CLAIMS: Final = (
    "SELECT t.* FROM unnest(%b, %b, %b, %b) AS w (tenant, account, kind, entity) CROSS JOIN LATERAL"
    " (SELECT * FROM claims t WHERE t.tenant = w.tenant AND t.account = w.account AND t.kind = w.kind"
    " AND t.entity = w.entity OFFSET 0) t"
)
_KNOWN: Final = (
    'SELECT e."offset", e.chain, e.effect IS NOT NULL, e.tenant, e.account, e.kind, e.entity, e.log_time'
    " FROM unnest(%b) AS w (place) CROSS JOIN LATERAL (SELECT * FROM events e"
    ' WHERE e."partition" = %s AND e."offset" = w.place OFFSET 0) e'
)
_SINCE: Final = (
    f"SELECT {_EVENT} FROM unnest(%b, %b, %b, %b, %b)"  # noqa: S608 - ours
    " AS w (tenant, account, kind, entity, after) CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.tenant = w.tenant"
    " AND e.account = w.account AND e.kind = w.kind AND e.entity = w.entity"
    ' AND e."offset" > w.after AND e.effect IS NOT NULL OFFSET 0) e ORDER BY e."offset"'
)
_TOUCHING: Final = (
    f"SELECT {_EVENT}, t.container, t.container_id, t.starts_at, t.ends_at"  # noqa: S608 - our names
    " FROM unnest(%b, %b, %b, %b, %b)"
    " AS w (tenant, account, container, container_id, after) CROSS JOIN LATERAL (SELECT * FROM touches t"
    " WHERE t.tenant = w.tenant AND t.account = w.account AND t.container = w.container"
    f' AND {equal("t.container_id", "w.container_id")} AND t."offset" > w.after OFFSET 0) t'
    " CROSS JOIN LATERAL (SELECT * FROM events e"
    ' WHERE e."partition" = %s AND e."offset" = t."offset" OFFSET 0) e ORDER BY t."offset", t.ordinal'
)


def load(connection: Session, kinds: Mapping[str, Kind], memory: Memory, wants: Wants) -> None:
    """Put the wanted rows into ``memory``. All questions are asked at once: waiting for each answer before the next
    question would cost a small batch more than the answers do."""
    questions = list(_questions(connection, kinds, memory, wants))
    if len(questions) > 1:
        with connection.pipeline():
            for question in questions:
                next(question)
    for question in questions:
        for _ in question:
            """Asked; next comes the answer."""


def _questions(
    connection: Session, kinds: Mapping[str, Kind], memory: Memory, wants: Wants
) -> Iterator[Iterator[None]]:
    """Each asks, yields, and takes the answer."""
    if wants.proposals:
        yield _proposals(connection, memory, wants)
    by_kind: dict[str, list[EntityRef]] = {}
    for ref in sorted(wants.entities):
        by_kind.setdefault(ref.kind, []).append(ref)
    for name, refs in by_kind.items():
        if name in kinds:
            yield _entities(connection, kinds[name].table, memory, refs)
    if wants.identities:
        yield _identities(connection, memory, wants)
    if wants.accounts:
        yield _sources(connection, memory, wants)
    if wants.claims:
        yield _claims(connection, memory, wants)
    if wants.known:
        yield _known(connection, memory, wants)
    if wants.since:
        yield _since(connection, memory, wants)
    if wants.touching:
        yield _touching(connection, memory, wants)


def _proposals(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    asked = _named(connection, _PROPOSALS, _texts(sorted(wants.proposals)))
    yield
    for row in _shown(asked):
        memory.proposals[row["tenant"], row["account"], row["id"]] = rows.proposal_row(row)


def _entities(connection: Session, table: str, memory: Memory, refs: Sequence[EntityRef]) -> Iterator[None]:
    keys = _texts([(ref.tenant, ref.account, ref.id) for ref in refs])
    asked = connection.execute(_ENTITIES.format(table=table).encode(), keys, binary=True)
    yield
    for place, first, head, check, time, state, intents, content, content_key in asked:
        ref = refs[place - 1]
        row = memory.entities[ref] = EntityRow(
            ref,
            first,
            head,
            check,
            time,
            json.loads(unescaped_json(state)) if state is not None else None,
            content=content,
            content_key=unescaped(content_key) if content_key is not None else None,
        )
        put_intents(row, unescaped_json(intents))


def _identities(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    asked = connection.execute(_IDENTITIES.encode(), [bytes_array(wants.identities)], binary=True)
    yield
    for identity, offset, body_hash in asked:
        memory.identities[identity] = offset, body_hash


def _sources(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    asked = _named(connection, _SOURCES, _texts(sorted(wants.accounts)))
    yield
    for row in _shown(asked):
        source = rows.source_row(row)
        memory.sources.setdefault((source.tenant, source.account), {})[source.source] = source


def _claims(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    asked = _named(connection, _CLAIMS, _texts(sorted(wants.claims)))
    yield
    for row in _shown(asked):
        ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
        memory.claims[ref] = ClaimRow(ref, row["claim"], row["holder"], row["until"], row["offset"])


def _known(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    places = [integer_array(sorted(wants.known)), memory.partition.partition]
    asked = connection.execute(_KNOWN.encode(), places, binary=True)
    yield
    for offset, chain, effective, *known, log_time in asked:
        memory.known[offset] = Known(chain[:8], EntityRef(*known) if effective else None, log_time)


def _since(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    asked = _named(connection, _SINCE, _after(wants.since))
    yield
    for row in _shown(asked):
        ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
        memory.since[ref].append(rows.effect_row(row, ref))


def _touching(connection: Session, memory: Memory, wants: Wants) -> Iterator[None]:
    asked = _named(connection, _TOUCHING, [*_after(wants.touching), memory.partition.partition])
    yield
    for row in _shown(asked):
        ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
        touch = Touch(row["container"], row["container_id"], row["starts_at"], row["ends_at"])
        key = (ref.tenant, ref.account, touch.container, touch.id)
        memory.touching[key].append((touch, rows.effect_row(row, ref)))


def _named(connection: Session, statement: str, parameters: Sequence[Any]) -> Cursor[dict[str, Any]]:
    """Rows by column name."""
    return connection.cursor(row_factory=dict_row).execute(statement.encode(), parameters)


def _shown(asked: Cursor[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Their texts as they were written."""
    for row in asked:
        for name, value in row.items():
            if isinstance(value, str):
                row[name] = unescaped(value)
        yield row


def _texts(keys: Iterable[Sequence[str]]) -> list[Array]:
    return [text_array(column) for column in zip(*keys, strict=True)]


def _after(wanted: Mapping[Any, int]) -> list[Any]:
    ordered = sorted(wanted.items())
    return [*_texts([key for key, _ in ordered]), integer_array([offset for _, offset in ordered])]
