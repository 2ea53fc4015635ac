"""Framings mean one thing only: headers come back exactly, and the chain tells any two records apart."""

import hashlib
import struct
from typing import Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headrace.errors import BadInputError, LogMismatchError
from headrace.log.framing import GENESIS, TRANSPORT_PREFIX, chain, pack_headers, unpack_headers
from headrace.log.port import Headers, Stored

# Few letters and short lengths, so that contents often coincide and only the framing tells records apart.
_NAMES: Final = st.text("ab\0é", max_size=3)
_BYTES: Final = st.binary(max_size=3)
_HEADERS: Final = st.lists(st.tuples(_NAMES, _BYTES), max_size=4).map(tuple)
_TRANSPORT: Final = st.lists(
    st.tuples(st.text("ab-", max_size=3).map(lambda rest: TRANSPORT_PREFIX + rest), _BYTES), min_size=1, max_size=3
)
_STORED: Final = st.builds(
    Stored,
    partition=st.just(0),
    offset=st.just(0),
    appended_at=st.integers(0, 3),
    log_append=st.booleans(),
    key=st.none() | _BYTES,
    headers=_HEADERS,
    value=_BYTES,
)


def record(headers: Headers = (("a", b"1"),), value: bytes = b"v", key: bytes | None = b"k") -> Stored:
    """Some record."""
    return Stored(3, 7, 1_700_000_000_000, True, key, headers, value)


@given(headers=st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=12).map(tuple))
@example(headers=())
@example(headers=(("", b""), ("", b"")))
@example(headers=(("é", b"1"), ("a", b"2"), ("é", b"1")))
def test_headers_come_back_exactly(headers: Headers) -> None:
    assert unpack_headers(pack_headers(headers)) == headers


def test_the_stored_framing_is_as_documented() -> None:
    names = b"\0\0\0\2\0\0\0\1\0\0\0\2a\xc3\xa9"
    assert pack_headers((("a", b"xyz"), ("é", b""))) == b"\0\0\0\x0f" + names + b"\0\0\0\3\0\0\0\0xyz"


@given(one=_HEADERS, other=_HEADERS)
def test_different_headers_have_different_blobs(one: Headers, other: Headers) -> None:
    assume(one != other)
    assert pack_headers(one) != pack_headers(other)


@given(blob=st.binary(max_size=60))
@example(blob=b"")
@example(blob=b"\0\0\0\4" + b"\xff" * 4)
@example(blob=b"\0\0\0\x09\0\0\0\1\0\0\0\1\xff\0\0\0\0")
def test_a_blob_means_exactly_one_thing_or_is_refused(blob: bytes) -> None:
    try:
        headers = unpack_headers(blob)
    except LogMismatchError:
        return
    assert pack_headers(headers) == blob


@given(headers=_HEADERS, data=st.data())
def test_a_cut_or_lengthened_blob_is_refused(headers: Headers, data: st.DataObject) -> None:
    blob = pack_headers(headers)
    cut = data.draw(st.integers(0, len(blob) - 1))
    for bad in (blob[:cut], blob + b"\0"):
        with pytest.raises(LogMismatchError):
            unpack_headers(bad)


def test_names_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadInputError, match="UTF-8"):
        pack_headers((("\ud800", b""),))


@given(one=_STORED, other=_STORED)
@example(one=record(key=None), other=record(key=b""))
@example(one=record(key=b"ab", value=b"c"), other=record(key=b"a", value=b"bc"))
@example(one=record((("a", b"b"),)), other=record((("ab", b""),)))
@example(one=record((("a", b""), ("b", b""))), other=record((("ab", b""),)))
@example(one=record((("a", b"1"), ("b", b"2"))), other=record((("b", b"2"), ("a", b"1"))))
@example(one=record((("a", b"1"),)), other=record((("a", b"1"), ("a", b"1"))))
@example(one=record((("a", b"x"),), b"y"), other=record((("a", b""),), b"xy"))
@example(one=record(), other=record()._replace(log_append=False))
def test_different_records_have_different_chain_values(one: Stored, other: Stored) -> None:
    assert (chain(GENESIS, one) == chain(GENESIS, other)) == (one == other)


@given(stored=_STORED, transport=_TRANSPORT, data=st.data())
def test_transport_headers_do_not_matter(
    stored: Stored, transport: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    mixed = list(stored.headers)
    for header in transport:
        mixed.insert(data.draw(st.integers(0, len(mixed))), header)
    assert chain(GENESIS, stored._replace(headers=tuple(mixed))) == chain(GENESIS, stored)


def test_a_name_that_only_holds_the_transport_prefix_matters() -> None:
    assert chain(GENESIS, record(((f"x-{TRANSPORT_PREFIX}a", b"1"),))) != chain(GENESIS, record(()))


@given(stored=_STORED)
def test_the_place_is_not_hashed_and_what_came_before_is(stored: Stored) -> None:
    assert chain(GENESIS, stored._replace(partition=5, offset=9)) == chain(GENESIS, stored)
    assert chain(hashlib.sha256().digest(), stored) != chain(GENESIS, stored)


def test_the_chained_framing_is_as_documented() -> None:
    # Spelled out once: these values stand in tokens and tables for ever, so they may never change.
    stored = Stored(3, 7, 1_700_000_000_000, True, b"t/a", (("a", b"xy"), ("é", b"")), b"value")
    framed = (
        bytes(32)
        + struct.pack(">qBqQ", 1_700_000_000_000, 1, 3, 5)
        + struct.pack(">III", 2, 1, 2)
        + "aé".encode()
        + struct.pack(">II", 2, 0)
        + b"t/a"
        + b"xy"
        + b"value"
    )
    assert chain(GENESIS, stored) == hashlib.sha256(framed).digest()
    assert chain(GENESIS, record()).hex() == "61ec38652164eb9681c249de33c13d9f36c40c21fbc067b31118669580bec195"
