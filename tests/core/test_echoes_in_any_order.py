"""An agent's act, what people do meanwhile, and syncs, in any order: whose each fact is, is known beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.planting import planted
from tests.core.scribe import RIVAL
from tests.core.story import CALENDAR, Story
from tests.core.test_echoes import AGENTS, MARK, MOVED, PERSONS, moves, snapshot, to_move


@dataclass
class Provider:
    """A calendar with one meeting: what it shows, whether exactly as the agent's act left it, whether its words are
    still those that the mark was put on, and what was told."""

    shown: dict[str, Any]
    version: int = 1
    ours: bool = False
    sealed: bool = False
    told: int = 1
    at_attempt: int = -1

    def write(self, shown: dict[str, Any], *, ours: bool, sealed: bool) -> None:
        self.version += 1
        self.shown, self.ours, self.sealed = {**shown, "etag": f"v{self.version}"}, ours, sealed


@dataclass
class Play:
    """Plays a list of steps, and says of every fact beforehand what it has to be."""

    story: Story
    provider: Provider
    outcome: str | None = None
    acted: int = -1
    disturbed: bool = False
    facts: dict[int, tuple[str, str]] = field(default_factory=dict)
    last: int = -1

    def attempt(self) -> None:
        if self.provider.at_attempt >= 0 or self.story.intents(self.story.meeting) != ["p1"]:
            return
        if self.story.became(moves(self.story)) == "granted":
            self.provider.at_attempt = self.provider.told

    def act(self) -> None:
        """With ``If-Match``: refused where somebody wrote since what the log knew at the attempt."""
        if self.provider.at_attempt < 0 or self.acted >= 0 or self.outcome in ("refused", "failed"):
            return
        if self.provider.version != self.provider.at_attempt:
            self.end("refused")
            return
        self.provider.write({**self.provider.shown, **snapshot(2)}, ours=True, sealed=True)
        self.acted = self.provider.version

    def edit(self) -> None:
        """A person moves the meeting on: never back to where the agent moved it."""
        moved = {**self.provider.shown, **snapshot(5 + self.provider.version)}
        self.provider.write(moved, ours=False, sealed=self.provider.sealed)

    def reword(self) -> None:
        """A person changes its title: nothing that is decided on, but the seal is broken."""
        self.provider.write(self.provider.shown, ours=False, sealed=False)

    def sync(self) -> None:
        provider = self.provider
        if provider.told == provider.version:
            return
        exact = provider.ours and not self.disturbed and self.outcome != "failed"
        self.last = self.story.found(
            self.story.meeting, "calendar.updated", provider.shown, MARK if provider.sealed else None
        )
        self.facts[self.last] = ("echo", AGENTS) if exact else ("applied", PERSONS)
        self.disturbed = self.disturbed or (provider.at_attempt >= 0 and not exact)
        provider.told = provider.version

    def repeat(self) -> None:
        if self.last >= 0:
            self.facts[self.story.again(self.last)] = ("duplicate", PERSONS)

    def forge(self) -> None:
        """Somebody copies the mark onto a meeting of their own."""
        copy = self.story.meeting._replace(id=f"copy{self.story.next_offset}")
        self.facts[self.story.found(copy, "calendar.created", snapshot(2, uid="u2"), MARK)] = ("applied", PERSONS)

    def takeover(self) -> None:
        if self.provider.at_attempt >= 0:
            assert self.story.became(self.story.attempt_marked("p1", "t2", mark="mark-2")) == "ignored"

    def succeed(self) -> None:
        if self.acted >= 0:
            self.end("succeeded")

    def fail(self) -> None:
        """Wrongly, where it has acted."""
        if self.provider.at_attempt >= 0:
            self.end("failed")

    def lose(self) -> None:
        if self.provider.at_attempt >= 0 and self.outcome is None:
            self.story.outcome("unknown", "p1")

    def end(self, how: str) -> None:
        if self.outcome is None and "p1" in self.story.intents(self.story.meeting):
            self.story.outcome(how, "p1", reference=f"v{self.acted}" if how == "succeeded" else None)
            self.outcome = how


STEPS: Final[tuple[Callable[[Play], None], ...]] = (
    *(Play.attempt, Play.act, Play.sync) * 3,
    *(Play.edit, Play.reword, Play.succeed, Play.repeat, Play.forge, Play.takeover, Play.lose, Play.fail),
)


def played(steps: list[Callable[[Play], None]]) -> Play:
    play = Play(to_move(), Provider(snapshot()))
    for step in steps:
        step(play)
    play.sync()
    return play


def check(steps: list[Callable[[Play], None]]) -> None:
    """Every fact is what it is; the agent's comes back once; nothing of it supersedes, everything of a person does."""
    play = played(steps)
    story = play.story
    for offset, (became, actor) in play.facts.items():
        assert story.became(offset) == became, offset
        assert story.actor(offset) == actor, offset
    assert story.folded.dispositions.count("echo") <= 1
    state, shown = story.state(story.meeting), play.provider.shown
    for name in ("etag", "occurrences"):
        assert state[name] == shown[name], name
    persons = [offset for offset, (became, actor) in play.facts.items() if (became, actor) == ("applied", PERSONS)]
    echoes = [offset for offset, (became, _) in play.facts.items() if became == "echo"]
    rows = story.folded.events
    mine = [row["offset"] for row in rows if row["effect"] is not None and row["entity"] == story.meeting.id]
    for basis, following in pairwise(mine):
        if following not in persons and following not in echoes:
            continue
        branch = _until(story, following)
        reads = [branch.seen(branch.meeting, basis)]
        stale = branch.propose(branch.meeting, "calendar.book", {"calendar": CALENDAR, **MOVED}, reads, actor=RIVAL)
        assert (branch.verdict(stale) == "superseded") == (following in persons), following


def _until(story: Story, offset: int) -> Story:
    """The story as far as that."""
    branch = Story()
    for record in story.records[branch.next_offset : offset + 1]:
        branch.now = record.appended_at
        branch.stored(record.key, record.headers, record.value)
    for _ in story.records:
        branch.number()
    return branch


@given(st.lists(st.sampled_from(STEPS), max_size=12))
def test_in_any_order(steps: list[Callable[[Play], None]]) -> None:
    check(steps)


@pytest.mark.parametrize(
    ("function", "sound", "bug", "steps"),
    [
        ("echo_of", "intent.mark != mark and", "False and", [Play.attempt, Play.act, Play.reword, Play.sync]),
        ("settled", "if name not in kind.stamps", "", [Play.attempt, Play.act, Play.sync]),
        ("succeeded", "if awaited(intent):", "if False:", [Play.attempt, Play.act, Play.succeed, Play.sync]),
        ("echo_of", "intent.clean and intent.echo == found", "True", [Play.attempt, Play.act, Play.edit, Play.sync]),
    ],
)
def test_a_planted_bug_is_found(function: str, sound: str, bug: str, steps: list[Callable[[Play], None]]) -> None:
    check(steps)
    with planted(f"processors.core.echoes:{function}", sound, bug), pytest.raises(AssertionError):
        check(steps)
