"""The log: what is promised of it, whoever keeps it.

A log has a fixed number of partitions, each an append-only run of records with offsets contiguous from 0. Record 0
of every partition is its opening (``log.opened``). Adapters: :mod:`headrace.log.sqlite`, later Kafka. Both pass the
one suite in ``tests/contract/log_conformance.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from headrace.schemas.refs import Position

READ_BYTES: Final = 16 * 1024 * 1024
"""A read ends with the record that makes the values this large: what is read is held in memory, and folded at once."""
Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """What is appended. ``key`` is ``tenant/account`` in UTF-8, or ``None`` on the log's own records."""

    partition: int
    key: bytes | None
    headers: Headers
    value: bytes


class Stored(NamedTuple):
    """What is read back.

    ``appended_at`` is epoch milliseconds UTC by the log's own clock; where ``log_append`` is false the time is not
    the log's (a client set it) and the fold lets it move nothing.
    """

    partition: int
    offset: int
    appended_at: int
    log_append: bool
    key: bytes | None
    headers: Headers
    value: bytes


class LogDescription(NamedTuple):
    """``log_id`` is 16 bytes, from partition 0's opening record, ``None`` before it. ``ends[p]`` is the next offset
    of partition ``p``. ``successor`` is set once the log is closed."""

    log_id: bytes | None
    partitions: int
    ends: tuple[int, ...]
    successor: str | None


class Log(Protocol):
    """The port. Safe to call from any thread."""

    def append(self, records: Sequence[Record]) -> list[Position]:
        """Append in order per partition; return each record's position once **every** one is durable.

        Not a transaction. Until a partition has its opening record only that may be appended.

        Where nothing is said to have been appended, an earlier attempt of which nothing was heard may be there all the
        same; a client may make one by itself. So what is sent again, here or to the successor, keeps its ids.

        :raises AppendUnknownError: it cannot be known what landed; any subset may have. Retrying the same records
            is always safe (the fold knows duplicates).
        :raises LogClosedError: the log moved; nothing was appended.
        :raises BadInputError: a partition that does not exist, or one not opened; nothing was appended.
        """
        ...

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """At most ``limit`` records of ``partition`` from ``offset`` on, in order; empty at the end, and nowhere else.
        Fewer where they are large: not many more than :data:`READ_BYTES` at a time.

        :raises LogMismatchError: ``offset`` lies beyond the end: the log is shorter than the caller's memory of it.
        """
        ...

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """Block until some partition's end is beyond the offset given for it, ``timeout`` seconds at the most.

        ``after`` maps partition to the next offset the caller would read. Returns the partitions that have
        something, at once when any has; empty when the time is up.
        """
        ...

    def describe(self) -> LogDescription:
        """What the log is and where its partitions end now."""
        ...
