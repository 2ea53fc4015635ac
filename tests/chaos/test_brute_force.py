"""The checker against brute force: small histories, each tried against every log that could explain it.

The brute force knows nothing of walks and bounds. It takes every choice of attempts that landed, in every order, keeps
the orders that fit what clients could see, and asks whether the log at hand is among them. Half of the histories begin
as a log might come about, and then go wrong in places; the others are made without regard to sense.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, permutations
from typing import Any, Final, NamedTuple

import pytest

from headrace.log.partitioner import partition_of
from headrace.processors.core.model import Event
from headrace.processors.replay import replay
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import Token
from tests.chaos.checker import check
from tests.chaos.evidence import Evidence, Recorded, contents
from tests.chaos.history import EVENT, FAILED, OK, READ, UNKNOWN, Operation
from tests.core.scribe import HOME, KINDS, LOG_ID, PARTITION, PARTITIONS, REGISTRY, Scribe

HISTORIES: Final = 200
OPERATIONS: Final = 8
THREAD: Final = HOME.entity("mail.thread", "t")
LABELS: Final = ("INBOX", "work")


class World(NamedTuple):
    """A history, the ids on the log in its order, and the checker's evidence of both."""

    history: list[Operation]
    ids: list[str]
    evidence: Evidence


def made(chance: random.Random) -> World:
    """A small world, often a wrong one."""
    ids = [f"e{number}" for number in range(chance.randint(1, 3))]
    on_log = [chance.choice(ids) for _ in range(chance.randint(0, 4))]
    scribe = Scribe()
    for id_ in on_log:
        labels = [LABELS[ids.index(id_) % 2]]
        scribe.say(HOME, "mail.labelled", {"added": labels, "removed": []}, about=THREAD, id=id_)
    history = _likely(chance, on_log) if chance.random() < 0.5 else []
    for number in range(len(history), chance.randint(len(history), OPERATIONS)):
        invoked, ended = sorted(chance.sample(range(40), 2))
        if chance.random() < 0.5:
            history.append(_write(chance, f"c{number}", (invoked, ended), ids, on_log))
        else:
            history.append(_read(chance, f"c{number}", (invoked, ended), scribe))
    return World(history, on_log, _evidence(history, scribe))


def _likely(chance: random.Random, on_log: Sequence[str]) -> list[Operation]:
    """How the log may have come about: each record by one attempt, most of them one after another."""
    made: list[Operation] = []
    for offset, id_ in enumerate(on_log, 1):
        invoked = 8 * offset + chance.randint(-8, 3)
        told = {"partition": PARTITION, "offset": offset if chance.random() < 0.95 else chance.randint(1, 4)}
        outcome = chance.choices((OK, UNKNOWN), (4, 1))[0]
        ended = invoked + chance.randint(1, 6)
        made.append(Operation(f"c{offset}", EVENT, *HOME, id_, {}, invoked, ended, outcome, told))
    return made


def _write(
    chance: random.Random, client: str, when: tuple[int, int], ids: Sequence[str], on_log: Sequence[str]
) -> Operation:
    id_ = chance.choice(ids)
    outcome = chance.choices((OK, UNKNOWN, FAILED), (6, 3, 1))[0]
    told: dict[str, Any] = {"why": outcome}
    if outcome == OK:
        places = [offset + 1 for offset, landed in enumerate(on_log) if landed == id_ or chance.random() < 0.1]
        told = {"partition": PARTITION, "offset": chance.choice(places or [1])}
    return Operation(client, EVENT, *HOME, id_, {}, *when, outcome, told)


def _read(chance: random.Random, client: str, when: tuple[int, int], scribe: Scribe) -> Operation:
    at, seen = (chance.randrange(scribe.next_offset) for _ in range(2))
    if chance.random() < 0.8:
        seen = at
    after = scribe.token(chance.randrange(scribe.next_offset)).encode() if chance.random() < 0.2 else None
    said = {"kind": THREAD.kind, "entity": THREAD.id, "after": after}
    told = {"position": scribe.token(at).encode(), "shown": _shown(scribe, seen)}
    return Operation(client, READ, *HOME, THREAD.subject, said, *when, OK, told)


