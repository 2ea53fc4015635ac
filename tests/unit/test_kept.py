"""Entities that are kept between batches: what comes back is what was committed, or nothing."""

from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.model import EntityRow, Intent
from headrace.projections.kept import Kept
from headrace.schemas.refs import EntityRef


def ref(name: str) -> EntityRef:
    """An entity's name."""
    return EntityRef("t", "a", "mail.thread", name)


def batch(begin: int, end: int, *rows: EntityRow, partition: int = 0) -> Memory:
    """A batch that was committed and had these at hand."""
    entities = {row.ref: row for row in rows}
    memory = Memory(PartitionRow(partition, next_offset=end, fold_version=1), {}, entities)
    memory.first_offset = begin
    return memory


def loading(offset: int, partition: int = 0) -> Memory:
    """A batch that is about to be folded from there on."""
    return Memory(PartitionRow(partition, next_offset=offset, fold_version=1), {})


def row(name: str, head: int = 1, content: bytes | None = None) -> EntityRow:
    """A row with an intent that is under way."""
    intent = Intent("p", "mail.label", {}, 3, attempt="first")
    return EntityRow(ref(name), 1, head, b"c", 5, {"n": head}, [intent], content, None, renewed=True)


def test_what_was_committed_comes_back_where_the_commit_left_the_partition() -> None:
    kept, wanted = Kept(), {ref("x"), ref("y")}
    kept.keep(batch(0, 10, row("x", content=b"said")))
    memory = loading(10)
    assert kept.take(memory, wanted) == {ref("y")}
    assert memory.entities == {ref("x"): row("x", content=b"said")}
    assert not memory.entities[ref("x")].renewed


def test_what_a_batch_takes_is_its_own_and_lost_if_that_is_not_committed() -> None:
    kept = Kept()
    kept.keep(batch(0, 10, row("x"), row("y")))
    first = loading(10)
    assert kept.take(first, {ref("x")}) == set()
    first.entities[ref("x")].head_offset = 11
    again = loading(10)
    assert kept.take(again, {ref("x"), ref("y")}) == {ref("x")}, "who folds it again reads it from the tables"
    again.entities[ref("x")] = row("x", head=12)
    again.partition.next_offset = 20
    again.first_offset = 10
    kept.keep(again)
    last = loading(20)
    assert kept.take(last, {ref("x"), ref("y")}) == set(), "what was only looked at is kept as well"
    assert last.entities == {ref("x"): row("x", head=12), ref("y"): row("y")}


def test_an_entity_that_never_was_is_not_kept() -> None:
    kept = Kept()
    kept.keep(batch(0, 10, EntityRow(ref("x"))))
    assert kept.take(loading(10), {ref("x")}) == {ref("x")}


def test_from_any_other_place_nothing_is_known() -> None:
    for offset in (9, 11):
        kept = Kept()
        kept.keep(batch(0, 10, row("x")))
        assert kept.take(loading(offset), {ref("x")}) == {ref("x")}
        assert kept.take(loading(10), {ref("x")}) == {ref("x")}, "it is forgotten"
    kept = Kept()
    kept.keep(batch(0, 10, row("x")))
    kept.keep(batch(12, 20, row("y")))  # somebody else folded what is between
    assert kept.take(loading(20), {ref("x"), ref("y")}) == {ref("x")}


def test_partitions_are_forgotten_one_by_one_and_all_together() -> None:
    kept = Kept()
    for partition in (0, 1, 2):
        kept.keep(batch(0, 10, row("x"), partition=partition))
    kept.forget(0)
    assert kept.take(loading(10, 0), {ref("x")}) == {ref("x")}
    assert kept.take(loading(10, 1), {ref("x")}) == set()
    kept.forget_all()
    assert kept.take(loading(10, 2), {ref("x")}) == {ref("x")}


def test_of_too_many_those_used_longest_ago_go() -> None:
    kept = Kept(20_000)
    for number in range(100):
        kept.keep(batch(number, number + 1, row(f"x-{number}"), row("always")))
    memory = loading(100)
    names = {ref(f"x-{number}") for number in range(100)} | {ref("always")}
    missing = kept.take(memory, names)
    assert ref("always") not in missing
    assert ref("x-99") not in missing
    assert 80 < len(missing) < 99
    assert memory.entities[ref("always")] == row("always")


def test_large_content_counts_for_what_it_takes() -> None:
    kept = Kept(20_000)
    kept.keep(batch(0, 1, row("x", content=bytes(9_000))))
    kept.keep(batch(1, 2, row("y", content=bytes(9_000))))
    kept.keep(batch(2, 3, row("z", content=bytes(9_000))))
    assert kept.take(loading(3), {ref("x"), ref("y"), ref("z")}) == {ref("x"), ref("y")}
