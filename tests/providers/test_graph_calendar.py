"""What people do in an Outlook calendar, and what stands on the log for it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.graph_event import goes_on
from headrace.producers.provider_http import GrantError
from tests.doubles.desk import CrashError
from tests.doubles.graph import error
from tests.doubles.graph_calendar import DAY, HOUR, Event
from tests.doubles.graph_people import ADDRESS, START
from tests.doubles.http import Fault, drops, replies
from tests.providers.graph_parts import Diary, diary

NOON = START // DAY * DAY + 12 * HOUR


@pytest.fixture
def mine() -> Iterator[Diary]:
    with diary() as made:
        yield made


def test_an_event(mine: Diary) -> None:
    event = mine.double.book(NOON, attendees={"bob@example.com": "none"})
    [made] = mine.desk.found(mine.source)
    pseudonym = mine.desk.pseudonym
    assert (made.type, made.entity) == ("calendar.created", pseudonym(event.uid))
    assert made.occurred_at == "2026-11-18T11:06:41.000Z"
    assert made.body["occurrences"] == [{"start": NOON, "end": NOON + HOUR}]
    assert made.body["organizer"] == pseudonym(ADDRESS)
    assert made.body["attendees"] == [{"who": pseudonym("bob@example.com"), "response": "needs-action"}]
    assert made.body["etag"] == 'W/"CK2"'
    event.attendees["bob@example.com"] = "declined"
    mine.double.touch(event)
    [answered] = mine.desk.found(mine.source)
    assert answered.type == "calendar.responded"
    assert mine.sync() == []
    mine.agree()


def test_what_is_done_to_an_event(mine: Diary) -> None:
    double, event = mine.double, mine.double.book(NOON, attendees={"bob@example.com": "none"})
    mine.sync()

    def cancel() -> None:
        event.cancelled = True
        double.touch(event)

    def cancel_and_move() -> None:
        cancel()
        double.move(event, NOON + DAY)

    def uncancel() -> None:
        event.cancelled = False
        double.touch(event)

    acts: list[tuple[Any, list[str]]] = [
        (lambda: double.move(event, NOON + HOUR), ["calendar.updated"]),
        (lambda: double.touch(event), ["calendar.updated"]),
        (cancel, ["calendar.cancelled"]),
        (uncancel, ["calendar.updated"]),
        (cancel_and_move, ["calendar.updated"]),
        (lambda: double.move(event, NOON + 900 * DAY), ["calendar.updated"]),
        (lambda: double.move(event, NOON - 90 * DAY), ["calendar.updated"]),
        (lambda: double.move(event, NOON), ["calendar.updated"]),
        (lambda: double.move(event, NOON + 900 * DAY), ["calendar.updated"]),
        (lambda: double.delete(event), ["calendar.cancelled"]),
    ]
    for number, (act, told) in enumerate(acts):
        act()
        assert mine.sync() == told, number
        mine.agree()
        assert mine.sync(full=True) == [], number


def test_a_series(mine: Diary) -> None:
    double = mine.double
    series = double.book(NOON, every=7)
    mine.sync()
    [state] = mine.states().values()
    assert len(state["occurrences"]) == 53
    assert state["unbounded_from"] is not None
    acts: list[Callable[[], None]] = [
        lambda: double.move_one(series, 3, NOON + 22 * DAY),
        lambda: double.delete_one(series, 4),
        lambda: double.move_one(series, 5, NOON + 36 * DAY, cancelled=True),
        lambda: double.move_one(series, 6, NOON + 900 * DAY),
        lambda: double.move(series, NOON + HOUR),
    ]
    for act in acts:
        act()
        assert mine.sync() == ["calendar.updated"]
        mine.agree()
        assert mine.sync(full=True) == []
    double.touch(series)
    assert mine.sync() == ["calendar.updated"], "its master, and no occurrence"
    mine.agree()
    double.delete(series)
    assert mine.sync() == ["calendar.cancelled"]


def test_only_series_that_changed_are_asked_for(mine: Diary) -> None:
    for number in range(5):
        mine.double.book(NOON + number * HOUR, every=1, count=40)
    mine.sync()
    mine.double.book(NOON)
    before = len(mine.faulty.asked)
    assert mine.sync() == ["calendar.created"]
    assert len(mine.faulty.asked) - before == 2, "what changed, and what the calendar shows"
    assert mine.sync() == []
    assert len(mine.faulty.asked) - before == 3


def test_the_window_moves_on(mine: Diary) -> None:
    endless, ending = mine.double.book(NOON, every=1), mine.double.book(NOON - 5 * DAY, every=1, count=11)
    spanning = mine.double.book(NOON, every=10, count=21)
    single, far = mine.double.book(NOON), mine.double.book(NOON + 500 * DAY)
    assert mine.sync() == ["calendar.created"] * 4
    mine.now += 190 * DAY
    mine.double.touch(ending)
    assert sorted(mine.sync()) == ["calendar.created", "calendar.updated", "calendar.updated"]
    states = mine.states()
    assert states.keys() == {endless.id, ending.id, spanning.id, single.id, far.id}
    assert len(states[ending.id]["occurrences"]) == 11, "what was is not forgotten"
    assert len(states[spanning.id]["occurrences"]) == 21
    mine.agree()
    mine.double.delete(single)
    assert mine.sync() == ["calendar.cancelled"], "even behind the window"
    assert mine.sync(full=True) == []


def test_copies_with_one_uid_are_two_events(mine: Diary) -> None:
    first, second = (mine.double.book(NOON + n * HOUR, uid="0400A") for n in range(2))
    assert mine.sync() == ["calendar.created"] * 2
    assert mine.sync(full=True) == []
    mine.double.move(second, NOON + 3 * HOUR)
    assert mine.sync() == ["calendar.updated"]
    mine.double.delete(first)
    assert mine.sync() == ["calendar.cancelled"]
    mine.agree()
    assert mine.sync(full=True) == []


def test_an_event_that_comes_back_under_another_id(mine: Diary) -> None:
    first = mine.double.book(NOON, uid="0400A")
    mine.sync()
    mine.double.delete(first)
    mine.double.book(NOON, uid="0400A")
    assert mine.sync() == ["calendar.updated"]
    mine.agree()


def test_what_she_answered_herself(mine: Diary) -> None:
    event = mine.double.book(NOON, attendees={ADDRESS: "none", "bob@example.com": "none"})
    mine.double.owner_answer[event.id] = "tentativelyAccepted"
    [made] = mine.desk.found(mine.source)
    answers = {one["who"]: one["response"] for one in made.body["attendees"]}
    assert answers == {
        mine.desk.pseudonym(ADDRESS): "tentative",
        mine.desk.pseudonym("bob@example.com"): "needs-action",
    }


@pytest.mark.parametrize("show", ["free", "workingElsewhere"])
def test_what_takes_up_no_time(mine: Diary, show: str) -> None:
    mine.double.book(NOON, show=show)
    [made] = mine.desk.found(mine.source)
    assert made.body["busy"] is False


def test_the_forgotten_link_is_made_good_by_comparing(mine: Diary) -> None:
    first, second = mine.double.book(NOON), mine.double.book(NOON)
    mine.double.book(NOON, every=1)
    mine.sync()
    mine.double.delete(first)
    mine.double.move(second, NOON + DAY)
    mine.double.book(NOON)
    mine.double.forget()
    assert sorted(mine.sync()) == ["calendar.cancelled", "calendar.created", "calendar.updated"]
    mine.agree()


def test_the_wrong_person(mine: Diary) -> None:
    mine.faulty.plan(replies(200, {"id": "u", "mail": "carol@example.com", "userPrincipalName": None}), path="/me")
    with pytest.raises(BadInputError, match="another person"):
        mine.sync()


def test_too_small_a_grant_is_for_a_person(mine: Diary) -> None:
    mine.faulty.plan(lambda _: error(403, "ErrorAccessDenied"), path="delta")
    with pytest.raises(GrantError):
        mine.sync()


@pytest.mark.parametrize(
    ("bounds", "pattern", "goes"),
    [
        ({"type": "noEnd", "startDate": "2020-01-01"}, {"type": "weekly", "interval": 1}, True),
        (
            {"type": "endDate", "startDate": "2020-01-01", "endDate": "2026-01-01"},
            {"type": "daily", "interval": 1},
            False,
        ),
        (
            {"type": "endDate", "startDate": "2020-01-01", "endDate": "2028-01-01"},
            {"type": "daily", "interval": 1},
            True,
        ),
        ({"type": "endDate", "startDate": "2020-01-01", "endDate": "?"}, {"type": "daily", "interval": 1}, True),
        (
            {"type": "numbered", "startDate": "2020-01-01", "numberOfOccurrences": 10},
            {"type": "weekly", "interval": 2},
            False,
        ),
        (
            {"type": "numbered", "startDate": "2020-01-01", "numberOfOccurrences": 10},
            {"type": "absoluteYearly", "interval": 1},
            True,
        ),
        ({"type": "numbered", "startDate": "2020-01-01", "numberOfOccurrences": 2**31 - 1}, {"interval": 9}, True),
        ({}, {}, False),
    ],
)
def test_whether_a_series_goes_on(bounds: dict[str, Any], pattern: dict[str, Any], goes: bool) -> None:
    after = NOON + 90 * DAY
    assert goes_on({"recurrence": {"range": bounds, "pattern": pattern}}, after) == goes


class Act(NamedTuple):
    what: str
    which: int
    when: int


class Sync(NamedTuple):
    full: bool
    fault: str | None
    after: int
    crash: int | None


class Pass(NamedTuple):
    days: int


class Disorder(NamedTuple):
    repeating: bool
    shuffled: bool
    partial: bool
    replaying: bool


ACTS = (
    "book", "book", "series", "short series", "move", "move one", "delete one", "cancel one", "delete", "answer",
    "cancel", "uncancel", "touch", "copy", "again", "forget",
)  # fmt: skip
WHEN = (0, 1, 3, 40, 300, 900, -20, -60)
acts = st.builds(Act, st.sampled_from(ACTS), st.integers(0, 5), st.integers(0, len(WHEN) - 1))
syncs = st.builds(
    Sync,
    st.sampled_from([False, False, True]),
    st.sampled_from([None, None, "drop", "throttle", "fail", "lost"]),
    st.integers(0, 5),
    st.one_of(st.none(), st.none(), st.integers(0, 3)),
)
disorders = st.builds(Disorder, st.booleans(), st.booleans(), st.booleans(), st.booleans())
steps = st.lists(
    st.one_of(acts, acts, acts, syncs, disorders, st.builds(Pass, st.sampled_from([1, 100, 200]))), max_size=25
)
FAULTS: dict[str, Fault] = {
    "drop": drops,
    "throttle": replies(429, {}, {"retry-after": "2"}),
    "fail": replies(503),
    "lost": lambda _: error(410, "resyncRequired"),
}


def do(mine: Diary, step: Act) -> None:
    double, start = mine.double, mine.now // DAY * DAY + WHEN[step.when] * DAY + 12 * HOUR
    events = list(double.events.values())
    event: Event | None = events[step.which % len(events)] if events else None
    match step.what:
        case "book":
            double.book(start, attendees={"bob@example.com": "none"} if step.which % 2 else {})
        case "series":
            double.book(start, every=20)
        case "short series":
            double.book(start, every=10, count=2 + step.which)
        case "move" if event is not None:
            double.move(event, start)
        case "move one" | "cancel one" if event is not None and event.every:
            double.move_one(event, step.which, start, cancelled=step.what == "cancel one")
        case "delete one" if event is not None and event.every:
            double.delete_one(event, step.which)
        case "delete" if event is not None:
            double.delete(event)
        case "answer" if event is not None and event.attendees:
            event.attendees = {"bob@example.com": ("none", "accepted", "declined")[step.when % 3]}
            double.touch(event)
        case "cancel" | "uncancel" if event is not None:
            event.cancelled = step.what == "cancel"
            double.touch(event)
        case "touch" if event is not None:
            double.touch(event)
        case "copy" if event is not None:
            double.book(start, uid=event.uid)
        case "again" if event is not None:
            double.delete(event)
            double.book(start, uid=event.uid)
        case "forget":
            double.forget()
        case _:
            pass


@given(steps=steps, page=st.sampled_from([1, 3, 1000]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_events_add_up_to_what_the_calendar_shows(steps: list[Act | Sync | Pass | Disorder], page: int) -> None:
    with diary(page=page) as mine:
        for step in steps:
            match step:
                case Act():
                    do(mine, step)
                case Pass():
                    mine.now += step.days * DAY
                case Disorder():
                    graph = mine.graph
                    graph.repeating, graph.shuffled, graph.partial, graph.replaying = step
                case Sync():
                    if step.fault is not None:
                        path = "delta" if step.fault == "lost" else ""
                        mine.faulty.plan(*[None] * step.after, FAULTS[step.fault], path=path)
                    try:
                        mine.desk.sync(mine.source, full=step.full, crash_after=step.crash)
                    except (UnavailableError, CrashError):
                        assert step.fault is not None or step.crash is not None
                    mine.faulty.clear()
        mine.desk.sync(mine.source)
        mine.agree()
        if any(isinstance(step, Pass) for step in steps):
            mine.desk.sync(mine.source, full=True)  # its window is a later one, and shows more
            mine.agree()
        for full in (False, True):
            found = mine.desk.found(mine.source, full=full)
            assert [fact for fact in found if fact.disposition == "applied"] == []
        mine.agree()
