"""The rule itself, said as plainly as possible: what is known, and what follows from it for one proposal.

DESIGN §2, the table from ``unknown_basis`` down, over one list of everything effective that ever happened.
"""

import hashlib
import json
from collections.abc import Mapping
from types import SimpleNamespace as Thing
from typing import Any, Final

from headrace.log.framing import GENESIS
from headrace.processors.core.kind import Kind

Finding = dict[str, Any]
Verdict = tuple[str, Finding | None]
ENDED_FOR_NOTHING: Final = ("intent.ended", "proposal.withdrawn", "delivery.failed")


def plain(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hashed(state: object) -> bytes:
    return hashlib.sha256(plain(state).encode()).digest()


class Rule:
    """What happened so far, and the verdict on a proposal in the face of it."""

    def __init__(self, kinds: Mapping[str, Kind], partition: int) -> None:
        self.all_kinds, self.partition = kinds, partition
        self.log_id, self.log_time, self.policy, self.kinds = b"", 0, dict[str, Any](), dict[str, Kind]()
        self.last, self.checks, self.times = GENESIS, list[bytes](), list[int]()
        self.happened: list[Thing] = []
        self.facts: dict[tuple[str, ...], Any] = {}
        self.intents: list[Thing] = []
        self.awaited: list[Thing] = []
        self.proposals: dict[tuple[str, ...], Thing] = {}
        self.verdicts: dict[int, tuple[str, str, Finding | None, int]] = {}
        self.sources: dict[tuple[str, ...], Thing] = {}
        self.claims: dict[tuple[str, ...], Thing] = {}

    def open_intents(self, ref: tuple[str, ...], before: int | None = None) -> list[Thing]:
        return [one for one in self.intents if one.ref == ref and (before is None or one.accepted_at < before)]

    def overlaid(self, ref: tuple[str, ...], before: int | None = None) -> Any:
        state = self.facts.get(ref)
        for intent in self.open_intents(ref, before):
            state = self.all_kinds[ref[2]].foresee(state, intent.type, intent.data)
        return state

    def touches(self, ref: tuple[str, ...]) -> list[Any]:
        return list(self.all_kinds[ref[2]].footprint(self.overlaid(ref)))

    def happen(
        self,
        record: Thing,
        ref: tuple[str, ...],
        effect: str,
        before: list[Any],
        *,
        concerns: object,
        proposal: object,
        actor: object = None,
    ) -> None:
        touched = before + self.touches(ref)
        envelope = record.envelope
        self.happened.append(
            Thing(
                offset=record.offset,
                ref=ref,
                effect=effect,
                touched=touched,
                concerns=concerns,
                id=envelope.id,
                type=envelope.type,
                actor=actor or envelope.actor,
                proposal=proposal,
                time=self.log_time,
            )
        )

    def judge(self, made: Thing, at: int, attempt: bool = False) -> Verdict:
        """The table of DESIGN §2 from ``unknown_basis`` down."""
        if any(self.is_unknown(made, read) for read in made.reads):
            return "unknown_basis", None
        if made.expires_at is not None and made.expires_at <= self.log_time:
            return "expired", {"reason": "expires_at", "expires_at": made.expires_at}
        bound = self.policy["basis_max_age_ms"]
        for read in made.reads:
            age = self.log_time - self.times[read.token.offset]
            if bound is not None and age > bound:
                named = {"what": read.what, "kind": read.kind, "id": read.id}
                named |= {"start": read.start, "end": read.end} if read.what == "scope" else {}
                return "expired", {"reason": "basis_age", "age_ms": age, "bound_ms": bound, "read": named}
        between = self.between(made, at, attempt)
        for one in between:
            if self.consequence(made, one) == "invalidate":
                return "superseded", {"event": self.described(one)}
        claim, me = self.claims.get(made.ref), f"{made.actor.kind}/{made.actor.id}"
        if claim is not None and claim.until > self.log_time and claim.holder != me:
            return "claimed", {"holder": claim.holder, "claim": claim.claim, "until": claim.until}
        state = self.overlaid(made.ref, made.accepted_at if attempt else None)
        rule = self.all_kinds[made.ref[2]].guard(state, made.type, made.data)
        if rule is not None:
            return "rejected", {"rule": rule}
        for one in between:
            if self.consequence(made, one) == "review" and one.offset > made.waived:
                return "needs_review", {"event": self.described(one)}
        return self.held(made) or ("accepted", {})

    def is_unknown(self, made: Thing, read: Thing) -> bool:
        token, ref = read.token, (*made.ref[:2], read.kind, read.id)
        if read.account not in (None, made.ref[1]) or token is None:
            return True
        if (token.log_id, token.partition) != (self.log_id, self.partition) or token.offset >= made.offset:
            return True
        if self.checks[token.offset] != token.check:
            return True
        of_this = [one.offset for one in self.happened if one.ref == ref]
        if read.what == "entity":
            return token.offset not in of_this
        return read.what == "absent" and any(offset <= token.offset for offset in of_this)

    def between(self, made: Thing, at: int, attempt: bool) -> list[Thing]:
        """The effective events after a basis and before ``at`` on what was read there, in log order."""
        met = [
            one
            for one in self.happened
            if one.offset < at and one.ref[:2] == made.ref[:2] and one.proposal != made.id
            if any(read.token.offset < one.offset and concerns_read(one, read) for read in made.reads)
        ]
        if not attempt:
            return met
        touched = self.touched_by(made)
        followers = set[str]()
        for one in reversed(met):  # whether the first of its acceptances came after this one's decides
            if one.effect.startswith("accepted:"):
                after = one.offset > made.accepted_at and self.knew_of(one.proposal, made, touched)
                followers = followers | {one.proposal} if after else followers - {one.proposal}
        return [
            one
            for one in met
            if one.proposal not in followers
            or not (one.effect.startswith("accepted:") or one.effect in ENDED_FOR_NOTHING)
        ]

    def touched_by(self, made: Thing) -> list[Any]:
        kind, below = self.all_kinds[made.ref[2]], self.overlaid(made.ref, made.accepted_at)
        return [*kind.footprint(below), *kind.footprint(kind.foresee(below, made.type, made.data))]

    def knew_of(self, other: str, made: Thing, touched: list[Any]) -> bool:
        for read in self.proposals[(*made.ref[:2], other)].reads:
            if read.what == "scope" and any(meets(touch, read) for touch in touched):
                return True
            if read.what != "scope" and (read.kind, read.id) == made.ref[2:]:
                return True
        return False

    def consequence(self, made: Thing, one: Thing) -> str:
        for rule in self.policy["rules"]:
            asked = ((rule["proposal"], made.type), (rule["event"], one.effect), (rule["actor"], one.actor.kind))
            if all(fits(pattern, name) for pattern, name in asked):
                mine, theirs = set(made.concerns), set(one.concerns)
                apart = rule["concerns"] and mine and theirs and not mine & theirs
                return "ignore" if apart else str(rule["effect"])
        return "invalidate"

    def described(self, one: Thing) -> Finding:
        return {
            "id": one.id,
            "type": one.type,
            "effect": one.effect,
            "actor": f"{one.actor.kind}/{one.actor.id}",
            "entity": f"{one.ref[2]}/{one.ref[3]}",
            "offset": one.offset,
            "time": one.time,
        }

    def held(self, made: Thing) -> Verdict | None:
        bound = self.policy["source_max_staleness_ms"]
        kinds = {made.ref[2]} | {read.kind for read in made.reads if read.what != "scope"}
        for read in made.reads:
            kinds |= {name for name, one in self.kinds.items() if read.what == "scope" and read.kind in one.containers}
        for key, source in sorted(self.sources.items()):
            if key[:2] != made.ref[:2] or bound is None or (source.feeds and not kinds & set(source.feeds)):
                continue
            age = self.log_time - source.fresh_time if source.fresh_offset >= 0 else None
            if source.fresh_offset <= made.offset and (age is None or not 0 <= age <= bound):
                return "held", {"source": key[2], "staleness_ms": age, "bound_ms": bound}
        return None


def fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern.removesuffix("*")) if pattern.endswith("*") else name == pattern


def concerns_read(one: Thing, read: Thing) -> bool:
    if read.what != "scope":
        return bool(one.ref[2:] == (read.kind, read.id))
    return any(meets(touch, read) for touch in one.touched)


def meets(touch: Any, read: Thing) -> bool:
    """Half-open intervals; an empty one is the point at its start."""
    if (touch.container, touch.id) != (read.kind, read.id):
        return False
    return starts(touch) < ends(read) and starts(read) < ends(touch)


def starts(interval: Any) -> float:
    return float("-inf") if interval.start is None else float(interval.start)


def ends(interval: Any) -> float:
    if interval.end is None:
        return float("inf")
    return float(interval.end if interval.start is None else max(interval.end, interval.start + 1))
