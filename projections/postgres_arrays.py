"""Columns of values as PostgreSQL's arrays in their binary form: what set-wise statements take, one parameter a column.

Written by hand because it runs for every row the fold changes: psycopg's own lists cost several times as much. The form
is that of ``array_send`` (src/backend/utils/adt/arrayfuncs.c): dimensions, a flag for nulls, the elements' type, length
and lower bound, then every element after its length, all big-endian; a null has length -1.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format

from headrace.projections.postgres_text import escaped, escaped_json

_HEAD: Final = struct.Struct("!iiIii")
_SMALL: Final = tuple(length.to_bytes(4, "big") for length in range(4_096))
_NULL: Final = b"\xff\xff\xff\xff"
_TRUE, _FALSE = b"\0\0\0\1\1", b"\0\0\0\1\0"
_JSONB_VERSION: Final = b"\1"


class Array:
    """One parameter: the bytes of an array, and its type."""

    __slots__ = ("data", "oid")

    def __init__(self, data: bytes, oid: int) -> None:
        self.data = data
        self.oid = oid


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> Buffer:
        return obj.data

    def get_key(self, obj: Array, format: PyFormat) -> tuple[type, ...]:  # noqa: A002, ARG002 - psycopg's names
        return _OF_TYPE[obj.oid]

    def upgrade(self, obj: Array, format: PyFormat) -> "Dumper":  # noqa: A002, ARG002 - psycopg's names
        dumper = _ArrayDumper(Array)
        dumper.oid = obj.oid
        return dumper


def register(connection: Connection[Any]) -> None:
    """Teach a connection to send arrays."""
    connection.adapters.register_dumper(Array, _ArrayDumper)


def _array(oid: int, array_oid: int, elements: Sequence[bytes | None]) -> Array:
    head = _HEAD.pack(1, 1, oid, len(elements), 1)
    try:
        lengths = map(_SMALL.__getitem__, map(len, elements))  # type: ignore[arg-type]
        return Array(head + b"".join(chain.from_iterable(zip(lengths, elements, strict=False))), array_oid)  # type: ignore[arg-type]
    except (TypeError, IndexError):
        return Array(head + b"".join(_pieces(elements)), array_oid)


def _pieces(elements: Iterable[bytes | None]) -> Iterator[bytes]:
    """What the quick way does not take: nulls, and long ones."""
    for element in elements:
        if element is None:
            yield _NULL
        else:
            yield len(element).to_bytes(4, "big")
            yield element


def text_array(values: Iterable[str | None]) -> Array:
    """Of texts."""
    return _array(25, 1009, [None if value is None else escaped(value).encode() for value in values])


def json_array(values: Iterable[str | None]) -> Array:
    """Of JSON texts, as ``json``."""
    return _array(114, 199, [None if value is None else escaped_json(value).encode() for value in values])


def jsonb_array(values: Iterable[str | None]) -> Array:
    """Of JSON texts, as ``jsonb``."""
    elements = [None if value is None else _JSONB_VERSION + escaped_json(value).encode() for value in values]
    return _array(3802, 3807, elements)


def bytes_array(values: Iterable[bytes | None]) -> Array:
    """Of byte strings."""
    return _array(17, 1001, list(values))


def integer_array(values: Iterable[int | None]) -> Array:
    """Of integers of 64 bits."""
    found = list(values)
    if None in found:
        return _array(20, 1016, [None if value is None else value.to_bytes(8, "big", signed=True) for value in found])
    flat: list[int | None] = [8] * (2 * len(found))
    flat[1::2] = found
    return Array(_HEAD.pack(1, 0, 20, len(found), 1) + struct.pack("!" + "iq" * len(found), *flat), 1016)


def boolean_array(values: Iterable[bool | int | None]) -> Array:
    """Of booleans."""
    found = list(values)
    parts = [_NULL if value is None else _TRUE if value else _FALSE for value in found]
    return Array(_HEAD.pack(1, 1, 16, len(found), 1) + b"".join(parts), 1000)


_BY_TYPE: Final[Mapping[str, Callable[[Iterable[Any]], Array]]] = {
    "text": text_array,
    "bigint": integer_array,
    "boolean": boolean_array,
    "json": json_array,
    "jsonb": jsonb_array,
    "bytea": bytes_array,
}
_OF_TYPE: Final = {oid: (type(f"Array{oid}", (Array,), {}),) for oid in (1000, 1001, 1009, 1016, 199, 3807)}
"""What psycopg remembers a dumper by: a class for each type of array."""


def arrays(types: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Array]:
    """Rows as one array a column, ``types`` naming the columns' types."""
    return [_BY_TYPE[type_](column) for type_, column in zip(types, zip(*rows, strict=True), strict=True)]
