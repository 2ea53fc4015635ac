"""Schemas and bytes: what is encoded comes back, what is not sound is refused, and nothing else ever happens."""

import io
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
from fastavro.schema import fingerprint
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from headrace import kinds
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
@pytest.mark.parametrize("version", REGISTRY.versions, ids=lambda version: version.type)
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


# -- what is asked of a schema ------------------------------------------------------------------------------------

_CONTENT = field("content", ["null", "bytes"], default=None, **{"headrace.content": "example.shop.Words"})
_KEY = field("content_key", ["null", "string"], default=None)
_WORDS = {**schema([field("text", "string")], role="content"), "name": "Words", "headrace.type": "shop.words"}
_MARK = {"headrace.pseudonym": True}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([field("f", {"type": "long", "logicalType": "timestamp-millis"})], "f has logicalType.*plain longs"),
        ([field("f", "long", logicalType="timestamp-millis")], "f has aliases or a logicalType"),
        ([field("f", "double")], "f is a double"),
        ([field("f", ["null", "float"])], "f is a float"),
        ([field("f", ["string", "long"])], "f is a union of other than null and one type"),
        ([field("f", ["null", "string", "long"])], "f is a union"),
        ([field("f", ["null"])], "f is a union"),
        ([field("f", {"type": "array", "items": "null"})], "f is an array of items that take no byte"),
        ([field("f", {"type": "array", "items": {"type": "record", "name": "No", "fields": []}})], "take no byte"),
        (
            [field("f", {"type": "record", "name": "R", "fields": [field("more", ["null", "R"])]})],
            r"f\.more is recursive \(R\)",
        ),
        ([field("f", ["null", "Sold"])], r"f is recursive \(Sold\)"),
        ([field("f", "Unknown")], "f names 'Unknown', which is not defined before it"),
        ([field("f", {"type": "fixed", "name": "F", "size": 0})], "must have a size in bytes"),
        ([field("f", {"type": "enum", "name": "E", "symbols": []})], "E must have symbols"),
        ([field("f", {"type": "enum", "name": "E", "symbols": ["a", "a"]})], "E must have symbols"),
        ([field("f", "string"), field("f", "string")], "'f' is no field's name, or used twice"),
        ([field("f", "string", aliases=["g"])], "f has aliases"),
        ([field("f", {"type": "record", "name": "R", "aliases": ["Q"], "fields": []})], "f has aliases"),
        ([field("f", "string", default=5)], "the default does not fit: f must be text"),
        ([field("f", "bytes", default="x")], "the default does not fit: f must be bytes"),
        ([field("f", ["string", "null"], default=None)], "the default does not fit: f must be text"),
        ([field("f", _IN, default={"who": "a"})], "the default does not fit: f.n is missing"),
        ([field("f", "long", **_MARK)], "f: headrace.pseudonym must be true, on a string"),
        ([field("f", {"type": "map", "values": "string"}, **_MARK)], "f: headrace.pseudonym must be true, on a string"),
        ([field("f", "string", **{"headrace.pseudonym": "yes"})], "f: headrace.pseudonym must be true"),
        ([_CONTENT], "content must have the default null, and beside it a field content_key"),
        ([_KEY], "content_key is the name of sealed content"),
        ([field("content", "string")], "content is the name of sealed content"),
        ([{**_CONTENT, "name": "words"}, _KEY], "words: headrace.content may stand only on an event's field content"),
        (
            [{**_CONTENT, "headrace.content": "example.shop.None"}, _KEY],
            "names 'example.shop.None', which is no schema",
        ),
        ([{**_CONTENT, "headrace.content": "example.shop.Sold"}, _KEY], "no schema here with the role content"),
        ([{**_CONTENT, "headrace.content": 5}, _KEY], "no schema here with the role content"),
        ([5], "is no field's name"),
        ("none", "has no list of fields"),
    ],
)
def test_what_headrace_does_not_take_halts_with_the_place(fields: Any, why: str) -> None:
    with pytest.raises(HaltError, match=f"shop.sold.*{why}"):
        Registry([schema(fields), _WORDS])


