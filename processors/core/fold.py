"""The fold: one record after another over the memory of a batch. The records and nothing else decide.

``step`` is the whole of it; what each record type does is in the table at the end. Proposals and answers are in
:mod:`headrace.processors.core.answers`, deliveries in :mod:`headrace.processors.core.intents`, what an agent's own act
looks like when it comes back in :mod:`headrace.processors.core.echoes`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from headrace.errors import HaltError, KindError, LogMismatchError
from headrace.processors.core import answers, echoes, intents
from headrace.processors.core.judge import effective, note_verdict, overlaid, record_verdict
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory
from headrace.processors.core.model import ClaimRow, EntityRow, Entry, Event, Intent, Poison, ProposalRow
from headrace.processors.core.policy import Policy
from headrace.schemas.refs import ActorRef


def step(memory: Memory, item: Entry | Poison) -> None:
    """Fold one record. ``memory`` afterwards holds the state after it.

    :raises HaltError: this processor must not judge further (another fold version, a kind it lacks, a kind's code
        raised, a log without its opening).
    """
    partition = memory.partition
    if item.offset != partition.next_offset:
        raise LogMismatchError(f"expected offset {partition.next_offset}, got {item.offset}: the log has a hole")
    if item.log_append and item.appended_at > partition.log_time:
        partition.log_time = item.appended_at
    if item.offset == 0 and (isinstance(item, Poison) or item.envelope.type != "log.opened"):
        raise LogMismatchError("record 0 is no log.opened: this is no log of headrace, or its beginning is gone")
    try:
        if isinstance(item, Poison):
            quarantine(memory, item)
        else:
            _fold(memory, item)
    except HaltError:
        raise
    except Exception as error:
        raise KindError(
            f"folding offset {item.offset} of partition {partition.partition} raised {error!r}: a bug in an entity"
            " kind or in headrace, never a reason to skip a record; mend it and start again"
        ) from error
    partition.next_offset, partition.chain = item.offset + 1, item.chain


def quarantine(memory: Memory, poison: Poison) -> None:
    """Set a record aside. A proposal that can be recognised gets its verdict."""
    memory.notes[poison.offset] = poison.reason
    memory.mark(poison, "quarantined", uses_identity=False)
    if poison.proposal is not None:
        key = (poison.tenant, poison.account, poison.proposal)
        finding = {"reason": poison.reason}
        if key in memory.proposals:
            note_verdict(memory, key, poison.offset, "malformed", finding)
        else:
            record_verdict(memory, ProposalRow(answers.unreadable(poison)), poison.offset, "malformed", finding)


def _fold(memory: Memory, entry: Entry) -> None:
    if entry.role == "record" and entry.envelope.type == "proposal.submitted":
        answers.submitted(memory, entry)
        return
    if _stale_sync(memory, entry):
        memory.mark(entry, "stale_sync", uses_identity=False)
        return
    first = memory.identities.get(entry.identity)
    if first is not None:
        same = first[1] == entry.body_hash
        memory.mark(entry, "duplicate" if same else "conflicting_id", uses_identity=False)
        return
    memory.identities[entry.identity] = (entry.offset, entry.body_hash)
    if entry.role == "event":
        _fact(memory, entry)
    else:
        _HANDLERS[entry.envelope.type](memory, entry)


def _stale_sync(memory: Memory, entry: Entry) -> bool:
    """Whether it was found by a sync that a later start has replaced: what it says may be older than what is known."""
    envelope = entry.envelope
    if envelope.type == "source.sync_started" or (envelope.sync is None and envelope.type != "source.synced"):
        return False
    said = {envelope.sync} if envelope.sync is not None else set[str]()
    if envelope.type == "source.synced":
        said.add(entry.body["sync"])
    row = memory.sources.get((entry.tenant, entry.account), {}).get(envelope.source)
    return row is None or said != {row.sync}


def _fact(memory: Memory, entry: Entry) -> None:
    envelope, ref = entry.envelope, entry.ref
    if ref.kind not in memory.partition.kinds:
        reason = f"the entity kind {ref.kind} is not in force on this log"
        memory.identities.pop(entry.identity, None)
        quarantine(memory, Poison(entry.offset, entry.appended_at, entry.log_append, reason, entry.chain, *ref[:2]))
        return
    kind, row = memory.kinds[ref.kind], memory.entity(ref)
    before = overlaid(row, kind) if row.intents else row.state
    row.state = kind.evolve(row.state, Event(envelope.type, entry.body, envelope.actor))
    content = entry.body.get("content")
    if content is not None:
        row.content, row.content_key, row.renewed = content, entry.body.get("content_key"), True
    echo = _echoed(memory, entry, kind, row) if row.intents or row.awaited else None
    after = overlaid(row, kind) if row.intents else row.state
    effect = effective(
        memory,
        entry,
        ref,
        "echo" if echo is not None else envelope.type,
        (*kind.footprint(before), *kind.footprint(after)),
        concerns=envelope.concerns,
        proposal=echo.proposal if echo is not None else None,
        actor=ActorRef("agent", echo.agent) if echo is not None and echoes.is_told_apart(echo) else None,
    )
    memory.mark(entry, "echo" if echo is not None else "applied", effect)


def _echoed(memory: Memory, entry: Entry, kind: Kind, row: EntityRow) -> Intent | None:
    """The attempt that the fact is the echo of, if it is one; what is still open of it is over then."""
    echo = echoes.echo_of(kind, row, entry.envelope.causation)
    echoes.settle(row, echo)
    if echo is not None and any(intent is echo for intent in row.intents):
        intents.close(memory, row, echo.proposal, "echoed")
    return echo


def _in_force(memory: Memory, entry: Entry) -> None:
    body, partition = entry.body, memory.partition
    memory.require(body["kinds"], body["fold_version"])
    partition.policy = Policy.from_body(body["policy"])
    partition.kinds, partition.fold_version = tuple(sorted(set(body["kinds"]))), body["fold_version"]
    memory.mark(entry, "noted")


def _opened(memory: Memory, entry: Entry) -> None:
    if entry.offset != 0:
        memory.ignore(entry, "a log is opened once")
        return
    memory.partition.log_id = bytes.fromhex(entry.body["log_id"])
    memory.partition.partitions = entry.body["partitions"]
    _in_force(memory, entry)


def _closed(memory: Memory, entry: Entry) -> None:
    memory.partition.successor = entry.body["successor"]
    memory.mark(entry, "noted")


def _moved(memory: Memory, entry: Entry) -> None:
    """The log goes on here: what was said of a successor before it was copied is done."""
    memory.partition.successor = None
    memory.mark(entry, "noted")


def _time_reset(memory: Memory, entry: Entry) -> None:
    memory.partition.log_time = entry.body["to"]
    memory.mark(entry, "noted")


def _claim_taken(memory: Memory, entry: Entry) -> None:
    ref, now = entry.ref, memory.partition.log_time
    held = memory.claims.get(ref)
    holder = entry.envelope.actor.name
    if held is not None and held.until > now and held.holder != holder:
        memory.ignore(entry, f"claimed by {held.holder} until {held.until}")
        return
    claim = ClaimRow(ref, entry.body["claim"], holder, entry.body["until"], entry.offset)
    memory.claims[ref] = memory.changed_claims[ref] = claim
    memory.mark(entry, "noted")


def _claim_released(memory: Memory, entry: Entry) -> None:
    held = memory.claims.get(entry.ref)
    if held is None or held.claim != entry.body["claim"]:
        memory.ignore(entry, "no such claim is held")
        return
    if entry.envelope.actor.kind == "agent" and held.holder != entry.envelope.actor.name:
        memory.ignore(entry, f"the claim is {held.holder}'s")
        return
    del memory.claims[entry.ref]
    memory.changed_claims[entry.ref] = None
    memory.mark(entry, "noted")


def _notified(memory: Memory, entry: Entry) -> None:
    memory.source(entry.tenant, entry.account, entry.envelope.source).hint_offset = entry.offset
    memory.mark(entry, "noted")


def _sync_started(memory: Memory, entry: Entry) -> None:
    row = memory.source(entry.tenant, entry.account, entry.envelope.source)
    row.sync, row.sync_offset, row.sync_time = entry.body["sync"], entry.offset, memory.partition.log_time
    row.feeds = tuple(entry.body["feeds"])
    memory.mark(entry, "noted")


def _synced(memory: Memory, entry: Entry) -> None:
    row = memory.source(entry.tenant, entry.account, entry.envelope.source)
    row.cursor, row.synced_offset = entry.body["cursor"], entry.offset
    row.fresh_offset, row.fresh_time = row.sync_offset, row.sync_time
    memory.mark(entry, "noted")


_HANDLERS: Final[Mapping[str, Callable[[Memory, Entry], None]]] = {
    "log.opened": _opened,
    "log.moved": _moved,
    "log.closed": _closed,
    "log.time_reset": _time_reset,
    "policy.activated": _in_force,
    "proposal.withdrawn": answers.withdrawn,
    "review.approved": answers.approved,
    "review.dismissed": answers.dismissed,
    "source.confirmed": answers.confirmed,
    "source.notified": _notified,
    "source.sync_started": _sync_started,
    "source.synced": _synced,
    "claim.taken": _claim_taken,
    "claim.released": _claim_released,
    "delivery.attempted": intents.attempted,
    "delivery.succeeded": intents.ended,
    "delivery.refused": intents.ended,
    "delivery.failed": intents.ended,
    "delivery.unknown": intents.unknown,
}
HANDLED: Final = frozenset(_HANDLERS) | {"proposal.submitted"}
"""The record types that the fold knows; decoding quarantines any other ``record``."""
