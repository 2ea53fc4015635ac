"""The listener lives through whatever is said on its channel, whoever listens to it, and a machine short of numbers."""

import os
import resource
import select
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import pytest

from headrace.errors import HeadraceError
from headrace.log.port import Log
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_listener import PostgresApplied
from tests.contract.tables_recording import KINDS, REGISTRY, history
from tests.postgres.both import fold_by

Ask = Callable[..., list[tuple[Any, ...]]]
LONG: Final = 3_600.0
"""Seconds: longer than any test, so that what is heard was said, not looked for."""
WAIT: Final = 30.0
FORGED: Final = 999_999_999_999
DESCRIPTORS: Final = 1_100
"""More than select() can name."""


class Told(Applied):
    """Remembers in which order it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: Final[SimpleQueue[tuple[int, int]]] = SimpleQueue()
        self.lost: Final = threading.Event()

    def advance(self, partition: int, next_offset: int) -> None:
        super().advance(partition, next_offset)
        self.said.put((partition, next_offset))

    def pause(self, partition: int, error: HeadraceError) -> None:
        super().pause(partition, error)
        self.lost.set()


class Folding(NamedTuple):
    """An account's partition, of which 10 records are folded."""

    log: Log
    partition: int
    engine: Engine

    def go_on(self) -> int:
        """Fold the rest; the end."""
        fold_by(self.engine, self.log, self.partition, (10_000,))
        return self.log.describe().ends[self.partition]


@pytest.fixture
def folding(database: str, schema: str) -> Generator[Folding]:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 10))
        yield Folding(log, partition, engine)


@pytest.fixture
def notify(ask: Ask, schema: str) -> Callable[[str], None]:
    """Say something on the channel, as any login may."""

    def say(said: str) -> None:
        ask("SELECT pg_notify(%s, %s)", f"{schema}_applied", said)

    return say


def test_what_is_no_position_is_not_listened_to(
    database: str, schema: str, folding: Folding, notify: Callable[[str], None]
) -> None:
    applied = Applied()
    with PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
        for junk in (
            "hello",
            "",
            ":",
            "0:",
            ":5",
            "0:-1",
            "0:1:2",
            "0:5\n",
            "1e3:5",
            "0:٣",
            "0:" + "9" * 19,
            "9999999:7",
        ):
            notify(junk)
        notify(f"{'9' * 10}:1")
        end = folding.go_on()
        assert applied.wait(folding.partition, end - 1, WAIT)
        assert [applied.next_offset(partition) for partition in (folding.partition, 9_999_999)] == [end, 0]


def test_a_position_that_nobody_reached_heals(
    database: str, schema: str, folding: Folding, notify: Callable[[str], None]
) -> None:
    applied, partition = Told(), folding.partition
    with PostgresApplied(database, applied, schema=schema, look_seconds=0.2):
        notify(f"{partition}:{FORGED}")
        assert [applied.said.get(timeout=WAIT) for _ in range(3)] == [(partition, at) for at in (10, FORGED, 10)]
        end = folding.go_on()
        assert applied.said.get(timeout=WAIT) == (partition, end)


def test_a_partition_that_is_new_is_heard_at_once(database: str, schema: str, folding: Folding) -> None:
    applied, other = Applied(), 1 - folding.partition
    with PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
        fold_by(folding.engine, folding.log, other, (10_000,))
        assert applied.wait(other, folding.log.describe().ends[other] - 1, WAIT)


def test_a_commit_that_nobody_told_of_is_found_however_much_else_is_said(
    database: str, schema: str, ask: Ask, folding: Folding, notify: Callable[[str], None]
) -> None:
    other, stop, said = 1 - folding.partition, threading.Event(), threading.Event()
    fold_by(folding.engine, folding.log, other, (10_000,))

    def talk() -> None:
        while not stop.wait(0.05):
            notify(f"{other}:1")
            said.set()

    applied, talking = Applied(), threading.Thread(target=talk)
    with PostgresApplied(database, applied, schema=schema, look_seconds=0.2):
        talking.start()
        try:
            assert said.wait(WAIT)
            ask('UPDATE partitions SET next_offset = 15 WHERE "partition" = %s', folding.partition)
            assert applied.wait(folding.partition, 14, WAIT / 3)
        finally:
            stop.set()
            talking.join()


@contextmanager
def descriptors_taken(many: int) -> Generator[None]:
    """What is opened meanwhile gets a number beyond ``many``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        if soft < many * 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, (many * 2, hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while (taken := os.open(os.devnull, os.O_RDONLY)) < many:
            stack.callback(os.close, taken)
        stack.callback(os.close, taken)
        with pytest.raises(ValueError, match="out of range"):
            select.select([taken], [], [], 0)
        yield


def test_it_hears_among_a_thousand_open_sockets(database: str, schema: str, ask: Ask, folding: Folding) -> None:
    applied = Told()
    with descriptors_taken(DESCRIPTORS), PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
        assert applied.wait(folding.partition, 9, WAIT)
        listening = f"headrace listener {schema}"
        ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", listening)
        assert applied.lost.wait(WAIT)
        assert applied.wait(folding.partition, 9, WAIT)
        assert applied.wait(folding.partition, folding.go_on() - 1, WAIT)


def test_somebody_who_cannot_be_told_keeps_nobody_from_being_told(
    database: str, schema: str, folding: Folding, caplog: pytest.LogCaptureFixture
) -> None:
    applied, called = Applied(), threading.Semaphore(0)

    def broken() -> None:
        called.release()
        raise ZeroDivisionError("of whoever listens")

    with PostgresApplied(database, applied, schema=schema, look_seconds=LONG), applied.listening(broken):
        assert applied.wait(folding.partition, folding.go_on() - 1, WAIT)
        assert called.acquire(timeout=WAIT)
        assert applied.paused == {}
    assert "ZeroDivisionError" in caplog.text


def test_what_nobody_foresaw_is_like_a_lost_connection(
    database: str, schema: str, folding: Folding, notify: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Stumbling(Told):
        def advance(self, partition: int, next_offset: int) -> None:
            super().advance(partition, next_offset)
            if next_offset == FORGED and not self.lost.is_set():
                raise ZeroDivisionError("once")

    applied = Stumbling()
    with PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
        notify(f"{folding.partition}:{FORGED}")
        assert applied.lost.wait(WAIT)
        assert applied.wait(folding.partition, folding.go_on() - 1, WAIT)
        assert applied.paused == {}
    assert "ZeroDivisionError" in caplog.text
