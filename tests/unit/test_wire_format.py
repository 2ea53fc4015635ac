"""Confluent wire format: a record's other head, what may stand behind it, and what no schema registry can change."""

import io
import struct

import avro.io
import avro.schema
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from headrace.errors import HaltError, LogMismatchError, SchemaMissingError, UnavailableError, UndecodableError
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_topic import check_opening
from headrace.processors.decode import body_hash, read_opening
from headrace.producers.opening import open_log
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef
from headrace.schemas.registry import (
    HEAD,
    MARKER,
    WIRE_HEAD,
    Registry,
    SchemaVersion,
    built_in,
    datum,
    fingerprint_of,
    parse_version,
)
from tests.contract.rich_history import MemoryLog
from tests.unit.avro_data import Source, data, field, later, schema, schemas
from tests.unit.schema_ids import NumberedIds, text_of

PLAIN = Registry(built_in())
IDS = NumberedIds(PLAIN.versions)
WIRE = Registry(built_in(), IDS)
WHOLE = [version for version in PLAIN.versions if version.role in ("event", "record")]
NEWEST = [version for version in WHOLE if PLAIN.newest[version.type] is version]
NESTED = [version for version in PLAIN.versions if version not in WHOLE]
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def head(schema_id: int) -> bytes:
    """The head as Confluent's documentation has it: magic byte 0, then 4 bytes in big-endian order."""
    return struct.pack(">bI", 0, schema_id)


@slow
@given(drawn=st.data(), version=st.sampled_from(NEWEST))
def test_every_record_comes_back_from_either_head(drawn: st.DataObject, version: SchemaVersion) -> None:
    body = drawn.draw(data(version.shape))
    plain, wire = PLAIN.encode(version.type, body), WIRE.encode(version.type, body)
    assert wire == head(IDS.id_of(version)) + plain[HEAD:]
    assert datum(wire) == datum(plain) == plain[HEAD:]
    assert WIRE.decode(wire) == WIRE.decode(plain) == PLAIN.decode(plain) == (version.type, version.role, body)


@slow
@given(drawn=st.data(), source=schemas())
def test_any_schema_means_the_same_to_apache_avro(drawn: st.DataObject, source: Source) -> None:
    registry = Registry([source], NumberedIds([parse_version(source)]))
    body = drawn.draw(data(registry.versions[0].shape))
    encoded = registry.encode("shop.sold", body)
    reader = avro.io.DatumReader(avro.schema.parse(text_of(registry.versions[0])))
    assert reader.read(avro.io.BinaryDecoder(io.BytesIO(encoded[WIRE_HEAD:]))) == body


@slow
@given(drawn=st.data(), version=st.sampled_from(NESTED))
def test_what_stands_inside_a_body_has_one_head_only(drawn: st.DataObject, version: SchemaVersion) -> None:
    body = drawn.draw(data(version.shape))
    plain = PLAIN.encode(version.type, body)
    assert WIRE.encode(version.type, body) == plain
    assert WIRE.decode_nested(plain).body == body
    with pytest.raises(UndecodableError, match="stands inside records, in Avro single-object encoding only"):
        WIRE.decode(head(IDS.id_of(version)) + plain[HEAD:])


@given(version=st.sampled_from(WHOLE), tail=st.binary(max_size=60))
def test_a_nested_datum_never_asks_a_schema_registry(version: SchemaVersion, tail: bytes) -> None:
    registry = Registry(built_in(), NumberedIds((), failure=AssertionError("it was asked")))
    with pytest.raises(UndecodableError, match="not in Avro single-object encoding"):
        registry.decode_nested(head(IDS.id_of(version)) + tail)


# -- hostile bytes --------------------------------------------------------------------------------------------------


def outcome(raw: bytes) -> None:
    """Decoding either refuses or gives a datum whose only encoding behind such a head this is."""
    try:
        found = WIRE.decode(raw)
    except (UndecodableError, SchemaMissingError):
        return
    assert WIRE.encode(found.type, found.body) == raw


