"""Reads Avro's plain encoding and takes no other: one function a type, put together once a schema.

Avro lets one datum stand as many bytes: numbers at greater length than they need, arrays in several blocks or with
their size, any byte for true. Reading what is lenient and writing it again to compare shows that, at twice the price.
These functions refuse each such liberty where they meet it (Avro 1.12 specification, "Binary Encoding"):

==============  ======================================================================================================
long, int       as few bytes as will do, at most 64 (32) bits
string, bytes   a length that is not negative; UTF-8
boolean         0 or 1
union, enum     an index that there is
array, map      one block, without its size, of at least one item; then 0. No key twice
==============  ======================================================================================================

What is cut off needs no look at every slice: places only move on, so whoever ends exactly at the end has never been
beyond it. Types are shaped as :func:`headrace.schemas.definition.spelt_out` gives them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Read = Callable[[bytes, int], tuple[Any, int]]
"""Bytes and a place in them, to the datum there and the place behind it."""

_LONGEST: Final = 10
"""Bytes of a number of 64 bits, 7 bits each."""


def whole(type_: Mapping[str, Any]) -> Callable[[bytes, int], dict[str, Any]]:
    """A function from bytes and a place in them to the record that takes up all from there on.

    It raises ``ValueError`` or ``IndexError`` where that is none in the plain encoding.
    """
    read = _reader(type_)

    def read_whole(data: bytes, at: int) -> dict[str, Any]:
        found, end = read(data, at)
        if end != len(data):
            raise ValueError("it ends elsewhere")
        record: dict[str, Any] = found
        return record

    return read_whole


def _reader(type_: Any) -> Read:
    if isinstance(type_, list):
        return _nullable(type_)
    if isinstance(type_, str):
        return _PRIMITIVES[type_]
    match type_["type"]:
        case "record":
            return _record([(field["name"], _reader(field["type"])) for field in type_["fields"]])
        case "array":
            return _array(_reader(type_["items"]))
        case "map":
            return _map(_reader(type_["values"]))
        case "enum":
            return _enum(type_["symbols"])
        case _:
            return _fixed(type_["size"])


def _record(fields: Sequence[tuple[str, Read]]) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        found: dict[str, Any] = {}
        for name, field in fields:
            found[name], at = field(data, at)
        return found, at

    return read


def _nullable(branches: Sequence[Any]) -> Read:
    """Indexes 0 and 1 stand as the bytes 0 and 2."""
    other = _reader(branches[0] if branches[1] == "null" else branches[1])
    null = 2 * branches.index("null")

    def read(data: bytes, at: int) -> tuple[Any, int]:
        index = data[at]
        if index == null:
            return None, at + 1
        if index + null != 2:
            raise ValueError("no such branch")
        return other(data, at + 1)

    return read


def _array(item: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        found: list[Any] = []
        if not data[at]:
            return found, at + 1
        count, at = _length(data, at)
        for _ in range(count):
            one, at = item(data, at)
            found.append(one)
        if data[at]:
            raise ValueError("another block")
        return found, at + 1

    return read


def _map(value: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        found: dict[str, Any] = {}
        if not data[at]:
            return found, at + 1
        count, at = _length(data, at)
        for _ in range(count):
            key, at = _string(data, at)
            found[key], at = value(data, at)
        if data[at] or len(found) != count:
            raise ValueError("another block, or a key twice")
        return found, at + 1

    return read


def _enum(symbols: Sequence[str]) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        index, at = _length(data, at)
        return symbols[index], at

    return read


def _fixed(size: int) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        end = at + size
        if end > len(data):  # it alone looks at no byte: a forged count of such items would run on for ever
            raise ValueError("cut off")
        return data[at:end], end

    return read


def _string(data: bytes, at: int) -> tuple[str, int]:
    size = data[at]
    if size > 127 or size & 1:
        size, at = _length(data, at)
    else:
        size, at = size >> 1, at + 1
    end = at + size
    return data[at:end].decode(), end


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _length(data, at)
    end = at + size
    return data[at:end], end


def _length(data: bytes, at: int) -> tuple[int, int]:
    size, at = _long(data, at)
    if size < 0:
        raise ValueError("less than nothing")
    return size, at


def _long(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the sign is in the lowest of all."""
    found = data[at]
    if found < 128:
        return (found >> 1) ^ -(found & 1), at + 1
    found, shift = found & 127, 0
    for place in range(at + 1, at + _LONGEST):
        shift += 7
        more = data[place]
        found |= (more & 127) << shift
        if more < 128:
            if not more or found >> 64:
                raise ValueError("a number at greater length than it needs, or too large")
            return (found >> 1) ^ -(found & 1), place + 1
    raise ValueError("a number without end")


def _int(data: bytes, at: int) -> tuple[int, int]:
    found, at = _long(data, at)
    if not -(1 << 31) <= found < 1 << 31:
        raise ValueError("more than 32 bits")
    return found, at


def _boolean(data: bytes, at: int) -> tuple[bool, int]:
    found = data[at]
    if found > 1:
        raise ValueError("neither true nor false")
    return found == 1, at + 1


def _null(data: bytes, at: int) -> tuple[None, int]:  # noqa: ARG001 - it takes no bytes
    return None, at


_PRIMITIVES: Final[Mapping[str, Read]] = {
    "string": _string,
    "bytes": _bytes,
    "long": _long,
    "int": _int,
    "boolean": _boolean,
    "null": _null,
}
