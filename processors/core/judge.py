"""Putting a case together from memory, and carrying out the verdict on it."""

from collections.abc import Iterable
from typing import Final

from headrace.processors.core.freshness import bearing
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Judged, Memory, ProposalKey
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
from headrace.schemas.refs import ActorRef, EntityRef, Touch

ACCEPTED_PREFIX: Final = "accepted:"
_MOOT: Final = frozenset({"intent.ended", "proposal.withdrawn", "delivery.failed"})
"""Ends of an intent after which the world is as if it had never been."""


def overlaid(row: EntityRow, kind: Kind) -> State | None:
    """The entity's facts with its open intents laid over them, in the order they were accepted."""
    return _laid_over(row.state, row.intents, kind)


def _laid_over(state: State | None, intents: Iterable[Intent], kind: Kind) -> State | None:
    for intent in intents:
        state = kind.foresee(state, intent.type, intent.data)
    return state


def _finding(memory: Memory, proposal: Proposal, read: Read, at: int) -> ReadFinding:
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
    return ReadFinding(read, known, first, tuple(effect for effect in effects if effect.proposal != proposal.id))


def _without_followers(
    memory: Memory, proposal: Proposal, accepted_at: int, reads: tuple[ReadFinding, ...]
) -> tuple[ReadFinding, ...]:
    """Leave out what was accepted later in the knowledge of this proposal, and such ends of it as changed nothing: a
    proposal that was built on this one, or may ignore it, does not make it stale."""
    ref, kind = proposal.ref, memory.kinds[proposal.ref.kind]
    row = memory.entity(ref)
    below = _laid_over(row.state, [one for one in row.intents if one.accepted_at < accepted_at], kind)
    touched = (*kind.footprint(below), *kind.footprint(kind.foresee(below, proposal.type, proposal.data)))
    accepted: dict[str, int] = {}
    for found in reads:
        for effect in found.since:
            if effect.proposal is not None and effect.effect.startswith(ACCEPTED_PREFIX):
                accepted[effect.proposal] = min(effect.offset, accepted.get(effect.proposal, effect.offset))
    followers = {
        name
        for name, offset in accepted.items()
        if offset > accepted_at and _knew(memory.proposals[ref.tenant, ref.account, name].proposal, ref, touched)
    }

    def counts(effect: Effect) -> bool:
        moot = effect.effect.startswith(ACCEPTED_PREFIX) or effect.effect in _MOOT
        return effect.proposal not in followers or not moot

    return tuple(found._replace(since=tuple(filter(counts, found.since))) for found in reads)


def _knew(proposal: Proposal, ref: EntityRef, touched: tuple[Touch, ...]) -> bool:
    """Whether a proposal had read the entity, or a scope that the touches meet."""
    return any(
        any(map(read.touch.meets, touched)) if read.what == "scope" else (read.kind, read.id) == (ref.kind, ref.id)
        for read in proposal.reads
    )


def _sources(memory: Memory, proposal: Proposal) -> tuple[SourceRow, ...]:
    """The sources whose freshness bears on what the proposal changes or had read."""
    ref = proposal.ref
    return bearing(ref.kind, proposal.reads, memory.in_force, memory.account_sources((ref.tenant, ref.account)))


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
    deliver it is judged), those accepted later in its knowledge do not either, and no later intent forbids it.
    """

    def forbidden_by() -> str | None:
        kind = memory.kinds[proposal.ref.kind]
        row = memory.entities.get(proposal.ref) or EntityRow(proposal.ref)
        before = [one for one in row.intents if accepted_at is None or one.accepted_at < accepted_at]
        return kind.guard(_laid_over(row.state, before, kind), proposal.type, proposal.data)

    partition = memory.partition
    sound = proposal.fault is None and earlier is None
    reads = tuple(_finding(memory, proposal, read, at) for read in proposal.reads) if sound else ()
    if accepted_at is not None:
        reads = _without_followers(memory, proposal, accepted_at, reads)
    return decide(
        Case(
            proposal,
            at,
            partition.log_time,
            partition.log_id,
            partition.partition,
            partition.policy,
            earlier,
            reads,
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
    note_verdict(memory, key, at, verdict, finding)


def note_verdict(memory: Memory, key: ProposalKey, at: int, verdict: str, finding: Finding) -> None:
    """Write down a verdict, whether or not it is to be the proposal's current one."""
    log_time = memory.partition.log_time
    text = verdict_bytes(key[-1], verdict, finding, at, log_time)
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
    actor: ActorRef | None = None,
) -> Effect:
    """Make the record the entity's head, and let those who read it or what it touches find it. ``actor``: whose act it
    is, where that is not who brought it."""
    envelope, row = entry.envelope, memory.entity(ref)
    effect = Effect(
        entry.offset,
        entry.chain[:8],
        ref,
        envelope.id,
        envelope.type,
        effect_type,
        envelope.actor if actor is None else actor,
        concerns,
        memory.partition.log_time,
        proposal,
    )
    if row.first_offset < 0:
        row.first_offset = entry.offset
    row.head_offset, row.head_check, row.head_time = entry.offset, effect.check, effect.time
    memory.changed_entities[ref] = row
    listeners = memory.since.get(ref) if memory.since else None
    if listeners is not None:
        listeners.append(effect)
    for touch in dict.fromkeys(touched):
        memory.touches.append((ref.tenant, ref.account, touch, entry.offset))
        if memory.touching:
            watched = memory.touching.get((ref.tenant, ref.account, touch.container, touch.id))
            if watched is not None:
                watched.append((touch, effect))
    return effect
