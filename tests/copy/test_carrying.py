"""What counts as copied: decided from the records alone, whatever anybody writes later."""

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import HaltError
from headrace.log.carrying import CARRIED, COPY_HEADER, MOVED, carried, carrying, ending, ends_copy, new_copy, original
from headrace.log.framing import GENESIS, TRANSPORT_PREFIX, chain
from headrace.log.kafka_copied import CopiedPart
from headrace.log.port import Headers, Stored

COPY: Final = "0123456789abcdef"
OTHER: Final = "fedcba9876543210"
NOW: Final = 1_800_000_000_000

_NAMES: Final = st.sampled_from(["a", "ce_type", CARRIED, COPY_HEADER, f"{TRANSPORT_PREFIX}x"])
_VALUES: Final = st.sampled_from([b"", b"log.moved", f"{COPY} 5 1".encode(), f"{COPY} 5".encode(), b"\xff"])
_HEADERS: Final = st.lists(st.tuples(_NAMES, _VALUES), max_size=4).map(tuple)
_RECORDS: Final = st.builds(
    Stored,
    partition=st.just(0),
    offset=st.integers(0, 9),
    appended_at=st.integers(-(2**62), 2**62),
    log_append=st.booleans(),
    key=st.none() | st.binary(max_size=3),
    headers=_HEADERS,
    value=st.binary(max_size=3),
)


def kept(record: Stored, copy: str = COPY) -> Stored:
    """A copied record as the broker keeps it."""
    return record._replace(appended_at=NOW, log_append=False, headers=carrying(record, copy))


def moving(offset: int, copy: str = COPY, names: int | None = None) -> Stored:
    """A ``log.moved`` that the log itself took."""
    headers = (MOVED, ending(copy, offset if names is None else names))
    return Stored(0, offset, NOW, True, None, headers, b"")


def some(offset: int, headers: Headers = (("ce_type", b"mail.received"),), *, log_append: bool = True) -> Stored:
    """An ordinary record."""
    return Stored(0, offset, 7 + offset, log_append, b"t/a", headers, b"v")


@given(record=_RECORDS)
def test_a_record_comes_back_as_it_was_and_with_its_chain_value(record: Stored) -> None:
    back = original(kept(record), COPY)
    assert back is not None
    assert back == record
    assert chain(GENESIS, back) == chain(GENESIS, record)
    assert original(kept(record), OTHER) is None
    assert original(kept(kept(record), OTHER), OTHER) == kept(record)


@given(record=_RECORDS)
@example(record=some(3, ((CARRIED, f"{COPY} 1 1".encode()),)))
def test_a_record_that_the_log_itself_took_carries_nothing(record: Stored) -> None:
    assert carried(record._replace(log_append=True)) is None
    assert not ends_copy(record._replace(log_append=False), COPY)


@pytest.mark.parametrize(
    "said",
    [b"", b"x", f"{COPY} 01 1".encode(), f"{COPY} 1 2".encode(), f"{COPY} 1 1\n".encode(), f"{COPY}  1".encode()],
)
def test_what_is_not_of_the_form_is_no_time(said: bytes) -> None:
    assert carried(some(0, ((CARRIED, said),), log_append=False)) is None


def test_the_header_must_be_the_last() -> None:
    copied = kept(some(0))
    assert carried(copied._replace(headers=(*copied.headers, ("a", b"")))) is None


def test_copies_have_ids_of_their_own() -> None:
    assert new_copy() != new_copy()


# -- where the copied part ends ---------------------------------------------------------------------------------------


def part(records: Sequence[Stored], reads: list[int] | None = None) -> CopiedPart:
    """The copied part of a log of one partition."""

    def fetch(_: int, offset: int, count: int) -> Sequence[Stored]:
        if reads is not None:
            reads.append(count)
        return records[offset : offset + count]

    return CopiedPart("kafka://x/y", COPY, fetch, lambda _: len(records))


_FORGED: Final = st.sampled_from(
    [
        "plain",
        "forged time",
        "forged time, a client's stamp",
        "a client's stamp",
        "log.moved again",
        "log.moved elsewhere",
    ]
)


def forged(kind: str, offset: int) -> Stored:
    """What somebody with a producer of their own may write behind the copied part."""
    match kind:
        case "forged time":
            return some(offset, carrying(some(offset)._replace(appended_at=1), COPY))
        case "forged time, a client's stamp":  # somebody had the topic's settings changed for a while
            return kept(some(offset)._replace(appended_at=1))
        case "a client's stamp":
            return some(offset, log_append=False)
        case "log.moved again":
            return moving(offset)
        case "log.moved elsewhere":
            return moving(offset, names=offset + 1)
        case _:
            return some(offset)


@given(copied=st.integers(1, 40), behind=st.lists(_FORGED, max_size=40))
@example(copied=1, behind=["forged time, a client's stamp"])
@example(copied=5, behind=["forged time, a client's stamp"] * 20)
def test_the_copied_part_ends_at_its_log_moved_whatever_stands_behind(copied: int, behind: list[str]) -> None:
    front = [kept(some(offset)) for offset in range(copied)]
    tail = [forged(kind, copied + 1 + n) for n, kind in enumerate(behind)]
    if any(kind == "log.moved again" for kind in behind) and "forged time, a client's stamp" in behind:
        return  # both together need the topic's settings changed twice: who may do that may delete it as well
    records = [*front, moving(copied), *tail]
    found = part(records)
    assert found.end(0) == copied
    assert found.originals(records) == [*(some(offset) for offset in range(copied)), moving(copied), *tail]


@given(copied=st.integers(1, 40), ending_=st.sampled_from(["nothing", "plain", "elsewhere", "another copy's"]))
def test_a_part_that_no_log_moved_ends_is_not_finished(copied: int, ending_: str) -> None:
    front = [kept(some(offset)) for offset in range(copied)]
    last = {
        "nothing": [],
        "plain": [some(copied)],
        "elsewhere": [moving(copied, names=copied - 1)],
        "another copy's": [moving(copied, OTHER)],
    }[ending_]
    with pytest.raises(HaltError, match="unfinished copy"):
        part([*front, *last]).end(0)


def test_a_log_opened_in_kafka_has_no_copied_part() -> None:
    records = [some(0), kept(some(1)), moving(2), some(3)]
    found = CopiedPart("x", COPY, lambda _, offset, count: records[offset : offset + count], lambda _: 4)
    assert found.end(1) == 0
    assert found.originals([record._replace(partition=1) for record in records])[1].log_append is False


def test_a_record_that_was_put_among_the_copied_ones_is_noticed() -> None:
    records = [*(kept(some(offset)) for offset in range(9)), moving(9)]
    found = part(records)
    assert found.end(0) == 9
    with pytest.raises(HaltError, match="was not copied"):
        found.originals([records[3], some(4), records[5]])


def test_the_end_is_found_with_few_reads_and_once() -> None:
    reads: list[int] = []
    records = [
        *(kept(some(offset)) for offset in range(5_000)),
        moving(5_000),
        *(some(5_001 + n) for n in range(5_000)),
    ]
    found = part(records, reads)
    assert found.end(0) == 5_000
    assert len(reads) < 20
    assert sum(reads) < 20
    before = len(reads)
    assert found.end(0) == 5_000
    assert len(reads) == before
    assert found.originals(records[6_000:6_010]) == records[6_000:6_010]
    assert len(reads) == before
