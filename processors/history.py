"""An entity as it was at an earlier position: its own records, folded again.

What became of every record is in the ``events`` index, so nothing is judged anew here: of the records that changed the
entity the bodies are read back from the log, and each does to the row what it did in the fold
(:mod:`headrace.processors.core`). The result equals the tables as they were when that position was the last one folded.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from headrace.errors import LogMismatchError
from headrace.log.port import Log, Stored
from headrace.processors.core import echoes
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import ClaimRow, EntityRow, Event, Intent, ProposalRow
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import ActorRef, EntityRef, Token
from headrace.schemas.registry import Registry

_RUN: Final = 64
"""Records read at once at most, where they stand close together."""
_GAP: Final = 8
_FACTS: Final = frozenset({"applied", "echo"})
_BY_PROPOSAL: Final = frozenset({"accepted", "granted"})


class Recorded(NamedTuple):
    """What the tables know of an entity up to a position: with the log, all that it takes to fold it again.

    ``events`` changed it, in log order; ``proposals`` are those that they carried out; ``claim`` is the last record
    that took or released it.
    """

    ref: EntityRef
    horizon: Horizon
    events: list[dict[str, Any]]
    proposals: Mapping[str, ProposalRow]
    claim: dict[str, Any] | None


class Past(NamedTuple):
    """``row`` is ``None`` where nothing effective had happened yet; ``horizon`` is what the tables said then."""

    horizon: Horizon
    row: EntityRow | None
    claim: ClaimRow | None


def recorded_at(reader: Reader, ref: EntityRef, at: Token) -> Recorded:
    """What is known of an entity right after the record at ``at``, which must be a position of the account's partition
    that these tables have folded.

    :raises LogMismatchError: they lack what they must have.
    """
    last = queries.event_at(reader, at.partition, at.offset)
    if last is None:
        raise LogMismatchError(f"partition {at.partition}: the tables lack offset {at.offset}; rebuild them")
    horizon = Horizon(at.log_id, at.partition, at.offset + 1, last["chain"], last["log_time"])
    events = _events(reader, ref, at.offset)
    proposals: dict[str, ProposalRow] = {}
    for event in events:
        if event["disposition"] in _BY_PROPOSAL and event["proposal"] not in proposals:
            found = queries.proposal(reader, ref[:2], event["proposal"])
            if found is None:
                raise LogMismatchError(f"the tables lack the proposal {event['proposal']}; rebuild them")
            proposals[event["proposal"]] = found
    return Recorded(ref, horizon, events, proposals, queries.last_claim_record(reader, ref, at.offset))


def entity_at(log: Log, registry: Registry, kind: Kind, recorded: Recorded) -> Past:
    """The entity as it was then. Only the log is asked, which may take its time: no view of the tables is held for it.

    :raises LogMismatchError: the log has no record that the index knows: it is not the one that was folded.
    """
    said = _said(log, registry, recorded.horizon.partition, [event["offset"] for event in recorded.events])
    row = EntityRow(recorded.ref)
    for event in recorded.events:
        _step(recorded.proposals, kind, row, event, said[event["offset"]])
    return Past(recorded.horizon, row if row.exists else None, _claim_at(log, registry, recorded))


def _events(reader: Reader, ref: EntityRef, until: int) -> list[dict[str, Any]]:
    """What changed the entity, in log order: its effective events, and the attempts on its intents while these were
    open."""
    effective = queries.effective_events(reader, ref, until)
    accepted: dict[str, int] = {}
    found = list(effective)
    for event in effective:
        named = event["proposal"]
        if event["disposition"] == "accepted":
            accepted[named] = event["offset"]
        elif named in accepted:
            found += queries.attempts(reader, ref[:2], named, after=accepted.pop(named), until=event["offset"])
    for named, offset in accepted.items():
        found += queries.attempts(reader, ref[:2], named, after=offset, until=until)
    return sorted(found, key=lambda event: int(event["offset"]))


def _step(
    proposals: Mapping[str, ProposalRow],
    kind: Kind,
    row: EntityRow,
    event: Mapping[str, Any],
    said: tuple[ActorRef, Mapping[str, Any]],
) -> None:
    """What the record did to the entity, by what the index says became of it. ``said``: who brought it, and its body
    (in the index an echo is its agent's)."""
    disposition, named, (by, body) = event["disposition"], event["proposal"], said
    if disposition in _FACTS:
        row.state = kind.evolve(row.state, Event(event["type"], body, by))
        if body.get("content") is not None:
            row.content, row.content_key = body["content"], body.get("content_key")
        tried = (one for one in (*row.awaited, *row.intents) if one.proposal == named)
        echoes.settle(row, next(tried, None) if disposition == "echo" else None)
        if disposition == "echo":
            _end(row, named)
    elif disposition == "accepted":
        proposal = proposals[named].proposal
        row.intents.append(Intent(named, proposal.type, proposal.data, event["offset"]))
    else:
        _delivery(proposals, kind, row, event, body)
    if event["effect"] is not None:
        if row.first_offset < 0:
            row.first_offset = event["offset"]
        row.head_offset, row.head_check, row.head_time = event["offset"], event["chain"][:8], event["log_time"]


def _delivery(
    proposals: Mapping[str, ProposalRow],
    kind: Kind,
    row: EntityRow,
    event: Mapping[str, Any],
    body: Mapping[str, Any],
) -> None:
    disposition, named = event["disposition"], event["proposal"]
    intent = next((one for one in row.intents if one.proposal == named), None)
    if disposition == "granted" and intent is not None:
        echoes.attempt(intent, body, proposals[named].proposal.actor.id)
    elif disposition == "unknown" and intent is not None:
        intent.unknown = True
    elif disposition not in ("granted", "unknown"):
        if disposition == "succeeded" and intent is not None and intent.clean:
            row.state = kind.foresee(row.state, intent.type, intent.data)
        if disposition == "succeeded" and intent is not None:
            echoes.succeeded(row, intent, body["reference"])
        _end(row, named)


def _end(row: EntityRow, proposal: str) -> None:
    row.intents = [intent for intent in row.intents if intent.proposal != proposal]


def _claim_at(log: Log, registry: Registry, recorded: Recorded) -> ClaimRow | None:
    """The claim on the entity as the fold held it then; it may have run out."""
    event = recorded.claim
    if event is None or event["type"] != "claim.taken":
        return None
    actor, body = _said(log, registry, recorded.horizon.partition, [event["offset"]])[event["offset"]]
    return ClaimRow(recorded.ref, body["claim"], actor.name, body["until"], event["offset"])


def stored_at(log: Log, partition: int, offsets: Iterable[int]) -> Iterator[Stored]:
    """The records at these offsets (ascending), those that stand close together read at once.

    :raises LogMismatchError: the log lacks one of them.
    """
    for run in _runs(offsets):
        wanted, offset = set(run), run[0]
        while offset <= run[-1]:
            records = log.read(partition, offset, run[-1] - offset + 1)
            if not records:
                raise LogMismatchError(f"partition {partition}: the log lacks records that were folded; restore it")
            yield from (stored for stored in records if stored.offset in wanted)
            offset += len(records)


def _said(
    log: Log, registry: Registry, partition: int, offsets: Iterable[int]
) -> dict[int, tuple[ActorRef, Mapping[str, Any]]]:
    """Who brought these records, and what they say."""
    return {
        stored.offset: (from_headers(stored.headers).actor, registry.decode(stored.value).body)
        for stored in stored_at(log, partition, offsets)
    }


def _runs(offsets: Iterable[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for offset in offsets:
        if run and (offset - run[-1] > _GAP or offset - run[0] >= _RUN):
            yield run
            run = []
        run.append(offset)
    if run:
        yield run
