"""People do not wait until a sync is over: whatever they do between any two of its requests, the next one that is left
alone comes to what the provider shows, nothing is told twice, and nothing is told to be gone that never was."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import UnavailableError
from headrace.producers.mail_story import picture
from tests.doubles.desk import CrashError
from tests.doubles.google_calendar_desk import ADDRESS as GOOGLE_ADDRESS
from tests.doubles.http import Fault, Reply, Request
from tests.providers import gmail_parts, google_calendar_parts, graph_parts
from tests.providers.people import PEOPLE

There = dict[str, set[str]]
"""What is at a provider, by an id of its own: the entities that it may be on the log."""


def gmail_threads(mine: gmail_parts.Box) -> There:
    double = mine.double
    labels = {thread: [frozenset(mail.labels) for mail in double.of(thread)] for thread in double.threads}
    return {thread: {mine.names.entity(thread)} for thread, each in labels.items() if not picture(each).deleted}


def graph_threads(mine: graph_parts.Box) -> There:
    double, reading = mine.double, mine.reading
    mails = {thread: [mine.read(mail) for mail in double.of(thread)] for thread in double.threads}
    return {thread: {mine.names.entity(thread)} for thread, each in mails.items() if not reading.picture(each).deleted}


def google_events(mine: google_calendar_parts.Office) -> There:
    events = mine.double.events[GOOGLE_ADDRESS].values()
    return {one.id: {mine.names.entity(one.master or one.id)} for one in events if not one.cancelled}


def graph_events(mine: graph_parts.Diary) -> There:
    events = mine.double.events.values()
    return {one.id: {mine.desk.pseudonym(name) for name in (one.uid, f"{one.uid}#{one.id}")} for one in events}


class Site(NamedTuple):
    """A provider: what there is of it, and the entities that are there now."""

    opened: Callable[[int], AbstractContextManager[Any]]
    there: Callable[[Any], There]


def _paged(opened: Callable[..., AbstractContextManager[Any]]) -> Callable[[int], AbstractContextManager[Any]]:
    def made(page: int) -> AbstractContextManager[Any]:
        return opened(page=page)

    return made


SITES: Final = {
    "gmail": Site(_paged(gmail_parts.box), gmail_threads),
    "google_calendar": Site(_paged(google_calendar_parts.office), google_events),
    "graph mail": Site(_paged(graph_parts.box), graph_threads),
    "graph calendar": Site(_paged(graph_parts.diary), graph_events),
}


class Sync(NamedTuple):
    """``pauses``: how many requests pass before each of ``meanwhile`` is done."""

    full: bool
    crash: int | None
    pauses: list[int]
    meanwhile: list[Any]


def drawn(data: st.DataObject, acts: st.SearchStrategy[Any]) -> list[Any]:
    syncs = st.builds(
        Sync,
        st.sampled_from([False, False, True]),
        st.one_of(st.none(), st.none(), st.integers(0, 4)),
        st.lists(st.integers(0, 5), min_size=4, max_size=4),
        st.lists(acts, max_size=4),
    )
    found: list[Any] = data.draw(st.lists(st.one_of(acts, acts, syncs), max_size=25))
    return found


class Witness:
    """Sees what people do, and knows what has ever gone."""

    def __init__(self, mine: Any, name: str) -> None:
        self._mine, self._do, self._there = mine, PEOPLE[name].do, SITES[name].there
        self._ever: Final[There] = {}
        self.gone: Final[set[str]] = set()

    def do(self, mine: Any, act: Any) -> None:
        self._do(mine, act)
        there = self._there(mine)
        for vanished in self._ever.keys() - there.keys():
            self.gone.update(self._ever[vanished])
        self._ever.update(there)

    def check(self) -> None:
        """Nothing is told to be gone that never was."""
        for fact in self._mine.desk.applied():
            if fact.type == "mail.deleted" or (fact.type == "calendar.cancelled" and fact.body["removed"]):
                assert fact.entity in self.gone or not any(fact.entity in names for names in self._ever.values()), fact


def busy(mine: Any, do: Callable[[Any, Any], None], step: Sync) -> None:
    """A sync, and people who do not wait for it."""

    def meanwhile(act: Any) -> Fault:
        def done(_: Request) -> Reply | None:
            do(mine, act)
            return None

        return done

    for pause, act in zip(step.pauses, step.meanwhile, strict=False):
        mine.faulty.plan(*[None] * pause, meanwhile(act))
    try:
        mine.desk.sync(mine.source, full=step.full, crash_after=step.crash)
    except CrashError:
        assert step.crash is not None
    except UnavailableError:
        assert step.meanwhile, "a page that is gone, or goes round in a circle, because somebody did something"
    mine.faulty.clear()


@pytest.mark.parametrize("name", SITES)
@given(data=st.data(), page=st.sampled_from([1, 2, 1000]))
@settings(max_examples=settings().max_examples * 3 // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_people_do_between_two_requests(name: str, data: st.DataObject, page: int) -> None:
    with SITES[name].opened(page) as mine:
        witness = Witness(mine, name)
        for step in drawn(data, PEOPLE[name].acts):
            if isinstance(step, Sync):
                busy(mine, witness.do, step)
            else:
                witness.do(mine, step)
        mine.desk.sync(mine.source)
        mine.agree()
        for full in (False, True):
            found = mine.desk.found(mine.source, full=full)
            assert [fact for fact in found if fact.disposition == "applied"] == [], f"{full=}"
        mine.agree()
        witness.check()
