"""The naive reference of the rule, taken through a partition once: what it says of every verdict and every read.

It keeps what happened by account, as nothing reaches from one account into another; so a walk is linear in the log
where accounts are of bounded size.
"""

from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace as Thing
from typing import Any

from headrace.processors.core.kind import Kind
from headrace.schemas.registry import Registry
from tests.core.naive import Naive
from tests.core.naive_rule import meets

Ref = tuple[str, str, str, str]


class NaiveWalk(Naive):
    """The naive reference of one partition, and what it would answer to a client that reads right now."""

    def __init__(self, registry: Registry, kinds: Mapping[str, Kind], partition: int, partitions: int) -> None:
        super().__init__(registry, kinds, partition, partitions)
        self._happened: defaultdict[tuple[str, ...], list[Thing]] = defaultdict(list)
        self._intents: defaultdict[tuple[str, ...], list[Thing]] = defaultdict(list)
        self._heads: defaultdict[tuple[str, ...], dict[Ref, Thing]] = defaultdict(dict)

    def take(self, record: Thing) -> str:
        """One record of one account, which is all that the rule then sees."""
        self.turn_to(record.account)
        return super().take(record)

    def turn_to(self, account: tuple[str, ...]) -> None:
        """Look at this account from now on."""
        self.happened, self.intents = self._happened[account], self._intents[account]

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
        """Something effective, which is now its entity's head."""
        super().happen(record, ref, effect, before, concerns=concerns, proposal=proposal, actor=actor)
        tenant, account, kind, entity = ref
        self._heads[tenant, account][tenant, account, kind, entity] = self.happened[-1]

    def shown(self, ref: Ref) -> dict[str, Any] | None:
        """The entity as a read shows it, ``None`` before anything happened to it."""
        self.turn_to(ref[:2])
        head = self._heads[ref[:2]].get(ref)
        if head is None:
            return None
        claim = self.claims.get(ref)
        held = claim is not None and claim.until > self.log_time
        return {
            "basis": head.offset,
            "time": head.time,
            "state": self.facts.get(ref),
            "intents": [
                [one.id, one.type, one.accepted_at, one.attempt, one.unknown] for one in self.open_intents(ref)
            ],
            "claim": [claim.claim, claim.holder, claim.until] if claim is not None and held else None,
        }

    def meeting(self, account: tuple[str, str], scope: Mapping[str, Any]) -> list[list[Any]]:
        """What meets a scope: kind, id and head of each, by kind and id."""
        self.turn_to(account)
        read = Thing(kind=scope["container"], id=scope["id"], start=scope["start"], end=scope["end"])
        return sorted(
            [ref[2], ref[3], head.offset]
            for ref, head in self._heads[account].items()
            if any(meets(touch, read) for touch in self.touches(ref))
        )
