"""A log that is written while it is moved: what was acknowledged is there, once, and nobody appends in two places."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headrace.errors import AppendUnknownError, LogClosedError
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, Record
from headrace.log.sqlite import SqliteLog
from headrace.schemas.refs import Position
from tests.contract.rich_history import Author
from tests.copy.copies import moved_to_file, moved_to_kafka, same, whole
from tests.kafka.topics import Cluster

PARTITIONS = 3
WRITERS = 4
LEAST = 200
PATIENCE_SECONDS = 60

Written = dict[bytes, Position]


@contextmanager
def writing(logs: list[Log]) -> Generator[tuple[threading.Event, list["Future[tuple[Written, set[bytes]]]"]]]:
    """Threads that append until they are told that the log is closed; an event that is set once they have begun."""
    begun = threading.Event()
    count = threading.Semaphore(0)

    def write(number: int, log: Log) -> tuple[Written, set[bytes]]:
        written: Written = {}
        unknown: set[bytes] = set()
        n = 0
        while True:
            value = f"{number}-{n}".encode()
            try:
                [written[value]] = log.append([Record(n % PARTITIONS, b"acme/a-1", (("ce_id", value),), value)])
            except LogClosedError:
                return written, unknown
            except AppendUnknownError:
                unknown.add(value)
            n += 1
            count.release()

    def watch() -> None:
        for _ in range(LEAST):
            count.acquire()
        begun.set()

    with ThreadPoolExecutor(WRITERS + 1) as threads:
        threads.submit(watch)
        yield begun, [threads.submit(write, n, logs[n % len(logs)]) for n in range(WRITERS)]


def check(found: list["Future[tuple[Written, set[bytes]]]"], moved: Log, ends: tuple[int, ...]) -> None:
    """Everything acknowledged is at its position, and nothing else is there but what nobody knew of."""
    written: Written = {}
    unknown: set[bytes] = set()
    for one in found:
        acknowledged, unclear = one.result(PATIENCE_SECONDS)
        written |= acknowledged
        unknown |= unclear
    assert len(written) >= LEAST
    there: dict[bytes, list[Position]] = {}
    for partition, end in enumerate(ends):
        for record in whole(moved, partition, end):
            if record.key == b"acme/a-1":
                there.setdefault(record.value, []).append(Position(partition, record.offset))
    assert {value: [position] for value, position in written.items()}.items() <= there.items()
    assert there.keys() - written.keys() <= unknown


def test_appends_race_a_move_to_kafka(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.url()
    with SqliteLog.create(tmp_path, PARTITIONS) as log:
        Author(log)
        with writing([log]) as (begun, found):
            assert begun.wait(PATIENCE_SECONDS)
            outcome = moved_to_kafka(log, url)
        assert outcome.closed_seconds is not None
        assert outcome.closed_seconds < 10
        with KafkaLog.open(url) as moved:
            same(log, moved, outcome.ends)
            check(found, moved, outcome.ends)


@pytest.mark.parametrize("to", ["another topic", "a file"])
def test_appends_of_many_processes_race_a_move(cluster: Cluster, tmp_path: Path, to: str) -> None:
    one, other = cluster.url(), cluster.url()
    with ExitStack() as stack:
        log = stack.enter_context(KafkaLog.create(one, PARTITIONS))
        Author(log)
        second = stack.enter_context(KafkaLog.open(one))
        origin = stack.enter_context(KafkaLog.open(one))
        with writing([log, second]) as (begun, found):
            assert begun.wait(PATIENCE_SECONDS)
            move: Callable[[], object] = (
                (lambda: moved_to_kafka(origin, other, one))
                if to == "another topic"
                else (lambda: moved_to_file(origin, tmp_path, one))
            )
            move()
        ends = origin.describe().ends
        moved: KafkaLog | SqliteLog = KafkaLog.open(other) if to == "another topic" else SqliteLog.open(tmp_path)
        stack.callback(moved.close)
        same(origin, moved, ends)
        check(found, moved, ends)
