"""The typed table of an entity kind: the columns every kind has, and its own."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from headrace.errors import BadInputError
from headrace.processors.core.kind import Column, Kind
from headrace.processors.core.model import EntityRow, Intent, State
from headrace.processors.core.verdicts import canonical
from headrace.projections.long_text import beginning
from headrace.schemas.refs import EntityRef
from headrace.schemas.registry import Registry

COMMON: Final = (
    ("tenant", "text", "The tenant."),
    ("account", "text", "The mailbox or calendar owner."),
    ("id", "text", "The entity's id."),
    ("partition", "integer", "The account's partition of the log."),
    ("first_offset", "integer", "Offset of its first effective event."),
    ("head_offset", "integer", "Offset of its head: its last effective event."),
    ("head_check", "bytes", "First 8 bytes of the chain there."),
    ("head_time", "time", "Log time there, epoch milliseconds UTC."),
    ("state", "json", "Its deciding state: facts only. Null before the first fact."),
    ("intents", "json", "Accepted proposals on their way; with ended true, those whose echo is still to come."),
    ("content_key", "text", "Which key seals content; null: in clear."),
    ("content", "bytes", "Personal data of the newest event that had any."),
)
_NOT_NULL: Final = frozenset(
    {"tenant", "account", "id", "partition", "first_offset", "head_offset", "head_check", "head_time", "intents"}
)
_SQLITE_TYPES: Final = {
    "text": "TEXT",
    "integer": "INTEGER",
    "boolean": "INTEGER",
    "time": "INTEGER",
    "json": "TEXT",
    "bytes": "BLOB",
}
_POSTGRES_TYPES: Final = {
    "text": "text",
    "integer": "bigint",
    "boolean": "boolean",
    "time": "bigint",
    "json": "json",  # what is decided on: exactly the text that was folded
    "bytes": "bytea",
}

_BY_CODE_POINT: Final = ' COLLATE "C"'
"""Text sorts as in SQLite and Python, whatever the database's language."""


def column_names(kind: Kind) -> list[str]:
    """All columns of the kind's table, in order."""
    return [name for name, _, _ in COMMON] + [column.name for column in kind.columns]


def content_column_names(kind: Kind) -> list[str]:
    """Of those the ones that content fills, in order."""
    return ["content_key", "content", *(column.name for column in kind.columns if column.content)]


def _all_columns(kind: Kind) -> list[tuple[str, str, str]]:
    """Name, type and comment of each, in order."""
    return [*COMMON, *((own.name, own.type, own.comment) for own in kind.columns)]


def sqlite_ddl(kind: Kind) -> Iterator[str]:
    """The statements that make the kind's table, if it is not there yet."""
    lines = [
        f"    {name} {_SQLITE_TYPES[type_]}{' NOT NULL' if name in _NOT_NULL else ''}, -- {comment}"
        for name, type_, comment in _all_columns(kind)
    ]
    body = "\n".join(lines)
    yield (
        f"-- {kind.comment}\nCREATE TABLE IF NOT EXISTS {kind.table} (\n{body}\n"
        "    PRIMARY KEY (tenant, account, id)\n) STRICT, WITHOUT ROWID"
    )
    for column in kind.columns:
        if column.indexed:
            yield (
                f"CREATE INDEX IF NOT EXISTS {kind.table}_{column.name}"
                f" ON {kind.table} (tenant, account, {column.name})"
            )


def postgres_columns(kind: Kind) -> list[tuple[str, str]]:
    """All columns of the kind's table in PostgreSQL, in order, each with the name of its type."""
    decided = [(name, _POSTGRES_TYPES[type_]) for name, type_, _ in COMMON]
    own = [(column.name, "jsonb" if column.type == "json" else _POSTGRES_TYPES[column.type]) for column in kind.columns]
    return decided + own


def postgres_ddl(kind: Kind) -> Iterator[str]:
    """The statements that make the kind's table in PostgreSQL, and a view of it as people read it."""
    columns = _all_columns(kind)
    lines = [
        f'    "{name}" {type_}{_BY_CODE_POINT if type_ == "text" else ""}{" NOT NULL" if name in _NOT_NULL else ""},\n'
        for name, type_ in postgres_columns(kind)
    ]
    # Room on every page, so that a new version of a row finds its place beside the old one and no index is touched.
    body = "".join(lines)
    yield f"CREATE TABLE {kind.table} (\n{body}    PRIMARY KEY (tenant, account, id)\n) WITH (fillfactor = 75)"
    yield f"COMMENT ON TABLE {kind.table} IS {_literal(kind.comment)}"
    for name, _, comment in columns:
        yield f'COMMENT ON COLUMN {kind.table}."{name}" IS {_literal(comment)}'
    for column in kind.columns:
        if column.indexed:
            yield _postgres_index(kind, column)
    yield from _postgres_view(kind)


def postgres_renewal(kind: Kind) -> tuple[list[str], list[str]]:
    """The statements that make anew what earlier releases made in another way: those that may take long, while
    everybody reads, and those that keep everybody out, to be run after everything else."""
    long: list[str] = []
    last: list[str] = []
    for number, column in enumerate(kind.columns):
        if column.indexed and column.type == "text":
            former = f"{kind.table}_former_{number}"
            long += [f"ALTER INDEX {kind.table}_{column.name} RENAME TO {former}", _postgres_index(kind, column)]
            last.append(f"DROP INDEX {former}")
    last += _postgres_view(kind)
    return long, last


