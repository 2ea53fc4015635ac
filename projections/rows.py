"""Rows of the core tables from and to what the fold works on. Every adapter writes these same values."""

import json
from collections.abc import Iterator
from typing import Any, Final

from headrace.log.framing import pack_headers
from headrace.log.port import Stored
from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.model import (
    ClaimRow,
    Effect,
    Entry,
    Mark,
    Poison,
    Proposal,
    ProposalRow,
    Read,
    SourceRow,
)
from headrace.processors.core.policy import Policy
from headrace.processors.core.verdicts import canonical
from headrace.schemas.refs import ActorRef, EntityRef, Token

PARTITION_COLUMNS: Final = (
    "partition",
    "log_id",
    "partitions",
    "next_offset",
    "chain",
    "log_time",
    "policy",
    "kinds",
    "fold_version",
    "successor",
)
EVENT_COLUMNS: Final = (
    "partition",
    "offset",
    "tenant",
    "account",
    "kind",
    "entity",
    "type",
    "disposition",
    "effect",
    "event_id",
    "source",
    "actor_kind",
    "actor_id",
    "concerns",
    "proposal",
    "note",
    "occurred_at",
    "observed_at",
    "appended_at",
    "log_time",
    "causation",
    "correlation",
    "sync",
    "identity",
    "body_hash",
    "chain",
)
TOUCH_COLUMNS: Final = (
    "tenant",
    "account",
    "container",
    "container_id",
    "offset",
    "ordinal",
    "kind",
    "entity",
    "starts_at",
    "ends_at",
)
PROPOSAL_COLUMNS: Final = (
    "tenant",
    "account",
    "id",
    "partition",
    "offset",
    "kind",
    "entity",
    "type",
    "actor_kind",
    "actor_id",
    "reads",
    "expires_at",
    "data",
    "concerns",
    "payload_hash",
    "fault",
    "verdict",
    "finding",
    "judged_at",
    "log_time",
    "accepted_at",
    "outcome",
    "waived_to",
)
VERDICT_COLUMNS: Final = ("partition", "offset", "tenant", "account", "proposal", "verdict", "log_time", "text")
SOURCE_COLUMNS: Final = (
    "tenant",
    "account",
    "source",
    "feeds",
    "cursor",
    "sync",
    "sync_offset",
    "sync_time",
    "hint_offset",
    "synced_offset",
    "fresh_offset",
    "fresh_time",
)
CLAIM_COLUMNS: Final = ("tenant", "account", "kind", "entity", "claim", "holder", "until", "offset")
QUARANTINE_COLUMNS: Final = ("partition", "offset", "reason", "key", "headers", "value", "appended_at")

Values = tuple[Any, ...]


def partition_values(row: PartitionRow) -> Values:
    """In the order of :data:`PARTITION_COLUMNS`."""
    return (
        row.partition,
        row.log_id,
        row.partitions,
        row.next_offset,
        row.chain,
        row.log_time,
        canonical(row.policy.to_body()).decode(),
        canonical(list(row.kinds)).decode(),
        row.fold_version,
        row.successor,
    )


def partition_row(row: dict[str, Any]) -> PartitionRow:
    """From the columns of ``partitions``."""
    return PartitionRow(
        row["partition"],
        row["log_id"],
        row["partitions"],
        row["next_offset"],
        row["chain"],
        row["log_time"],
        Policy.from_body(json.loads(row["policy"])),
        tuple(json.loads(row["kinds"])),
        row["fold_version"],
        row["successor"],
    )


def event_values(partition: int, mark: Mark, note: str | None) -> Values:
    """In the order of :data:`EVENT_COLUMNS`."""
    entry, disposition, effect, log_time, uses_identity = mark
    if isinstance(entry, Poison):
        blank = (None,) * 5
        return (
            *(partition, entry.offset, entry.tenant, entry.account, "", "", "", disposition, None, "", "", "", "", ""),
            *(entry.proposal, note, None, None, entry.appended_at, log_time, *blank, entry.chain),
        )
    envelope = entry.envelope
    return (
        partition,
        entry.offset,
        entry.tenant,
        entry.account,
        effect.ref.kind if effect is not None else envelope.kind,
        effect.ref.id if effect is not None else envelope.entity,
        envelope.type,
        disposition,
        effect.effect if effect is not None else None,
        envelope.id,
        envelope.source,
        *(effect.actor if effect is not None else envelope.actor),
        ",".join(effect.concerns if effect is not None else envelope.concerns),
        _proposal_named(entry, effect),
        note,
        envelope.occurred_at,
        envelope.observed_at,
        entry.appended_at,
        log_time,
        envelope.causation,
        envelope.correlation,
        envelope.sync,
        entry.identity if uses_identity and entry.proposal is None else None,
        entry.body_hash,
        entry.chain,
    )


