"""The listener knows what is committed, whoever commits it, and whatever happens to its connection."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from headrace.errors import HaltError, UnavailableError
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_listener import PostgresApplied
from tests.contract.rich_history import TENANT
from tests.contract.tables_recording import KINDS, REGISTRY, history
from tests.postgres.both import fold_by
from tests.postgres.proxy import Proxy

Ask = Callable[..., list[tuple[Any, ...]]]
LONG = 3_600.0
"""Seconds: longer than any test, so that what is heard was said, not looked for."""


def test_what_is_committed_is_heard(database: str, schema: str) -> None:
    log, partition = history()
    end = len(log.records[partition])
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 10))
        applied = Applied()
        with PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
            assert applied.next_offset(partition) == 10
            assert not applied.wait(partition, 10, 0.05)
            fold_by(engine, log, partition, (9,))
            assert applied.wait(partition, end - 1, 30)
            assert applied.next_offset(partition) == end
            assert applied.next_offset(1 - partition) == 0


def test_what_nobody_said_is_found(database: str, schema: str, ask: Ask) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (10,))
        applied, end = Applied(), len(log.records[partition])
        with PostgresApplied(database, applied, schema=schema, look_seconds=0.05):
            ask("UPDATE partitions SET next_offset = next_offset + 5")
            assert applied.wait(partition, end + 4, 30)


def test_old_news_changes_nothing(database: str, schema: str, ask: Ask) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (10,))
        applied, end = Applied(), len(log.records[partition])
        with PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
            for said in (f"{partition}:3", f"{partition}:{end + 1}"):
                ask("SELECT pg_notify(%s, %s)", f"{schema}_applied", said)
            assert applied.wait(partition, end, 30)
            assert applied.next_offset(partition) == end + 1


def test_while_the_database_is_away_nothing_counts_as_folded(
    database: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (10,))
    proxy, applied, end = Proxy(database), Applied(), len(log.records[partition])
    with PostgresApplied(proxy.address, applied, schema=schema, look_seconds=LONG):
        assert applied.wait(partition, end - 1, 30)
        with _changes(applied) as changed:
            proxy.close()
            while partition not in applied.paused:
                changed()
        assert isinstance(applied.paused[partition], UnavailableError)
        assert not applied.wait(partition, end - 1, 0.05)
        assert applied.failure is None
    assert "lost its connection" in caplog.text


def test_a_connection_that_breaks_is_made_anew(database: str, schema: str, ask: Ask) -> None:
    log, partition = history()
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 10))
        applied = Applied()
        with PostgresApplied(database, applied, schema=schema, look_seconds=LONG):
            listening = f"headrace listener {schema}"
            with _changes(applied) as changed:
                ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", listening)
                while partition not in applied.paused:
                    changed()
            assert applied.wait(partition, 9, 30)
            fold_by(engine, log, partition, (9,))
            assert applied.wait(partition, len(log.records[partition]) - 1, 30)
            assert applied.paused == {}


class _changes:  # noqa: N801 - read as a verb: with changes(...) as changed
    """Waiting for the next change."""

    def __init__(self, applied: Applied) -> None:
        import threading

        self._applied, self._event = applied, threading.Event()
        self._listening = applied.listening(self._event.set)

    def __enter__(self) -> Callable[[], None]:
        self._listening.__enter__()
        return self._next

    def _next(self) -> None:
        assert self._event.wait(30)
        self._event.clear()

    def __exit__(self, *_: object) -> None:
        self._listening.__exit__()


def test_a_listener_without_tables_is_refused(database: str, schema: str) -> None:
    with pytest.raises(HaltError, match="no tables"):
        PostgresApplied(database, Applied(), schema=schema).__enter__()
    nowhere = make_conninfo(database, host="/nowhere")
    with pytest.raises(UnavailableError):
        PostgresApplied(nowhere, Applied(), schema=schema).__enter__()


def test_the_tenant_is_nobodys_business_on_the_channel(database: str, schema: str) -> None:
    """Every role may listen to every channel: what is said must be nothing but numbers."""
    log, partition = history()
    with (
        PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables,
        psycopg.connect(database, autocommit=True) as listener,
    ):
        listener.execute(f'LISTEN "{schema}_applied"'.encode())
        fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (10_000,))
        [heard] = listener.notifies(timeout=30, stop_after=1)
        assert TENANT not in heard.payload
        assert set(heard.payload) <= set("0123456789:")
