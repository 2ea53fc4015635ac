"""A partition's log replaced, cut off, compacted or grown under a product that was at work: it halts, says why and
judges nothing, and goes on by itself with none of it."""

import re
import secrets
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from headrace.errors import HeadraceError
from headrace.log.kafka import KafkaLog
from headrace.log.port import Record
from tests.chaos.distributed import PARTITIONS, Distributed
from tests.chaos.processes import Part
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins
from tests.kafka.topics import Cluster
from tests.worker.site import until

CLIENTS = 6
PATIENCE = 180.0
RECORDS = 300
Passed = Callable[[Report], Report]


@contextmanager
def at_work(directory: Path, seed: int, passed: Passed, **settings: str) -> Generator[Distributed]:
    """The product with something on its log, and everything well so far."""
    who = logins(CLIENTS)
    with Distributed(directory, who, apis=1, workers=1, broker_settings=settings) as stage:
        run = Run(stage, who, seed, directory / "history")
        run.answered(RECORDS)
        passed(run.end())
        yield stage


def halts(stage: Distributed, words: str, first: str = "") -> None:
    """The worker ends with these words (or with those it ends with ``first``), ends with them again when it is started
    again, and has written nothing."""
    [worker] = stage.workers
    before = stage.folded()
    until(lambda: not worker.child.running, PATIENCE)
    assert (first or words) in worker.child.last_words()
    worker.child.log.write_text("", encoding="utf-8")
    worker.start()
    until(lambda: not worker.child.running, PATIENCE)
    assert words in worker.child.last_words()
    assert stage.folded() == before


def cut_tail(stage: Distributed, partition: int, batches: int) -> None:
    """What an unclean election leaves: the broker's own file of a partition, shorter by its last record batches."""
    [broker] = stage.kafka.brokers
    broker.stop(30.0)
    segment = segment_of(stage, partition)
    content, ends = segment.read_bytes(), [0]
    while ends[-1] < len(content):
        # A batch is its base offset in eight bytes, how many bytes follow in four, and those.
        ends.append(ends[-1] + 12 + int.from_bytes(content[ends[-1] + 8 : ends[-1] + 12]))
    segment.write_bytes(content[: ends[-1 - batches]])
    for other in segment.parent.iterdir():
        if other.suffix in (".index", ".timeindex", ".snapshot"):
            other.unlink()
    broker.start()
    stage.kafka.wait_ready()


def segment_of(stage: Distributed, partition: int) -> Path:
    """The file in which the broker keeps a partition."""
    [segment] = stage.kafka.directory.glob(f"data-1/{stage.topic}-{partition}/*.log")
    return segment


def fill(stage: Distributed, partition: int, until_offset: int) -> None:
    """Other records, until the partition ends beyond an offset."""
    log_url = stage.places.log_url
    assert log_url is not None
    with KafkaLog.open(log_url) as log:
        while log.describe().ends[partition] <= until_offset:
            log.append([Record(partition, None, (), secrets.token_bytes(20))])


def test_a_log_that_is_replaced(chaos_directory: Path, seed: int, passed: Passed) -> None:
    with at_work(chaos_directory, seed, passed) as stage:
        before = stage.folded()
        Cluster(stage.kafka.bootstrap).delete(stage.topic)
        until(lambda: not stage.workers[0].child.running, PATIENCE)
        stage.make_log()
        for partition, offset in before.items():
            fill(stage, partition, offset)
        halts(stage, "another log", first="no such log")


def test_a_log_that_is_cut_off(chaos_directory: Path, seed: int, passed: Passed) -> None:
    with at_work(chaos_directory, seed, passed) as stage:
        cut_tail(stage, 3, batches=5)
        stage.workers[0].kill()
        stage.workers[0].start()
        halts(stage, "cut off")


def test_a_log_that_is_cut_off_and_has_grown_again(chaos_directory: Path, seed: int, passed: Passed) -> None:
    with at_work(chaos_directory, seed, passed) as stage:
        stage.workers[0].kill()
        cut_tail(stage, 3, batches=5)
        fill(stage, 3, stage.folded()[3] + 5)
        stage.workers[0].start()
        halts(stage, "is not the one that was folded")


