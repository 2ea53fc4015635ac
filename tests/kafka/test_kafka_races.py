"""Processes that know nothing of one another: they end in one log, and in one end of it."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from headrace.errors import AppendUnknownError, BadInputError, LogClosedError
from headrace.log.admission import CLOSED, log_id_of
from headrace.log.kafka import KafkaLog
from headrace.log.port import Record
from headrace.processors.core.policy import DEFAULT_POLICY
from headrace.producers.opening import open_log
from headrace.schemas.refs import Position
from headrace.schemas.registry import Registry, built_in
from tests.contract.log_conformance import PATIENCE_SECONDS, closing, opening, read_all
from tests.kafka.topics import Cluster, opened, record

_CREATE = """
import sys
from headrace.log.kafka import KafkaLog
from headrace.processors.core.policy import DEFAULT_POLICY
from headrace.producers.opening import open_log
from headrace.schemas.registry import Registry, built_in
registry = Registry(built_in())
print("ready", flush=True)
sys.stdin.readline()
with KafkaLog.create(sys.argv[1], 8) as log:
    print(open_log(log, registry, ("mail.thread",), DEFAULT_POLICY).hex(), flush=True)
"""


def test_racing_creators_in_processes_of_their_own_make_one_log(cluster: Cluster) -> None:
    url = cluster.url()
    with ExitStack() as stack:
        creators = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", _CREATE, url], stdin=-1, stdout=-1, stderr=-1, text=True)
            )
            for _ in range(3)
        ]
        for creator in creators:
            assert creator.stdout is not None
            assert creator.stdout.readline() == "ready\n"
        said = [creator.communicate("go\n", PATIENCE_SECONDS) for creator in creators]
    assert [creator.returncode for creator in creators] == [0] * 3, said
    [log_id] = {out.strip() for out, _ in said}
    with KafkaLog.open(url) as log:
        described = log.describe()
        assert described.log_id == bytes.fromhex(log_id)
        for partition in range(8):
            # A second opening may have slipped in behind the first: it opens nothing.
            assert {log_id_of(stored.headers) for stored in read_all(log, partition)[:1]} == {described.log_id}


def test_racing_creators_in_one_process_make_one_log(cluster: Cluster) -> None:
    url, registry, together = cluster.url(), Registry(built_in()), threading.Barrier(4)
    with ExitStack() as stack:
        logs = [stack.enter_context(KafkaLog.create(url, 4)) for _ in range(4)]

        def work(log: KafkaLog) -> bytes:
            together.wait(PATIENCE_SECONDS)
            return open_log(log, registry, ("mail.thread",), DEFAULT_POLICY)

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(work, logs)) == {logs[0].describe().log_id}
        for partition in range(4):
            assert log_id_of(logs[0].read(partition, 0, 1)[0].headers) == logs[0].describe().log_id


def test_an_opening_of_another_log_is_refused(cluster: Cluster) -> None:
    url = cluster.url()
    with KafkaLog.create(url, 2) as first, KafkaLog.open(url) as second:
        first.append([opening(0)])
        alien = Record(1, None, (("ce_type", b"log.opened"), ("headrace-logid", b"ab" * 16)), b"")
        with pytest.raises(BadInputError, match="names another log"):
            second.append([alien])
        with pytest.raises(BadInputError, match="open already"):
            second.append([opening(0), opening(1)])
        assert second.describe().ends == (1, 0)


def test_writers_elsewhere_land_before_the_end_or_are_refused(cluster: Cluster) -> None:
    url, partitions, writers = cluster.url(), 3, 4
    started = threading.Semaphore(0)
    with ExitStack() as stack:
        closer = opened(stack.enter_context(KafkaLog.create(url, partitions)))
        logs = [stack.enter_context(KafkaLog.open(url)) for _ in range(writers)]

        def write(number: int) -> list[tuple[Position, bytes]]:
            landed: list[tuple[Position, bytes]] = []
            for turn in range(100_000):
                records = [record((number + n) % partitions, f"{number}/{turn}/{n}".encode()) for n in range(2)]
                try:
                    positions = logs[number].append(records)
                except LogClosedError:
                    return landed
                except AppendUnknownError:
                    continue  # one was let in before the end, the other was not
                landed += zip(positions, (one.value for one in records), strict=True)
                if len(landed) == 100:
                    started.release()
            raise AssertionError("the end never came")

        with ThreadPoolExecutor(writers) as pool:
            writing = [pool.submit(write, number) for number in range(writers)]
            for _ in range(writers):
                assert started.acquire(timeout=PATIENCE_SECONDS)
            last = closer.append([closing(partition) for partition in range(partitions)])
            landed = [pair for one in writing for pair in one.result(PATIENCE_SECONDS)]
        _check_closed(closer, last, landed)
        for log in logs:
            with pytest.raises(LogClosedError, match="kafka://elsewhere"):
                log.append([record(0, b"late")])
        with KafkaLog.open(url) as again:
            _check_closed(again, last, landed)


def _check_closed(log: KafkaLog, last: Sequence[Position], landed: Sequence[tuple[Position, bytes]]) -> None:
    """What was acknowledged is where it was said to be, before the end; and the end is the end."""
    described = log.describe()
    assert described.successor == "kafka://elsewhere"
    assert [position.offset + 1 for position in last] == list(described.ends)
    stored = {Position(one.partition, one.offset): one for p in range(described.partitions) for one in read_all(log, p)}
    assert all(stored[position].value == value for position, value in landed)
    assert all(position < last[position.partition] for position, _ in landed)
    assert all(CLOSED in stored[position].headers for position in last)
