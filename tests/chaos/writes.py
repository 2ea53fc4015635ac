"""Rules about writes: what was acknowledged is on the log, once, in the order that clients could see."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from headrace.schemas.refs import Position
from tests.chaos.evidence import Evidence, Landed, Violation
from tests.chaos.history import FAILED, WRITES, Operation

Key = tuple[str, str, str]
_NO_EFFECT = frozenset({"duplicate", "conflicting_id", "stale_sync", "quarantined"})


def check_writes(evidence: Evidence) -> Iterator[Violation]:
    """Acknowledged ⇒ on the log with one effect; unknown ⇒ at most one; refused ⇒ none; and nothing else is there."""
    attempts: defaultdict[Key, list[Operation]] = defaultdict(list)
    for one in evidence.history:
        if one.kind in WRITES:
            attempts[one.key].append(one)
    landed: defaultdict[Key, list[Landed]] = defaultdict(list)
    for record in evidence.landed:
        landed[record.key].append(record)
    effects = _effects(evidence)
    for key, made in attempts.items():
        yield from _of_one(key, made, landed[key], effects)
    for key, records in landed.items():
        if key not in attempts:
            yield Violation("phantom", f"{key} at {records[0].position} was never sent by anybody")
    for source_key, positions in effects.items():
        if len(positions) > 1:
            yield Violation("one effect", f"{source_key} took effect at {positions}")
    yield from check_order(evidence.landed, attempts)


def _effects(evidence: Evidence) -> dict[tuple[str, ...], list[Position]]:
    """By (tenant, account, id, source): where it counted for the first time, or again."""
    found: defaultdict[tuple[str, ...], list[Position]] = defaultdict(list)
    for position, row in evidence.events.items():
        if row["account"] and row["disposition"] not in _NO_EFFECT:
            found[row["tenant"], row["account"], row["event_id"], row["source"]].append(position)
    return found


def _of_one(
    key: Key, made: Sequence[Operation], there: Sequence[Landed], effects: Mapping[tuple[str, ...], Sequence[Position]]
) -> Iterator[Violation]:
    possible = [one for one in made if one.outcome != FAILED]
    positions = {record.position for record in there}
    told_places = Counter(filter(None, map(placed, made)))
    spare = sum(placed(one) is None for one in possible)
    if there and not possible:
        yield Violation("refused", f"{key} is on the log at {positions}, yet every attempt was refused")
    elif len(positions - told_places.keys()) > spare:
        yield Violation("repeated", f"{key} is on the log {len(there)} times, sent {len(possible)} times")
    for position, count in told_places.items():
        if count > 1:
            yield Violation("acknowledged", f"{key} at {position} was acknowledged to {count} attempts")
    for one in made:
        told = placed(one)
        if one.is_ok and (not there or (told is not None and told not in positions)):
            yield Violation("acknowledged", f"{key} was acknowledged at {told}, it is on the log at {positions or '-'}")
    if any(one.is_ok for one in made) and there and not any(effects.get((*key, one.source)) for one in there):
        yield Violation("acknowledged", f"{key} was acknowledged and is on the log, yet took no effect")


def placed(one: Operation) -> Position | None:
    """Where a client was told its own record stands, if it was told."""
    if not one.is_ok or one.told.get("offset") is None:
        return None
    return Position(one.told["partition"], one.told["offset"])


def check_order(landed: Sequence[Landed], attempts: Mapping[Key, Sequence[Operation]]) -> Iterator[Violation]:
    """What was acknowledged before something else was sent stands before it, in each partition.

    One pass over both in the order of time: at each sending, the furthest acknowledged place is the bound.
    """
    ended: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    begun: defaultdict[int, list[tuple[int, Position]]] = defaultdict(list)
    spare: dict[Key, list[int]] = {}
    for key, made in attempts.items():
        for one in made:
            position = placed(one)
            if position is not None and one.ended is not None:
                ended[position.partition].append((one.ended, position.offset))
                begun[position.partition].append((one.invoked, position))
        # The last one is taken first.
        spare[key] = sorted((one.invoked for one in made if one.outcome != FAILED and not placed(one)), reverse=True)
    told = {position for run in begun.values() for _, position in run}
    untold = [record for record in landed if record.position not in told]
    count = Counter(record.key for record in untold)
    for record in untold:
        sent = spare.get(record.key)
        if sent:
            # Of attempts that were told no place, the first sent may have made the first record, and so on. Where there
            # are more records than attempts, the first attempt may have made all but the last ones.
            doubled = count[record.key] > len(sent)
            count[record.key] -= 1
            begun[record.position.partition].append((sent[-1] if doubled else sent.pop(), record.position))
    for partition, records in begun.items():
        bounds, furthest = sorted(ended[partition], reverse=True), -1
        for invoked, position in sorted(records):
            while bounds and bounds[-1][0] < invoked:
                furthest = max(furthest, bounds.pop()[1])
            if position.offset < furthest:
                yield Violation("order", f"{position} was sent after {furthest} had been acknowledged there")


def check_accounts(evidence: Evidence) -> Iterator[Violation]:
    """Every row is about the account whose record it comes from; nobody sees another tenant's."""
    of_record = {record.position: record.key[:2] for record in evidence.landed}
    known = set(of_record.values())
    for position, row in evidence.events.items():
        if (row["tenant"], row["account"]) != of_record.get(position, ("", "")):
            yield Violation("tenant", f"the events row at {position} is of {row['tenant']}/{row['account']}")
    for table, rows in evidence.tables.items():
        for row in rows:
            if row.get("account") and (row["tenant"], row["account"]) not in known:
                yield Violation("tenant", f"{table} has a row of {row['tenant']}/{row['account']}, who wrote nothing")
    for one in evidence.history:
        if one.kind == "probe" and one.is_ok and one.told["status"] != 404:
            yield Violation("tenant", f"{one.client} of {one.tenant} asked for {one.id} of others: {one.told}")


def check_answers(evidence: Evidence) -> Iterator[Violation]:
    """Faults outside are no excuse for bugs inside; and a token that was given out is taken back, always."""
    for one in evidence.history:
        why = str(one.told.get("why", ""))
        if why.startswith("500"):
            yield Violation("internal error", f"{one.kind} {one.id} of {one.client}: {why}")
        elif "unknown-position" in why:
            yield Violation("token refused", f"{one.kind} {one.id} of {one.client}, who brought a token: {why}")