@given(version=st.sampled_from(PLAIN.versions), tail=st.binary(max_size=80))
def test_any_bytes_behind_a_known_head_are_a_datum_or_refused(version: SchemaVersion, tail: bytes) -> None:
    outcome(head(IDS.id_of(version)) + tail)


@slow
@given(drawn=st.data(), version=st.sampled_from(WHOLE), more=st.binary(min_size=1, max_size=4))
def test_a_datum_cut_short_or_followed_by_more_is_refused(
    drawn: st.DataObject, version: SchemaVersion, more: bytes
) -> None:
    raw = WIRE.encode(version.type, drawn.draw(data(version.shape)))
    with pytest.raises(UndecodableError):
        WIRE.decode(raw + more)
    assume(len(raw) > WIRE_HEAD)
    with pytest.raises(UndecodableError):
        WIRE.decode(raw[: drawn.draw(st.integers(WIRE_HEAD, len(raw) - 1))])


def test_another_encoding_of_the_same_datum_is_refused() -> None:
    registry = Registry([schema([field("f", "long")])], NumberedIds([parse_version(schema([field("f", "long")]))]))
    assert registry.decode(head(1) + b"\x02").body == {"f": 1}
    with pytest.raises(UndecodableError, match="not in Avro's plain encoding"):
        registry.decode(head(1) + b"\x82\x00")


@given(raw=st.binary(max_size=WIRE_HEAD - 1))
@example(raw=b"\x00\x00\x00\x01")
def test_less_than_a_head_is_no_record(raw: bytes) -> None:
    with pytest.raises(UndecodableError):
        WIRE.decode(raw)


