"""What one batch of one partition is folded over: the rows loaded for it, and everything the fold did to them."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headrace.errors import UnsupportedFoldError
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import (
    FOLD_VERSION,
    AccountKey,
    ClaimRow,
    Effect,
    EntityRow,
    Entry,
    Known,
    Mark,
    Poison,
    ProposalRow,
    SourceRow,
)
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.schemas.refs import EntityRef, Touch

ProposalKey = tuple[str, str, str]
ContainerKey = tuple[str, str, str, str]


@dataclass(slots=True)
class PartitionRow:
    """A partition as far as it is folded: ``next_offset`` is the first record not seen, ``chain`` the value after the
    last one seen, ``log_time`` in epoch milliseconds."""

    partition: int
    log_id: bytes = b""
    partitions: int = 0
    next_offset: int = 0
    chain: bytes = bytes(32)
    log_time: int = 0
    policy: Policy = DEFAULT_POLICY
    kinds: tuple[str, ...] = ()
    fold_version: int = 0
    successor: str | None = None


class Judged:
    """A verdict that was reached: of which proposal, at which record, in canonical JSON."""

    __slots__ = ("key", "log_time", "offset", "text", "verdict")

    def __init__(self, offset: int, key: ProposalKey, verdict: str, text: bytes, log_time: int) -> None:
        self.offset = offset
        self.key = key
        self.verdict = verdict
        self.text = text
        self.log_time = log_time


@dataclass(slots=True)
class Memory:
    """Loaded rows, and the changes on top of them.

    ``since`` and ``touching`` hold effective events only of the entities and containers that some proposal at hand had
    read (their keys are set when the batch is loaded); the fold appends the batch's own.
    """

    partition: PartitionRow
    kinds: Mapping[str, Kind]
    entities: dict[EntityRef, EntityRow] = field(default_factory=dict)
    proposals: dict[ProposalKey, ProposalRow] = field(default_factory=dict)
    sources: dict[AccountKey, dict[str, SourceRow]] = field(default_factory=dict)
    claims: dict[EntityRef, ClaimRow] = field(default_factory=dict)
    identities: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    known: dict[int, Known] = field(default_factory=dict)
    since: dict[EntityRef, list[Effect]] = field(default_factory=dict)
    touching: dict[ContainerKey, list[tuple[Touch, Effect]]] = field(default_factory=dict)

    first_offset: int = 0
    marks: list[Mark] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)
    touches: list[tuple[str, str, Touch, int]] = field(default_factory=list)
    changed_entities: dict[EntityRef, EntityRow] = field(default_factory=dict)
    changed_proposals: dict[ProposalKey, ProposalRow] = field(default_factory=dict)
    changed_sources: dict[tuple[str, str, str], SourceRow] = field(default_factory=dict)
    changed_claims: dict[EntityRef, ClaimRow | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_offset = self.partition.next_offset
        if self.first_offset:  # what the log asked for before this batch, perhaps of another process
            self.require(self.partition.kinds, self.partition.fold_version)

    def require(self, kinds: Iterable[str], fold_version: int) -> None:
        """Check that this processor has what the log asks for.

        :raises UnsupportedFoldError: it lacks an entity kind, or has another fold version.
        """
        where = f"offset {self.partition.next_offset} of partition {self.partition.partition}"
        if fold_version != FOLD_VERSION:
            raise UnsupportedFoldError(
                f"the log asks for fold version {fold_version} at {where}, this is version {FOLD_VERSION}; run the"
                " release of headrace that has it"
            )
        missing = sorted(set(kinds) - set(self.kinds))
        if missing:
            raise UnsupportedFoldError(
                f"the log asks for the entity kinds {', '.join(missing)} at {where}, which are not installed here;"
                " install the packages that bring them"
            )

    def in_force(self) -> dict[str, Kind]:
        """The entity kinds that the log names, whatever else is installed here."""
        return {name: self.kinds[name] for name in self.partition.kinds}

    def entity(self, ref: EntityRef) -> EntityRow:
        """The entity's row, a new one if there is none."""
        row = self.entities.get(ref)
        if row is None:
            row = self.entities[ref] = EntityRow(ref)
        return row

    def account_sources(self, account: AccountKey) -> Iterable[SourceRow]:
        """The sources of an account, by name."""
        found = self.sources.get(account, {})
        return (found[name] for name in sorted(found))

    def source(self, tenant: str, account: str, name: str) -> SourceRow:
        """The source's row, a new one if there is none; whoever asks changes it."""
        rows = self.sources.setdefault((tenant, account), {})
        row = rows.get(name)
        if row is None:
            row = rows[name] = SourceRow(tenant, account, name)
        self.changed_sources[tenant, account, name] = row
        return row

    def known_at(self, offset: int) -> Known | None:
        """What is remembered of an offset, from the tables or from this batch."""
        if offset < self.first_offset:
            return self.known.get(offset)
        index = offset - self.first_offset
        if index >= len(self.marks):
            return None
        mark = self.marks[index]
        return Known(mark.entry.chain[:8], mark.effect.ref if mark.effect else None, mark.log_time)

    def effects_on(self, ref: EntityRef, after: int, before: int) -> tuple[Effect, ...]:
        """Effective events of an entity with ``after < offset < before``."""
        found = self.since.get(ref, [])
        start = bisect_right(found, after, key=lambda effect: effect.offset)
        return tuple(effect for effect in found[start:] if effect.offset < before)

    def effects_in(self, tenant: str, account: str, scope: Touch, after: int, before: int) -> tuple[Effect, ...]:
        """Effective events that touch a scope with ``after < offset < before``, each once."""
        found = self.touching.get((tenant, account, scope.container, scope.id), [])
        start = bisect_right(found, after, key=lambda pair: pair[1].offset)
        return tuple(
            {
                effect.offset: effect
                for touch, effect in found[start:]
                if effect.offset < before and touch.meets(scope)
            }.values()
        )

    def mark(
        self, entry: Entry | Poison, disposition: str, effect: Effect | None = None, *, uses_identity: bool = True
    ) -> None:
        """Write down what became of the record at hand."""
        self.marks.append(Mark(entry, disposition, effect, self.partition.log_time, uses_identity))

    def ignore(self, entry: Entry, why: str) -> None:
        """The record changes nothing, for the reason given."""
        self.notes[entry.offset] = why
        self.mark(entry, "ignored")
