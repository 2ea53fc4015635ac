"""An outage is told, not repeated ten times a second."""

import gc
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.errors import LogMismatchError, NotFoundError, UnavailableError
from headrace.log import copy_to_kafka, kafka_appender, kafka_reader, kafka_topic
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble
from headrace.log.port import Stored
from tests.kafka.topics import Cluster, opened, record, until


def refused(took: int) -> KafkaError:
    what = f"Connect to ipv4#127.0.0.1:1 failed: Connection refused (after {took}ms in state CONNECT)"
    return KafkaError(KafkaError._TRANSPORT, what)


def test_a_complaint_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 1_000.0
    trouble = Trouble(lambda: now)
    with caplog.at_level(logging.WARNING):
        for took in range(50):
            trouble(refused(took))
            trouble(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        assert [record.getMessage().count("refused") for record in caplog.records] == [1, 0]
        assert "brokers are down" in str(trouble), "the last is what an error tells of"
        now += 61
        trouble(refused(0))
        assert len(caplog.records) == 3
        trouble(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
        assert len(caplog.records) == 4


def threads() -> int:
    """Of this process, those of its clients' libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.fixture
def no_collector() -> Iterator[None]:
    """A worker's heap is frozen, and garbage that refers to itself is next to never collected."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_clients_that_nobody_holds_end_at_once(cluster: Cluster) -> None:
    """Each check of a worker left a client behind, with its threads and sockets."""
    url = cluster.url()
    opened(KafkaLog.create(url, 2)).close()

    def use() -> None:
        topic = kafka_topic.Topic(KafkaAddress.parse(url))
        topic.verify(closed=False)
        with KafkaLog.open(url) as log, KafkaLog.open(url, writer=False) as reader:
            position = log.append([record(1, b"a")])[0]
            assert reader.wait({1: position.offset}, 30) == {1}

    use()
    before = threads()
    for _ in range(4):
        use()
    until(lambda: threads() <= before)


class Fatal:
    """A producer whose queue is full, and which gives up while somebody helps to empty it."""

    def __init__(self, *_: object) -> None:
        self.served = 0

    def produce(self, *_: object, **__: object) -> None:
        raise BufferError

    def poll(self, _: float) -> int:
        self.served += 1
        raise KafkaException(KafkaError(KafkaError._FATAL, "fenced by another", fatal=True))

    flush = poll

    def purge(self) -> None:
        """There is nothing to let go of."""


def test_a_producer_that_gives_up_while_its_queue_is_full_is_told_of_and_nothing_landed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_appender, "Producer", Fatal)
    appender = kafka_appender.Appender(KafkaAddress.parse("kafka://127.0.0.1:1/log"), 1_000)
    for outcome in appender.send([record(0, b"a"), record(0, b"b")]):
        assert outcome.nowhere
        assert outcome.error is not None
        assert "fenced by another" in outcome.error.str()
    assert appender.fatal is not None
    served = appender._producer.served  # type: ignore[attr-defined]  # pyright: ignore
    until(lambda: appender._producer.served > served + 2)  # type: ignore[attr-defined]  # pyright: ignore
    appender.close()


def test_a_copy_whose_producer_gives_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_to_kafka, "Producer", Fatal)
    nothing: Any = SimpleNamespace(close=lambda: None)
    log = copy_to_kafka.KafkaDestination(KafkaAddress.parse("kafka://127.0.0.1:1/log"), nothing, nothing, "copy", 1_000)
    log._go_on({0: 1}, {})  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(UnavailableError, match="fenced by another"):
        log.write([Stored(0, 1, 1_000, True, b"tenant/account", (), b"a")])
    with pytest.raises(UnavailableError, match="fenced by another"):
        log.ends()
    log.close()


