"""An outage is told, not repeated ten times a second."""

import logging

import pytest
from confluent_kafka import KafkaError

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
