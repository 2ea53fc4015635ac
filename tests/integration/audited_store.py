"""Log and tables on disk with everything in them, for audits, replays and explanations."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.sqlite import SqliteLog
from headrace.processors.replay import replay
from headrace.projections.kind_tables import column_names
from headrace.projections.rows import (
    CLAIM_COLUMNS,
    EVENT_COLUMNS,
    PARTITION_COLUMNS,
    PROPOSAL_COLUMNS,
    QUARANTINE_COLUMNS,
    SOURCE_COLUMNS,
    TOUCH_COLUMNS,
    VERDICT_COLUMNS,
)
from headrace.projections.sqlite import FILE, SqliteTables
from tests.contract.rich_history import Author, write

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
COLUMNS: Final = {
    "partitions": PARTITION_COLUMNS,
    "events": EVENT_COLUMNS,
    "touches": TOUCH_COLUMNS,
    "proposals": PROPOSAL_COLUMNS,
    "verdicts": VERDICT_COLUMNS,
    "sources": SOURCE_COLUMNS,
    "claims": CLAIM_COLUMNS,
    "quarantine": QUARANTINE_COLUMNS,
    **{kind.table: tuple(column_names(kind)) for kind in KINDS.values()},
}
KEYS: Final = {
    "partitions": ("partition",),
    "events": ("partition", "offset"),
    "touches": ("tenant", "account", "container", "container_id", "offset", "ordinal"),
    "proposals": ("tenant", "account", "id"),
    "verdicts": ("partition", "offset"),
    "sources": ("tenant", "account", "source"),
    "claims": ("tenant", "account", "kind", "entity"),
    "quarantine": ("partition", "offset"),
    **{kind.table: ("tenant", "account", "id") for kind in KINDS.values()},
}
ACCOUNTS: Final = {0: "a-1", 1: "a-4"}
"""An account on each of the two partitions."""


def build(directory: Path) -> None:
    """A store's log and tables, folded and closed."""
    with SqliteLog.create(directory, 2) as log, SqliteTables(directory / FILE, REGISTRY, KINDS) as tables:
        for partition, account in ACCOUNTS.items():
            author = Author(log, account)
            assert author.partition == partition
            write(author)
        replay(log, REGISTRY, KINDS, tables)


@contextmanager
def opened(directory: Path) -> Generator[tuple[SqliteLog, SqliteTables], None, None]:
    """Both files, for reading."""
    with (
        SqliteLog.open(directory, writer=False) as log,
        SqliteTables(directory / FILE, REGISTRY, KINDS, writable=False) as tables,
    ):
        yield log, tables
