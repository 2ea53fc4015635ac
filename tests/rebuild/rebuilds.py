"""Rebuilds made in the tests' own process."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Log
from headrace.processors.engine import Engine, fold_all
from headrace.projections.port import Tables
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_rebuild import Positions, Rebuild
from headrace.projections.sqlite import SqliteTables
from tests.postgres.both import Contents, contents

REGISTRY: Final = installed_schemas()
INSTALLED: Final = installed_kinds()


def tables_in(database: str, schema: str, **more: Any) -> PostgresTables:
    """Tables of the test's own."""
    return PostgresTables(database, REGISTRY, INSTALLED, schema=schema, **more)


def folded(log: Log, tables: Tables, *, until: int | None = None) -> Tables:
    """The tables, with the log folded into them."""
    engine = Engine(REGISTRY, INSTALLED, tables)
    for partition, end in enumerate(log.describe().ends):
        fold_all(engine, log, partition, batch=23, until=None if until is None else min(until, end))
    return tables


def truth(log: Log) -> Contents:
    """What the log folds to."""
    with SqliteTables.in_memory(REGISTRY, INSTALLED) as tables:
        return contents(folded(log, tables), INSTALLED)


def schemas(database: str) -> set[str]:
    """The names of the tests' own."""
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 't\\_%'")
        return {name for (name,) in found.fetchall()}


def damage(ask: Callable[..., object]) -> None:
    """What a rebuild is for: rows that are not what the log says."""
    ask("UPDATE events SET note = 'damaged'")
    ask("DELETE FROM proposals WHERE id = 'p-1'")
    ask(f"UPDATE {INSTALLED['mail.thread'].table} SET head_time = 1")


def until_waiting(database: str, name: str) -> None:
    """Return once a connection of this name waits for a lock."""
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = %s
    """
    pause = threading.Event()
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2_000):
            if connection.execute(waiting, (name,)).fetchone() != (0,):
                return
            pause.wait(0.01)
    raise AssertionError(f"{name} never waits")


@contextmanager
def before_the_switch(monkeypatch: pytest.MonkeyPatch, does: Callable[[], object]) -> Generator[None]:
    """``does`` comes once, after the new tables were made and before they are put in place."""
    switch, came = Rebuild.switch, False

    def late(self: Rebuild, catch_up: Callable[[Positions], object], **named: Any) -> str | None:
        nonlocal came
        came = True
        does()
        return switch(self, catch_up, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Rebuild, "switch", late)
        yield
    assert came
