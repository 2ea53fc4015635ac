"""Of every provider's source: a crash at any step and a slow old fetch do no harm (DESIGN, section 7)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.log.port import Record
from headrace.producers.sync import OvertakenError
from headrace.schemas.refs import Position
from tests.doubles.desk import CrashError, Desk
from tests.providers.everyone import NAMES, Everywhere, everywhere

_ROUNDS: Final = 60


@pytest.fixture(params=NAMES)
def mine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Everywhere]:
    with everywhere(request.param, request, tmp_path) as made:
        yield made


def effective(mine: Everywhere) -> int:
    return len(mine.desk.applied())


class Dying:
    """A log whose process ends at its ``at``-th append, before what it appends is on the log or right after."""

    def __init__(self, desk: Desk, at: int, *, after: bool) -> None:
        self._log, self._left, self._after = desk.log, at, after
        self.died = False

    def append(self, records: Sequence[Record]) -> list[Position]:
        dies, self._left = self._left == 0, self._left - 1
        if dies and not self._after:
            self.died = True
            raise CrashError
        found = self._log.append(records)
        if dies:
            self.died = True
            raise CrashError
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize("after", [False, True], ids=["before it is on the log", "before it is folded"])
def test_a_crash_at_any_step_does_no_harm(mine: Everywhere, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Whoever takes it up has the same cursor and finds the rest: each change has one effect, none has two."""
    mine.add()
    mine.desk.sync(mine.another())
    mine.agree()
    step = deaths = 0
    while step < _ROUNDS:
        mine.add()
        mine.take_back()
        for _ in range(3):
            mine.add()
        before = effective(mine)
        dying = Dying(mine.desk, step, after=after)
        with monkeypatch.context() as patched:
            patched.setattr(mine.desk.feed, "_log", dying)
            try:
                mine.desk.sync(mine.another())
            except CrashError:
                deaths += 1
        mine.desk.sync(mine.another())
        mine.agree()
        assert effective(mine) == before + 3, f"after a crash at append {step}"
        if not dying.died:
            break
        step += 1
    assert deaths == step >= 3, "at the start, at what was found, and at the end"
    before = effective(mine)
    mine.desk.sync(mine.another(), full=True)
    assert effective(mine) == before
    mine.agree()


def test_a_slow_old_fetch_that_appends_last_sets_nothing_back(mine: Everywhere) -> None:
    """It saw what was then taken back, and does not see what came since."""
    mine.add()
    mine.desk.sync(mine.another())
    mine.add()
    feed = mine.desk.feed
    old = feed.begin(full=False)
    pages = list(mine.another().pages(old.cursor, old.known))
    seen = [event for page in pages for event in page.events]
    assert seen, "the old fetch has seen the second one"
    mine.take_back()
    mine.add()
    before = effective(mine)
    mine.desk.sync(mine.another())
    mine.agree()
    found = effective(mine)
    assert found >= before + 1
    with pytest.raises(OvertakenError):
        feed.found(old.sync, seen)
    with pytest.raises(OvertakenError):
        feed.finish(old.sync, pages[-1].cursor)
    assert {fact.disposition for fact in mine.desk.facts[-len(seen) :]} == {"stale_sync"}
    assert effective(mine) == found
    mine.agree()
    mine.desk.sync(mine.another())
    mine.desk.sync(mine.another(), full=True)
    assert effective(mine) == found, "the old end has not moved the cursor"
    mine.agree()


def test_what_a_slow_old_fetch_appends_uses_up_no_event_id(mine: Everywhere) -> None:
    """Both have seen the same; the old one appends it first, when a later one has begun."""
    mine.add()
    mine.desk.sync(mine.another())
    mine.add()
    feed, before = mine.desk.feed, effective(mine)
    old = feed.begin(full=False)
    pages = list(mine.another().pages(old.cursor, old.known))
    new = feed.begin(full=False)
    for page in mine.another().pages(new.cursor, new.known):
        with pytest.raises(OvertakenError):
            feed.found(old.sync, [event for page in pages for event in page.events])
        feed.found(new.sync, page.events)
        if not page.more:
            feed.finish(new.sync, page.cursor)
    assert effective(mine) == before + 1
    mine.agree()
