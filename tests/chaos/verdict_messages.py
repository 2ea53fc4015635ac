"""The verdicts' topic against the tables: every verdict is there, none else, and repetitions are equal to the byte."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from headrace.log.kafka_address import KafkaAddress
from headrace.processors.verdict_topic import address_of
from tests.chaos.evidence import Evidence, Violation

_SECONDS: Final = 20.0
Message = tuple[bytes, bytes, bytes]
"""Key, ``ce_id``, value."""


def check_topic(log_url: str, evidence: Evidence) -> Iterator[Violation]:
    """What a reader of the topic is told is what the tables hold."""
    wanted = {
        f"{row['partition']}-{row['offset']}".encode(): (
            f"{row['tenant']}/{row['account']}/{row['proposal']}".encode(),
            row["text"].encode(),
        )
        for row in evidence.tables["verdicts"]
    }
    told = set[bytes]()
    for key, place, value in _messages(KafkaAddress.parse(log_url), len(evidence.log)):
        told.add(place)
        if wanted.get(place) != (key, value):
            yield Violation("verdict topic", f"{place!r} of {key!r} says {value!r}, the tables {wanted.get(place)}")
    for place in wanted.keys() - told:
        yield Violation("verdict topic", f"the verdict at {place!r} was never published")


def _messages(log: KafkaAddress, partitions: int) -> Iterator[Message]:
    address = address_of(log)
    settings: dict[str, Any] = {**address.settings(), "group.id": "chaos-reader", "log_level": 0}
    with closing(Consumer(settings)) as consumer:
        for partition in range(partitions):
            place = TopicPartition(address.topic, partition)
            first, end = consumer.get_watermark_offsets(place, timeout=_SECONDS)
            consumer.assign([TopicPartition(address.topic, partition, first)])
            while first < end:
                found = consumer.consume(min(1_000, end - first), timeout=_SECONDS)
                assert found, f"the verdicts' topic does not answer from {first} of {partition}"
                for message in found:
                    assert message.error() is None, message.error()
                    headers: Any = dict(message.headers() or ())
                    key, value, offset = message.key(), message.value(), message.offset()
                    assert isinstance(key, bytes)
                    assert isinstance(value, bytes)
                    assert offset is not None
                    yield key, headers["ce_id"], value
                    first = offset + 1
