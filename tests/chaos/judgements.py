"""Rules about verdicts: final, the same to everybody, and right by the naive reference of the rule."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from headrace.schemas.refs import Position, Token
from tests.chaos.evidence import Evidence, Row, Violation
from tests.chaos.history import ANSWER, LOOKUP, PROPOSE, Operation
from tests.core.agreement import WORDED
from tests.core.naive_rule import Finding, fits

Key = tuple[str, str, str]
WAITING: Final = frozenset({"needs_review", "held"})
REPEATED: Final = frozenset({"duplicate", "conflicting_id"})
_ANSWERED_BY: Final = ("review.", "source.confirmed", "proposal.withdrawn", "delivery.attempted")
_UNDONE_BY: Final = ("proposal.withdrawn", "delivery.attempted")
Naively = Mapping[int, tuple[str, str, Finding | None, int]]


def check_verdicts(evidence: Evidence, naively: Sequence[Naively]) -> Iterator[Violation]:
    """``naively``: by partition, the naive reference's verdicts by offset."""
    yield from _each_once(evidence)
    yield from _as_the_rule_says(evidence, naively)
    histories = _by_proposal(evidence)
    yield from _changes(evidence, histories)
    every = _by_proposal(evidence, REPEATED)
    for one in evidence.history:
        if one.kind in (PROPOSE, LOOKUP, ANSWER) and one.is_ok:
            if one.told.get("verdict") is not None:
                yield from _told(evidence, one, histories.get(_about(one), ()))
            if one.kind == LOOKUP:
                yield from _looked_up(one, every.get(_about(one), ()))
    yield from _superseders(evidence)
    yield from _accepted_apart(evidence)


def _each_once(evidence: Evidence) -> Iterator[Violation]:
    """Every submitted record has one verdict at its offset, every proposal one row."""
    made = Counter[Key]()
    for record in evidence.landed:
        if record.type == "proposal.submitted":
            made[record.key] += 1
            row = evidence.verdicts.get(record.position)
            if row is None or (row["tenant"], row["account"], row["proposal"]) != record.key:
                yield Violation("verdict missing", f"{record.key} at {record.position} was never judged")
    kept = Counter((row["tenant"], row["account"], row["id"]) for row in evidence.tables["proposals"])
    for key in made:
        if kept[key] != 1:
            yield Violation("verdict missing", f"{key} has {kept[key]} rows of proposals")
    seen = Counter((row["partition"], row["offset"]) for row in evidence.tables["verdicts"])
    for position, count in seen.items():
        if count > 1:
            yield Violation("verdict twice", f"the record at {position} brought about {count} verdicts")


def _as_the_rule_says(evidence: Evidence, naively: Sequence[Naively]) -> Iterator[Violation]:
    for position, row in evidence.verdicts.items():
        said = naively[position.partition].get(position.offset) if position.partition < len(naively) else None
        if said is None:
            yield Violation("wrong verdict", f"there is a verdict at {position}, where nothing is to be judged")
            continue
        proposal, verdict, finding, log_time = said
        text = json.loads(row["text"])
        if text["verdict"] != verdict or text["verdict"] != row["verdict"]:
            rule = "wrong verdict"
            if row["verdict"] == "accepted":
                rule = "wrong acceptance"
            elif verdict == "accepted":
                rule = "spurious refusal"
            message = f"{proposal} at {position} is {row['verdict']} ({row['text']}); by the rule it is {verdict}"
            yield Violation(rule, f"{message} {finding or ''}")
        elif (text["proposal"], text["log_time"]) != (proposal, log_time):
            yield Violation("wrong verdict", f"{proposal} at {position} has a verdict on something else: {row['text']}")
        elif verdict not in WORDED and text["finding"] != finding:
            message = f"{proposal} at {position} is {verdict} for {text['finding']}; by the rule for {finding}"
            yield Violation("wrong verdict", message)


def _by_proposal(evidence: Evidence, also: Collection[str] = ()) -> dict[Key, list[Row]]:
    """A proposal's own verdicts in log order; with ``also``, those of its repeated submissions too."""
    found: defaultdict[Key, list[Row]] = defaultdict(list)
    for position in sorted(evidence.verdicts):
        row = evidence.verdicts[position]
        if row["verdict"] not in REPEATED or row["verdict"] in also:
            found[row["tenant"], row["account"], row["proposal"]].append(row)
    return found


def _about(one: Operation) -> Key:
    return one.tenant, one.account, one.said.get("proposal", one.id)


def _changes(evidence: Evidence, histories: Mapping[Key, Sequence[Row]]) -> Iterator[Violation]:
    """A verdict only changes by an answer to one that waited, or by what ends an intent."""
    for proposal, rows in histories.items():
        for before, after in pairwise(rows):
            event = evidence.events.get(Position(after["partition"], after["offset"]))
            by = event["type"] if event is not None else ""
            waited = before["verdict"] in WAITING and by.startswith(_ANSWERED_BY)
            undone = before["verdict"] == "accepted" and by.startswith(_UNDONE_BY)
            if not (waited or undone or before["verdict"] == "malformed"):
                message = f"{proposal} was {before['verdict']} at {before['offset']} and became {after['verdict']}"
                yield Violation("verdict changed", f"{message} by {by} at {after['offset']}")


