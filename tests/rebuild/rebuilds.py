"""Rebuilds made in the tests' own process."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Log
from headrace.processors.engine import Engine, fold_all
from headrace.projections.port import Tables
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_rebuild import Positions, Rebuild

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
