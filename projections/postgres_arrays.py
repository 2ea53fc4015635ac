"""Columns of values as PostgreSQL's array literals: what set-wise statements take, one parameter a column.

Written by hand because it runs for every row the fold changes: a column is escaped as one string, not value by value,
which costs a seventh of what psycopg's own lists do (PostgreSQL 18 documentation, §8.15.6, "Array Input and Output
Syntax").
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from headrace.projections.postgres_text import escaped, escaped_json

_BETWEEN: Final = "\x02"
_NULL: Final = "\x03"
_SPECIAL: Final = ("\0", "\x01")


def text_array(values: Sequence[str | None]) -> str:
    """Of texts, ``None`` among them or not."""
    joined = _BETWEEN.join([_NULL if value is None else value for value in values])
    nulls = joined.count(_NULL)
    if (
        joined.count(_BETWEEN) != len(values) - 1  # also where there are no values
        or (nulls and nulls != sum(value is None for value in values))
        or any(character in joined for character in _SPECIAL)
    ):
        return "{" + ",".join(map(_quoted, values)) + "}"
    literal = '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace(_BETWEEN, '","') + '"}'
    return literal.replace(f'"{_NULL}"', "NULL") if nulls else literal


def _quoted(value: str | None) -> str:
    return "NULL" if value is None else '"' + escaped(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def json_array(values: Sequence[str | None]) -> str:
    """Of JSON texts."""
    return text_array([None if value is None else escaped_json(value) for value in values])


def integer_array(values: Iterable[int | None]) -> str:
    """Of integers."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def boolean_array(values: Iterable[bool | int | None]) -> str:
    """Of booleans."""
    return "{" + ",".join(["NULL" if value is None else "t" if value else "f" for value in values]) + "}"


def bytes_array(values: Iterable[bytes | None]) -> str:
    """Of byte strings."""
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


_BY_TYPE: Final[Mapping[str, Callable[[Sequence[Any]], str]]] = {
    "text": text_array,
    "bigint": integer_array,
    "boolean": boolean_array,
    "json": json_array,
    "jsonb": json_array,
    "bytea": bytes_array,
}


def arrays(types: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Rows as one array a column, ``types`` naming the columns' types. There is at least one row."""
    return [_BY_TYPE[type_](column) for type_, column in zip(types, zip(*rows, strict=True), strict=True)]