def _proposal_named(entry: Entry, effect: Effect | None) -> str | None:
    if effect is not None:
        return effect.proposal
    if entry.envelope.type == "proposal.submitted":
        return entry.envelope.id
    named: str | None = entry.body.get("proposal") if entry.role == "record" else None
    return named


def effect_row(row: dict[str, Any], ref: EntityRef) -> Effect:
    """An effective event from the columns of ``events``."""
    concerns = row["concerns"]
    return Effect(
        row["offset"],
        row["chain"][:8],
        ref,
        row["event_id"],
        row["type"],
        row["effect"],
        ActorRef(row["actor_kind"], row["actor_id"]),
        tuple(concerns.split(",")) if concerns else (),
        row["log_time"],
        row["proposal"],
    )


def touch_values(memory: Memory) -> Iterator[Values]:
    """In the order of :data:`TOUCH_COLUMNS`."""
    ordinal, last = 0, -1
    refs = {mark.effect.offset: mark.effect.ref for mark in memory.marks if mark.effect is not None}
    for tenant, account, touch, offset in memory.touches:
        ordinal = ordinal + 1 if offset == last else 0
        last, ref = offset, refs[offset]
        yield (
            tenant,
            account,
            touch.container,
            touch.id,
            offset,
            ordinal,
            ref.kind,
            ref.id,
            touch.start,
            touch.end,
        )


def proposal_values(partition: int, row: ProposalRow) -> Values:
    """In the order of :data:`PROPOSAL_COLUMNS`."""
    proposal = row.proposal
    reads = [
        [
            read.what,
            read.kind,
            read.id,
            read.start,
            read.end,
            read.account,
            read.basis.encode() if read.basis is not None else None,
        ]
        for read in proposal.reads
    ]
    return (
        proposal.ref.tenant,
        proposal.ref.account,
        proposal.id,
        partition,
        proposal.offset,
        proposal.ref.kind,
        proposal.ref.id,
        proposal.type,
        proposal.actor.kind,
        proposal.actor.id,
        canonical(reads).decode(),
        proposal.expires_at,
        canonical(proposal.data).decode(),
        ",".join(proposal.concerns),
        proposal.payload_hash,
        proposal.fault,
        row.verdict,
        canonical(row.finding).decode(),
        row.judged_at,
        row.log_time,
        row.accepted_at,
        row.outcome,
        row.waived_to,
    )


def proposal_row(row: dict[str, Any]) -> ProposalRow:
    """From the columns of ``proposals``."""
    reads = tuple(
        Read(what, kind, id_, start, end, account, Token.parse(basis) if basis is not None else None)
        for what, kind, id_, start, end, account, basis in json.loads(row["reads"])
    )
    concerns = row["concerns"]
    proposal = Proposal(
        row["id"],
        row["type"],
        EntityRef(row["tenant"], row["account"], row["kind"], row["entity"]),
        ActorRef(row["actor_kind"], row["actor_id"]),
        reads,
        row["expires_at"],
        json.loads(row["data"]),
        tuple(concerns.split(",")) if concerns else (),
        row["payload_hash"],
        row["offset"],
        row["fault"],
    )
    return ProposalRow(
        proposal,
        row["verdict"],
        json.loads(row["finding"]),
        row["judged_at"],
        row["log_time"],
        row["accepted_at"],
        row["outcome"],
        row["waived_to"],
    )


def verdict_values(memory: Memory) -> Iterator[Values]:
    """In the order of :data:`VERDICT_COLUMNS`."""
    for one in memory.judged:
        yield (memory.partition.partition, one.offset, *one.key, one.verdict, one.log_time, one.text.decode())


def source_values(row: SourceRow) -> Values:
    """In the order of :data:`SOURCE_COLUMNS`."""
    return (
        row.tenant,
        row.account,
        row.source,
        canonical(list(row.feeds)).decode(),
        row.cursor,
        row.sync,
        row.sync_offset,
        row.sync_time,
        row.hint_offset,
        row.synced_offset,
        row.fresh_offset,
        row.fresh_time,
    )


def source_row(row: dict[str, Any]) -> SourceRow:
    """From the columns of ``sources``."""
    values = {name: row[name] for name in SOURCE_COLUMNS}
    values["feeds"] = tuple(json.loads(values["feeds"]))
    return SourceRow(**values)


def claim_values(row: ClaimRow) -> Values:
    """In the order of :data:`CLAIM_COLUMNS`."""
    return (*row.ref, row.claim, row.holder, row.until, row.offset)


def quarantine_values(mark: Mark, note: str, stored: Stored) -> Values:
    """In the order of :data:`QUARANTINE_COLUMNS`: the record as it stands on the log."""
    return (
        stored.partition,
        mark.entry.offset,
        note,
        stored.key,
        pack_headers(stored.headers),
        stored.value,
        stored.appended_at,
    )
