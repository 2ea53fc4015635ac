"""What the tables and the records say of one judgement, laid side by side for the properties to question."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from headrace.log.port import Stored
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import Token
from tests.core.folding import Folded
from tests.core.naive_rule import fits
from tests.core.scribe import LOG_ID, PARTITION, REGISTRY

Row = dict[str, Any]


class Judgement(NamedTuple):
    """One verdict: at which offset, reached by a record of which type, on which proposal (its row) with which body."""

    at: int
    by: str
    verdict: str
    finding: Mapping[str, Any]
    proposal: Row
    reads: list[Row]
    policy: Mapping[str, Any]


class Testimony:
    """Everything that the properties ask about, for one folded history."""

    __test__ = False

    def __init__(self, records: Sequence[Stored], folded: Folded) -> None:
        self.records, self.folded = records, folded
        self.events = folded.events
        self.effects = [row for row in self.events if row["effect"] is not None]
        self._touches: dict[int, list[Row]] = {}
        for row in folded.tables["touches"]:
            self._touches.setdefault(row["offset"], []).append(row)
        self._proposals = {(row["tenant"], row["account"], row["id"]): row for row in folded.tables["proposals"]}

    def judgements(self) -> Iterator[Judgement]:
        """Every verdict that is a proposal's own, in log order (duplicates and other payloads left out)."""
        policy: Mapping[str, Any] = {}
        texts = {row["offset"]: row for row in self.folded.tables["verdicts"]}
        for event, record in zip(self.events, self.records, strict=True):
            if event["type"] in ("log.opened", "policy.activated") and event["disposition"] == "noted":
                policy = REGISTRY.decode(record.value).body["policy"]
            row = texts.get(event["offset"])
            if row is None or row["verdict"] in ("malformed", "duplicate", "conflicting_id"):
                continue
            proposal = self._proposals[row["tenant"], row["account"], row["proposal"]]
            reads = REGISTRY.decode(self.records[proposal["offset"]].value).body["reads"]
            finding = json.loads(row["text"])["finding"]
            yield Judgement(row["offset"], event["type"], row["verdict"], finding, proposal, reads, policy)

    def between(self, judged: Judgement, reads: Sequence[Row] | None = None) -> list[Row]:
        """The effective events of others after a basis and before the judgement on what was read there."""
        mine, own = judged.proposal["id"], (judged.proposal["tenant"], judged.proposal["account"])
        return [
            row
            for row in self.effects
            if row["offset"] < judged.at and (row["tenant"], row["account"]) == own and row["proposal"] != mine
            if any(self._concerns(row, read) for read in (judged.reads if reads is None else reads))
        ]

    def _concerns(self, row: Row, read: Row) -> bool:
        token = Token.unpack(read["basis"])
        if token is None or row["offset"] <= token.offset:
            return False
        if read["what"] != "scope":
            return bool((row["kind"], row["entity"]) == (read["kind"], read["id"]))
        return any(
            (touch["container"], touch["container_id"]) == (read["kind"], read["id"])
            and overlap((touch["starts_at"], touch["ends_at"]), (read["start"], read["end"]))
            for touch in self._touches.get(row["offset"], ())
        )

    def consequence(self, judged: Judgement, row: Row) -> str:
        """What the policy in force at the judgement makes of an event."""
        mine, theirs = (set(one["concerns"].split(",")) - {""} for one in (judged.proposal, row))
        for rule in judged.policy["rules"]:
            asked = (("proposal", judged.proposal["type"]), ("event", row["effect"]), ("actor", row["actor_kind"]))
            if all(fits(rule[name], said) for name, said in asked):
                apart = rule["concerns"] and mine and theirs and not mine & theirs
                return "ignore" if apart else str(rule["effect"])
        return "invalidate"

    def is_right(self, read: Row, before: int) -> bool:
        """Whether a basis is a token of this log's past."""
        token = Token.unpack(read["basis"])
        if token is None or (token.log_id, token.partition) != (LOG_ID, PARTITION) or token.offset >= before:
            return False
        check: bytes = self.events[token.offset]["chain"]
        return token.check == check[:8]

    def heads(self, account: tuple[str, str], kind: str, entity: str) -> list[int]:
        """The offsets that ever were this entity's head."""
        whose = (*account, kind, entity)
        return [
            row["offset"]
            for row in self.effects
            if (row["tenant"], row["account"], row["kind"], row["entity"]) == whose
        ]


def overlap(one: tuple[int | None, int | None], other: tuple[int | None, int | None]) -> bool:
    """Whether two half-open intervals share a moment; an empty one is the moment it starts at."""

    def last(interval: tuple[int | None, int | None]) -> float:
        start, end = interval
        if end is None:
            return float("inf")
        return end - 1 if start is None or end > start else start

    def first(interval: tuple[int | None, int | None]) -> float:
        return float("-inf") if interval[0] is None else interval[0]

    return first(one) <= last(other) and first(other) <= last(one)


def subject(record: Stored) -> tuple[str, str] | None:
    """What a record says it is about, if it can be read and is about anything."""
    headers = dict(record.headers)
    if "ce_subject" not in headers:
        return None
    envelope = from_headers(headers)
    return envelope.kind, envelope.entity
