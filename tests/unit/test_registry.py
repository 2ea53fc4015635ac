"""Schemas and bytes: what is encoded comes back, what is not sound is refused, and nothing else ever happens."""

import io
import json
import struct
import time
import tracemalloc
from types import MappingProxyType
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
from fastavro.schema import fingerprint
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError, HaltError, SchemaMissingError, UndecodableError
from headrace.schemas.registry import HEAD, MARKER, Registry, SchemaVersion, built_in, parse_version
from tests.unit.avro_data import Source, data, field, later, schema, schemas

REGISTRY = Registry(built_in())
VERSIONS = st.sampled_from(REGISTRY.versions)
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def varint(number: int) -> bytes:
    """A number as Avro writes it."""
    rest, found = (number << 1) ^ (number >> 63), bytearray()
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*found, rest])


def head(version: SchemaVersion) -> bytes:
    return MARKER + version.fingerprint


def shop(*fields: dict[str, Any], **other: Any) -> Registry:
    """A registry with the one type shop.sold."""
    return Registry([schema(list(fields), **other)])


# -- encoding ---------------------------------------------------------------------------------------------------


@slow
@given(drawn=st.data())
@pytest.mark.parametrize("version", REGISTRY.newest.values(), ids=lambda version: version.type)
def test_every_body_of_every_schema_comes_back(version: SchemaVersion, drawn: st.DataObject) -> None:
    body = drawn.draw(data(version.shape))
    assert REGISTRY.decode(REGISTRY.encode(version.type, body)) == (version.type, version.role, body)


@slow
@given(drawn=st.data(), source=schemas())
def test_every_body_of_any_schema_comes_back_and_means_the_same_to_apache_avro(
    drawn: st.DataObject, source: Source
) -> None:
    registry = Registry([source])
    body = drawn.draw(data(registry.versions[0].shape))
    encoded = registry.encode("shop.sold", body)
    assert registry.decode(encoded).body == body
    reader = avro.io.DatumReader(avro.schema.parse(json.dumps(source)))
    assert reader.read(avro.io.BinaryDecoder(io.BytesIO(encoded[HEAD:]))) == body


def test_the_head_is_the_single_object_encoding_of_the_specification() -> None:
    # Avro 1.12, "Single-object encoding": C3 01, then CRC-64-AVRO in little-endian order.
    assert fingerprint('"int"', "CRC-64-AVRO") == struct.pack("<Q", 0x7275D51A3F395C8F).hex()
    source = {**schema([]), "name": "Empty"}
    canonical = b'{"name":"example.shop.Empty","type":"record","fields":[]}'
    assert parse_version(source).fingerprint == struct.pack("<Q", rabin(canonical))
    assert Registry([source]).encode("shop.sold", {}) == b"\xc3\x01" + struct.pack("<Q", rabin(canonical))


def rabin(text: bytes) -> int:
    """CRC-64-AVRO as the specification's own code has it."""
    table: list[int] = []
    for start in range(256):
        value = start
        for _ in range(8):
            value = (value >> 1) ^ (0xC15D213AA4D7A795 & -(value & 1))
        table.append(value)
    found = 0xC15D213AA4D7A795
    for byte in text:
        found = (found >> 8) ^ table[(found ^ byte) & 0xFF]
    return found


def test_the_rabin_of_the_specification_knows_int() -> None:
    assert rabin(b'"int"') == 0x7275D51A3F395C8F


def test_defaults_are_filled_in_and_mappings_of_any_kind_are_taken() -> None:
    fields = [field("a", "string"), field("b", {"type": "array", "items": "string"}, default=["x"])]
    fields.append(field("c", {"type": "record", "name": "In", "fields": [field("d", "long", default=4)]}))
    registry = shop(*fields)
    encoded = registry.encode("shop.sold", MappingProxyType({"a": "1", "c": MappingProxyType({})}))
    assert registry.decode(encoded).body == {"a": "1", "b": ["x"], "c": {"d": 4}}


