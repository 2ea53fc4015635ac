"""The embedded host: what goes wrong stays where it belongs, comes back by itself where it can, and is told."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import apsw
import pytest

from headrace.errors import (
    FencedError,
    HaltError,
    KindError,
    LogMismatchError,
    SchemaMissingError,
    UnavailableError,
    UnsupportedFoldError,
)
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Stored
from headrace.log.sqlite import SqliteLog
from headrace.processors.applied import Applied
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory
from headrace.processors.embedded import BATCH, EmbeddedHost
from headrace.processors.engine import Engine
from headrace.projections.port import Publish, Tables
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.envelope import Envelope
from headrace.schemas.registry import Registry, built_in
from tests.contract.rich_history import ANN, TENANT, Author, mail, write
from tests.integration.folding import Broken

pytestmark = pytest.mark.embedded("is about the embedded host; tests/worker is about the one that shares partitions")

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
PATIENCE: Final = 20.0
"""Seconds that something that must happen may take; nothing waits this long when it works."""
LACKING: Final = Registry(source for source in built_in() if source["headrace.type"] != "mail.labelled")


class Parts:
    """A log of two partitions, tables, and hosts over them."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._stack = stack
        self.path = directory / "tables.db"
        self.log = stack.enter_context(SqliteLog.create(directory, 2))
        self.tables = stack.enter_context(SqliteTables(self.path, REGISTRY, KINDS))
        self.ann = Author(self.log, "a-1")
        self.bob = Author(self.log, "a-4")
        assert (self.ann.partition, self.bob.partition) == (0, 1)

    def host(
        self,
        tables: Tables | None = None,
        *,
        registry: Registry = REGISTRY,
        kinds: Mapping[str, Kind] = KINDS,
        schemas: Callable[[], Registry] | None = None,
        start: bool = True,
    ) -> EmbeddedHost:
        """A host, started and stopped at the test's end."""
        host = EmbeddedHost(self.log, Engine(registry, kinds, tables or self.tables, schemas=schemas))
        self._stack.callback(host.stop)
        if start:
            host.start()
        return host

    def fact(self, author: Author, number: int) -> tuple[int, int]:
        """Append a message; where it is."""
        return author.partition, author.fact("mail.received", "t-1", f"m-{number}", mail(number))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """In a directory of its own."""
    with ExitStack() as stack:
        yield Parts(tmp_path / "store", stack)


class Faulty:
    """Tables that fail on demand: on one partition, until mended."""

    def __init__(self, tables: Tables, partition: int | None, error: Exception) -> None:
        self._tables = tables
        self._partition = partition
        self._error = error
        self.broken = threading.Event()
        self.tried = threading.Event()
        self.resume, self.load, self.snapshot = tables.resume, tables.load, tables.snapshot

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        """Fail, or write."""
        if self.broken.is_set() and self._partition in (None, memory.partition.partition):
            self.tried.set()
            raise self._error
        self._tables.commit(memory, batch, publish)


def applied(host: EmbeddedHost, position: tuple[int, int]) -> bool:
    """Whether the position gets into the tables."""
    return host.applied.wait(*position, PATIENCE)


# -- the ordinary way -----------------------------------------------------------------------------------------------


def test_it_catches_up_and_then_follows(parts: Parts) -> None:
    write(parts.ann)
    ends = parts.log.describe().ends
    host = parts.host()
    assert [host.applied.next_offset(partition) for partition in (0, 1)] == list(ends)
    for number in range(20):
        assert applied(host, parts.fact(parts.bob, number))
    with parts.tables.snapshot() as reader:
        (row,) = reader.rows("SELECT messages FROM threads WHERE account = 'a-4'", {})
    assert row == {"messages": 20}
    assert host.applied.failure is None
    assert host.applied.paused == {}


def test_stopping_is_quick_and_can_be_repeated(parts: Parts) -> None:
    host = parts.host()
    began = time.monotonic()
    assert host.stop()
    assert host.stop()
    assert time.monotonic() - began < 2
    assert not parts.host(start=False).applied.wait(0, 100, 0.01)


