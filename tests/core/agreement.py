"""Where the fold's tables and the naive reference disagree about a history, in words."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from headrace.log.port import Stored
from tests.core.folding import Folded
from tests.core.naive import Naive, naive_fold
from tests.core.naive_rule import plain
from tests.core.scribe import KINDS, PARTITION, PARTITIONS, REGISTRY

WORDED: Final = ("malformed", "unknown_basis")
"""Verdicts whose reason in words the reference does not repeat."""


def reference(records: Sequence[Stored]) -> Naive:
    """The naive reference's view of these records."""
    return naive_fold(records, Naive(REGISTRY, KINDS, PARTITION, PARTITIONS))


def differences(records: Sequence[Stored], folded: Folded) -> list[str]:
    """Empty when fold and reference agree on every record, verdict and row."""
    world = reference(records)
    said = {"fold": _fold_says(folded), "naive": _naive_says(world)}
    return [
        f"{what}: the fold says {said['fold'].get(what)}, the reference {said['naive'].get(what)}"
        for what in sorted(said["fold"].keys() | said["naive"].keys())
        if said["fold"].get(what) != said["naive"].get(what)
    ]


def _fold_says(folded: Folded) -> dict[str, Any]:
    return {
        name: value
        for part in (_events, _verdicts, _entities, _proposals, _sources, _claims, _partition)
        for name, value in part(folded)
    }


def _events(folded: Folded) -> Iterator[tuple[str, Any]]:
    for row in folded.events:
        effect = row["effect"]
        about = (row["tenant"], row["account"], row["kind"], row["entity"]) if effect is not None else None
        actor = (row["actor_kind"], row["actor_id"]) if effect is not None else None
        yield f"{row['offset']:04d} record", (row["disposition"], effect, about, actor, row["log_time"])


def _verdicts(folded: Folded) -> Iterator[tuple[str, Any]]:
    for offset, text in folded.verdicts.items():
        said = json.loads(text)
        if said["verdict"] in WORDED:
            said["finding"] = None
        yield f"{offset:04d} verdict", plain(said)
        assert plain(json.loads(text)) == text, "verdicts are canonical JSON"


def _entities(folded: Folded) -> Iterator[tuple[str, Any]]:
    for kind in KINDS.values():
        for row in folded.tables[kind.table]:
            ref = (row["tenant"], row["account"], kind.name, row["id"])
            state = json.loads(row["state"]) if row["state"] is not None else None
            heads = (row["first_offset"], row["head_offset"], row["head_check"], row["head_time"])
            yield f"entity {ref}", (heads, plain(state), plain(json.loads(row["intents"])))


def _proposals(folded: Folded) -> Iterator[tuple[str, Any]]:
    for row in folded.tables["proposals"]:
        name = f"proposal {(row['tenant'], row['account'], row['id'])}"
        yield name, (row["verdict"], row["accepted_at"], row["outcome"], row["waived_to"])


def _sources(folded: Folded) -> Iterator[tuple[str, Any]]:
    for row in folded.tables["sources"]:
        said = ("cursor", "sync", "sync_offset", "sync_time", "hint_offset", "fresh_offset", "fresh_time")
        feeds = json.loads(row["feeds"])
        yield f"source {(row['tenant'], row['account'], row['source'])}", (feeds, *(row[name] for name in said))


def _claims(folded: Folded) -> Iterator[tuple[str, Any]]:
    for row in folded.tables["claims"]:
        name = f"claim {(row['tenant'], row['account'], row['kind'], row['entity'])}"
        yield name, (row["holder"], row["claim"], row["until"])


def _partition(folded: Folded) -> Iterator[tuple[str, Any]]:
    (row,) = folded.tables["partitions"]
    yield "partition", (row["next_offset"], row["log_time"], plain(json.loads(row["policy"])), row["chain"])
    yield "quarantine", sorted(row["offset"] for row in folded.tables["quarantine"])


def _naive_says(world: Naive) -> dict[str, Any]:
    effects = {one.offset: (one.effect, tuple(one.ref), tuple(one.actor)) for one in world.happened}
    said: dict[str, Any] = {}
    for offset, became in enumerate(world.became):
        said[f"{offset:04d} record"] = (became, *effects.get(offset, (None, None, None)), world.times[offset])
    for offset, (proposal, verdict, finding, log_time) in world.verdicts.items():
        known = None if verdict in WORDED else finding
        text = {"proposal": proposal, "verdict": verdict, "offset": offset, "log_time": log_time, "finding": known}
        said[f"{offset:04d} verdict"] = plain(text)
    for ref in {tuple(one.ref) for one in world.happened}:
        offsets = [one.offset for one in world.happened if one.ref == ref]
        head = offsets[-1]
        heads = (offsets[0], head, world.checks[head], world.times[head])
        intents = [_intent(one, ended=False) for one in world.open_intents(ref)]
        intents += [_intent(one, ended=True) for one in world.awaited if one.ref == ref]
        said[f"entity {ref}"] = (heads, plain(world.facts.get(ref)), plain(intents))
    for key, made in world.proposals.items():
        said[f"proposal {key}"] = (made.verdict, made.accepted_at, made.outcome, made.waived)
    for key, one in world.sources.items():
        times = (*one.sync_at, one.hint, one.fresh_offset, one.fresh_time)
        said[f"source {key}"] = (one.feeds, one.cursor, one.sync, *times)
    for ref, one in world.claims.items():
        said[f"claim {tuple(ref)}"] = (one.holder, one.claim, one.until)
    said["partition"] = (len(world.became), world.log_time, plain(world.policy), world.last)
    said["quarantine"] = [offset for offset, became in enumerate(world.became) if became == "quarantined"]
    return said


def _intent(one: Any, *, ended: bool) -> dict[str, Any]:
    return {
        "proposal": one.id,
        "type": one.type,
        "data": one.data,
        "accepted_at": one.accepted_at,
        "attempt": one.attempt,
        "foreseen": one.foreseen.hex() if one.foreseen is not None else None,
        "clean": one.clean,
        "unknown": one.unknown,
        "echo": one.echo.hex() if one.echo is not None else None,
        "mark": one.mark,
        "agent": one.agent,
        "reference": one.reference,
        "ended": ended,
    }
