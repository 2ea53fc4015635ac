"""Three brokers, three copies, two in sync: the leader is killed under load, and nothing acknowledged is lost.

The checker knows what every writer was told. An acknowledged record stands at its position, once; one whose outcome was
unknown stands there any number of times that it was sent, or not at all; a writer's own order is kept.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from headrace.errors import AppendUnknownError
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, Stored
from headrace.schemas.refs import Position
from infra.stack.kafka import KafkaCluster
from tests.contract.log_conformance import read_all
from tests.kafka.topics import Cluster, opened, record

PARTITIONS = 4
WRITERS = 6
SECONDS = 60.0
BEFORE, AFTER = 100, 100
"""Appends of every writer before the leader is killed, and after, at the least."""


class Told(NamedTuple):
    """What one writer was told: acknowledged records with their positions, in order, and how often others were sent."""

    acknowledged: list[tuple[bytes, Position]]
    unknown: Counter[bytes]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A cluster of this module's own."""
    with KafkaCluster(tmp_path_factory.mktemp("three"), brokers=3, heap="-Xmx512m") as cluster:
        yield cluster


def test_killing_the_leader_under_load_loses_and_moves_nothing(three: KafkaCluster) -> None:
    topic = Cluster.name()
    url = f"kafka://{three.bootstrap}/{topic}?delivery.timeout.ms=20000"
    killed, enough = threading.Event(), threading.Semaphore(0)
    with ExitStack() as stack:
        logs = [stack.enter_context(KafkaLog.create(url, PARTITIONS)) for _ in range(2)]
        opened(logs[0])
        reader = stack.enter_context(KafkaLog.open(url, writer=False))
        with ThreadPoolExecutor(WRITERS + 1) as pool:
            stop = threading.Event()
            following = pool.submit(_follow, reader, stop)
            writing = [pool.submit(_write, logs[n % 2], n, killed, enough) for n in range(WRITERS)]
            for _ in range(WRITERS):
                assert enough.acquire(timeout=SECONDS)
            leader = _leader(three, topic)
            three.brokers[leader - 1].kill()
            killed.set()
            told = [one.result(SECONDS) for one in writing]
            stop.set()
            followed = following.result(SECONDS)
        _check(logs[0], told)
        with KafkaLog.open(url, writer=False) as fresh:
            stored = {partition: read_all(fresh, partition) for partition in range(PARTITIONS)}
            assert fresh.describe().ends == tuple(len(stored[partition]) for partition in range(PARTITIONS))
        for partition, seen in followed.items():
            assert seen == stored[partition][: len(seen)], "who followed meanwhile saw another log"
        three.brokers[leader - 1].start()
        three.wait_ready()
        assert logs[1].append([record(0, b"whole again")])[0].offset == len(stored[0])


def _write(log: KafkaLog, number: int, killed: threading.Event, enough: threading.Semaphore) -> Told:
    told = Told([], Counter())
    after = turn = 0
    while after < AFTER:
        value = f"{number}/{turn}".encode()
        one = record((number + turn) % PARTITIONS, value)
        while True:
            try:
                [position] = log.append([one])
            except AppendUnknownError:
                told.unknown[value] += 1
            else:
                told.acknowledged.append((value, position))
                break
        turn += 1
        after += killed.is_set()
        if turn == BEFORE:
            enough.release()
    return told


def _follow(reader: KafkaLog, stop: threading.Event) -> dict[int, list[Stored]]:
    seen: dict[int, list[Stored]] = {partition: [] for partition in range(PARTITIONS)}
    while not stop.is_set():
        for partition in reader.wait({one: len(records) for one, records in seen.items()}, 0.2):
            seen[partition] += reader.read(partition, len(seen[partition]), 1_000)
    return seen


def _leader(three: KafkaCluster, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": three.bootstrap, "log_level": 0})
    found = admin.describe_topics(TopicCollection([topic]))[topic].result(SECONDS)
    leader: int = found.partitions[0].leader.id
    return leader


def _check(log: Log, told: list[Told]) -> None:
    stored = {Position(one.partition, one.offset): one for p in range(PARTITIONS) for one in read_all(log, p, 1)}
    times = Counter(one.value for one in stored.values())
    sent = sum((one.unknown for one in told), Counter[bytes]())
    acknowledged = [pair for one in told for pair in one.acknowledged]
    assert len(acknowledged) >= WRITERS * (BEFORE + AFTER)
    assert all(stored[position].value == value for value, position in acknowledged)
    assert all(1 <= times[value] <= 1 + sent[value] for value, _ in acknowledged)
    assert set(times) == {value for value, _ in acknowledged}
    for one in told:
        offsets: defaultdict[int, list[int]] = defaultdict(list)
        for _, position in one.acknowledged:
            offsets[position.partition].append(position.offset)
        assert all(mine == sorted(mine) for mine in offsets.values())


def test_without_enough_copies_in_sync_nothing_is_acknowledged(three: KafkaCluster) -> None:
    url = f"kafka://{three.bootstrap}/{Cluster.name()}?delivery.timeout.ms=3000"
    with opened(KafkaLog.create(url, 1)) as log:
        log.append([record(0, b"two in sync")])
        alone, *others = three.brokers
        for other in others:
            other.pause()
        try:
            with pytest.raises(AppendUnknownError):
                log.append([record(0, b"only one copy")])
        finally:
            for other in others:
                other.resume()
        assert alone.running
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                [position] = log.append([record(0, b"two again")])
            except AppendUnknownError:
                assert time.monotonic() < deadline
            else:
                break
        values = [one.value for one in read_all(log, 0, 1)]
        assert values[0] == b"two in sync"
        assert values[position.offset - 1] == b"two again"
