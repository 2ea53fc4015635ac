"""Intents: accepted proposals on their way into the world, and how they end.

State is facts; an intent is laid over it. Its end is an effective event: what was built on an intent that failed is
superseded. The first attempt in log order wins; a takeover only reconciles; attempts on one entity are sequential.
"""

from headrace.processors.core import echoes
from headrace.processors.core.judge import effective, judge, overlaid, record_verdict
from headrace.processors.core.memory import Memory
from headrace.processors.core.model import EntityRow, Entry, Intent, ProposalRow


def _intent(row: EntityRow, proposal: str) -> Intent | None:
    return next((intent for intent in row.intents if intent.proposal == proposal), None)


def attempt_running(memory: Memory, row: ProposalRow) -> bool:
    """Whether somebody is already carrying the proposal out."""
    intent = _intent(memory.entity(row.proposal.ref), row.proposal.id)
    return intent is not None and intent.attempt is not None


def close(memory: Memory, entity: EntityRow, proposal: str, outcome: str) -> None:
    """Take the intent off the entity and write down how it ended."""
    entity.intents = [intent for intent in entity.intents if intent.proposal != proposal]
    key = (entity.ref.tenant, entity.ref.account, proposal)
    row = memory.proposals[key]
    row.outcome = outcome
    memory.changed_proposals[key] = row


def end(memory: Memory, entry: Entry, row: ProposalRow, outcome: str, effect_type: str) -> None:
    """End the proposal's intent by the record at hand; a success becomes part of the facts.

    A success changes the facts only while no other fact followed the attempt: otherwise what the source reported
    since is newer, and the source's own next report settles it. Its echo may be still to come.
    """
    proposal = row.proposal
    entity, kind = memory.entity(proposal.ref), memory.kinds[proposal.ref.kind]
    intent = _intent(entity, proposal.id)
    before = kind.footprint(overlaid(entity, kind))
    if outcome == "succeeded" and intent is not None and intent.clean:
        entity.state = kind.foresee(entity.state, intent.type, intent.data)
    if outcome == "succeeded" and intent is not None:
        echoes.succeeded(entity, intent, entry.body["reference"])
    close(memory, entity, proposal.id, outcome)
    after = kind.footprint(overlaid(entity, kind))
    effect = effective(
        memory,
        entry,
        proposal.ref,
        effect_type,
        (*before, *after),
        concerns=proposal.concerns,
        proposal=proposal.id,
    )
    memory.mark(entry, outcome, effect)


def _open(memory: Memory, entry: Entry) -> tuple[ProposalRow, Intent] | None:
    """The open intent a delivery record names; otherwise the record is put down as ignored."""
    row = memory.proposals.get((entry.tenant, entry.account, entry.body["proposal"]))
    intent = _intent(memory.entity(row.proposal.ref), row.proposal.id) if row is not None else None
    if row is None or intent is None:
        memory.ignore(entry, "no such intent is open in this account")
        return None
    return row, intent


def attempted(memory: Memory, entry: Entry) -> None:
    """Judge the proposal once more, here. Only a granted attempt may act."""
    found = _open(memory, entry)
    if found is None:
        return
    row, intent = found
    entity = memory.entity(row.proposal.ref)
    if intent.attempt is not None:
        memory.ignore(entry, f"attempt {intent.attempt} is under way: reconcile it, never repeat it")
        return
    busy = next((other for other in entity.intents if other.attempt is not None), None)
    if busy is not None:
        memory.ignore(entry, f"attempt {busy.attempt} on this entity is under way")
        return
    verdict, finding = judge(
        memory, row.proposal, entry.offset, waived_to=row.waived_to, accepted_at=intent.accepted_at
    )
    if verdict != "accepted":
        row.accepted_at = -1
        record_verdict(memory, row, entry.offset, verdict, finding)
        end(memory, entry, row, verdict, "intent.ended")
        return
    echoes.attempt(intent, entry.body, row.proposal.actor.id)
    memory.changed_entities[entity.ref] = entity
    memory.mark(entry, "granted")


def ended(memory: Memory, entry: Entry) -> None:
    """The outcome of the attempt under way."""
    found = _open(memory, entry)
    if found is None:
        return
    row, intent = found
    if intent.attempt != entry.body["attempt"]:
        memory.ignore(entry, "it is not this attempt that was granted")
        return
    outcome = entry.envelope.type.removeprefix("delivery.")
    end(memory, entry, row, outcome, entry.envelope.type)


def unknown(memory: Memory, entry: Entry) -> None:
    """Nobody knows whether the act happened; the intent stays until that is reconciled."""
    found = _open(memory, entry)
    if found is None:
        return
    row, intent = found
    if intent.attempt != entry.body["attempt"]:
        memory.ignore(entry, "it is not this attempt that was granted")
        return
    intent.unknown = True
    memory.changed_entities[row.proposal.ref] = memory.entity(row.proposal.ref)
    memory.mark(entry, "unknown")
