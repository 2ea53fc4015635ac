"""The typed table of an entity kind: the columns every kind has, and its own."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from headrace.errors import BadInputError
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import EntityRow, Intent, State
from headrace.processors.core.verdicts import canonical
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
    ("intents", "json", "Accepted proposals whose outcome is not known yet."),
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


def column_names(kind: Kind) -> list[str]:
    """All columns of the kind's table, in order."""
    return [name for name, _, _ in COMMON] + [column.name for column in kind.columns]


def sqlite_ddl(kind: Kind) -> Iterator[str]:
    """The statements that make the kind's table, if it is not there yet."""
    lines = [
        f"    {name} {_SQLITE_TYPES[type_]}{' NOT NULL' if name in _NOT_NULL else ''}, -- {comment}"
        for name, type_, comment in (*COMMON, *((own.name, own.type, own.comment) for own in kind.columns))
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


def typed_values(registry: Registry, kind: Kind) -> Callable[[EntityRow], list[Any]]:
    """A function from a row to the values of the kind's own columns."""
    wanted = [(place, column.name) for place, column in enumerate(kind.columns) if column.content]
    json_places = [place for place, column in enumerate(kind.columns) if column.type == "json"]
    names = [column.name if not column.content else None for column in kind.columns]

    def values(row: EntityRow) -> list[Any]:
        state: State = row.state or {}
        found = [state.get(name) if name is not None else None for name in names]
        if wanted and row.content is not None and row.content_key is None:
            content = _content(registry, row.content)
            for place, name in wanted:
                found[place] = content.get(name)
        for place in json_places:
            if found[place] is not None:
                found[place] = canonical(found[place]).decode()
        return found

    return values


def _content(registry: Registry, raw: bytes) -> dict[str, Any]:
    try:
        return registry.decode(raw).body
    except BadInputError:
        return {}  # content is never decided on; what cannot be read simply is not shown


def intents_text(row: EntityRow) -> str:
    """The intents as JSON."""
    if not row.intents:
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
            }
            for intent in row.intents
        ]
    ).decode()


def parse_intents(text: str) -> list[Intent]:
    """The intents from JSON."""
    if text == "[]":
        return []
    return [
        Intent(
            one["proposal"],
            one["type"],
            one["data"],
            one["accepted_at"],
            one["attempt"],
            bytes.fromhex(one["foreseen"]) if one["foreseen"] is not None else None,
            one["clean"],
            one["unknown"],
        )
        for one in json.loads(text)
    ]


def entity_row(ref: EntityRef, row: dict[str, Any]) -> EntityRow:
    """An entity's row from the common columns of its table."""
    state = row["state"]
    return EntityRow(
        ref,
        row["first_offset"],
        row["head_offset"],
        row["head_check"],
        row["head_time"],
        json.loads(state) if state is not None else None,
        parse_intents(row["intents"]),
        row["content"],
        row["content_key"],
    )
