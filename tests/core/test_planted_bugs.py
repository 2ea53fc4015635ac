"""The suite bites: bugs of many kinds, planted in the fold one at a time, are each found by its own properties."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple

import pytest

from headrace.errors import HaltError
from headrace.log.port import Stored
from tests.core import properties
from tests.core.histories import MOVE_BYTES, POLICIES, written
from tests.core.planting import planted

HISTORIES: Final = 120


class Bug(NamedTuple):
    """In the function of that name, ``sound`` becomes ``bug``. ``seen_by`` is one property that finds it, besides the
    reference (``alone``: instead of it)."""

    what: str
    function: str
    sound: str
    bug: str
    seen_by: Callable[[Sequence[Stored]], None] | None = None
    alone: bool = False


BUGS: Final = (
    Bug(
        "the event right behind the basis is overlooked",
        "processors.core.memory:Memory.effects_on",
        "bisect_right(found, after,",
        "bisect_right(found, after + 1,",
        properties.accepted_means_that_nothing_relevant_came_between,
    ),
    Bug(
        "the basis itself counts as having come between",
        "processors.core.memory:Memory.effects_in",
        "bisect_right(found, after,",
        "bisect_right(found, after - 1,",
        properties.superseded_names_the_first_relevant_event,
    ),
    Bug(
        "a scope's interval is closed, not half-open",
        "schemas.refs:Touch.meets",
        "_before(self.start, _end(other)) and _before(other.start, _end(self))",
        "not _before(_end(other), self.start) and not _before(_end(self), other.start)",
        properties.nobody_is_refused_without_cause,
    ),
    Bug(
        "an event touches only the interval it comes to, not the one it leaves",
        "processors.core.fold:_fact",
        "(*kind.footprint(before), *kind.footprint(after))",
        "kind.footprint(after)",
    ),
    Bug(
        "a refused proposal becomes the head",
        "processors.core.judge:apply_verdict",
        "        memory.mark(entry, verdict)\n",
        "        moved = effective(memory, entry, row.proposal.ref, 'accepted:x', (), concerns=())\n"
        "        memory.mark(entry, verdict, moved)\n",
        properties.refused_proposals_move_nothing,
    ),
    Bug(
        "a duplicate is applied again",
        "processors.core.fold:_fold",
        'memory.mark(entry, "duplicate" if same else "conflicting_id", uses_identity=False)\n        return',
        "pass",
        properties.retries_change_nothing,
    ),
    Bug(
        "a repeated proposal is judged anew",
        "processors.core.answers:submitted",
        'known is not None and known.verdict != "malformed"',
        'known is not None and known.verdict == "accepted"',
        properties.retries_change_nothing,
    ),
    Bug(
        "a record's own time counts instead of log time",
        "processors.core.fold:step",
        "item.log_append and item.appended_at > partition.log_time",
        "True",
        properties.clocks_of_clients_decide_nothing,
    ),
    Bug(
        "what no rule speaks of is ignored",
        "processors.core.policy:Policy._first",
        '"invalidate")',
        '"ignore")',
        properties.accepted_means_that_nothing_relevant_came_between,
    ),
    Bug(
        "the last rule that fits counts",
        "processors.core.policy:Policy._first",
        "in self.rules",
        "in reversed(self.rules)",
    ),
    Bug(
        "rules without concerns look at them, too",
        "processors.core.policy:Policy.consequence",
        "if rule.concerns:",
        "if True:",
        properties.accepted_means_that_nothing_relevant_came_between,
    ),
    Bug("a claim never ends", "processors.core.verdicts:_claimed", "claim.until <= case.log_time", "claim.until < 0"),
    Bug("nobody is kept out by a claim", "processors.core.verdicts:_claimed", "claim is None or", "True or"),
    Bug(
        "an approval waives what invalidates",
        "processors.core.verdicts:Case.first_between",
        'named == "review" and offset',
        "offset",
        properties.accepted_means_that_nothing_relevant_came_between,
    ),
    Bug(
        "an approval waives what the reviewer had not read",
        "processors.core.answers:approved",
        "row.waived_to = max(row.waived_to, read.offset)",
        "row.waived_to = entry.offset",
    ),
    Bug("a waiver is forgotten at the attempt", "processors.core.intents:attempted", "waived_to=row.waived_to, ", ""),
    Bug(
        "records of a replaced sync take effect",
        "processors.core.fold:_stale_sync",
        "said != {row.sync}",
        "False",
    ),
    Bug(
        "freshness counts from the end of a sync",
        "processors.core.fold:_synced",
        "row.sync_offset, row.sync_time",
        "entry.offset, memory.partition.log_time",
    ),
    Bug(
        "a sync that began before the proposal releases it",
        "processors.core.verdicts:_held",
        "source.fresh_offset > ",
        "source.synced_offset > ",
    ),
    Bug(
        "the hash in a token is not looked at",
        "processors.core.verdicts:_basis_faults",
        "known is None or known.check != basis.check",
        "known is None",
        properties.accepted_means_that_nothing_relevant_came_between,
    ),
    Bug(
        "a read of another account is taken for one's own",
        "processors.decode:Decoder._proposal",
        'read["account"],',
        "None,",
    ),
    Bug(
        "any effective event will do for a head",
        "processors.core.verdicts:_basis_faults",
        "known.ref != own._replace(kind=read.kind, id=read.id)",
        "False",
    ),
    Bug(
        "accounts share their threads",
        "processors.core.memory:Memory.effects_in",
        "(tenant, account, scope.container, scope.id)",
        "next((k for k in self.touching if k[2:] == (scope.container, scope.id)), ())",
    ),
    Bug(
        "the guard does not see intents",
        "processors.core.judge:_laid_over",
        "state = kind.foresee(state, intent.type, intent.data)",
        "pass",
    ),
    Bug(
        "its own acceptance counts against it",
        "processors.core.judge:_finding",
        "if effect.proposal != proposal.id",
        "if True",
    ),
    Bug(
        "what was built on it counts against an attempt",
        "processors.core.judge:_without_followers",
        "offset > accepted_at and",
        "False and",
    ),
    Bug("every later intent is forgiven", "processors.core.judge:_knew", "return any(", "return True or any("),
    Bug(
        "the end of an intent moves nothing",
        "processors.core.intents:end",
        "    memory.mark(entry, outcome, effect)",
        "    memory.mark(entry, outcome)",
    ),
    Bug(
        "two attempts on one entity run at once",
        "processors.core.intents:attempted",
        "if busy is not None:",
        "if False:",
    ),
    Bug(
        "any fact after an attempt is its echo",
        "processors.core.echoes:echo_of",
        "intent.clean and intent.echo == found",
        "True",
        properties.only_what_was_foreseen_is_an_echo,
    ),
    Bug(
        "any fact after an attempt of version 1 is its echo",
        "processors.core.echoes:echo_of",
        "intent.foreseen is not None and intent.foreseen == _hash(row.state)",
        "True",
    ),
    Bug(
        "an echo is one though another fact came between",
        "processors.core.echoes:echo_of",
        "intent.clean and intent.echo == found",
        "intent.echo == found",
    ),
    Bug(
        "what lacks the mark is an echo",
        "processors.core.echoes:echo_of",
        "if intent.mark is not None and intent.mark != mark and not _is_of_version(kind, row, intent):",
        "if False:",
        properties.only_what_was_foreseen_is_an_echo,
    ),
    Bug(
        "providers are foreseen to leave their stamps as they are",
        "processors.core.echoes:settled",
        "if name not in kind.stamps",
        "",
    ),
    Bug(
        "an echo after the success is somebody's edit",
        "processors.core.echoes:succeeded",
        "if awaited(intent):",
        "if False:",
    ),
    Bug(
        "an echo is awaited though an edit came between",
        "processors.core.echoes:settle",
        "if one.echo is None and one is not echoed",
        "if one is not echoed",
    ),
    Bug(
        "an echo is whoever's brought it",
        "processors.core.fold:_fact",
        "if echo is not None and echoes.is_told_apart(echo) else None",
        "if False else None",
        properties.an_echo_is_its_agents,
    ),
    Bug("a success overwrites what a source said since", "processors.core.intents:end", " and intent.clean:", ":"),
    Bug(
        "what is known of a batch of its own is not known in the next",
        "processors.core.memory:Memory.known_at",
        "self.known.get(offset)",
        "None",
        properties.the_split_into_batches_is_not_seen,
        alone=True,
    ),
    Bug(
        "the order of a set decides which event is named",
        "processors.core.verdicts:Case.first_between",
        "sorted(effects)",
        "sorted(effects, key=lambda offset: hash(str(offset)))",
        properties.superseded_names_the_first_relevant_event,
    ),
    Bug(
        "expiry is one millisecond late",
        "processors.core.verdicts:_expired",
        "expires_at <= case.log_time",
        "expires_at < case.log_time",
    ),
    Bug(
        "a proposal waits although nothing is stale",
        "processors.core.verdicts:_held",
        "0 <= age <= bound",
        "0 <= age <= bound // 2",
    ),
)


@cache
def corpus() -> tuple[list[Stored], ...]:
    """The same histories in every process, written while nothing is planted."""
    made: list[list[Stored]] = []
    for seed in range(HISTORIES):
        chance = random.Random(seed)
        moves = [chance.randbytes(MOVE_BYTES) for _ in range(60)]
        made.append(written(seed % len(POLICIES), moves))
    return tuple(made)


def found_by(check: Callable[[Sequence[Stored]], None]) -> bool:
    """Whether the property fails on some history, or the fold breaks down on it."""
    for records in corpus():
        try:
            check(records)
        except (AssertionError, HaltError, KeyError):
            return True
    return False


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    corpus()
    with planted(bug.function, bug.sound, bug.bug):
        assert bug.alone or found_by(properties.agrees_with_the_reference), "the reference agrees with the bug"
        if bug.seen_by is not None:
            assert found_by(bug.seen_by), f"{bug.seen_by.__name__} overlooks it"


@pytest.mark.parametrize("check", properties.PROPERTIES, ids=lambda check: check.__name__)
def test_where_nothing_is_planted_nothing_is_found(check: Callable[[Sequence[Stored]], None]) -> None:
    for records in corpus()[:20]:
        check(records)


def test_a_bug_that_cannot_be_planted_is_not_passed_over() -> None:
    with (
        pytest.raises(AssertionError, match="plant the bug anew"),
        planted("processors.core.policy:_fits", "no such words", ""),
    ):
        pass
