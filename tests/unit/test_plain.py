"""Avro's plain encoding is read as the library that is lenient reads it, and nothing else is read at all."""

import io
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.schemas.plain import whole
from headrace.schemas.registry import HEAD, Registry, SchemaVersion, built_in
from tests.unit.avro_data import Source, data, field, schema, schemas

BUILT_IN = Registry(built_in())
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def lenient(version: SchemaVersion, datum: bytes) -> Any:
    """What fastavro reads, if writing that again gives the same bytes; else ``None``."""
    try:
        body = fastavro.schemaless_reader(io.BytesIO(datum), version.parsed, None)
        again = io.BytesIO()
        fastavro.schemaless_writer(again, version.parsed, body)
    except Exception:  # noqa: BLE001 - whatever it raises, it is no datum
        return None
    return body if again.getvalue() == datum else None


def strict(version: SchemaVersion, datum: bytes) -> Any:
    """What the compiled reader reads; ``None`` where it refuses."""
    try:
        return whole(version.shape)(datum, 0)
    except (ValueError, IndexError):
        return None


def agree(version: SchemaVersion, datum: bytes) -> None:
    """Both read the same, or neither reads anything. Numbers of 32 bits are looked at by the strict one alone."""
    found, expected = strict(version, datum), lenient(version, datum)
    if found is not None or not version.has_int:
        assert found == expected
    if found is not None:
        assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@slow
@given(drawn=st.data(), source=schemas())
def test_every_single_byte_changed_put_in_or_left_out_is_judged_alike(drawn: st.DataObject, source: Source) -> None:
    registry = Registry([source])
    version = registry.versions[0]
    datum = registry.encode("shop.sold", drawn.draw(data(version.shape)))[HEAD:]
    assert strict(version, datum) is not None
    other = drawn.draw(st.integers(0, 255))
    for at in range(min(len(datum), 60)):
        agree(version, datum[:at] + bytes([other]) + datum[at + 1 :])
        agree(version, datum[:at] + bytes([datum[at] ^ 1]) + datum[at + 1 :])
        agree(version, datum[:at] + bytes([datum[at] | 128, 0]) + datum[at + 1 :])
        agree(version, datum[:at] + bytes([other]) + datum[at:])
        agree(version, datum[:at] + datum[at + 1 :])
        agree(version, datum[:at])


@slow
@given(version=st.sampled_from(BUILT_IN.versions), datum=st.binary(max_size=60))
def test_any_bytes_are_judged_alike(version: SchemaVersion, datum: bytes) -> None:
    agree(version, datum)


@pytest.mark.parametrize(
    ("type_", "datum", "value"),
    [
        ("long", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", (1 << 63) - 1),
        ("long", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -(1 << 63)),
        ("long", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x03", None),
        ("long", b"\x80\x01", 64),
        ("long", b"\x80\x00", None),
        ("long", b"\x80\x80\x00", None),
        ("long", b"\xff" * 11, None),
        ("int", b"\xfe\xff\xff\xff\x0f", (1 << 31) - 1),
        ("int", b"\x80\x80\x80\x80\x10", None),
        ("boolean", b"\x01", True),
        ("boolean", b"\x02", None),
        ("string", b"\x04ab", "ab"),
        ("string", b"\x84\x00ab", None),
        ("string", b"\x03ab", None),
        ("string", b"\x04\xff\xfe", None),
        (["null", "string"], b"\x01\x02a", None),
        (["string", "null"], b"\x00\x02a", "a"),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, b"\x02", "b"),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, b"\x01", None),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, b"\x04", None),
        ({"type": "array", "items": "long"}, b"\x04\x02\x04\x00", [1, 2]),
        ({"type": "array", "items": "long"}, b"\x02\x02\x02\x04\x00", None),
        ({"type": "array", "items": "long"}, b"\x03\x04\x02\x04\x00", None),
        ({"type": "map", "values": "long"}, b"\x04\x02a\x02\x02b\x02\x00", {"a": 1, "b": 1}),
        ({"type": "map", "values": "long"}, b"\x04\x02a\x02\x02a\x02\x00", None),
    ],
)
def test_each_liberty_that_avro_allows_is_refused(type_: Any, datum: bytes, value: Any) -> None:
    version = Registry([schema([field("f", type_)])]).versions[0]
    assert strict(version, datum) == (None if value is None else {"f": value})
    assert strict(version, datum + b"\x00") is None


def test_a_forged_count_of_items_that_look_at_nothing_ends_with_the_bytes() -> None:
    type_ = {"type": "array", "items": {"type": "fixed", "name": "F", "size": 3}}
    version = Registry([schema([field("f", type_)])]).versions[0]
    assert strict(version, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"abcabc") is None
