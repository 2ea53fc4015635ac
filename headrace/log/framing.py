"""Bytes that mean one thing only: stored headers, and what the chain hashes.

Every part of varying length stands after its length, and lengths have a fixed width (big-endian, counting bytes), so
two different records never share their bytes. ``names`` is the same block in both framings:

=========  ==============================================================================================
names      ``u32 n``, n × ``u32`` length of a name, then the names in UTF-8
headers    ``u32`` length of ``names``, ``names``, n × ``u32`` length of a value, then the values
chained    the value before (32), ``i64 appended_at``, ``u8 log_append``, ``i64`` key length (-1: no key), ``u64``
           value length, ``names``, n × ``u32`` length of a header's value, key, the headers' values, value
=========  ==============================================================================================

Both run for every record, and most records of a log have one of a few sets of names: blocks of names are cached.
"""

import struct
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Final

from headrace.errors import BadInputError, LogMismatchError
from headrace.log.port import Headers, Stored

GENESIS: Final = bytes(32)
"""The chain's value before a partition's record 0."""

TRANSPORT_PREFIX: Final = "headrace-transport-"
"""Headers whose names begin so say how a record travelled, not what it is; the chain leaves them out."""

_NAME: Final = itemgetter(0)
_VALUE: Final = itemgetter(1)
_U32: Final = struct.Struct(">I")
_FIXED: Final = struct.Struct(">q?qQ")


def pack_headers(headers: Headers) -> bytes:
    """``headers`` as one blob, order and duplicates kept.

    :raises BadInputError: a name is not encodable as UTF-8, or a part is 4 GiB or longer.
    """
    values = list(map(_VALUE, headers))
    try:
        names = _names(tuple(map(_NAME, headers)))
        return b"".join((_U32.pack(len(names)), names, _lengths(len(values)).pack(*map(len, values)), *values))
    except (UnicodeEncodeError, struct.error) as error:
        raise BadInputError(f"headers cannot be stored ({error}): use UTF-8 names, and parts under 4 GiB") from error


def unpack_headers(blob: bytes) -> Headers:
    """What :func:`pack_headers` was given.

    :raises LogMismatchError: these bytes are not such a blob.
    """
    try:
        at = 4 + _U32.unpack_from(blob)[0]
        names = _parse_names(blob[4:at])
        end = at + 4 * len(names)
        headers: list[tuple[str, bytes]] = []
        for name, length in zip(names, _lengths(len(names)).unpack(blob[at:end]), strict=True):
            at, end = end, end + length
            headers.append((name, blob[at:end]))
        if end != len(blob):
            raise ValueError("lengths do not add up")  # noqa: TRY301 - one place words the refusal
    except (struct.error, ValueError) as error:
        raise LogMismatchError(
            f"a stored record's headers are damaged ({error}); restore the log from a backup"
        ) from error
    return tuple(headers)


def chain(previous: bytes, record: Stored) -> bytes:
    """The partition's chain value at ``record``: 32 bytes, SHA-256 over the value before it and what the record is.

    Place (partition, offset) is not hashed: the running value already fixes it. Transport headers are left out, so
    a log keeps its chain when it moves.
    """
    headers = record.headers
    return chained(previous, record, tuple(map(_NAME, headers)), tuple(map(_VALUE, headers)))


def chained(previous: bytes, record: Stored, names: tuple[str, ...], values: tuple[bytes, ...]) -> bytes:
    """:func:`chain`, for who has taken the record's headers apart already."""
    _, _, appended_at, log_append, key, headers, value = record
    block = _chained_names(names)
    if block is None:
        kept = [header for header in headers if not header[0].startswith(TRANSPORT_PREFIX)]
        block = _names(tuple(map(_NAME, kept)))
        values = tuple(map(_VALUE, kept))
    fixed = _FIXED.pack(appended_at, log_append, -1 if key is None else len(key), len(value))
    lengths = _lengths(len(values)).pack(*map(len, values))
    return sha256(b"".join((previous, fixed, block, lengths, key or b"", *values, value))).digest()


@lru_cache(maxsize=256)
def _lengths(count: int) -> struct.Struct:
    return struct.Struct(f">{count}I")


@lru_cache(maxsize=1024)
def _names(names: tuple[str, ...]) -> bytes:
    encoded = [name.encode() for name in names]
    return b"".join((_U32.pack(len(encoded)), _lengths(len(encoded)).pack(*map(len, encoded)), *encoded))


@lru_cache(maxsize=1024)
def _parse_names(block: bytes) -> tuple[str, ...]:
    (count,) = _U32.unpack_from(block)
    at = end = 4 + 4 * count
    if end > len(block):
        raise ValueError("the table of names is cut off")
    names: list[str] = []
    for (length,) in _U32.iter_unpack(block[4:at]):
        at, end = end, end + length
        names.append(block[at:end].decode())
    if end != len(block):
        raise ValueError("lengths of names do not add up")
    return tuple(names)


@lru_cache(maxsize=1024)
def _chained_names(names: tuple[str, ...]) -> bytes | None:
    """The block of ``names``, ``None`` when some are not for the chain."""
    return None if any(name.startswith(TRANSPORT_PREFIX) for name in names) else _names(names)
