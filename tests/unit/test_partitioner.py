"""The partitioner agrees with the Java client, byte for byte (``murmur2_vectors.json`` says how it was made)."""

import json
from pathlib import Path
from typing import Final, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.log.partitioner import murmur2, partition_of


class Vector(TypedDict):
    """What the Java client said of one key."""

    key_hex: str
    murmur2: int
    partitions: dict[str, int]


VECTORS: Final[list[Vector]] = json.loads(Path(__file__).with_name("murmur2_vectors.json").read_text())["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["key_hex"][:24] or "empty")
def test_as_the_java_client(vector: Vector) -> None:
    key = bytes.fromhex(vector["key_hex"])
    assert murmur2(key) == vector["murmur2"]
    for count, partition in vector["partitions"].items():
        assert partition_of(key, int(count)) == partition


def test_the_vectors_cover_what_they_should() -> None:
    keys = {bytes.fromhex(vector["key_hex"]) for vector in VECTORS}
    assert len(keys) >= 38
    assert {len(key) for key in keys} >= set(range(10))
    assert any(vector["murmur2"] < 0 for vector in VECTORS)
    assert any(vector["murmur2"] > 0 for vector in VECTORS)
    assert b"tenant/account" in keys


@given(key=st.binary(max_size=100), count=st.integers(1, 70_000))
def test_any_key_has_a_partition_of_the_log(key: bytes, count: int) -> None:
    assert -(2**31) <= murmur2(key) < 2**31
    assert 0 <= partition_of(key, count) < count
    assert partition_of(key, count) == partition_of(bytes(bytearray(key)), count)