@pytest.mark.parametrize(
    "type_",
    [
        "bytes",
        ["null", "bytes"],
        {"type": "fixed", "name": "F", "size": 2},
        {"type": "array", "items": "bytes"},
        {"type": "map", "values": {"type": "record", "name": "R", "fields": [field("deep", ["null", "bytes"])]}},
    ],
)
def test_a_proposal_holds_nothing_but_json(type_: Any) -> None:
    with pytest.raises(HaltError, match=r"f.* holds bytes, but what is proposed is kept as JSON"):
        shop(field("f", type_), role="proposal")
    shop(field("f", type_), role="event")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"headrace.type": None}, "headrace.type must be a name"),
        ({"headrace.type": "Shop"}, "headrace.type must be a name"),
        ({"headrace.role": "fact"}, "headrace.role must be one of event, proposal, content, record"),
        ({"headrace.version": 0}, "headrace.version must be a number from 1 on"),
        ({"headrace.version": True}, "headrace.version must be a number from 1 on"),
        ({"headrace.version": "1"}, "headrace.version must be a number from 1 on"),
        ({"namespace": ""}, "a record with a namespace"),
        ({"name": "a b"}, "is no Avro name"),
        ({"name": None}, "has no name"),
        ({"type": "enum", "symbols": ["a"]}, "a schema is a record"),
        ({"type": "string"}, "a schema is a record"),
    ],
)
def test_a_schema_must_say_what_it_is(change: dict[str, Any], why: str) -> None:
    with pytest.raises(HaltError, match=f"cannot be used: .*{why}.*; mend the .avsc file"):
        Registry([{**schema([]), **change}])


def test_a_file_that_is_no_object_halts() -> None:
    with pytest.raises(HaltError, match="a schema file holds one JSON object"):
        parse_version([1])  # type: ignore[arg-type]


def test_a_type_defined_once_may_be_named_again() -> None:
    who = {"type": "record", "name": "Who", "fields": [field("address", "string", **_MARK)]}
    registry = shop(field("seller", who), field("buyer", "Who"), field("others", {"type": "array", "items": "Who"}))
    shapes = {one["name"]: one["type"] for one in registry.versions[0].shape["fields"]}
    assert shapes["buyer"] == shapes["seller"] == shapes["others"]["items"]
    assert shapes["buyer"]["fields"][0]["headrace.pseudonym"] is True


def test_fastavro_still_reads_negative_indexes_which_is_why_the_encoding_is_checked() -> None:
    parsed = fastavro.parse_schema({"type": "enum", "name": "E", "symbols": ["a", "b"]})
    assert fastavro.schemaless_reader(io.BytesIO(varint(-1)), parsed, None) == "b"


# -- schemas that packages bring ----------------------------------------------------------------------------------


class _Point:
    def __init__(self, value: str) -> None:
        self.name, self.value = "shop", value


def _pointing_to(package: str) -> Callable[..., list[_Point]]:
    def entry_points(group: str) -> list[_Point]:
        assert group == "headrace.schemas"
        return [_Point(package)]

    return entry_points


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """What an installation has with a package that brings these schemas."""

    def installed(*sources: Source) -> Registry:
        def read(_: object) -> Iterator[Source]:
            return iter(sources)

        monkeypatch.setattr(kinds, "entry_points", _pointing_to("tests.unit"))
        monkeypatch.setattr(kinds, "read_directory", read)
        return kinds.installed_schemas()

    return installed


def test_a_package_brings_types_of_its_own(bring: Callable[..., Registry]) -> None:
    registry = bring(schema([_CONTENT, _KEY]), _WORDS)
    assert registry.schema("shop.sold").name == "example.shop.Sold"
    assert registry.schema("mail.read").role == "event"


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "headrace.mail"},
        {"headrace.role": "record"},
        {"headrace.type": "log.sold"},
        {"headrace.type": "policy.sold"},
    ],
)
def test_a_package_may_not_claim_what_is_headraces_own(bring: Callable[..., Registry], change: Source) -> None:
    with pytest.raises(HaltError, match=r"'shop' brings .* are headrace's own; use names of yours"):
        bring({**schema([]), **change})


def test_a_package_may_not_add_versions_to_a_type_that_is_not_its_own(bring: Callable[..., Registry]) -> None:
    newer = {**schema([field("message", ["null", "string"], default=None)], version=2), "headrace.type": "mail.read"}
    with pytest.raises(HaltError, match=r"mail\.read version 2 has another name or role than version 1"):
        bring(newer)


def test_a_package_that_is_not_there_halts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "entry_points", _pointing_to("no.such.package"))
    with pytest.raises(HaltError, match=r"the schemas of 'shop' \(no\.such\.package\) cannot be loaded"):
        kinds.installed_schemas()