def test_stopping_is_bounded_when_a_batch_hangs(parts: Parts) -> None:
    hanging, entered = threading.Event(), threading.Event()

    class Hanging(Faulty):
        def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
            if self.broken.is_set():
                entered.set()
                hanging.wait(PATIENCE)
            self._tables.commit(memory, batch, publish)

    tables = Hanging(parts.tables, None, HaltError(""))
    host = parts.host(tables)
    tables.broken.set()
    position = parts.fact(parts.ann, 1)
    assert entered.wait(PATIENCE)
    assert not host.stop(timeout=0.05)
    hanging.set()
    assert host.stop()
    assert host.applied.next_offset(position[0]) == position[1] + 1, "the batch at hand is finished"


def test_a_busy_partition_keeps_no_other_waiting(parts: Parts) -> None:
    order: list[int] = []

    class Noting(Faulty):
        def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
            order.append(memory.partition.partition)
            self._tables.commit(memory, batch, publish)

    envelope = Envelope("again", "mailbox/ann", "mail.read", ANN, "mail.thread", "t-1")
    parts.log.append([parts.ann.intake.record(TENANT, "a-1", envelope, {})] * (3 * BATCH))
    parts.fact(parts.bob, 1)
    parts.host(Noting(parts.tables, None, HaltError("")))
    assert order[:2] == [0, 1]
    assert order.count(0) == 4


# -- outages: paused, loudly, and back by themselves ----------------------------------------------------------------


@pytest.mark.parametrize("error", [UnavailableError("the tables are away"), SchemaMissingError("a schema is away")])
def test_an_outage_of_one_partition_stops_no_other(
    parts: Parts, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.WARNING, "headrace.embedded")
    tables = Faulty(parts.tables, 0, error)
    host = parts.host(tables)
    tables.broken.set()
    stuck = parts.fact(parts.ann, 1)
    assert tables.tried.wait(PATIENCE)
    for number in range(5):
        assert applied(host, parts.fact(parts.bob, number))
    assert not host.applied.wait(*stuck, 0.01)
    assert host.applied.failure is None
    assert _eventually(lambda: host.applied.paused == {0: error})
    assert "partition 0 is paused" in caplog.text
    tables.broken.clear()
    assert applied(host, stuck)
    assert _eventually(lambda: host.applied.paused == {})
    assert _eventually(lambda: "partition 0 goes on" in caplog.text)


def _eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


def test_a_schema_that_turns_up_is_found(parts: Parts) -> None:
    there = [LACKING]
    host = parts.host(registry=LACKING, schemas=lambda: there[0])
    before = parts.fact(parts.ann, 1)
    stuck = 0, parts.ann.fact("mail.labelled", "t-1", "l-1", {"added": ["work"]})
    assert applied(host, before)
    assert _eventually(lambda: 0 in host.applied.paused)
    assert applied(host, parts.fact(parts.bob, 1))
    assert host.applied.next_offset(0) == stuck[1]
    there[0] = REGISTRY
    assert applied(host, stuck)


def test_records_before_one_that_cannot_be_folded_are(parts: Parts) -> None:
    before = parts.fact(parts.ann, 1)
    stuck = parts.ann.fact("mail.labelled", "t-1", "l-1", {"added": ["work"]})
    parts.fact(parts.ann, 2)
    host = parts.host(registry=LACKING)
    assert applied(host, before)
    assert host.applied.next_offset(0) == stuck


def test_locked_tables_pause_and_come_back(parts: Parts) -> None:
    parts.tables.connection.set_busy_timeout(1)
    host = parts.host()
    other = apsw.Connection(str(parts.path))
    other.execute("BEGIN IMMEDIATE")
    stuck = parts.fact(parts.ann, 1)
    assert _eventually(lambda: 0 in host.applied.paused)
    other.execute("ROLLBACK")
    other.close()
    assert applied(host, stuck)


def test_an_answer_to_a_commit_that_got_lost(parts: Parts) -> None:
    class Forgetful(Faulty):
        def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
            self._tables.commit(memory, batch, publish)
            if self.broken.is_set():
                self.broken.clear()
                raise UnavailableError("the answer got lost")

    tables = Forgetful(parts.tables, None, HaltError(""))
    host = parts.host(tables)
    tables.broken.set()
    assert applied(host, parts.fact(parts.ann, 1))
    assert applied(host, parts.fact(parts.ann, 2))
    with parts.tables.snapshot() as reader:
        assert reader.rows("SELECT messages FROM threads", {}) == [{"messages": 2}]


