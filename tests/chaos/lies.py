"""Lies planted into a good run's history: each makes a client say that it was told what it was not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace.schemas.refs import Token
from tests.chaos.evidence import Evidence
from tests.chaos.history import EVENT, FAILED, LOOKUP, PROBE, PROPOSE, READ, SCOPE, Operation


class NothingToPlantIn(Exception):  # noqa: N818 - no error: the run goes on until there is
    """The good run lacks what this would be planted into."""


def the(found: Sequence[Any]) -> Any:
    """The one in the middle: neither the first nor the last of its sort."""
    if not found:
        raise NothingToPlantIn
    return found[len(found) // 2]


def with_operation(evidence: Evidence, old: Operation, **changes: Any) -> Evidence:
    """The same, but for one operation."""
    changed = replace(old, **changes)
    return replace(evidence, history=[changed if one is old else one for one in evidence.history])


def retold(evidence: Evidence, old: Operation, **told: Any) -> Evidence:
    """The same, but that a client was told something else."""
    return with_operation(evidence, old, told={**old.told, **told})


def answered(evidence: Evidence, kind: str) -> list[Operation]:
    """Operations of a kind that were answered."""
    return [one for one in evidence.history if one.kind == kind and one.is_ok]


def acknowledged_elsewhere(good: Evidence) -> Evidence:
    one = the(answered(good, EVENT))
    return retold(good, one, offset=one.told["offset"] + 1)


def never_sent(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, EVENT) if sum(other.key == one.key for other in good.history) == 1])
    return replace(good, history=[other for other in good.history if other is not one])


def refused_and_landed(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, EVENT) if sum(other.key == one.key for other in good.history) == 1])
    return with_operation(good, one, outcome=FAILED, told={"why": "503 log_unavailable"})


def reordered(good: Evidence) -> Evidence:
    first = the([one for one in answered(good, EVENT) if len(good.log[one.told["partition"]]) > one.told["offset"] + 9])
    later = [
        one
        for one in answered(good, EVENT)
        if one.told["partition"] == first.told["partition"] and one.told["offset"] > first.told["offset"]
    ]
    return with_operation(good, the(later), invoked=first.invoked - 20, ended=first.invoked - 10)


def changed_reads(good: Evidence) -> list[tuple[Operation, Operation]]:
    """Pairs of reads of one entity, the second of which saw something else."""
    pairs: list[tuple[Operation, Operation]] = []
    last: dict[tuple[str, str, str], Operation] = {}
    for one in answered(good, READ):
        before = last.get(one.key)
        if before is not None and before.told["shown"] != one.told["shown"]:
            pairs.append((before, one))
        last[one.key] = one
    return pairs


def stale_read(good: Evidence) -> Evidence:
    before, after = the(changed_reads(good))
    return retold(good, after, shown=before.told["shown"])


def read_of_the_future(good: Evidence) -> Evidence:
    before, after = the(changed_reads(good))
    return retold(good, before, shown=after.told["shown"])


def lost_intent(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, READ) if one.told["shown"] and one.told["shown"]["intents"]])
    return retold(good, one, shown={**one.told["shown"], "intents": []})


def scope_misses_one(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, SCOPE) if one.told["found"]])
    return retold(good, one, found=one.told["found"][1:])


def regressed(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, READ) if Token.parse(one.told["position"]).offset > 0])
    partition = Token.parse(one.told["position"]).partition
    end = len(good.log[partition]) - 1
    newest = Token(good.log_id, partition, end, good.chains[partition][end][:8])
    return with_operation(good, one, said={**one.said, "after": newest.encode()})


def token_of_nowhere(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, PROPOSE) if one.told.get("token")])
    return retold(good, one, token=Token.parse(one.told["token"])._replace(check=b"no check").encode())


def told_another_verdict(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, PROPOSE) if one.told["verdict"] == "accepted"])
    return retold(good, one, verdict="rejected", finding={"rule": "made_up"})


def told_another_reason(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, PROPOSE) if one.told["verdict"] == "superseded"])
    event = {**one.told["finding"]["event"], "offset": one.told["finding"]["event"]["offset"] + 1}
    return retold(good, one, finding={"event": event})


def history_cut(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, LOOKUP) if len(one.told["history"]) > 1])
    return retold(good, one, history=one.told["history"][:-1])


def own_write_not_seen(good: Evidence) -> Evidence:
    one = the([one for one in answered(good, LOOKUP) if one.told["history"]])
    return retold(good, one, verdict=None, history=[])


def others_shown(good: Evidence) -> Evidence:
    return retold(good, the(answered(good, PROBE)), status=200)


def failed_on_a_bug(good: Evidence) -> Evidence:
    return with_operation(good, the(answered(good, SCOPE)), outcome=FAILED, told={"why": "500 internal"})


def token_taken_back(good: Evidence) -> Evidence:
    why = '422 {"type":"urn:headrace:problem:unknown-position"}'
    return with_operation(good, the(answered(good, READ)), outcome=FAILED, told={"why": why})
