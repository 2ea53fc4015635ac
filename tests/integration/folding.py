"""Folding whole histories, and looking at all that came out."""

from collections.abc import Sequence
from typing import Any, Final

from headrace.kinds import installed_kinds, installed_schemas
from headrace.processors.engine import Engine, fold_all
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections.port import Tables
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import Author, MemoryLog, write

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
TABLES: Final = (
    "partitions",
    "events",
    "touches",
    "proposals",
    "verdicts",
    "sources",
    "claims",
    "quarantine",
    *(kind.table for kind in KINDS.values()),
)
Contents = dict[str, list[tuple[Any, ...]]]


def history() -> MemoryLog:
    """A log of one partition with everything in it."""
    log = MemoryLog()
    write(Author(log))
    return log


def contents(tables: Tables) -> Contents:
    """Every row of every table."""
    with tables.snapshot() as reader:
        return {table: sorted(reader.values(f"SELECT * FROM {table}", {}), key=repr) for table in TABLES}


def folded(log: MemoryLog, until: int | None = None) -> Contents:
    """What the log folds to, in one go."""
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 0, until=until)
        return contents(tables)


def fold_by(tables: Tables, log: MemoryLog, sizes: Sequence[int]) -> None:
    """Fold to the end in batches of these sizes, over and over."""
    engine = Engine(REGISTRY, KINDS, tables)
    offset, turn = engine.resume(log, 0), 0
    while records := log.read(0, offset, sizes[turn % len(sizes)]):
        engine.apply(0, records)
        offset, turn = offset + len(records), turn + 1


class Broken(MailThread):
    """A kind with a bug for one event type."""

    def evolve(self, state: Any, event: Any) -> dict[str, Any]:
        if event.type == "mail.trashed":
            raise ValueError("a bug")
        return super().evolve(state, event)
