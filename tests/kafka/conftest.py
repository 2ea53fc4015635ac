"""A Kafka for these tests."""

from tests.stack.parts import kafka_bootstrap

__all__ = ("kafka_bootstrap",)
