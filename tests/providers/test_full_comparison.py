"""Whatever a mailbox or calendar holds, comparing all of it has but a little of it at hand at any time.

Counted are the states that the log's tables gave and that somebody still holds, and now and then the rows that were
read from the tables and the items of the provider's that live.
"""

import gc
from collections.abc import Callable, Generator, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from headrace.producers import gmail_api, google_calendar_api, graph_thread
from headrace.producers.event import Known, KnownEntity, NewEvent, Source
from headrace.producers.feed import Feed
from headrace.producers.sync import Begun, Synced, run_sync
from headrace.projections.known import KnownRow
from tests.doubles.desk import Desk
from tests.doubles.google_calendar_desk import at, daily
from tests.doubles.graph_calendar import DAY
from tests.doubles.graph_people import START
from tests.providers.gmail_parts import box as gmail_box
from tests.providers.google_calendar_parts import office
from tests.providers.graph_parts import box as graph_box
from tests.providers.graph_parts import diary

MANY = 700
PAGE = 100
FEW = 250
"""A page that the tables or the provider give (200 and 100 here), and what is left of the one before."""
SHOWN = (google_calendar_api.Item, gmail_api.Thread, gmail_api.Message, graph_thread.Message)


class Held(dict[str, Any]):
    """A state, counted as long as anybody holds it."""

    alive = 0

    def __init__(self, state: Any) -> None:
        super().__init__(state)
        Held.alive += 1

    def __del__(self) -> None:
        Held.alive -= 1


class Counting:
    """The feed of a source, and the most that lived at once."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.states, self.items, self.rows, self.asked = 0, 0, 0, 0
        self._known: Known = feed
        self._wheres = 0

    def begin(self, full: bool) -> Begun:
        begun = self._feed.begin(full)
        self._known = begun.known
        return begun._replace(known=self)

    def found(self, sync: str, events: Sequence[NewEvent]) -> None:
        self._look()
        self._feed.found(sync, events)

    def finish(self, sync: str, cursor: str | None) -> None:
        self._feed.finish(sync, cursor)

    def where(self, kind: str, **columns: str | Set[str]) -> Iterator[KnownEntity]:
        self._wheres += 1
        if self._wheres % 5 == 1:  # it takes its time
            self._look()
        for entity in self._known.where(kind, **columns):
            self.asked += 1
            if self.asked % 100 == 0:
                self._look()
            held = entity._replace(state=Held(entity.state))
            del entity
            self.states = max(self.states, Held.alive)
            yield held
            del held

    def _look(self) -> None:
        alive = [type(one) for one in gc.get_objects()]
        self.items = max(self.items, sum(one in SHOWN for one in alive))
        self.rows = max(self.rows, alive.count(KnownRow))


class Place(NamedTuple):
    """A mailbox or calendar with ``things`` in it. ``lose`` makes the provider forget what changed; ``differ`` changes
    one thing and has another one go."""

    desk: Desk
    source: Source
    kind: str
    lose: Callable[[], object]
    differ: Callable[[], object]

    def compare(self) -> tuple[Synced, Counting]:
        """A sync, and what lived meanwhile."""
        gc.collect()
        gc.freeze()  # what lived before is not looked at, nor collected again and again
        try:
            counting = Counting(self.desk.feed)
            return run_sync(self.source, counting), counting
        finally:
            gc.unfreeze()


@contextmanager
def gmail() -> Generator[Place]:
    with gmail_box(page=PAGE) as mine:
        mails = [mine.double.receive() for _ in range(MANY)]
        threads = [mail.thread for mail in mails]

        def lose() -> None:
            mine.double.nothing(mails[9])
            mine.double.forget_history()

        def differ() -> None:
            mine.double.archive(threads[5])
            for mail in mine.double.of(threads[MANY // 2]):
                mine.double.delete(mail)

        yield Place(mine.desk, mine.source, "mail.thread", lose, differ)


@contextmanager
def outlook() -> Generator[Place]:
    with graph_box(page=PAGE) as mine:
        mails = [mine.double.receive() for _ in range(MANY)]

        def differ() -> None:
            mine.double.mark(mails[5], read=True)
            mine.double.delete(mails[MANY // 2])

        yield Place(mine.desk, mine.source, "mail.thread", mine.double.forget, differ)


@contextmanager
def single_events() -> Generator[Place]:
    with office(page=PAGE) as mine:
        events = [mine.double.insert(**at(9, number % 300)) for number in range(MANY)]

        def differ() -> None:
            mine.double.edit(events[5], summary="Moved")
            mine.double.delete(events[MANY // 2])

        yield Place(mine.desk, mine.source, "calendar.event", mine.double.forget, differ)


@contextmanager
def series() -> Generator[Place]:
    """Of which one in three has an exception."""
    with office(page=PAGE) as mine:
        events = [mine.double.insert(**at(9, number % 300), recurrence=daily(2)) for number in range(MANY)]
        for event in events[::3]:
            mine.double.instance(event, 1, summary="Another room")

        def differ() -> None:
            mine.double.edit(events[5], summary="Moved")
            mine.double.delete(events[MANY // 2])

        yield Place(mine.desk, mine.source, "calendar.event", mine.double.forget, differ)


ALL = pytest.mark.parametrize("place", [gmail, outlook, single_events, series])


@ALL
def test_a_full_comparison_holds_little_at_a_time(place: Callable[[], Any]) -> None:
    with place() as there:
        synced, first = there.compare()
        assert synced.full
        assert len(there.desk.states(there.kind)) == MANY
        before = len(there.desk.facts)
        there.lose()
        synced, same = there.compare()
        assert (synced.full, synced.events) == (True, 0)
        there.differ()
        there.lose()
        synced, other = there.compare()
        assert (synced.full, synced.events) == (True, 2)
        assert {fact.disposition for fact in there.desk.facts[before:]} == {"applied"}
        assert same.asked >= MANY, "all of it was compared"
        for counted in (first, same, other):
            assert max(counted.states, counted.items, counted.rows) <= FEW


def test_a_message_that_is_gone_for_good_has_little_held_at_a_time() -> None:
    """Nothing says which thread it was in, so all are looked at."""
    with outlook() as there:
        there.compare()
        there.differ()
        synced, counted = there.compare()
        assert (synced.full, synced.events) == (False, 2)
        assert counted.asked >= MANY
        assert max(counted.states, counted.items, counted.rows) <= FEW


def test_an_outlook_calendar_holds_no_more_states_than_its_window_shows() -> None:
    """What lies behind it was told at its time, and is not held."""
    with diary(page=PAGE) as mine:
        there = Place(mine.desk, mine.source, "calendar.event", mine.double.forget, lambda: None)
        for number in range(MANY // 4):
            mine.double.book(START + (number % 28) * DAY)
        there.compare()
        mine.now += 400 * DAY
        kept = mine.double.book(mine.now)
        there.lose()
        synced, counted = there.compare()
        assert synced.events == 1
        assert counted.states <= 2, "only what is shown, and one that is looked through"
        mine.double.move(kept, mine.now + DAY)
        synced, counted = there.compare()
        assert (synced.full, synced.events) == (False, 1)
        assert counted.asked <= 2, "for one change all is not gone through"
