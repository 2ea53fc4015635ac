"""An outage is told, not repeated ten times a second."""

import logging
from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, TopicPartition

from headrace.log import kafka_topic
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble


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
