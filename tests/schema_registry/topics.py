"""Topics and subjects, and what stands under them by a client that is not headrace's."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient


def new_topic() -> str:
    """A name that was not used before."""
    return f"headrace.events-{secrets.token_hex(6)}"


@contextmanager
def stranger(url: str) -> Generator[SchemaRegistryClient, None, None]:
    """Somebody else's client, which remembers nothing of earlier ones."""
    with SchemaRegistryClient({"url": url, "timeout": 20}) as client:
        yield client


def versions_of(url: str, subject: str) -> list[tuple[int, str]]:
    """(id, text) of each version of a subject, in order."""
    with stranger(url) as client:
        found = [client.get_version(subject, number) for number in client.get_versions(subject)]
        return [(one.schema_id or 0, (one.schema.schema_str or "") if one.schema else "") for one in found]


def put(url: str, subject: str, text: str) -> int:
    """Register a text under a subject; its id."""
    with stranger(url) as client:
        return client.register_schema(subject, Schema(text, "AVRO"))
