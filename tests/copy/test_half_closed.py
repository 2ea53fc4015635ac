"""A log in Kafka whose closing died on the way: what others still write, and are told of, goes with it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from headrace.errors import LogClosedError
from headrace.log import kafka_closing
from headrace.log.kafka import KafkaLog
from headrace.log.port import Record
from headrace.schemas.refs import Position
from tests.contract.log_conformance import closing
from tests.contract.rich_history import Author
from tests.copy.copies import same, whole
from tests.copy.test_kill9 import to_the_end
from tests.kafka.topics import Cluster, opened, record, retried

PARTITIONS = 3
PATIENCE_SECONDS = 60
LEAST = 50


class Heedless:
    """Appends with a handle that was open before and asks for nothing, until it is told that the log is closed."""

    def __init__(self, log: KafkaLog, partitions: Sequence[int]) -> None:
        self._log = log
        self._partitions = partitions
        self._landed = threading.Semaphore(0)
        self._enough = threading.Event()
        self.closed = False

    def write(self) -> dict[Position, bytes]:
        """What it was told is there, and where."""
        written: dict[Position, bytes] = {}
        while not self._enough.is_set():
            value = f"{len(written)}".encode()
            partition = self._partitions[len(written) % len(self._partitions)]
            records = [Record(partition, b"acme/a-1", (("ce_id", value),), value)]
            try:
                written[retried(self._log, records)[0]] = value
            except LogClosedError:
                self.closed = True
                break
            self._landed.release()
        return written

    def go_on(self) -> None:
        """Return once it has appended for a while."""
        for _ in range(LEAST):
            assert self._landed.acquire(timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        """It may be that nobody tells it."""
        self._enough.set()


@contextmanager
def writing(log: KafkaLog, partitions: Sequence[int]) -> Generator[tuple[Heedless, "Future[dict[Position, bytes]]"]]:
    """While somebody appends in a thread."""
    heedless = Heedless(log, partitions)
    with ThreadPoolExecutor(1) as threads:
        try:
            yield heedless, threads.submit(heedless.write)
        finally:
            heedless.stop()


@pytest.mark.parametrize(("count", "partitions"), [(2, (1, 2)), (3, (0, 1, 2))], ids=["open", "being shut"])
def test_a_move_killed_before_the_old_topic_is_shut_loses_nothing(
    cluster: Cluster, count: int, partitions: Sequence[int]
) -> None:
    one, other = cluster.url(), cluster.url()
    asked = ("log", "copy", "--from", one, "--to", other)
    with ExitStack() as stack:
        log = stack.enter_context(KafkaLog.create(one, PARTITIONS))
        Author(log)
        heedless, found = stack.enter_context(writing(stack.enter_context(KafkaLog.open(one)), partitions))
        heedless.go_on()
        died = subprocess.run(
            [sys.executable, "-m", "tests.copy.killed_copy", "shutting the origin", "before", str(count), *asked],
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
        if count == 2:
            heedless.go_on()
        to_the_end(one, other)
        ends = log.describe().ends
        heedless.stop()
        written = found.result(PATIENCE_SECONDS)
        moved = stack.enter_context(KafkaLog.open(other))
        there = {Position(p, stored.offset): stored.value for p in range(PARTITIONS) for stored in whole(moved, p)}
        assert len(written) >= LEAST
        assert written.items() <= there.items()
        assert heedless.closed
        same(log, moved, ends)
        assert moved.describe().ends == tuple(end + 1 for end in ends)


def died(*_: object) -> None:
    """A process that died, without one."""
    raise InterruptedError


def half_closed(log: KafkaLog) -> None:
    """Close it, and die before the topic is shut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_closing, "_shut", died)
        with pytest.raises(InterruptedError):
            log.append([closing(partition) for partition in range(PARTITIONS)])


def test_a_closing_left_half_done_is_finished_by_closing_again_and_by_nothing_else(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), PARTITIONS)) as log, KafkaLog.open(cluster.url(topic)) as other:
        other.append([record(1, b"before")])
        half_closed(log)
        assert other.append([record(1, b"heedless")]) == [(1, 3)]
        closings = [closing(partition) for partition in range(PARTITIONS)]
        elsewhere = [closing(partition, "kafka://another") for partition in range(PARTITIONS)]
        for records in (elsewhere, [*closings[1:], record(0, b"late"), closings[0]]):
            with pytest.raises(LogClosedError, match="kafka://elsewhere"):
                log.append(records)
        assert log.append(closings) == [(0, 1), (1, 4), (2, 1)]
        assert cluster.settings(topic)["max.message.bytes"] == "0"
        for handle in (log, other):
            with pytest.raises(LogClosedError, match="kafka://elsewhere"):
                handle.append(closings)
        assert log.describe().ends == (2, 5, 2)


def test_a_closing_that_was_overtaken_and_given_up_is_forgotten(cluster: Cluster) -> None:
    url = cluster.url()
    with opened(KafkaLog.create(url, PARTITIONS)) as log, KafkaLog.open(url) as other, KafkaLog.open(url) as looking:
        half_closed(log)
        for handle in (looking, log):
            assert handle.describe().successor == "kafka://elsewhere"
            with pytest.raises(LogClosedError, match="kafka://elsewhere"):
                handle.append([record(1, b"late")])
        assert other.append([record(0, b"heedless")]) == [(0, 2)]
        assert looking.append([record(1, b"on")]) == [(1, 2)]
        assert log.describe().successor is None
        assert log.append([record(1, b"on")]) == [(1, 3)]