def _looked_up(one: Operation, rows: Sequence[Row]) -> Iterator[Violation]:
    """Who looks a proposal up sees every verdict up to then, and nothing of a proposal that is not there yet."""
    horizon = Token.parse(one.told["position"])
    then = [[row["offset"], row["verdict"]] for row in rows if row["offset"] <= horizon.offset]
    if one.told["history"] != then:
        yield Violation("verdict told", f"{one.key} was shown {one.told['history']}; at {horizon.offset} it was {then}")


def _told(evidence: Evidence, one: Operation, rows: Sequence[Row]) -> Iterator[Violation]:
    """What a client was told is what the log says, then and for ever."""
    told, horizon = one.told, Token.parse(one.told["position"])
    if told["verdict"] == "duplicate":
        yield Violation("verdict told", f"{one.key} was told that it is a duplicate, not the verdict on the first")
    row = evidence.verdicts.get(Position(horizon.partition, told["at"]))
    said = (told["verdict"], told["finding"], told["time"])
    text = json.loads(row["text"]) if row is not None else {}
    if row is None or (row["verdict"], text["finding"], row["log_time"]) != said:
        is_now = f"{row['verdict']} {text['finding']}" if row is not None else "nothing"
        yield Violation("verdict told", f"{one.key} was told {said}; the log says {is_now} at {told['at']}")
        return
    if (row["tenant"], row["account"], row["proposal"]) != _about(one):
        yield Violation("verdict told", f"{one.key} was told the verdict on {row['proposal']}")
    elif told["current"]:
        then = [found for found in rows if found["offset"] <= horizon.offset]
        if not then or then[-1]["offset"] != told["at"]:
            now = then[-1]["offset"] if then else None
            yield Violation("verdict told", f"{one.key} was told the verdict of {told['at']} when it was that of {now}")
    elif told["at"] > horizon.offset:
        yield Violation("verdict told", f"{one.key} was told of {told['at']}, read at {horizon.offset}")


def _superseders(evidence: Evidence) -> Iterator[Violation]:
    """Who is named as having overtaken a proposal was really there, between, on something that it had read."""
    proposals = {(row["tenant"], row["account"], row["id"]): row for row in evidence.tables["proposals"]}
    for position, row in evidence.verdicts.items():
        if row["verdict"] not in ("superseded", "needs_review"):
            continue
        named = json.loads(row["text"])["finding"]["event"]
        event = evidence.events.get(Position(position.partition, named["offset"]))
        made = proposals.get((row["tenant"], row["account"], row["proposal"]))
        if event is None or made is None:
            yield Violation("spurious refusal", f"{row['proposal']} at {position} names {named}, which is not there")
            continue
        between = named["offset"] < position.offset and any(
            read["offset"] < named["offset"] for read in _reads(made, evidence)
        )
        same = (event["tenant"], event["account"]) == (row["tenant"], row["account"])
        true = (event["event_id"], event["type"], event["effect"]) == (named["id"], named["type"], named["effect"])
        if not (between and same and true and event["effect"] is not None):
            yield Violation("spurious refusal", f"{row['proposal']} at {position} names {named}, no event between")


def _reads(made: Row, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The reads of a proposal, as its record says them."""
    stored = evidence.log[made["partition"]][made["offset"]]
    for read in evidence.registry.decode(stored.value).body["reads"]:
        token = Token.unpack(read["basis"])
        if token is not None:
            yield {**read, "offset": token.offset}


def _accepted_apart(evidence: Evidence) -> Iterator[Violation]:
    """No two proposals are accepted on one basis of one entity, unless the policy says that they do not meet.

    The policy is that of the log's opening: where another was activated, this rule is left to the naive reference.
    """
    opening = evidence.registry.decode(evidence.log[0][0].value).body
    if any(row["type"] == "policy.activated" for row in evidence.events.values()):
        return
    groups: defaultdict[tuple[str, ...], list[tuple[int, Row]]] = defaultdict(list)
    for row in evidence.tables["proposals"]:
        if row["accepted_at"] < 0:
            continue
        subject = (row["tenant"], row["account"], row["kind"], row["entity"])
        for read in _reads(row, evidence):
            if read["what"] != "scope" and (read["kind"], read["id"]) == subject[2:]:
                groups[(*subject, str(read["offset"]))].append((row["accepted_at"], row))
    for name, accepted in groups.items():
        ordered = sorted(accepted, key=lambda pair: pair[0])
        for (first_at, first), (_, second) in pairwise(ordered):
            if first_at > second["waived_to"] and _consequence(opening["policy"], second, first) != "ignore":
                yield Violation("two accepted", f"{first['id']} and {second['id']} were both accepted on {name}")


def _consequence(policy: Mapping[str, Any], mine: Row, theirs: Row) -> str:
    for rule in policy["rules"]:
        asked = (("proposal", mine["type"]), ("event", f"accepted:{theirs['type']}"), ("actor", theirs["actor_kind"]))
        if all(fits(rule[name], said) for name, said in asked):
            ours, others = set(mine["concerns"].split(",")) - {""}, set(theirs["concerns"].split(",")) - {""}
            apart = rule["concerns"] and ours and others and not ours & others
            return "ignore" if apart else str(rule["effect"])
    return "invalidate"