def _shown(scribe: Scribe, at: int) -> dict[str, Any] | None:
    """The thread after offset ``at``, by evolving it as plainly as can be."""
    state: Any = None
    head, ids = 0, set[str]()
    for stored in scribe.records[1 : at + 1]:
        id_ = dict(stored.headers)["ce_id"].decode()
        if id_ not in ids:
            ids.add(id_)
            event = Event("mail.labelled", REGISTRY.decode(stored.value).body, actor=None)  # type: ignore[arg-type]
            state, head = KINDS[THREAD.kind].evolve(state, event), stored.offset
    shown = {"basis": head, "time": scribe.now, "state": state, "intents": [], "claim": None}
    return shown if state is not None else None


def _evidence(history: Sequence[Operation], scribe: Scribe) -> Evidence:
    """The log with its other partitions empty but for their openings, and the tables that it leads to."""
    opening = scribe.records[0]
    runs = [
        scribe.records if partition == PARTITION else [opening._replace(partition=partition)]
        for partition in range(PARTITIONS)
    ]
    assert partition_of(f"{HOME.tenant}/{HOME.account}".encode(), PARTITIONS) == PARTITION
    bare = Evidence(history, runs, {}, REGISTRY, KINDS)
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        replay(Recorded(bare), REGISTRY, KINDS, tables)
        return Evidence(history, runs, contents(tables, KINDS), REGISTRY, KINDS)


def explained(world: World) -> bool:
    """Whether some order of what may have landed fits everything that anybody saw, and is this log."""
    reads = [one for one in world.history if one.kind == READ]
    return any(
        [one.id for one in order] == world.ids and _is_possible(order, world) for order in _orders(world.history)
    ) and all(_is_true(one, world) for one in reads)


def _orders(history: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    writes = [one for one in history if one.kind == EVENT]
    sure = [one for one in writes if one.outcome == OK]
    unknown = [one for one in writes if one.outcome == UNKNOWN]
    for more in chain.from_iterable(combinations(unknown, count) for count in range(len(unknown) + 1)):
        yield from permutations([*sure, *more])


def _is_possible(order: Sequence[Operation], world: World) -> bool:
    for offset, one in enumerate(order, 1):
        if one.outcome == OK and one.told["offset"] != offset:
            return False
        for before in world.history:
            acknowledged = before.kind == EVENT and before.outcome == OK and before.ended is not None
            if acknowledged and (before.ended or 0) < one.invoked and before.told["offset"] > offset:
                return False
    return True


def _is_true(one: Operation, world: World) -> bool:
    """Whether a read saw just what stood on the log up to its position, and did not go back behind what it brought."""
    at, after = Token.parse(one.told["position"]), one.said["after"]
    state, seen, head = None, list[str](), None
    for offset, stored in enumerate(world.evidence.log[PARTITION][: at.offset + 1]):
        if offset and world.ids[offset - 1] not in seen:
            seen.append(world.ids[offset - 1])
            labels = {*(state or ()), *REGISTRY.decode(stored.value).body["added"]}
            state, head = labels, offset
    told = one.told["shown"]
    same = (told is None) if state is None else told is not None and set(told["state"]["labels"]) == state
    return same and (told is None or told["basis"] == head) and (not after or Token.parse(after).offset <= at.offset)


@pytest.mark.parametrize("seed", range(4))
def test_checker_and_brute_force_agree(seed: int) -> None:
    chance, right = random.Random(seed), 0
    for number in range(HISTORIES // 4):
        world = made(chance)
        violations = check(world.evidence)
        possible = explained(world)
        assert possible == (not violations), f"history {number} of seed {seed}: {violations} {world.history}"
        right += possible
        assert world.evidence.log_id == LOG_ID
    assert right > 5, "hardly any history is possible: nothing is shown"
