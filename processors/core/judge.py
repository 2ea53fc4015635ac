"""Putting a case together from memory, and carrying out the verdict on it."""

from collections.abc import Callable

from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Judged, Memory
from headrace.processors.core.model import (
    Effect,
    EntityRow,
    Entry,
    Intent,
    Proposal,
    ProposalRow,
    Read,
    SourceRow,
    State,
)
from headrace.processors.core.verdicts import Case, Finding, ReadFinding, decide, verdict_bytes
from headrace.schemas.refs import EntityRef, Touch

ACCEPTED_PREFIX = "accepted:"


def overlaid(row: EntityRow, kind: Kind, without: str | None = None) -> State | None:
    """The entity's facts with its open intents laid over them, in the order they were accepted."""
    state = row.state
    for intent in row.intents:
        if intent.proposal != without:
            state = kind.foresee(state, intent.type, intent.data)
    return state


def _finding(memory: Memory, proposal: Proposal, read: Read, at: int, later: Callable[[Effect], bool]) -> ReadFinding:
    own, basis = proposal.ref, read.basis
    if basis is None or (read.account is not None and read.account != own.account):
        return ReadFinding(read, None, -1, ())
    known = memory.known_at(basis.offset) if basis.offset < proposal.offset else None
    if read.what == "scope":
        effects = memory.effects_in(own.tenant, own.account, read.touch, basis.offset, at)
        first = -1
    else:
        ref = own._replace(kind=read.kind, id=read.id)
        row = memory.entities.get(ref)
        first = row.first_offset if row is not None else -1
        head = row.head_offset if row is not None else -1
        effects = memory.effects_on(ref, basis.offset, at) if head != basis.offset else ()
    return ReadFinding(read, known, first, tuple(effect for effect in effects if later(effect)))


def _sources(memory: Memory, proposal: Proposal) -> tuple[SourceRow, ...]:
    """The sources whose freshness bears on what the proposal changes or had read."""
    kinds = {proposal.ref.kind}
    for read in proposal.reads:
        if read.what != "scope":
            kinds.add(read.kind)
        else:
            kinds.update(name for name, kind in memory.kinds.items() if read.kind in kind.containers)
    account = (proposal.ref.tenant, proposal.ref.account)
    return tuple(row for row in memory.account_sources(account) if not row.feeds or kinds.intersection(row.feeds))


def judge(
    memory: Memory,
    proposal: Proposal,
    at: int,
    *,
    earlier: Proposal | None = None,
    waived_to: int = -1,
    accepted_at: int | None = None,
) -> tuple[str, Finding]:
    """The verdict on a proposal at offset ``at``.

    Its own acceptance and end never count against it. Of a proposal that was accepted at ``accepted_at`` (an attempt to
    deliver it is judged), proposals accepted later do not either: they were built on it or may ignore it.
    """

    def later(effect: Effect) -> bool:
        if effect.proposal == proposal.id:
            return False
        newer = accepted_at is not None and effect.offset > accepted_at
        return not (newer and effect.effect.startswith(ACCEPTED_PREFIX))

    def forbidden_by() -> str | None:
        kind = memory.kinds[proposal.ref.kind]
        row = memory.entities.get(proposal.ref) or EntityRow(proposal.ref)
        return kind.guard(overlaid(row, kind, proposal.id), proposal.type, proposal.data)

    partition = memory.partition
    sound = proposal.fault is None and earlier is None
    return decide(
        Case(
            proposal,
            at,
            partition.log_time,
            partition.log_id,
            partition.partition,
            partition.policy,
            earlier,
            tuple(_finding(memory, proposal, read, at, later) for read in proposal.reads) if sound else (),
            memory.claims.get(proposal.ref),
            forbidden_by,
            _sources(memory, proposal) if sound else (),
            waived_to,
        )
    )


def record_verdict(memory: Memory, row: ProposalRow, at: int, verdict: str, finding: Finding) -> None:
    """Make a verdict the proposal's current one."""
    proposal, log_time = row.proposal, memory.partition.log_time
    row.verdict, row.finding, row.judged_at, row.log_time = verdict, finding, at, log_time
    key = (proposal.ref.tenant, proposal.ref.account, proposal.id)
    memory.proposals[key] = memory.changed_proposals[key] = row
    text = verdict_bytes(proposal.id, verdict, finding, at, log_time)
    memory.judged.append(Judged(at, key, verdict, text, log_time))


def apply_verdict(memory: Memory, entry: Entry, row: ProposalRow, verdict: str, finding: Finding) -> None:
    """Record the verdict that ``entry`` brought about; an acceptance becomes an intent and the entity's head."""
    record_verdict(memory, row, entry.offset, verdict, finding)
    if verdict != "accepted":
        memory.mark(entry, verdict)
        return
    proposal = row.proposal
    row.accepted_at, row.outcome = entry.offset, "open"
    entity, kind = memory.entity(proposal.ref), memory.kinds[proposal.ref.kind]
    before = kind.footprint(overlaid(entity, kind))
    entity.intents.append(Intent(proposal.id, proposal.type, proposal.data, entry.offset))
    after = kind.footprint(overlaid(entity, kind))
    effect = effective(
        memory,
        entry,
        proposal.ref,
        ACCEPTED_PREFIX + proposal.type,
        (*before, *after),
        concerns=proposal.concerns,
        proposal=proposal.id,
    )
    memory.mark(entry, verdict, effect)


def effective(
    memory: Memory,
    entry: Entry,
    ref: EntityRef,
    effect_type: str,
    touched: tuple[Touch, ...],
    *,
    concerns: tuple[str, ...],
    proposal: str | None = None,
) -> Effect:
    """Make the record the entity's head, and let those who read it or what it touches find it."""
    envelope, row = entry.envelope, memory.entity(ref)
    effect = Effect(
        entry.offset,
        entry.chain[:8],
        ref,
        envelope.id,
        envelope.type,
        effect_type,
        envelope.actor,
        concerns,
        memory.partition.log_time,
        proposal,
    )
    if row.first_offset < 0:
        row.first_offset = entry.offset
    row.head_offset, row.head_check, row.head_time = entry.offset, effect.check, effect.time
    memory.changed_entities[ref] = row
    listeners = memory.since.get(ref)
    if listeners is not None:
        listeners.append(effect)
    for touch in dict.fromkeys(touched):
        memory.touches.append((ref.tenant, ref.account, touch, entry.offset))
        watched = memory.touching.get((ref.tenant, ref.account, touch.container, touch.id))
        if watched is not None:
            watched.append((touch, effect))
    return effect
