"""What the tables suite writes with, and remembers of what it wrote."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Stored
from headrace.processors.core.memory import ContainerKey, Memory, PartitionRow, ProposalKey
from headrace.processors.core.model import ClaimRow, Effect, EntityRow, Known, ProposalRow, SourceRow
from headrace.processors.engine import Engine
from headrace.projections.port import Publish, Tables, Wants
from headrace.schemas.refs import EntityRef, Touch
from tests.contract.rich_history import Author, MemoryLog, write

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
PARTITIONS: Final = 2
ACCOUNTS: Final = ("a-1", "a-4")
"""One on each partition."""


class Stores(Protocol):
    """What an adapter's tests supply."""

    def fresh(self) -> Tables:
        """New, empty tables."""
        ...

    def second(self) -> Tables:
        """Another handle on the same tables, for writing, while the first stays open."""
        ...

    def statements(self) -> int:
        """How many statements the handle of :meth:`fresh` has sent so far."""
        ...


class Recording:
    """The tables, and everything that was ever written to them."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.resume, self.load, self.snapshot = tables.resume, tables.load, tables.snapshot
        self.partition = PartitionRow(0)
        self.entities: dict[EntityRef, EntityRow] = {}
        self.proposals: dict[ProposalKey, ProposalRow] = {}
        self.sources: dict[tuple[str, str, str], SourceRow] = {}
        self.claims: dict[EntityRef, ClaimRow | None] = {}
        self.identities: dict[bytes, tuple[int, bytes]] = {}
        self.known: dict[int, Known] = {}
        self.effects: dict[EntityRef, list[Effect]] = {}
        self.touches: dict[ContainerKey, list[tuple[Touch, Effect]]] = {}

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        """Write, and write down."""
        self._tables.commit(memory, batch, publish)
        self.partition = memory.partition
        self.entities |= memory.changed_entities
        self.proposals |= memory.changed_proposals
        self.sources |= memory.changed_sources
        self.claims |= memory.changed_claims
        by_offset: dict[int, Effect] = {}
        for entry, _, effect, log_time, uses_identity in memory.marks:
            ref = effect.ref if effect is not None else None
            self.known[entry.offset] = Known(entry.chain[:8], ref, log_time)
            if (
                uses_identity
                and (identity := getattr(entry, "identity", None))
                and getattr(entry, "proposal", 1) is None
            ):
                self.identities[identity] = (entry.offset, getattr(entry, "body_hash"))  # noqa: B009 - of an Entry only
            if effect is not None:
                by_offset[effect.offset] = effect
                self.effects.setdefault(effect.ref, []).append(effect)
        for tenant, account, touch, offset in memory.touches:
            key = (tenant, account, touch.container, touch.id)
            self.touches.setdefault(key, []).append((touch, by_offset[offset]))


def history(account: str = "a-4") -> tuple[MemoryLog, int]:
    """A log with everything in it, and the account's partition."""
    log = MemoryLog(PARTITIONS)
    author = Author(log, account)
    write(author)
    return log, author.partition


def fold(tables: Tables, log: MemoryLog, partition: int, batch: int = 1_000) -> int:
    """Fold what the tables have not seen yet; the next offset."""
    engine = Engine(REGISTRY, KINDS, tables)
    offset = engine.resume(log, partition)
    while records := log.read(partition, offset, batch):
        engine.apply(partition, records)
        offset += len(records)
    return offset


def loaded(tables: Tables, partition: PartitionRow, wants: Wants) -> Memory:
    """A memory with what was wanted, as the engine prepares it."""
    memory = Memory(replace(partition), KINDS)
    memory.since = {ref: [] for ref in wants.since}
    memory.touching = {key: [] for key in wants.touching}
    tables.load(memory, wants)
    return memory


def counts(tables: Tables) -> dict[str, int]:
    """How many rows each table has."""
    names = ["partitions", "events", "touches", "proposals", "verdicts", "sources", "claims", "quarantine"]
    with tables.snapshot() as reader:
        return {
            name: reader.rows(f"SELECT count(*) AS n FROM {name}", {})[0]["n"]
            for name in (*names, *(kind.table for kind in KINDS.values()))
        }


class Commits:
    """Folded batches that wait to be committed, for tests of the commit itself."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def prepared(self, log: MemoryLog, partition: int, count: int) -> Callable[[], None]:
        """Fold ``count`` records after what the tables hold; what is returned commits them."""
        waiting: list[Callable[[], None]] = []
        tables = self._tables

        class Held:
            resume, load, snapshot = tables.resume, tables.load, tables.snapshot

            def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
                waiting.append(lambda: tables.commit(memory, batch))

        engine = Engine(REGISTRY, KINDS, Held())
        offset = engine.resume(log, partition)
        engine.apply(partition, log.read(partition, offset, count))
        return waiting[0]
