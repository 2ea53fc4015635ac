"""A schema registry for these tests, and topics of their own in it."""

from collections.abc import Iterator

import pytest

from headrace.kinds import schema_registry
from headrace.schemas.confluent import ConfluentRegistry
from tests.schema_registry.topics import new_topic
from tests.stack.parts import registry_url

__all__ = ("registry_url",)


@pytest.fixture
def topic() -> str:
    """A topic that nobody else uses."""
    return new_topic()


@pytest.fixture
def confluent(registry_url: str, topic: str) -> Iterator[ConfluentRegistry]:
    """The schema registry as the topic's readers and writers see it; nothing is registered yet."""
    with schema_registry(registry_url, topic) as found:
        yield found
