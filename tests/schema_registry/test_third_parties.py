"""Others on the topic, with confluent-kafka's serializers and nothing of headrace: each reads what the other wrote."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import SchemaMissingError
from headrace.kinds import installed_schemas
from headrace.schemas.confluent import ConfluentRegistry
from headrace.schemas.registry import WIRE_HEAD, Registry, SchemaVersion, built_in, parse_version
from tests.schema_registry.topics import stranger, versions_of
from tests.unit.avro_data import data, field, schema

Serializer: Final[Any] = AvroSerializer  # which says of itself that it takes no arguments
Deserializer: Final[Any] = AvroDeserializer
WHOLE = [version for version in Registry(built_in()).newest.values() if version.role in ("event", "record")]
shared = settings(
    max_examples=60,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


@pytest.fixture
def theirs(registry_url: str) -> Iterator[SchemaRegistryClient]:
    """A client of their own."""
    with stranger(registry_url) as client:
        yield client


def writing(client: SchemaRegistryClient, text: str | None, **settings: Any) -> Any:
    """A serializer as a third party configures it for the topic."""
    named = {"subject.name.strategy": topic_record_subject_name_strategy, **settings}
    return Serializer(client, text, conf=named)


@shared
@given(drawn=st.data(), version=st.sampled_from(WHOLE))
def test_their_consumer_reads_what_headrace_wrote(
    confluent: ConfluentRegistry, theirs: SchemaRegistryClient, topic: str, drawn: st.DataObject, version: SchemaVersion
) -> None:
    registry, value = installed_schemas(confluent), SerializationContext(topic, MessageField.VALUE)
    body = drawn.draw(data(version.shape))
    assert Deserializer(theirs)(registry.encode(version.type, body), value) == body


@shared
@given(drawn=st.data(), version=st.sampled_from(WHOLE))
def test_headrace_reads_what_their_producer_wrote(
    confluent: ConfluentRegistry, theirs: SchemaRegistryClient, topic: str, drawn: st.DataObject, version: SchemaVersion
) -> None:
    registry, value = installed_schemas(confluent), SerializationContext(topic, MessageField.VALUE)
    body = drawn.draw(data(version.shape))
    latest = theirs.get_latest_version(f"{topic}-{version.name}").schema
    assert latest is not None
    assert latest.schema_str is not None
    raw = writing(theirs, latest.schema_str, **{"auto.register.schemas": False})(body, value)
    assert raw == registry.encode(version.type, body)
    assert registry.decode(raw or b"") == (version.type, version.role, body)


def test_headrace_reads_what_they_registered_themselves_with_headraces_file(
    confluent: ConfluentRegistry, theirs: SchemaRegistryClient, registry_url: str, topic: str
) -> None:
    """They were there first, with a file of headrace's in their own layout."""
    version = parse_version(next(one for one in built_in() if one["headrace.type"] == "mail.received"))
    body = {"message": "m-1", "sender": "s-1"} | dict.fromkeys(("in_reply_to", "content_key", "content"))
    body |= {"recipients": [], "labels": ["inbox"]}
    raw = writing(theirs, json.dumps(version.source, indent=4))(body, SerializationContext(topic, MessageField.VALUE))
    registry = installed_schemas(confluent)
    assert registry.decode(raw or b"") == ("mail.received", "event", body)
    assert registry.encode("mail.received", body) == raw
    assert len(versions_of(registry_url, f"{topic}-{version.name}")) == 1


def test_a_consumer_that_knows_the_first_version_reads_the_second_as_its_own_rules_say(
    confluent: ConfluentRegistry, theirs: SchemaRegistryClient, topic: str
) -> None:
    first = schema([field("buyer", "string")])
    second = schema([field("buyer", "string"), field("cents", "long", default=7)], version=2)
    old, new = Registry([first], confluent), Registry([first, second], confluent)
    confluent.register(new.versions)
    value = SerializationContext(topic, MessageField.VALUE)
    newer = Deserializer(theirs, json.dumps(second))
    assert newer(old.encode("shop.sold", {"buyer": "b-1"}), value) == {"buyer": "b-1", "cents": 7}
    assert newer(new.encode("shop.sold", {"buyer": "b-1"}), value) == {"buyer": "b-1", "cents": 7}
    assert Deserializer(theirs, json.dumps(first))(new.encode("shop.sold", {"buyer": "b-1"}), value) == {"buyer": "b-1"}
    assert new.decode(old.encode("shop.sold", {"buyer": "b-1"})).body == {"buyer": "b-1", "cents": 7}


def test_a_schema_of_theirs_that_no_package_brings_is_missing_not_wrong(
    confluent: ConfluentRegistry, theirs: SchemaRegistryClient, topic: str
) -> None:
    registry = installed_schemas(confluent)
    record = {"type": "record", "name": "theirs.Thing", "fields": []}
    document = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": topic}
    for source, kind, wrong in (
        (record, "AVRO", "which is not here; upgrade"),
        (document, "JSON", "something else than an Avro schema by itself"),
    ):
        schema_id = theirs.register_schema(f"{topic}-theirs-{kind}", Schema(json.dumps(source), kind))
        with pytest.raises(SchemaMissingError, match=wrong):
            registry.decode(b"\0" + schema_id.to_bytes(WIRE_HEAD - 1, "big") + b"{}")
