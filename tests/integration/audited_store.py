"""Log and tables with everything in them, for audits, replays and explanations."""

from pathlib import Path
from typing import Final

from headrace.kinds import installed_kinds, installed_schemas
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
from tests.contract.rich_history import Author, write
from tests.integration.stores import made_parts

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
    with made_parts(directory, 2) as (log, tables):
        for partition, account in ACCOUNTS.items():
            author = Author(log, account)
            assert author.partition == partition
            write(author)
        replay(log, REGISTRY, KINDS, tables)
