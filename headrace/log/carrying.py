"""What a copied record brings along, and where the copied part of a partition ends.

A log that moves keeps every record at its offset, and the time at which it was appended. A log in SQLite keeps that
time in its own column. In Kafka the brokers stamp records, so there a copied record carries the time in one more
header, :data:`CARRIED`, as ``<copy> <epoch milliseconds> <1: the log's own time, 0: a client's>``. Whoever reads the
log gets the record as it was where it came from: with that time, and without that header.

When does such a header count? The records alone must say it, and whoever forges one later must get nothing:

- While a log is copied its topic stamps ``CreateTime``, and from then on ``LogAppendTime``. That bit is the broker's,
  on every record; no producer can set it. A record that the log itself took (``LogAppendTime``) never carries anything.
- ``log.moved`` ends a partition's copied part: the first record of the log's own, it names the copy and its own offset.
  Behind it nothing carries anything, whatever its bit says.
- Only a partition whose record 0 carries something has a copied part. A log that was opened in Kafka has none.

Pure; the search for the end is in :mod:`headrace.log.kafka_copied`.
"""

import re
import secrets
from typing import Final, NamedTuple

from headrace.log.framing import TRANSPORT_PREFIX
from headrace.log.port import Headers, Stored

CARRIED: Final = f"{TRANSPORT_PREFIX}appended"
"""The header that a copied record carries; always its last."""

COPY_HEADER: Final = "headrace-copy"
"""On ``log.closed`` and ``log.moved``: which copy, and on ``log.moved`` its own offset as well."""

MOVED: Final = ("ce_type", b"log.moved")
"""The header that makes a record the end of a copied part."""

_ID_BYTES: Final = 8
_SAID: Final = re.compile(rb"([0-9a-f]{16}) (0|-?[1-9][0-9]{0,18}) ([01])\Z")


class Carried(NamedTuple):
    """``copy`` is the copy's id in hexadecimal; the others as in :class:`headrace.log.port.Stored`."""

    copy: str
    appended_at: int
    log_append: bool


def new_copy() -> str:
    """An id for a copy that begins: 16 hexadecimal digits."""
    return secrets.token_hex(_ID_BYTES)


def carrying(record: Stored, copy: str) -> Headers:
    """The record's headers with its time added. Its own may already hold such a header; the last one is ours."""
    return (*record.headers, (CARRIED, f"{copy} {record.appended_at} {int(record.log_append)}".encode()))


def carried(record: Stored) -> Carried | None:
    """What a record as the broker keeps it carries, if it can be of a copied part at all."""
    if record.log_append or not record.headers or record.headers[-1][0] != CARRIED:
        return None
    said = _SAID.match(record.headers[-1][1])
    return Carried(said[1].decode(), int(said[2]), said[3] == b"1") if said is not None else None


def original(record: Stored, copy: str) -> Stored | None:
    """The record as it was where this copy took it from; ``None`` when it is not of this copy."""
    found = carried(record)
    if found is None or found.copy != copy:
        return None
    return record._replace(appended_at=found.appended_at, log_append=found.log_append, headers=record.headers[:-1])


def ending(copy: str, offset: int) -> tuple[str, bytes]:
    """What a ``log.moved`` at ``offset`` has in its headers, besides its envelope."""
    return COPY_HEADER, f"{copy} {offset}".encode()


def ends_copy(record: Stored, copy: str) -> bool:
    """Whether the record is the ``log.moved`` that ends this copy's part."""
    return record.log_append and MOVED in record.headers and ending(copy, record.offset) in record.headers
