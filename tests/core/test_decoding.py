"""Decoding: whatever bytes stand on the log, it gives an entry or a poison, or halts on a schema that is not here."""

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import SchemaMissingError
from headrace.log.framing import GENESIS
from headrace.log.port import Stored
from headrace.processors.core.model import Entry, Poison
from headrace.processors.decode import Decoder, body_hash, identity
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import account_key
from tests.core.histories import histories
from tests.core.scribe import HOME, PARTITION, PARTITIONS, REGISTRY, START, USER, Scribe

NAMES = (
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_actor",
    "ce_subject",
    "ce_specversion",
    "ce_concerns",
    "ce_time",
    "ce_sync",
)
WORDS = st.sampled_from(
    (b"mail.received", b"proposal.submitted", b"1.0", b"user/ann", b"mail.thread/th1", b"", b"x y", b"e1")
)


def decoded(record: Stored) -> Entry | Poison:
    return Decoder(REGISTRY, PARTITION, PARTITIONS, GENESIS).decode(record)


@given(
    key=st.none() | st.binary(max_size=8) | st.just(account_key(*HOME)),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), WORDS | st.binary(max_size=12))).map(tuple),
    value=st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"\xc3\x01" + tail),
)
def test_no_bytes_break_it(key: bytes | None, headers: tuple[tuple[str, bytes], ...], value: bytes) -> None:
    with contextlib.suppress(SchemaMissingError):
        assert isinstance(decoded(Stored(PARTITION, 5, START, True, key, headers, value)), Poison)


@given(records=histories(12), where=st.integers(0), at=st.integers(0), byte=st.integers(0, 255))
def test_no_damage_to_a_record_breaks_it(records: list[Stored], where: int, at: int, byte: int) -> None:
    record = records[where % len(records)]
    value = bytearray(record.value)
    if value:
        value[at % len(value)] = byte
    with contextlib.suppress(SchemaMissingError):
        assert decoded(record._replace(value=bytes(value))).offset == record.offset
        assert decoded(record._replace(value=bytes(value[: at % (len(value) + 1)]))).offset == record.offset


@given(records=histories(20))
def test_the_reasons_name_no_library_and_no_character_outside_ascii_of_the_records(records: list[Stored]) -> None:
    """They stand in verdicts, which are to be the same bytes in every release of everything."""
    for record in records:
        item = decoded(record)
        if isinstance(item, Poison):
            assert set(item.reason) <= {*string.printable, "…"}, item.reason
            assert "fastavro" not in item.reason
            assert "Error(" not in item.reason


@pytest.mark.parametrize(
    "time",
    [
        "2026-W47-6T17:15:00.000Z",
        "2026-11-21T24:00:00.000Z",
        "2026-11-21 17:15:00.000Z",
        "2026-11-21T17:15:00,000Z",
        "2026-11-31T17:15:00.000Z",
        "２０２６-11-21T17:15:00.000Z",
    ],
)
def test_a_time_has_one_form_whatever_this_python_would_take_for_one(time: str) -> None:
    envelope = Envelope("e1", "test", "mail.read", USER, "mail.thread", "th1")
    headers = (*to_headers(envelope), ("ce_time", time.encode()))
    value = REGISTRY.encode("mail.read", {})
    assert isinstance(decoded(Stored(PARTITION, 5, START, True, account_key(*HOME), headers, value)), Poison)


def test_identities_collide_with_nobodys() -> None:
    parts = [
        ("t", "a", "s", "e"),
        ("ta", "", "s", "e"),
        ("t", "as", "", "e"),
        ("t", "a", "se", ""),
        ("a", "t", "s", "e"),
    ]
    assert len({identity(*part) for part in parts}) == len(parts)


def test_what_is_said_of_another_entity_is_not_the_same() -> None:
    envelope = Envelope("e1", "test", "mail.read", USER, "mail.thread", "th1")
    others = [
        envelope._replace(entity="th2"),
        envelope._replace(type="mail.unread"),
        envelope._replace(concerns=("person:x",)),
    ]
    hashes = {body_hash(one, b"value") for one in (envelope, *others)} | {body_hash(envelope, b"other")}
    assert len(hashes) == 5
    assert body_hash(envelope._replace(observed_at="2026-11-21T17:15:00.000Z"), b"value") == body_hash(
        envelope, b"value"
    )


def test_the_logs_own_records_of_two_partitions_are_not_one() -> None:
    scribe = Scribe()
    stored = scribe.records[0]
    other = Decoder(REGISTRY, PARTITION + 1, PARTITIONS, GENESIS).decode(stored)
    own = decoded(stored)
    assert isinstance(own, Entry)
    assert isinstance(other, Entry)
    assert own.identity != other.identity


@pytest.mark.parametrize(
    ("log_id", "partitions", "reason"),
    [
        ("0" * 32, 0, "a log has at least one partition"),
        ("0" * 31, 1, "log_id must be 32 hexadecimal digits"),
        ("x" * 32, 1, "log_id must be 32 hexadecimal digits"),
        ("0" * 32, 1, None),
    ],
)
def test_what_opens_a_log(log_id: str, partitions: int, reason: str | None) -> None:
    body = {"log_id": log_id, "partitions": partitions, "kinds": [], "fold_version": 1}
    value = REGISTRY.encode("log.opened", {**body, "policy": {"name": "x", "rules": []}})
    headers = to_headers(Envelope("open", "headrace/operator", "log.opened", USER))
    opened = decoded(Stored(PARTITION, 0, START, True, None, headers, value))
    assert (opened.reason if isinstance(opened, Poison) else None) == reason