def test_a_log_that_is_cut_off_under_a_worker_that_lives(chaos_directory: Path, seed: int, passed: Passed) -> None:
    with at_work(chaos_directory, seed, passed) as stage:
        cut_tail(stage, 3, batches=5)
        halts(stage, "cut off")


def test_a_log_that_is_compacted(chaos_directory: Path, seed: int, passed: Passed) -> None:
    """It has holes afterwards, and is kept as it should be again: the settings tell nothing any more."""
    with at_work(chaos_directory, seed, passed, **{"log.cleaner.backoff.ms": "100"}) as stage:
        [worker] = stage.workers
        worker.kill()
        cluster, records = Cluster(stage.kafka.bootstrap), stage.folded()[3]
        append(stage, 3, 20)  # nobody folds them yet
        eager = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.ms": "100"}
        cluster.configure(stage.topic, eager)
        worker.start()
        until(lambda: not worker.child.running, PATIENCE)
        assert "cleanup.policy=delete" in worker.child.last_words()
        append(stage, 3, 1)  # begins a segment: the one before may be compacted now
        until(lambda: first(stage, 3, records) != records, PATIENCE)
        cluster.configure(stage.topic, {"cleanup.policy": "delete"})
        worker.start()
        halts(stage, "has a hole")


def test_a_byte_that_flips_on_a_brokers_disk(chaos_directory: Path, seed: int, passed: Passed) -> None:
    """In a record that nobody has folded yet. The broker sends it as it is; its checksum tells."""
    with at_work(chaos_directory, seed, passed) as stage:
        [worker], [broker] = stage.workers, stage.kafka.brokers
        worker.kill()
        before = stage.folded()
        append(stage, 3, 1)
        broker.stop(30.0)
        content = bytearray(segment_of(stage, 3).read_bytes())
        content[-5] ^= 1
        segment_of(stage, 3).write_bytes(content)
        broker.start()
        stage.kafka.wait_ready()
        append(stage, 3, 1)
        worker.start()
        until(lambda: "failed CRC32C check" in worker.child.log.read_text(errors="replace"), PATIENCE)
        append(stage, 0, 1)
        until(lambda: stage.folded()[0] > before[0], PATIENCE)  # the others go on
        until(lambda: unready(worker) == 503, PATIENCE)
        assert stage.folded()[3] == before[3]
        assert worker.child.running


def test_partitions_that_are_added(chaos_directory: Path, seed: int, passed: Passed) -> None:
    with at_work(chaos_directory, seed, passed) as stage:
        Cluster(stage.kafka.bootstrap).grow(stage.topic, PARTITIONS + 2)
        halts(stage, "partitions")
        log_url = stage.places.log_url
        assert log_url is not None
        with pytest.raises(HeadraceError, match="partitions"), KafkaLog.open(log_url):
            pass


def unready(worker: Part) -> int:
    """The status that a worker answers when it is asked whether it is ready; 0 while it does not answer yet."""
    found = re.findall(r"http://[^ ,]*/health/ready", worker.child.log.read_text(errors="replace"))
    try:
        return httpx.get(found[-1], timeout=20.0).status_code
    except httpx.ConnectError:  # the address of the one that was killed: the next has not said its own
        return 0


def append(stage: Distributed, partition: int, count: int) -> None:
    """Records of one account, past the product, which would refuse."""
    with closing(Producer({"bootstrap.servers": stage.kafka.bootstrap, "log_level": 0})) as producer:
        for _ in range(count):
            producer.produce(stage.topic, secrets.token_bytes(20), b"acme/front-desk", partition=partition)
        assert producer.flush(PATIENCE) == 0


def first(stage: Distributed, partition: int, offset: int) -> int | None:
    """The offset of the first record from one on that is still there, if any is."""
    settings = {"bootstrap.servers": stage.kafka.bootstrap, "log_level": 0, "group.id": "chaos-looks"}
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(stage.topic, partition, offset)])
        found = consumer.consume(1, timeout=5.0)
        return found[0].offset() if found else None
