"""Rules about reads: each is the fold of the log up to its token, and who brings a token never goes back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headrace.processors.core.kind import Kind
from headrace.processors.replay import replay
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import EntityRef, Token
from tests.chaos.evidence import Evidence, Recorded, Violation
from tests.chaos.history import READ, SCOPE, Operation
from tests.chaos.judgements import Naively
from tests.chaos.naive_walk import NaiveWalk

REFOLDED: Final = 150
"""Reads per partition that the engine folds the log again for, spread evenly; the naive reference answers all."""
Shown = dict[str, Any]


def check_reads(evidence: Evidence) -> tuple[list[Violation], list[Naively]]:
    """What is wrong with reads; and, as a gift of the same walk, the naive reference's verdicts by partition."""
    found, naively = list(_regresses(evidence)), list[Naively]()
    for partition, reads in enumerate(_by_partition(evidence)):
        world = NaiveWalk(evidence.registry, evidence.kinds, partition, len(evidence.log))
        for offset, stored in enumerate(evidence.log[partition]):
            world.step(stored)
            for one in reads.get(offset, ()):
                found += _compared(one, _naively(world, one), "the naive reference")
        found += _refolded(evidence, partition, reads)
        naively.append(world.verdicts)
    return found, naively


def _by_partition(evidence: Evidence) -> list[dict[int, list[Operation]]]:
    """Answered reads by partition and offset they were read at; those of no place in this log are the token rule's."""
    found: list[dict[int, list[Operation]]] = [{} for _ in evidence.log]
    for one in evidence.history:
        if one.kind in (READ, SCOPE) and one.is_ok:
            token = Token.parse(one.told["position"])
            if token.partition < len(found):
                found[token.partition].setdefault(token.offset, []).append(one)
    return found


def _regresses(evidence: Evidence) -> Iterator[Violation]:
    """A read that brought a token is at that position or beyond; so no client ever goes back behind what it knew."""
    for one in evidence.history:
        brought = one.said.get("after")
        if brought is None or not one.is_ok or one.told.get("position") is None:
            continue
        asked, given = Token.parse(brought), Token.parse(one.told["position"])
        if (given.log_id, given.partition) != (asked.log_id, asked.partition) or given.offset < asked.offset:
            yield Violation("regressed", f"{one.client} brought {asked.offset}, and was answered at {given.offset}")


def _naively(world: NaiveWalk, one: Operation) -> Any:
    if one.kind == SCOPE:
        scope = {"container": one.said["container"], "id": one.told["scope"], "start": None, "end": None}
        return world.meeting((one.tenant, one.account), scope)
    return world.shown((one.tenant, one.account, one.said["kind"], one.said["entity"]))


def _compared(one: Operation, wanted: Any, by: str) -> Iterator[Violation]:
    told = one.told["found"] if one.kind == SCOPE else one.told["shown"]
    if told != wanted:
        at = Token.parse(one.told["position"])
        message = f"{one.client} read {one.id} at {at.partition}/{at.offset} and saw {told}; {by} says {wanted}"
        yield Violation("read", message)


def _refolded(evidence: Evidence, partition: int, reads: Mapping[int, Sequence[Operation]]) -> Iterator[Violation]:
    """The same by the engine itself: the log folded again up to the token, in memory."""
    offsets = sorted(offset for offset in reads if offset < len(evidence.log[partition]))
    step = max(1, len(offsets) // REFOLDED)
    log = Recorded(evidence)
    with SqliteTables.in_memory(evidence.registry, evidence.kinds) as tables:
        for offset in offsets[::step]:
            replay(log, evidence.registry, evidence.kinds, tables, until={partition: offset + 1})
            with tables.snapshot() as reader:
                for one in reads[offset]:
                    if one.kind == READ:
                        yield from _compared(one, _shown(reader, evidence.kinds, one), "the log folded again")


def _shown(reader: Reader, kinds: Mapping[str, Kind], one: Operation) -> Shown | None:
    ref = EntityRef(one.tenant, one.account, one.said["kind"], one.said["entity"])
    row, claim = queries.entity(reader, kinds[ref.kind], ref), queries.claim(reader, ref)
    if row is None:
        return None
    now = queries.horizon(reader, Token.parse(one.told["position"]).partition)
    held = claim is not None and now is not None and claim.until > now.log_time
    return {
        "basis": row.head_offset,
        "time": row.head_time,
        "state": row.state,
        "intents": [
            [intent.proposal, intent.type, intent.accepted_at, intent.attempt, intent.unknown] for intent in row.intents
        ],
        "claim": [claim.claim, claim.holder, claim.until] if claim is not None and held else None,
    }
