"""Why a proposal got its verdict: what the agent knew, what overtook it, when, and which rule decided.

Everything comes from the tables, and the policy that was in force from the log. Nothing is judged again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from headrace.errors import NotFoundError
from headrace.log.port import Log
from headrace.processors.core.model import Effect, Proposal, ProposalRow, Read
from headrace.processors.core.policy import Policy
from headrace.processors.core.verdicts import ROWS, described
from headrace.processors.findings import plain
from headrace.projections.long_text import equal
from headrace.projections.port import Reader
from headrace.projections.rows import effect_row, proposal_row
from headrace.schemas.envelope import rfc3339
from headrace.schemas.refs import EntityRef, Touch
from headrace.schemas.registry import Registry

_PROPOSAL: Final = "SELECT * FROM proposals WHERE tenant = :tenant AND account = :account AND id = :id"
_PARTITION: Final = "SELECT log_id FROM partitions WHERE partition = :partition"
_AT: Final = "SELECT * FROM events WHERE partition = :partition AND offset = :offset"
_ON: Final = (
    "SELECT * FROM events WHERE tenant = :tenant AND account = :account AND kind = :kind AND entity = :entity"
    " AND offset > :after AND offset < :before AND effect IS NOT NULL ORDER BY offset"
)
_IN: Final = (
    "SELECT e.*, t.starts_at, t.ends_at FROM touches t"  # noqa: S608 - our names
    " JOIN events e ON e.partition = :partition AND e.offset = t.offset"
    f" WHERE t.tenant = :tenant AND t.account = :account AND t.container = :kind AND {equal('t.container_id', ':id')}"
    " AND t.offset > :after AND t.offset < :before ORDER BY t.offset, t.ordinal"
)
_VERDICTS: Final = (
    "SELECT v.offset, v.verdict, v.log_time, v.text, e.type, e.actor_kind, e.actor_id, e.disposition FROM verdicts v"
    " JOIN events e ON e.partition = v.partition AND e.offset = v.offset"
    " WHERE v.tenant = :tenant AND v.account = :account AND v.proposal = :id ORDER BY v.offset"
)
_STEPS: Final = (
    f"SELECT * FROM events WHERE tenant = :tenant AND account = :account AND {equal('proposal', ':id')}"  # noqa: S608
    " AND offset >= :offset AND type <> 'proposal.submitted' ORDER BY offset"
)
_POLICY: Final = (
    "SELECT offset FROM events WHERE tenant = '' AND account = '' AND partition = :partition AND offset <= :at"
    " AND type IN ('log.opened', 'policy.activated') AND disposition = 'noted' ORDER BY offset DESC LIMIT 1"
)
_SET_ASIDE: Final = "SELECT reason FROM quarantine WHERE partition = :partition AND offset = :offset"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Offsets are places in ``partition``; times are log time, RFC 3339 in UTC.

    ``reads``: what the agent had read, each with its basis, what its head was there and what it was when judged
    (``None``: the same), and the effective events in between with what the policy named ``policy`` makes of each
    (``invalidate``, ``review``, ``ignore``; at a delivery, later proposals that knew of this one do not count).
    ``overtaken_by`` is the event that decided. ``history`` has every verdict on this id, in log order, each with the
    record that brought it about; ``intent`` how the accepted proposal went into the world, ``None`` where it never was
    one. ``waived_to`` is the offset up to which a person waived what asked for review.
    """

    proposal: Mapping[str, Any]
    partition: int
    verdict: str
    meaning: str
    rule: Mapping[str, Any]
    judged_at: Mapping[str, Any]
    policy: str | None
    reads: Sequence[Mapping[str, Any]]
    overtaken_by: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]
    intent: Mapping[str, Any] | None
    waived_to: int | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        found: dict[str, Any] = plain({name: getattr(self, name) for name in self.__slots__})
        return found


def explain(log: Log, reader: Reader, registry: Registry, *, tenant: str, account: str, proposal: str) -> Explanation:
    """Everything that is known about one proposal.

    :raises NotFoundError: the account has no such proposal, or it is not folded yet.
    """
    found = reader.rows(_PROPOSAL, {"tenant": tenant, "account": account, "id": proposal})
    if not found:
        raise NotFoundError(
            f"account {account} has no proposal {proposal[:200]!r}; `headrace log ls` shows what is on the log"
        )
    row, partition = proposal_row(found[0]), int(found[0]["partition"])
    policy = _policy(log, reader, registry, partition, row.judged_at)
    judgement = _Judgement(partition, row.judged_at, row.proposal, policy, _log_id(reader, partition))
    overtaken_by = row.finding.get("event")
    reads = [_read(reader, read, judgement) for read in row.proposal.reads]
    return Explanation(
        _proposal(reader, row.proposal, partition),
        partition,
        row.verdict,
        ROWS[row.verdict].meaning,
        dict(row.finding),
        {"offset": row.judged_at, "time": rfc3339(row.log_time)},
        policy.name if policy is not None else None,
        reads,
        {**overtaken_by, "time": rfc3339(overtaken_by["time"])} if overtaken_by is not None else None,
        _history(reader, row.proposal),
        _intent(reader, row),
        row.waived_to if row.waived_to >= 0 else None,
    )


