"""Copies made in the tests' own process, and what must be true of them."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from headrace.log.copy_to_kafka import KafkaDestination
from headrace.log.copy_to_sqlite import SqliteDestination
from headrace.log.copying import Copy, Destination, Outcome
from headrace.log.framing import GENESIS, chain
from headrace.log.port import Log, Record, Stored

NAME = "sqlite:origin"
Close = Callable[[Sequence[Record]], None]


def moved_to_kafka(origin: Log, url: str, name: str = NAME, close: Close | None = None) -> Outcome:
    """Move a log to Kafka."""
    with closing(KafkaDestination.open(url, origin.describe())) as destination:
        return Copy(origin, name, destination).move(close or closes(origin))


def moved_to_file(origin: Log, directory: Path, name: str) -> Outcome:
    """Move a log into a file."""
    with closing(SqliteDestination.open(directory, origin.describe(), name, moving=True)) as destination:
        return Copy(origin, name, destination).move(closes(origin))


def replicated(origin: Log, directory: Path, name: str = NAME) -> Outcome:
    """Make a replica in a file, or bring it up to date."""
    with closing(SqliteDestination.open(directory, origin.describe(), name, moving=False)) as destination:
        return Copy(origin, name, destination).replicate()


def closes(log: Log) -> Close:
    """Appends to this log."""

    def close(records: Sequence[Record]) -> None:
        log.append(records)

    return close


def whole(log: Log, partition: int, end: int | None = None) -> list[Stored]:
    """A partition's records, up to its end or to an offset."""
    end = log.describe().ends[partition] if end is None else end
    found: list[Stored] = []
    while len(found) < end:
        found += log.read(partition, len(found), min(1_000, end - len(found)))
    return found


def chains(log: Log, ends: Sequence[int]) -> tuple[bytes, ...]:
    """The chain values at these ends, computed from what the port gives."""
    found: list[bytes] = []
    for partition, end in enumerate(ends):
        value = GENESIS
        for record in whole(log, partition, end):
            value = chain(value, record)
        found.append(value)
    return tuple(found)


def same(origin: Log, copy: Log, ends: Sequence[int]) -> None:
    """Every record, field by field, up to these ends."""
    for partition, end in enumerate(ends):
        assert whole(copy, partition, end) == whole(origin, partition, end)


def topic_of(url: str) -> str:
    """The topic of a log's address."""
    return url.rpartition("/")[2].partition("?")[0]


class InterruptedCopyError(Exception):
    """A process that died, without one."""


def half(origin: Log, destination: Destination, at: str = "closing") -> None:
    """A move that ends where the log would be closed, or where ``log.moved`` would be written."""

    def dies(*_: object) -> None:
        raise InterruptedCopyError

    if at == "closing":
        with pytest.raises(InterruptedCopyError):
            Copy(origin, NAME, destination).move(dies)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(destination, "finish", dies)
        with pytest.raises(InterruptedCopyError):
            Copy(origin, NAME, destination).move(closes(origin))