# -- where going on would be wrong ----------------------------------------------------------------------------------


def test_a_bug_in_a_kind_stops_its_partition_and_tells_who_waits(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    host = parts.host(kinds={**KINDS, "mail.thread": Broken()})
    before = parts.fact(parts.ann, 1)
    bug = 0, parts.ann.fact("mail.trashed", "t-1", "x-1", {})
    after = parts.fact(parts.ann, 2)
    with pytest.raises(KindError, match="a bug"):
        host.applied.wait(*after, PATIENCE)
    with pytest.raises(KindError, match="a bug"):
        asyncio.run(host.applied.wait_async(*bug, PATIENCE))
    assert applied(host, before)
    assert applied(host, parts.fact(parts.bob, 1))
    assert isinstance(host.applied.failure, KindError)
    assert host.applied.failure_of(1) is None
    assert "partition 0 has stopped" in caplog.text


def test_another_owner_stops_everything_and_tells_who_waits(parts: Parts) -> None:
    host = parts.host()
    assert applied(host, parts.fact(parts.ann, 1))
    # The row moves on under the host's feet, as another process would move it.
    parts.tables.connection.execute("UPDATE partitions SET next_offset = 100 WHERE partition = 0")
    position = parts.fact(parts.ann, 2)
    with pytest.raises(FencedError, match="another"):
        host.applied.wait(*position, PATIENCE)
    with pytest.raises(FencedError):
        host.applied.wait(1, 10_000, PATIENCE)
    assert host.stop()


def test_an_unforeseen_exception_stops_everything_and_tells_who_waits(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    tables = Faulty(parts.tables, 0, ZeroDivisionError("unforeseen"))
    host = parts.host(tables)
    tables.broken.set()
    position = parts.fact(parts.ann, 1)
    with pytest.raises(HaltError, match="unforeseen"):
        host.applied.wait(*position, PATIENCE)
    with pytest.raises(HaltError, match="unforeseen"):
        host.applied.wait(1, 10_000, PATIENCE)
    assert "Traceback" in caplog.text


def test_what_the_log_asks_for_and_is_not_here_stops_everything(parts: Parts) -> None:
    host = parts.host()
    policy = REGISTRY.decode(parts.log.read(0, 0, 1)[0].value).body["policy"]
    body = {"policy": policy, "kinds": ["no.such.kind"], "fold_version": 1}
    offset = parts.bob.own("policy.activated", "policy-2", body)
    for partition in (0, 1):
        with pytest.raises(UnsupportedFoldError, match=r"no\.such\.kind"):
            host.applied.wait(partition, offset, PATIENCE)
    with pytest.raises(UnsupportedFoldError):
        parts.host()


def test_it_does_not_start_on_another_log(parts: Parts, tmp_path: Path) -> None:
    parts.host().stop()
    with SqliteLog.create(tmp_path / "other", 2) as other:
        Author(other)
        with pytest.raises(LogMismatchError, match="another log"):
            EmbeddedHost(other, Engine(REGISTRY, KINDS, parts.tables)).start()


# -- waiting --------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_what_is_waited_for_and_nothing_else() -> None:
    async def run() -> None:
        signal = Applied()
        waiting = [asyncio.create_task(signal.wait_async(0, offset, PATIENCE)) for offset in (3, 4)]
        await asyncio.sleep(0)
        signal.advance(1, 100)
        signal.pause(0, UnavailableError("away"))
        signal.advance(0, 4)
        assert await waiting[0]
        assert signal.paused == {}
        assert not waiting[1].done()
        signal.advance(0, 5)
        assert await waiting[1]
        assert not await signal.wait_async(0, 5, 0.01)
        signal.fail(KindError("a bug"), 0)
        assert await signal.wait_async(0, 4, PATIENCE), "what is in the tables stays there"
        with pytest.raises(KindError):
            await signal.wait_async(0, 5, PATIENCE)
        assert not await signal.wait_async(1, 100, 0.01)

    asyncio.run(run())


def test_listeners_are_called_until_they_are_removed() -> None:
    signal, called = Applied(), list[int]()
    with signal.listening(lambda: called.append(1)):
        signal.advance(0, 1)
        signal.pause(0, UnavailableError("away"))
        signal.fail(HaltError("over"))
    signal.advance(0, 2)
    assert len(called) == 3
