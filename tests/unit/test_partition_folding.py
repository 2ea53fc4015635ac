"""Batches on their way into the tables: one of one partition may be committed while one of another is folded."""

import logging
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from headrace.errors import FencedError, HaltError, KindError, SchemaMissingError, UnavailableError
from headrace.log.port import Stored
from headrace.processors.applied import Applied
from headrace.processors.engine import Decoded, Folded
from headrace.processors.partition_folding import PartitionFolding

WAIT_SECONDS: Final = 20.0


class ScriptedEngine:
    """Stands for the engine: says what it is asked, and commits when the test lets it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.let = threading.Event()
        self.let.set()
        self.begun = threading.Event()
        self.trouble: dict[int, Exception] = {}
        self.next: dict[int, int] = {}
        self.unreadable = False

    def resume(self, _: object, partition: int) -> int:
        self.said.append(f"resume {partition}")
        return self.next.get(partition, 0)

    def decode(self, partition: int, records: list[Stored], after: Decoded) -> Decoded:
        self.said.append(f"decode {partition}@{records[0].offset} after {after.records[-1].offset}")
        if self.unreadable:
            raise SchemaMissingError("bring the schema")
        return Decoded(records, [], b"", b"", 2)

    def fold(self, partition: int, batch: list[Stored] | Decoded) -> Folded:
        ready = isinstance(batch, Decoded)
        found = batch if isinstance(batch, Decoded) else Decoded(batch, [], b"", b"", 2)
        self.said.append(f"fold {partition}@{found.records[0].offset}{' as decoded' if ready else ''}")
        memory: Any = partition
        return Folded(found, memory)

    def commit(self, folded: Folded) -> None:
        memory: Any = folded.memory
        self.begun.set()
        assert self.let.wait(WAIT_SECONDS)
        self.said.append(f"commit {memory}@{folded.batch.records[0].offset}")
        if memory in self.trouble:
            raise self.trouble.pop(memory)
        self.next[memory] = folded.batch.records[-1].offset + 1

    def forget(self, partition: int) -> None:
        self.said.append(f"forget {partition}")


class Parts:
    """A folding over a scripted engine."""

    def __init__(self) -> None:
        self.engine: Final = ScriptedEngine()
        self.applied: Final = Applied()
        log: Any = object()
        engine: Any = self.engine
        passing = (UnavailableError, FencedError)
        self.folding: Final = PartitionFolding(log, engine, self.applied, logging.getLogger("test"), passing=passing)
        for partition in (0, 1):
            self.folding.begin(partition)
        self.engine.said.clear()

    def hold(self) -> None:
        """Let no commit end."""
        self.engine.let.clear()
        self.engine.begun.clear()


def run(partition: int, offset: int, count: int = 2) -> list[Stored]:
    """Records that follow one another."""
    return [Stored(partition, offset + number, 1, True, b"t/a", (), b"") for number in range(count)]


@pytest.fixture
def parts() -> Iterator[Parts]:
    """Closed at the end."""
    made = Parts()
    yield made
    made.engine.let.set()
    made.folding.close()


def test_another_partition_is_folded_while_one_is_committed(parts: Parts) -> None:
    parts.hold()
    parts.folding.fold(0, run(0, 0), more=True)
    assert parts.engine.begun.wait(WAIT_SECONDS)
    assert parts.engine.said == ["fold 0@0"]
    assert parts.folding.next == {0: 0, 1: 0}, "what is not committed is not folded"
    assert parts.applied.next_offset(0) == 0
    ended = threading.Event()

    def other() -> None:
        parts.folding.fold(1, run(1, 0), more=True)
        ended.set()

    thread = threading.Thread(target=other)
    thread.start()
    while "fold 1@0" not in parts.engine.said:
        assert not ended.wait(0.001)
    assert not ended.is_set(), "one at a time is under way"
    parts.engine.let.set()
    thread.join(WAIT_SECONDS)
    parts.folding.settle()
    assert parts.engine.said == ["fold 0@0", "fold 1@0", "commit 0@0", "commit 1@0"]
    assert parts.folding.next == {0: 2, 1: 2}
    assert (parts.applied.next_offset(0), parts.applied.next_offset(1)) == (2, 2)
    assert (parts.folding.records, parts.folding.batches) == (4, 2)


def test_of_the_same_partition_the_next_is_only_decoded_meanwhile(parts: Parts) -> None:
    parts.hold()
    parts.folding.fold(0, run(0, 0), more=True)
    ended = threading.Thread(target=lambda: parts.folding.fold(0, run(0, 2), more=True))
    ended.start()
    while "decode 0@2 after 1" not in parts.engine.said:
        assert ended.is_alive()
    parts.engine.let.set()
    ended.join(WAIT_SECONDS)
    parts.folding.settle()
    assert parts.engine.said == [
        "fold 0@0",
        "decode 0@2 after 1",
        "commit 0@0",
        "fold 0@2 as decoded",
        "commit 0@2",
    ]


def test_what_cannot_be_decoded_ahead_is_tried_when_it_is_its_turn(parts: Parts) -> None:
    parts.engine.unreadable = True
    parts.folding.fold(0, run(0, 0), more=True)
    parts.folding.fold(0, run(0, 2), more=True)
    parts.folding.settle()
    assert parts.engine.said[-2:] == ["fold 0@2", "commit 0@2"]


def test_the_last_batch_is_committed_when_fold_returns(parts: Parts) -> None:
    parts.folding.fold(0, run(0, 0))
    assert parts.engine.said == ["fold 0@0", "commit 0@0"]
    assert parts.applied.next_offset(0) == 2


@pytest.mark.parametrize("error", [UnavailableError("away"), FencedError("another's")])
def test_what_fails_on_its_way_pauses_its_own_partition(parts: Parts, error: Exception) -> None:
    parts.engine.trouble[0] = error
    parts.folding.fold(0, run(0, 0), more=True)
    parts.folding.fold(1, run(1, 0), more=True)
    parts.folding.fold(0, run(0, 2), more=True)
    parts.folding.settle()
    assert parts.folding.paused == {0: error}
    assert not any(said.startswith("fold 0@2") for said in parts.engine.said), (
        "what follows a batch that failed is not folded"
    )
    assert parts.folding.next == {0: 0, 1: 2}


def test_what_stops_everything_comes_out_where_it_is_settled(parts: Parts) -> None:
    parts.engine.trouble[0] = HaltError("the tables refuse it")
    parts.folding.fold(0, run(0, 0), more=True)
    with pytest.raises(HaltError, match="refuse"):
        parts.folding.fold(1, run(1, 0), more=True)
    assert parts.folding.next[0] == 0


def test_a_partition_is_given_away_only_after_its_batch(parts: Parts) -> None:
    parts.folding.fold(0, run(0, 0), more=True)
    parts.folding.forget(0)
    assert parts.engine.said == ["fold 0@0", "commit 0@0", "forget 0"]
    assert parts.folding.next == {1: 0}
    assert parts.applied.next_offset(0) == 2


def test_it_is_given_away_whatever_became_of_its_batch(parts: Parts) -> None:
    parts.engine.trouble[0] = HaltError("the tables refuse it")
    parts.folding.fold(0, run(0, 0), more=True)
    with pytest.raises(HaltError):
        parts.folding.forget(0)
    assert parts.engine.said[-1] == "forget 0"
    assert parts.folding.next == {1: 0}


def test_it_goes_on_from_the_tables_after_what_is_under_way(parts: Parts) -> None:
    parts.folding.fold(0, run(0, 0), more=True)
    parts.folding.begin(0)
    assert parts.engine.said == ["fold 0@0", "commit 0@0", "resume 0"]
    assert parts.folding.next[0] == 2


def test_a_bug_in_a_kind_stops_its_partition_and_not_what_is_under_way(parts: Parts) -> None:
    def broken(partition: int, batch: list[Stored] | Decoded) -> Folded:
        raise KindError(f"partition {partition}, {batch!r:.20}")

    parts.folding.fold(0, run(0, 0), more=True)
    parts.engine.fold = broken  # type: ignore[method-assign]
    parts.folding.fold(1, run(1, 0), more=True)
    parts.folding.settle()
    assert set(parts.folding.stopped) == {1}
    assert parts.folding.next == {0: 2}