def _proposal(reader: Reader, proposal: Proposal, partition: int) -> dict[str, Any]:
    submitted = reader.rows(_AT, {"partition": partition, "offset": proposal.offset})
    said: dict[str, Any] = {
        "id": proposal.id,
        "type": proposal.type,
        "entity": proposal.ref.subject if proposal.ref.kind else None,
        "actor": f"{proposal.actor.kind}/{proposal.actor.id}",
        "offset": proposal.offset,
        "time": rfc3339(submitted[0]["log_time"]) if submitted else None,
        "expires_at": rfc3339(proposal.expires_at) if proposal.expires_at is not None else None,
        "concerns": list(proposal.concerns),
        "data": dict(proposal.data),
    }
    if proposal.fault is not None:
        said["fault"] = proposal.fault
    aside = reader.rows(_SET_ASIDE, {"partition": partition, "offset": proposal.offset})
    if aside:
        said["quarantined"] = aside[0]["reason"]
    return said


def _log_id(reader: Reader, partition: int) -> bytes:
    log_id: bytes = reader.rows(_PARTITION, {"partition": partition})[0]["log_id"]
    return log_id


def _policy(log: Log, reader: Reader, registry: Registry, partition: int, at: int) -> Policy | None:
    """The policy that was in force at an offset."""
    found = reader.rows(_POLICY, {"partition": partition, "at": at})
    if not found:
        return None
    record = log.read(partition, found[0]["offset"], 1)[0]
    return Policy.from_body(registry.decode(record.value).body["policy"])


class _Judgement(NamedTuple):
    """The judgement that is explained: where it was made, under which policy, and of what."""

    partition: int
    at: int
    proposal: Proposal
    policy: Policy | None
    log_id: bytes

    def consequence(self, effect: Effect) -> str | None:
        """What the policy makes of an event for the proposal."""
        if self.policy is None:
            return None
        mine = self.proposal
        return self.policy.consequence(mine.type, mine.concerns, effect.effect, effect.actor.kind, effect.concerns)


def _read(reader: Reader, read: Read, judgement: _Judgement) -> dict[str, Any]:
    own, basis, partition = judgement.proposal.ref, read.basis, judgement.partition
    said: dict[str, Any] = {"what": read.what, "kind": read.kind, "id": read.id}
    if read.what == "scope":
        said |= {"start": read.start, "end": read.end}
    if read.account is not None:
        said["account"] = read.account
    if basis is None:
        return said | {"basis": None, "between": []}
    here = (basis.log_id, basis.partition) == (judgement.log_id, partition) and (
        read.account is None or read.account == own.account
    )
    rows = reader.rows(_AT, {"partition": partition, "offset": basis.offset}) if here and basis.offset < 2**63 else []
    known = rows[0] if rows and rows[0]["chain"][:8] == basis.check else None
    said["basis"] = {
        "token": basis.encode(),
        "partition": basis.partition,
        "offset": basis.offset,
        "known": known is not None,
        "time": rfc3339(known["log_time"]) if known is not None else None,
        "event": _event(known) if known is not None and known["effect"] is not None else None,
    }
    effects = _between(reader, read, basis.offset, judgement) if known is not None else []
    if read.what != "scope":
        said["head_when_judged"] = _described(effects[-1]) if effects else None
    said["between"] = [_described(effect) | {"consequence": judgement.consequence(effect)} for effect in effects]
    return said


def _between(reader: Reader, read: Read, after: int, judgement: _Judgement) -> list[Effect]:
    """The effective events of others on what was read, after the basis and before the judgement."""
    own = judgement.proposal.ref
    bounds = {"tenant": own.tenant, "account": own.account, "kind": read.kind, "after": after, "before": judgement.at}
    if read.what != "scope":
        effects = [_effect(row) for row in reader.rows(_ON, {**bounds, "entity": read.id})]
    else:
        effects = [
            _effect(row)
            for row in reader.rows(_IN, {**bounds, "id": read.id, "partition": judgement.partition})
            if Touch(read.kind, read.id, row["starts_at"], row["ends_at"]).meets(read.touch)
        ]
    others = {effect.offset: effect for effect in effects if effect.proposal != judgement.proposal.id}
    return list(others.values())


def _described(effect: Effect) -> dict[str, Any]:
    return described(effect) | {"time": rfc3339(effect.time)}


def _history(reader: Reader, proposal: Proposal) -> list[dict[str, Any]]:
    rows = reader.rows(_VERDICTS, {"tenant": proposal.ref.tenant, "account": proposal.ref.account, "id": proposal.id})
    return [
        {
            "verdict": row["verdict"],
            "offset": row["offset"],
            "time": rfc3339(row["log_time"]),
            "finding": json.loads(row["text"])["finding"],
            "by": _event(row),
        }
        for row in rows
    ]


def _intent(reader: Reader, row: ProposalRow) -> dict[str, Any] | None:
    """How an accepted proposal went on, with every record that names it since."""
    if row.outcome is None:
        return None
    proposal = row.proposal
    steps = reader.rows(
        _STEPS,
        {
            "tenant": proposal.ref.tenant,
            "account": proposal.ref.account,
            "offset": proposal.offset,
            "id": proposal.id,
        },
    )
    return {
        "accepted_at": row.accepted_at if row.accepted_at >= 0 else None,
        "outcome": row.outcome,
        "steps": [
            _event(step)
            | {
                "offset": step["offset"],
                "time": rfc3339(step["log_time"]),
                "disposition": step["disposition"],
                "note": step["note"],
            }
            for step in steps
        ],
    }


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    said = {"type": row["type"], "actor": f"{row['actor_kind']}/{row['actor_id']}"}
    return said | ({"id": row["event_id"], "offset": row["offset"]} if "event_id" in row else {})


def _effect(row: dict[str, Any]) -> Effect:
    return effect_row(row, EntityRef(row["tenant"], row["account"], row["kind"], row["entity"]))
