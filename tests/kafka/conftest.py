"""A Kafka for these tests."""

import pytest

from tests.kafka.topics import Cluster
from tests.stack.parts import kafka_bootstrap

__all__ = ("kafka_bootstrap",)


@pytest.fixture
def cluster(kafka_bootstrap: str) -> Cluster:
    """The shared cluster of one broker."""
    return Cluster(kafka_bootstrap)
