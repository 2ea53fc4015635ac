"""Proposals as they arrive, and the records that answer those that wait.

An answer names one proposal; the proposal is judged again at the answer's own offset, against everything up to there.
"""

from headrace.processors.core import intents
from headrace.processors.core.judge import apply_verdict, judge, note_verdict, record_verdict
from headrace.processors.core.memory import Memory
from headrace.processors.core.model import Entry, Poison, Proposal, ProposalRow
from headrace.processors.core.verdicts import ROWS
from headrace.schemas.refs import ActorRef, EntityRef, Token


def unreadable(poison: Poison) -> Proposal:
    """What is known of a proposal whose record could not be read."""
    ref = EntityRef(poison.tenant, poison.account, "", "")
    return Proposal(
        poison.proposal or "", "", ref, ActorRef("agent", ""), (), None, {}, (), b"", poison.offset, poison.reason
    )


def submitted(memory: Memory, entry: Entry) -> None:
    """Judge a proposal at its own offset. A repeated id has no second effect."""
    proposal = entry.proposal
    if proposal is None:
        raise AssertionError("decoding gives every proposal.submitted its proposal")
    key = (proposal.ref.tenant, proposal.ref.account, proposal.id)
    known = memory.proposals.get(key)
    earlier = known.proposal if known is not None and known.verdict != "malformed" else None
    proposal = _checked(memory, proposal)
    verdict, finding = judge(memory, proposal, entry.offset, earlier=earlier)
    if earlier is not None or (verdict == "malformed" and known is not None):
        note_verdict(memory, key, entry.offset, verdict, finding)
        memory.mark(entry, verdict)
        return
    apply_verdict(memory, entry, ProposalRow(proposal), verdict, finding)


def _checked(memory: Memory, proposal: Proposal) -> Proposal:
    """The proposal, with the fault that only the log's own settings can show."""
    if proposal.fault is not None:
        return proposal
    in_force = memory.in_force()
    kind = in_force.get(proposal.ref.kind)
    if kind is None:
        return proposal._replace(fault=f"the entity kind {proposal.ref.kind} is not in force on this log")
    if proposal.type not in kind.proposals:
        return proposal._replace(fault=f"{proposal.type} cannot be proposed on a {proposal.ref.kind}")
    containers = {container for one in in_force.values() for container in one.containers}
    for read in proposal.reads:  # what nothing can ever touch would never be found to have changed
        if read.kind not in (containers if read.what == "scope" else in_force):
            return proposal._replace(fault=f"no kind in force on this log knows the {read.what} {read.kind}/{read.id}")
    return proposal


def _waiting(memory: Memory, entry: Entry) -> ProposalRow | None:
    """The proposal an answer names, if it waits for one; otherwise the answer is put down as ignored."""
    row = memory.proposals.get((entry.tenant, entry.account, entry.body["proposal"]))
    if row is None:
        memory.ignore(entry, "no such proposal in this account")
        return None
    if not ROWS[row.verdict].waits:
        memory.ignore(entry, f"the proposal is {row.verdict}; it waits for no answer")
        return None
    return row


def approved(memory: Memory, entry: Entry) -> None:
    """A person approves: review events up to what the reviewer had read are waived, nothing else is."""
    row = _waiting(memory, entry)
    if row is None:
        return
    if entry.envelope.actor.kind != "user":
        memory.ignore(entry, "only a person approves")
        return
    read = Token.unpack(entry.body["read"])
    partition = memory.partition
    known = memory.known_at(read.offset) if read is not None and read.offset < entry.offset else None
    sound = (
        read is not None
        and known is not None
        and (read.log_id, read.partition, read.check) == (partition.log_id, partition.partition, known.check)
    )
    if read is None or not sound:
        memory.ignore(entry, "what the reviewer says to have read is not of this log's history")
        return
    row.waived_to = max(row.waived_to, read.offset)
    apply_verdict(memory, entry, row, *judge(memory, row.proposal, entry.offset, waived_to=row.waived_to))


def confirmed(memory: Memory, entry: Entry) -> None:
    """A live check was made: judge a held proposal again, with whatever the check put on the log."""
    row = _waiting(memory, entry)
    if row is None:
        return
    if row.verdict != "held":
        memory.ignore(entry, f"the proposal is {row.verdict}, not held")
        return
    apply_verdict(memory, entry, row, *judge(memory, row.proposal, entry.offset, waived_to=row.waived_to))


def dismissed(memory: Memory, entry: Entry) -> None:
    """A person dismisses a proposal that waits."""
    row = _waiting(memory, entry)
    if row is None:
        return
    if entry.envelope.actor.kind != "user":
        memory.ignore(entry, "only a person dismisses")
        return
    apply_verdict(memory, entry, row, "rejected", _by(entry))


def withdrawn(memory: Memory, entry: Entry) -> None:
    """The agent that made it, or a person, takes a proposal back: one that waits, or an intent not yet attempted."""
    row = memory.proposals.get((entry.tenant, entry.account, entry.body["proposal"]))
    actor = entry.envelope.actor
    if row is None:
        memory.ignore(entry, "no such proposal in this account")
    elif actor.kind != "user" and actor != row.proposal.actor:
        memory.ignore(entry, "only the agent that made it or a person withdraws a proposal")
    elif ROWS[row.verdict].waits:
        apply_verdict(memory, entry, row, "rejected", _by(entry))
    elif row.outcome == "open" and not intents.attempt_running(memory, row):
        row.accepted_at = -1
        record_verdict(memory, row, entry.offset, "rejected", _by(entry))
        intents.end(memory, entry, row, "withdrawn", entry.envelope.type)
    else:
        memory.ignore(entry, f"the proposal is {row.verdict}{' and under way' if row.outcome == 'open' else ''}")


def _by(entry: Entry) -> dict[str, str | int]:
    return {"rule": entry.envelope.type, "by": entry.envelope.actor.name, "offset": entry.offset}