def _postgres_index(kind: Kind, column: Column) -> str:
    index, name = f"CREATE INDEX {kind.table}_{column.name} ON {kind.table}", f'"{column.name}"'
    if column.type == "json":
        return f"{index} USING gin ({name} jsonb_path_ops)"
    return f"{index} (tenant, account, {beginning(name) if column.type == 'text' else name})"


def _postgres_view(kind: Kind) -> Iterator[str]:
    columns = _all_columns(kind)
    view, hidden = f"{kind.table}_view", {"partition", "head_check", "content", "content_key"}
    shown = [(name, type_, comment) for name, type_, comment in columns if name not in hidden]
    body = ",\n".join(
        f'    {_moment(name)} AS "{name}"' if type_ == "time" else f'    "{name}"' for name, type_, _ in shown
    )
    # With the rights of whoever asks: a view of its owner's would let anybody around row security.
    yield f"CREATE OR REPLACE VIEW {view} WITH (security_invoker) AS SELECT\n{body}\nFROM {kind.table}"
    yield f"COMMENT ON VIEW {view} IS {_literal(kind.comment + ' Times as timestamptz.')}"
    for name, type_, comment in shown:
        said = comment.replace(", epoch milliseconds UTC", "") if type_ == "time" else comment
        yield f'COMMENT ON COLUMN {view}."{name}" IS {_literal(said)}'


def _moment(column: str) -> str:
    """A time as timestamptz: one beyond what PostgreSQL counts (4713 BC to 294276 AD) would be an error of the view."""
    return (
        f'CASE WHEN "{column}" < -210866803200000 THEN \'-infinity\' WHEN "{column}" >= 9224318016000000'
        f" THEN 'infinity' ELSE to_timestamp(\"{column}\" / 1000.0) END"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def typed_values(registry: Registry, kind: Kind) -> Callable[[EntityRow], list[Any]]:
    """A function from a row to the values of the kind's own columns."""
    of_state, of_content = state_values(kind), content_values(registry, kind)
    places = [place for place, column in enumerate(kind.columns) if not column.content]
    places += [place for place, column in enumerate(kind.columns) if column.content]

    def values(row: EntityRow) -> list[Any]:
        found: list[Any] = [None] * len(places)
        for place, value in zip(places, (*of_state(row), *of_content(row)), strict=True):
            found[place] = value
        return found

    return values


def state_values(kind: Kind) -> Callable[[EntityRow], list[Any]]:
    """A function from a row to the values of those of the kind's own columns that its state decides."""
    own = [column for column in kind.columns if not column.content]
    names = [column.name for column in own]
    json_places = [place for place, column in enumerate(own) if column.type == "json"]

    def values(row: EntityRow) -> list[Any]:
        state: State = row.state or {}
        found = [state.get(name) for name in names]
        for place in json_places:
            if found[place] is not None:
                found[place] = canonical(found[place]).decode()
        return found

    return values


def content_values(registry: Registry, kind: Kind) -> Callable[[EntityRow], list[Any]]:
    """A function from a row to the values of those of the kind's own columns that its content fills."""
    own = [column for column in kind.columns if column.content]
    json_places = [place for place, column in enumerate(own) if column.type == "json"]

    def values(row: EntityRow) -> list[Any]:
        if not own or row.content is None or row.content_key is not None:
            return [None] * len(own)
        content = _content(registry, row.content)
        found = [content.get(column.name) for column in own]
        for place in json_places:
            if found[place] is not None:
                found[place] = canonical(found[place]).decode()
        return found

    return values


def _content(registry: Registry, raw: bytes) -> dict[str, Any]:
    try:
        return registry.decode_nested(raw).body
    except BadInputError:
        return {}  # content is never decided on; what cannot be read simply is not shown


def intents_text(row: EntityRow) -> str:
    """The intents as JSON, those of which only the echo is still to come at the end."""
    if not row.intents and not row.awaited:
        return "[]"
    return canonical(
        [
            {
                "proposal": intent.proposal,
                "type": intent.type,
                "data": intent.data,
                "accepted_at": intent.accepted_at,
                "attempt": intent.attempt,
                "foreseen": intent.foreseen.hex() if intent.foreseen is not None else None,
                "clean": intent.clean,
                "unknown": intent.unknown,
                "echo": intent.echo.hex() if intent.echo is not None else None,
                "mark": intent.mark,
                "agent": intent.agent,
                "reference": intent.reference,
                "ended": ended,
            }
            for intents, ended in ((row.intents, False), (row.awaited, True))
            for intent in intents
        ]
    ).decode()


def put_intents(row: EntityRow, text: str) -> None:
    """Give the row its intents, from JSON."""
    if text == "[]":
        return
    for one in json.loads(text):
        intent = Intent(
            one["proposal"],
            one["type"],
            one["data"],
            one["accepted_at"],
            one["attempt"],
            _bytes(one["foreseen"]),
            one["clean"],
            one["unknown"],
            _bytes(one.get("echo")),
            one.get("mark"),
            one.get("agent", ""),
            one.get("reference"),
        )
        (row.awaited if one.get("ended") else row.intents).append(intent)


def _bytes(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text is not None else None


def entity_row(ref: EntityRef, row: dict[str, Any]) -> EntityRow:
    """An entity's row from the common columns of its table."""
    state = row["state"]
    found = EntityRow(
        ref,
        row["first_offset"],
        row["head_offset"],
        row["head_check"],
        row["head_time"],
        json.loads(state) if state is not None else None,
        content=row["content"],
        content_key=row["content_key"],
    )
    put_intents(found, row["intents"])
    return found
