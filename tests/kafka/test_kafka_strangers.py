"""What others do to a log's topic: noticed, never folded over."""

import time

import pytest

from headrace.errors import LogMismatchError
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_reader import Reader
from tests.contract.log_conformance import PATIENCE_SECONDS, read_all
from tests.kafka.topics import Cluster, opened, record, retried, value_at


def test_a_record_without_value_or_headers_is_read_as_empty(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        cluster.put(topic, 1, [None, b"alien"])
        nothing, alien = log.read(1, 1, 9)
        assert (nothing.key, nothing.headers, nothing.value) == (None, (), b"")
        assert alien.value == b"alien"


def test_a_time_that_a_client_set_is_told_from_the_logs_own(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        cluster.configure(topic, {"message.timestamp.type": "CreateTime"})
        log.append([record(0, b"created")])
        cluster.configure(topic, {"message.timestamp.type": "LogAppendTime"})
        log.append([record(0, b"appended")])
        assert [(stored.value, stored.log_append) for stored in read_all(log, 0, 1)] == [
            (b"created", False),
            (b"appended", True),
        ]


def test_a_transaction_leaves_a_hole_and_a_log_has_none(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log, KafkaLog.open(cluster.url(topic)) as follower:
        follower.wait({1: 1}, 0)
        cluster.put(topic, 1, [b"a", b"b"], transaction=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while log.describe().ends[1] < 4:  # the mark is written after the commit was answered
            assert time.monotonic() < deadline
        assert value_at(log, 1, 2) == b"b"
        with pytest.raises(LogMismatchError, match="hole"):  # the mark at 3 is the end
            log.read(1, 1, 9)
        log.append([record(1, b"after")])
        with pytest.raises(LogMismatchError, match="hole"):
            log.read(1, 1, 9)
        assert follower.wait({1: 1}, PATIENCE_SECONDS) == {1}
        with pytest.raises(LogMismatchError, match="hole"):
            follower.wait({1: 3}, PATIENCE_SECONDS)


def test_records_deleted_from_the_front_are_missed(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        log.append([record(1, str(n).encode()) for n in range(9)])
        cluster.cut_front(topic, 1, 5)
        with pytest.raises(LogMismatchError, match="partition 1"):
            log.read(1, 1, 3)
        assert value_at(log, 1, 5) == b"4"
    with pytest.raises(LogMismatchError, match=r"partition 1.*begins at offset 5"):
        KafkaLog.open(cluster.url(topic))


def before(_reader: Reader, _partition: int) -> tuple[int, int]:
    """Where a partition ended some time ago."""
    return 0, 2


def test_a_leader_of_the_past_is_not_believed_to_know_the_end(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still while another one took over: the consumer goes on asking it, and hears how far it went then."""
    url = f"{cluster.url()}&request.timeout.ms=1000"
    with opened(KafkaLog.create(url, 2)) as log, KafkaLog.open(url) as other:
        log.append([record(0, str(n).encode()) for n in range(5)])
        monkeypatch.setattr(Reader, "bounds", before)
        assert value_at(other, 0, 3) == b"2"
        with pytest.raises(LogMismatchError, match="ends at 6, before offset 7"):
            other.read(0, 7, 1)


def test_what_is_appended_to_a_topic_made_again_has_no_position(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        log.append([record(0, str(n).encode()) for n in range(5)])
        cluster.delete(topic)
        cluster.make(topic, settings={"max.message.bytes": "8388608"})
        with pytest.raises(LogMismatchError, match=r"went to 0:0 .* went on to 6 already"):
            retried(log, [record(0, b"lost")])
        for partition in range(2):
            with pytest.raises(LogMismatchError, match="restore the old"):
                log.append([record(partition, b"and nothing after it")])
        with pytest.raises(LogMismatchError, match="made again"):
            log.describe()


def test_a_topic_made_again_under_the_same_name_is_another_log(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        log.append([record(0, str(n).encode()) for n in range(5)])
        assert log.wait({0: 5}, PATIENCE_SECONDS) == {0}
        cluster.delete(topic)
        with opened(KafkaLog.create(cluster.url(topic), 2)) as other:
            other.append([record(0, b"new")])
            with pytest.raises(LogMismatchError, match="made again"):
                log.describe()
            with pytest.raises(LogMismatchError, match="partition 0"):
                KafkaLog.open(f"{cluster.url(topic)}&request.timeout.ms=1000", writer=False).read(0, 6, 1)
