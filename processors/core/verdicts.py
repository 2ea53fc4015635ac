"""The verdict table. The first row that applies wins; :func:`decide` is the rule of the whole product.

A :class:`Case` is all that a verdict may depend on. It is put together from the records up to the offset it is judged
at (:mod:`headrace.processors.core.judge`), so every replay and every replica decides alike.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from headrace.processors.core.model import ClaimRow, Effect, Known, Proposal, Read, SourceRow
from headrace.processors.core.policy import Policy

Finding = Mapping[str, Any]


class ReadFinding(NamedTuple):
    """One read and what the log knows of it: what its basis offset was, when the entity it names first existed (-1: not
    yet), and the effective events on it since, in log order."""

    read: Read
    known: Known | None
    first_offset: int
    since: tuple[Effect, ...]


@dataclass(slots=True)
class Case:
    """Everything about one proposal at offset ``at``. ``earlier`` is the first proposal with the same id, if any."""

    proposal: Proposal
    at: int
    log_time: int
    log_id: bytes
    partition: int
    policy: Policy
    earlier: Proposal | None = None
    reads: tuple[ReadFinding, ...] = ()
    claim: ClaimRow | None = None
    forbidden_by: Callable[[], str | None] = lambda: None
    sources: tuple[SourceRow, ...] = ()
    waived_to: int = -1
    _between: dict[str, Effect] | None = field(default=None)

    def first_between(self, consequence: str) -> Effect | None:
        """The first event between basis and here that the policy gives this consequence."""
        if self._between is None:
            self._between = {}
            effects = {effect.offset: effect for found in self.reads for effect in found.since}
            for offset in sorted(effects):
                effect = effects[offset]
                named = self._consequence(effect)
                if named not in self._between and not (named == "review" and offset <= self.waived_to):
                    self._between[named] = effect
        return self._between.get(consequence)

    def _consequence(self, effect: Effect) -> str:
        mine = self.proposal
        return self.policy.consequence(mine.type, mine.concerns, effect.effect, effect.actor.kind, effect.concerns)


class Row(NamedTuple):
    """One row of the table. ``status`` is the HTTP answer; ``waits`` for an answer that names the proposal."""

    verdict: str
    when: Callable[[Case], Finding | None]
    status: int
    waits: bool
    meaning: str


def _malformed(case: Case) -> Finding | None:
    return {"reason": case.proposal.fault} if case.proposal.fault is not None else None


def _duplicate(case: Case) -> Finding | None:
    if case.earlier is not None and case.earlier.payload_hash == case.proposal.payload_hash:
        return {"first": case.earlier.offset}
    return None


def _conflicting(case: Case) -> Finding | None:
    return {"first": case.earlier.offset} if case.earlier is not None else None


def _basis_faults(case: Case) -> Iterator[tuple[str, Read]]:
    for read, known, first_offset, _ in case.reads:
        basis, own = read.basis, case.proposal.ref
        if read.account is not None and read.account != own.account:
            yield "reads span accounts", read
        elif basis is None:
            yield "the basis is no token", read
        elif basis.log_id != case.log_id:
            yield "the basis is of another log", read
        elif basis.partition != case.partition:
            yield "the basis is of another partition", read
        elif basis.offset >= case.proposal.offset:
            yield "the basis is not before the proposal", read
        elif known is None or known.check != basis.check:
            yield "the basis is not of this log's history", read
        elif read.what == "entity" and (known.ref is None or known.ref != own._replace(kind=read.kind, id=read.id)):
            yield "the basis never was this entity's head", read
        elif read.what == "absent" and 0 <= first_offset <= basis.offset:
            yield "the entity existed at the basis", read


def _unknown_basis(case: Case) -> Finding | None:
    for reason, read in _basis_faults(case):
        return {"reason": reason, "read": _named(read)}
    return None


def _expired(case: Case) -> Finding | None:
    expires_at, bound = case.proposal.expires_at, case.policy.basis_max_age_ms
    if expires_at is not None and expires_at <= case.log_time:
        return {"reason": "expires_at", "expires_at": expires_at}
    if bound is None:
        return None
    for found in case.reads:
        if found.known is not None and case.log_time - found.known.log_time > bound:
            age = case.log_time - found.known.log_time
            return {"reason": "basis_age", "age_ms": age, "bound_ms": bound, "read": _named(found.read)}
    return None


def _superseded(case: Case) -> Finding | None:
    effect = case.first_between("invalidate")
    return {"event": described(effect)} if effect is not None else None


def _claimed(case: Case) -> Finding | None:
    claim = case.claim
    if claim is None or claim.until <= case.log_time or claim.holder == case.proposal.actor.name:
        return None
    return {"holder": claim.holder, "claim": claim.claim, "until": claim.until}


def _rejected(case: Case) -> Finding | None:
    rule = case.forbidden_by()
    return {"rule": rule} if rule is not None else None


def _needs_review(case: Case) -> Finding | None:
    effect = case.first_between("review")
    return {"event": described(effect)} if effect is not None else None


def _held(case: Case) -> Finding | None:
    bound = case.policy.source_max_staleness_ms
    if bound is None:
        return None
    for source in case.sources:
        started_after = source.fresh_offset > case.proposal.offset
        age = case.log_time - source.fresh_time if source.fresh_offset >= 0 else None
        fresh = age is not None and 0 <= age <= bound  # below zero: synced under a clock that an operator has reset
        if not fresh and not started_after:
            return {"source": source.source, "staleness_ms": age, "bound_ms": bound}
    return None


def _accepted(case: Case) -> Finding | None:  # noqa: ARG001 - a row of the table like the others
    return {}


TABLE: Final = (
    Row("malformed", _malformed, 422, False, "cannot be decoded or validated by the schema version it names"),
    Row("duplicate", _duplicate, 200, False, "this id was seen before with the same payload: no second effect"),
    Row("conflicting_id", _conflicting, 409, False, "this id was seen before with another payload"),
    Row("unknown_basis", _unknown_basis, 422, False, "what it says it had read never was so on this log"),
    Row("expired", _expired, 410, False, "too late, in the log's own time"),
    Row("superseded", _superseded, 409, False, "something it had read has changed since"),
    Row("claimed", _claimed, 409, False, "another agent holds the entity"),
    Row("rejected", _rejected, 409, False, "the entity's state forbids it, whatever the basis was"),
    Row("needs_review", _needs_review, 202, True, "something changed that a person must judge"),
    Row("held", _held, 202, True, "the account's source is stale: a live check must confirm first"),
    Row("accepted", _accepted, 201, False, "nothing relevant came between"),
)
"""In order of precedence."""

ROWS: Final = {row.verdict: row for row in TABLE}


def decide(case: Case) -> tuple[str, Finding]:
    """The verdict on a case and why. Pure and total: the last row always applies."""
    for row in TABLE:
        finding = row.when(case)
        if finding is not None:
            return row.verdict, finding
    raise AssertionError("the table's last row applies to everything")


def described(effect: Effect) -> dict[str, Any]:
    """An effective event as verdicts name it."""
    return {
        "id": effect.event_id,
        "type": effect.type,
        "effect": effect.effect,
        "actor": effect.actor.name,
        "entity": effect.ref.subject,
        "offset": effect.offset,
        "time": effect.time,
    }


def _named(read: Read) -> dict[str, Any]:
    named: dict[str, Any] = {"what": read.what, "kind": read.kind, "id": read.id}
    if read.what == "scope":
        named |= {"start": read.start, "end": read.end}
    return named


_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_BEYOND: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
"""Writes the same text, several times slower, also for numbers of more than 64 bits."""


def canonical(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8. What is compared and hashed is this. Values hold no
    floating-point numbers (see :mod:`headrace.schemas.definition`): those would have several texts."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return _BEYOND.encode(value).encode()


def verdict_bytes(proposal: str, verdict: str, finding: Finding, at: int, log_time: int) -> bytes:
    """A verdict in canonical JSON: byte-equal on every replay."""
    return canonical(
        {"proposal": proposal, "verdict": verdict, "offset": at, "log_time": log_time, "finding": dict(finding)}
    )