class NewLeader:
    """An administrative client of a partition whose leader has just become one: it knows an end when asked again."""

    def __init__(self, *_: object) -> None:
        self.asked = 0

    def poll(self, *_: object) -> int:
        return 0

    def list_topics(self, *_: object, **__: object) -> None:
        """Who leads is asked anew."""

    def list_offsets(self, places: Iterable[TopicPartition], **_: object) -> dict[TopicPartition, Future[object]]:
        self.asked += 1
        found: dict[TopicPartition, Future[object]] = {}
        for place in places:
            found[place] = Future()
            found[place].set_result(SimpleNamespace(offset=-1001 if self.asked < 3 else 757))
        return found


def test_an_end_that_nobody_knows_yet_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Met when a leader was killed: the log was called cut off, at offset -1001, and the worker halted."""
    monkeypatch.setattr(kafka_topic, "AdminClient", NewLeader)
    topic = kafka_topic.Topic(KafkaAddress.parse("kafka://127.0.0.1:1/log"))
    assert topic.ends([0, 1]) == {0: 757, 1: 757}


class NoLeader:
    """A consumer of a partition that nobody leads for a moment, or at all."""

    asked = 0
    refusals: tuple[int, ...] = ()

    def __init__(self, *_: object) -> None:
        """Takes any settings."""

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        NoLeader.asked += 1
        if NoLeader.asked <= len(self.refusals):
            raise KafkaException(KafkaError(self.refusals[NoLeader.asked - 1]))
        return 0, 757

    def poll(self, *_: object) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Nothing to close."""


def reader(monkeypatch: pytest.MonkeyPatch, *refusals: int) -> kafka_reader.Reader:
    monkeypatch.setattr(NoLeader, "asked", 0)
    monkeypatch.setattr(NoLeader, "refusals", refusals)
    monkeypatch.setattr(kafka_reader, "Consumer", NoLeader)
    return kafka_reader.Reader(KafkaAddress.parse("kafka://127.0.0.1:1/log"))


def test_where_a_partition_ends_is_asked_again_while_its_leader_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Met after a broker had been stopped for a while: it was called unavailable though it was back."""
    passing = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert reader(monkeypatch, *passing).bounds(0) == (0, 757)
    assert NoLeader.asked == 3


@pytest.mark.parametrize(
    ("code", "raised"),
    [(KafkaError.UNKNOWN_TOPIC_OR_PART, NotFoundError), (KafkaError._ALL_BROKERS_DOWN, UnavailableError)],
)
def test_what_does_not_pass_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, code: int, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        reader(monkeypatch, code, code).bounds(0)
    assert NoLeader.asked == 1


class OldLeader:
    """A consumer that asks the leader of before, who lacks offset 5; the next one that is made asks the one of now."""

    made = 0
    least = 0

    def __init__(self, *_: object) -> None:
        OldLeader.made += 1

    def assign(self, *_: object) -> None:
        """Reads nowhere."""

    unassign = close = assign

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return self.least, 3

    def consume(self, *_: object, **__: object) -> list[Any]:
        found: dict[str, Any] = {"timestamp": (2, 1_000), "headers": [], "key": None, "value": b"here"}
        found |= {"partition": 0, "offset": 5, "error": None}
        if self.made < 3:
            found["error"] = KafkaError(KafkaError._AUTO_OFFSET_RESET, "out of range")
        return [SimpleNamespace(**{name: lambda one=one: one for name, one in found.items()})]


@pytest.mark.parametrize("least", [0, 6])
def test_a_record_that_the_leader_of_before_lacks_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(OldLeader, "made", 0)
    monkeypatch.setattr(OldLeader, "least", least)
    monkeypatch.setattr(kafka_reader, "Consumer", OldLeader)
    log = kafka_reader.Reader(KafkaAddress.parse("kafka://127.0.0.1:1/log"))
    if not least:
        assert log.fetch(0, 5, 1, 6)[0].value == b"here"
        return
    with pytest.raises(LogMismatchError, match="no record at offset 5"):  # deleted from the front: that it knows
        log.fetch(0, 5, 1, 6)