_IN = {"type": "record", "name": "In", "fields": [field("who", "string"), field("n", "int", default=0)]}


@pytest.mark.parametrize(
    ("type_", "value", "named"),
    [
        ("string", b"x", "f must be text"),
        ("string", 5, "f must be text"),
        ("string", None, "f must be text"),
        ("string", "a\ud800", "f holds half a surrogate pair"),
        ("bytes", "x", "f must be bytes"),
        ("bytes", bytearray(b"x"), "f must be bytes"),
        ("boolean", "no", "f must be true or false"),
        ("boolean", 1, "f must be true or false"),
        ("long", 1.5, "f must be a whole number of 64 bits"),
        ("long", True, "f must be a whole number"),
        ("long", float("nan"), "f must be a whole number"),
        ("long", float("inf"), "f must be a whole number"),
        ("long", 1 << 63, "f must be a whole number of 64 bits"),
        ("int", 1 << 31, "f must be a whole number of 32 bits"),
        ("null", 0, "f must be null"),
        (["null", "long"], "5", "f must be a whole number"),
        ({"type": "array", "items": "string"}, "abc", "f must be a list"),
        ({"type": "array", "items": "string"}, {"a": 1}, "f must be a list"),
        ({"type": "array", "items": _IN}, [{"who": "a"}, {"who": 5}], "f[1].who must be text"),
        ({"type": "array", "items": _IN}, [{"who": "a", "n": 1 << 31}], "f[0].n must be a whole number"),
        ({"type": "array", "items": _IN}, [{}], "f[0].who is missing"),
        ({"type": "array", "items": _IN}, [{"who": "a", "x": 1}], "no such field: f[0].x; known: who, n"),
        ({"type": "array", "items": _IN}, ["a"], "f[0] must be an object"),
        ({"type": "map", "values": "long"}, {"a": "b"}, "f['a'] must be a whole number"),
        ({"type": "map", "values": "long"}, {1: 1}, "a key of f must be text"),
        ({"type": "map", "values": "long"}, [1], "f must be an object"),
        ({"type": "enum", "name": "E", "symbols": ["red"]}, "green", "f must be one of red"),
        ({"type": "enum", "name": "E", "symbols": ["red"]}, [], "f must be one of red"),
        ({"type": "fixed", "name": "F", "size": 2}, b"abc", "f must be 2 bytes"),
        (["null", {"type": "array", "items": "string"}], ("string", "x"), "f must be a list"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_field(type_: Any, value: Any, named: str) -> None:
    with pytest.raises(BadInputError, match=r"shop\.sold does not fit its schema: ") as caught:
        shop(field("f", type_)).encode("shop.sold", {"f": value})
    assert named in str(caught.value)


def test_missing_and_unknown_fields_and_types_are_named() -> None:
    with pytest.raises(BadInputError, match="message is missing"):
        REGISTRY.encode("mail.received", {"sender": "p"})
    with pytest.raises(BadInputError, match=r"no such field: colour; known: message$"):
        REGISTRY.encode("mail.read", {"colour": 1})
    with pytest.raises(BadInputError, match=r"'mail\.eaten' is no type that this log knows; known: .*mail\.read"):
        REGISTRY.encode("mail.eaten", {})


# -- decoding hostile bytes ---------------------------------------------------------------------------------------


def outcome(registry: Registry, raw: bytes) -> None:
    """Decoding either refuses or gives a datum whose only encoding this is."""
    try:
        found = registry.decode(raw)
    except (UndecodableError, SchemaMissingError):
        return
    assert registry.encode(found.type, found.body) == raw


@given(raw=st.binary(max_size=60))
@example(raw=b"")
@example(raw=MARKER)
@example(raw=MARKER + bytes(7))
@example(raw=b"\xc3\x02" + REGISTRY.versions[0].fingerprint)
def test_bytes_of_any_kind_are_refused(raw: bytes) -> None:
    with pytest.raises((UndecodableError, SchemaMissingError)):
        REGISTRY.decode(raw)


@given(version=VERSIONS, tail=st.binary(max_size=80))
def test_any_bytes_behind_a_known_head_are_a_datum_or_refused(version: SchemaVersion, tail: bytes) -> None:
    outcome(REGISTRY, head(version) + tail)


_HOSTILE = st.binary(max_size=4) | st.sampled_from(
    [varint(number) for number in (1 << 60, -(1 << 60), (1 << 63) - 1, -(1 << 63), 1 << 31, -1, -2, 2, 64)]
    + [b"\xff" * 12, b"\x80" * 30 + b"\x01", b"\x80\x00", b"\xed\xa0\x80", b"\xc0\x80"]
)


@slow
@given(drawn=st.data(), source=schemas())
def test_mutated_data_of_any_schema_is_a_datum_or_refused(drawn: st.DataObject, source: Source) -> None:
    registry = Registry([source])
    raw = registry.encode("shop.sold", drawn.draw(data(registry.versions[0].shape)))
    at = drawn.draw(st.integers(HEAD, len(raw)))
    cut = drawn.draw(st.integers(0, 3))
    outcome(registry, raw[:at] + drawn.draw(_HOSTILE) + raw[at + cut :])


@slow
@given(drawn=st.data(), version=VERSIONS)
def test_a_datum_cut_short_or_followed_by_more_is_refused(drawn: st.DataObject, version: SchemaVersion) -> None:
    raw = REGISTRY.encode(version.type, drawn.draw(data(version.shape)))
    more = drawn.draw(st.binary(min_size=1, max_size=4))
    with pytest.raises(UndecodableError):
        REGISTRY.decode(raw + more)
    assume(len(raw) > HEAD)
    with pytest.raises(UndecodableError):
        REGISTRY.decode(raw[: drawn.draw(st.integers(HEAD, len(raw) - 1))])


_LIST = {"type": "array", "items": "string"}
_COLOURS = {"type": "enum", "name": "E", "symbols": ["red", "green"]}


@pytest.mark.parametrize(
    ("type_", "raw"),
    [
        ("string", varint(1 << 60) + b"abc"),
        ("string", varint(-5) + b"abc"),
        ("string", varint(2) + b"\xff\xfe"),
        ("string", varint(3) + b"\xed\xa0\x80"),
        ("bytes", varint((1 << 63) - 1)),
        ("boolean", b"\x02"),
        ("int", varint(1 << 31)),
        ("int", varint(-(1 << 31) - 1)),
        ("long", b"\x82\x00"),  # 1, at greater length than needed
        ("long", b"\xff" * 9 + b"\x7f"),  # more than 64 bits
        ("long", b"\x80" * 20 + b"\x01"),
        ("long", b"\x80"),
        (_COLOURS, varint(2)),
        (_COLOURS, varint(-1)),
        (_COLOURS, varint(1 << 40)),
        (["null", "string"], varint(2)),
        (["null", "string"], varint(-1) + varint(1) + b"a"),
        (["null", "string"], varint(-2)),
        (_LIST, varint(1 << 60) + b"\x02a\x02a"),
        (_LIST, varint(-(1 << 60)) + b"\x02\x02a"),
        (_LIST, varint(-(1 << 63)) + b"\x02\x02a"),
        (_LIST, varint(-1) + varint(2) + b"\x02a\x00"),  # sound Avro, but not the plain encoding
        (_LIST, varint(1) + b"\x02a" + varint(1) + b"\x02b\x00"),
        ({"type": "map", "values": "string"}, varint(2) + b"\x02a\x02b\x02a\x02c\x00"),
        ({"type": "fixed", "name": "F", "size": 4}, b"abc"),
    ],
)
def test_unsound_bytes_are_refused(type_: Any, raw: bytes) -> None:
    registry = shop(field("f", type_))
    with pytest.raises(UndecodableError, match="the body"):
        registry.decode(head(registry.versions[0]) + raw)


def test_a_large_record_takes_time_and_memory_in_proportion() -> None:
    registry = shop(field("f", {"type": "array", "items": _IN}))
    one = b"\x00\x00"
    count = 200_000
    plain = head(registry.versions[0]) + varint(count) + one * count + b"\x00"
    tracemalloc.start()
    started = time.process_time()
    assert len(registry.decode(plain).body["f"]) == count
    with pytest.raises(UndecodableError):
        registry.decode(plain[:-2])
    assert time.process_time() - started < 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 * len(plain)


def test_fastavro_still_reads_negative_indexes_which_is_why_the_encoding_is_checked() -> None:
    parsed = fastavro.parse_schema({"type": "enum", "name": "E", "symbols": ["a", "b"]})
    assert fastavro.schemaless_reader(io.BytesIO(varint(-1)), parsed, None) == "b"


# -- versions -----------------------------------------------------------------------------------------------------


def test_a_missing_schema_halts_and_says_what_to_install() -> None:
    with pytest.raises(SchemaMissingError, match="written with schema 0102030405060708, which is not here; upgrade"):
        REGISTRY.decode(MARKER + bytes(range(1, 9)) + b"x")


@slow
@given(drawn=st.data(), first=schemas())
def test_the_newest_version_reads_every_earlier_one(drawn: st.DataObject, first: Source) -> None:
    second = drawn.draw(later(first))
    third = drawn.draw(later(second))
    assume(len({parse_version(one).fingerprint for one in (first, second, third)}) == 3)
    registry = Registry([third, first, second])
    for source in (first, second):
        old = Registry([{**source, "headrace.version": 1}])
        body = drawn.draw(data(old.versions[0].shape))
        found = registry.decode(old.encode("shop.sold", body))
        again = registry.decode(registry.encode("shop.sold", found.body))
        assert again.body == found.body, "it is a whole body of the newest version"
        assert_said(body, found.body)
        for key in [*found.body]:
            value = found.body[key]
            if isinstance(value, (list, dict)):
                value.clear()
        fresh = registry.decode(old.encode("shop.sold", body)).body
        assert fresh == again.body, "no two bodies share a default"


def assert_said(old: Any, new: Any) -> None:
    """Everything that was said is still said."""
    if isinstance(old, dict):
        for key, value in old.items():
            assert_said(value, new[key])
    elif isinstance(old, list):
        assert len(old) == len(new)
        for one, other in zip(old, new, strict=True):
            assert_said(one, other)
    else:
        assert old == new


def test_an_old_body_gets_the_new_defaults() -> None:
    first = schema([field("a", "string")])
    second = schema([field("b", "long", default=7), field("a", ["null", "string"])], version=2)
    registry = Registry([first, second])
    assert registry.decode(Registry([first]).encode("shop.sold", {"a": "x"})).body == {"a": "x", "b": 7}
    assert registry.schema("shop.sold").version == 2


def test_versions_that_do_not_go_together_halt() -> None:
    one = schema([field("a", "string")])
    two = {**schema([field("a", "long")], version=2)}
    for sources, why in (
        ([one, one], "two schemas claim shop.sold version 1"),
        ([one, {**two, "headrace.version": 3}], "shop.sold version 3 but no version 2"),
        ([two], "shop.sold version 2 but no version 1"),
        ([one, two], "shop.sold version 2 does not read version 1: a was string and became long"),
        ([one, {**one, "headrace.type": "shop.bought"}], "both named example.shop.Sold"),
        ([one, {**one, "headrace.version": 2}], "cannot be told apart in encoded data"),
        ([one, schema([field("a", "string"), field("b", "long", default=1)], version=2, name="Other")], "another name"),
    ):
        with pytest.raises(HaltError, match=why):
            Registry(sources)