@pytest.mark.parametrize("schema_id", [0, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("registry", [PLAIN, WIRE], ids=["without", "with"])
def test_an_id_that_no_registry_gives_out_is_no_record_to_anybody(registry: Registry, schema_id: int) -> None:
    with pytest.raises(UndecodableError, match="by an id that no schema registry gives out"):
        registry.decode(head(schema_id) + b"x")


# -- what a schema registry says decides only whether a record can be read now -----------------------------------------


def test_without_a_schema_registry_the_schema_is_missing_not_the_record_wrong() -> None:
    raw = WIRE.encode("mail.read", {})
    with pytest.raises(SchemaMissingError, match="set HEADRACE_SCHEMA_REGISTRY_URL to the one it was written with"):
        PLAIN.decode(raw)


def test_a_schema_that_is_not_installed_is_missing() -> None:
    lacking = Registry((one for one in built_in() if one["headrace.type"] != "mail.read"), IDS)
    with pytest.raises(SchemaMissingError, match=f"schema {PLAIN.schema('mail.read').fingerprint.hex()}, which is not"):
        lacking.decode(WIRE.encode("mail.read", {}))


@pytest.mark.parametrize("failure", [UnavailableError("away"), SchemaMissingError("no such id")])
def test_what_cannot_be_asked_now_is_asked_again(failure: HaltError | UnavailableError) -> None:
    ids = NumberedIds(PLAIN.versions, failure=failure)
    registry, raw = Registry(built_in(), ids), WIRE.encode("mail.read", {})
    for _ in range(2):
        with pytest.raises(type(failure), match=str(failure)):
            registry.decode(raw)
    with pytest.raises(type(failure), match=str(failure)):
        registry.encode("mail.read", {})
    ids.failure = None
    assert registry.decode(raw).type == "mail.read"
    assert registry.encode("mail.read", {}) == raw


def test_ids_are_asked_for_once() -> None:
    ids = NumberedIds(PLAIN.versions)
    registry = Registry(built_in(), ids)
    for _ in range(3):
        registry.decode(registry.encode("mail.read", {}))
        registry.decode(registry.encode("mail.unread", {}))
        registry.encode("mail.archive", {})
    assert sorted(ids.asked) == ["fingerprint_of", "fingerprint_of", "id_of", "id_of"]


@slow
@given(drawn=st.data(), first=schemas())
def test_the_newest_version_reads_every_earlier_one(drawn: st.DataObject, first: Source) -> None:
    second = drawn.draw(later(first))
    versions = [parse_version(first), parse_version(second)]
    assume(versions[0].fingerprint != versions[1].fingerprint)
    ids = NumberedIds(versions)
    old, new = Registry([first], ids), Registry([first, second], ids)
    body = drawn.draw(data(versions[0].shape))
    found = new.decode(old.encode("shop.sold", body))
    assert found == new.decode(Registry([first]).encode("shop.sold", body))
    assert new.encode("shop.sold", found.body)[:WIRE_HEAD] == head(2)


# -- who repeats itself with the other head has said the same ----------------------------------------------------------


@slow
@given(drawn=st.data(), version=st.sampled_from(NEWEST))
def test_a_body_hashes_alike_behind_either_head(drawn: st.DataObject, version: SchemaVersion) -> None:
    envelope = Envelope("e-1", "test", version.type, ActorRef("user", "ann"))
    body, other = drawn.draw(data(version.shape)), drawn.draw(data(version.shape))
    plain = body_hash(envelope, PLAIN.encode(version.type, body))
    assert body_hash(envelope, WIRE.encode(version.type, body)) == plain
    assert (body_hash(envelope, WIRE.encode(version.type, other)) == plain) is (body == other)


# -- the log's own beginning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("registry", [PLAIN, WIRE], ids=["plain", "wire"])
def test_a_topic_that_grew_is_noticed_whatever_its_opening_is_written_in(registry: Registry) -> None:
    log, address = MemoryLog(2), KafkaAddress.parse("kafka://k1:9092/headrace.events")
    log_id = open_log(log, registry, ("mail.thread",))
    assert check_opening(address, log.records[0][0], 2) == log_id
    with pytest.raises(LogMismatchError, match="has 3 partitions and was made with 2"):
        check_opening(address, log.records[0][0], 3)


def test_a_log_of_another_schema_registry_is_noticed_before_anything_is_judged() -> None:
    log = MemoryLog(1)
    open_log(log, WIRE, ("mail.thread",))
    opened = read_opening(log, WIRE)
    assert opened is not None
    assert opened["kinds"] == ["mail.thread"]
    moved = MemoryLog(1)
    open_log(moved, PLAIN, ("mail.thread",))
    assert read_opening(moved, WIRE) is not None
    assert read_opening(MemoryLog(1), WIRE) is None  # not opened yet
    for turned in range(1, len(PLAIN.versions)):
        elsewhere = NumberedIds([*PLAIN.versions[turned:], *PLAIN.versions[:turned]])
        with pytest.raises(HaltError, match="written with another schema registry than the one here; set HEADRACE"):
            read_opening(log, Registry(built_in(), elsewhere))
    with pytest.raises(SchemaMissingError):
        read_opening(log, PLAIN)


# -- whose schema a text is -------------------------------------------------------------------------------------------


@given(source=schemas())
def test_a_text_is_known_by_what_it_says_of_the_bytes(source: Source) -> None:
    version = parse_version(source)
    assert fingerprint_of(text_of(version)) == version.fingerprint
    renamed = {**source, "name": f"{source['namespace']}.{source['name']}", "doc": "Other words.", "x": 1}
    del renamed["namespace"]
    assert fingerprint_of(text_of(version._replace(source=renamed))) == version.fingerprint


@pytest.mark.parametrize(
    "text", ["", "{", "5", "null", "[]x", '"colour"', '{"type": "record"}', '{"type":[' * 50_000, '{"$ref": "x"}']
)
def test_a_text_that_is_no_avro_schema_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no Avro schema"):
        fingerprint_of(text)


def test_the_marker_of_one_head_is_never_that_of_the_other() -> None:
    assert MARKER[:1] != head(1)[:1]
