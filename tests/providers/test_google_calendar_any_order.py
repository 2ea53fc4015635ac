"""Whatever people do, whatever goes wrong and whenever we look: the events add up to what the calendar shows."""

from collections.abc import Callable
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.event import Source
from headrace.producers.google_calendar_names import own_event_id
from tests.doubles.desk import CrashError, Pages
from tests.doubles.google_calendar_desk import ADDRESS, TEAM, Stored, at, daily, guests, on
from tests.doubles.http import Fault, drops, replies
from tests.providers.google_calendar_parts import KIND, Beside, Office, office, team

ACTS = (
    "insert", "insert", "whole days", "series", "series", "endless", "retime", "retitle", "remind", "respond", "delete",
    "restore", "purge", "shift instance", "shift instance", "cancel instance", "restore instance", "alone", "move",
    "repeat", "no repeat", "tentative", "free", "ours",
)  # fmt: skip
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata")


class Act(NamedTuple):
    what: str
    which: int
    number: int


class Sync(NamedTuple):
    full: bool
    fault: str | None
    after: int
    crash: int | None
    meanwhile: Act | None


class Forget(NamedTuple):
    pass


class Elsewhere(NamedTuple):
    """A sync of the other calendar."""

    full: bool


class Zone(NamedTuple):
    name: str


class Answers(NamedTuple):
    repeating: bool
    bare: bool


acts = st.builds(Act, st.sampled_from(ACTS), st.integers(0, 7), st.integers(0, 3))
syncs = st.builds(
    Sync,
    st.sampled_from([False, False, False, True]),
    st.sampled_from([None, None, None, "drop", "throttle", "fail", "no object", "lost"]),
    st.integers(0, 4),
    st.one_of(st.none(), st.none(), st.integers(0, 4)),
    st.one_of(st.none(), st.none(), acts),
)
Step = Act | Sync | Forget | Elsewhere | Zone | Answers
steps = st.lists(
    st.one_of(
        acts, acts, acts, acts, syncs, syncs,
        st.just(Forget()), st.builds(Elsewhere, st.booleans()), st.builds(Zone, st.sampled_from(ZONES)),
        st.builds(Answers, st.booleans(), st.booleans()),
    ),
    max_size=30,
)  # fmt: skip


def do(mine: Office, act: Act) -> None:
    double = mine.double
    there = [one for one in double.events[ADDRESS].values() if one.master is None and not one.cancelled]
    single = [one for one in there if "recurrence" not in one.fields]
    series = [one for one in there if "recurrence" in one.fields]
    begin: dict[str, Callable[[], object]] = {
        "insert": lambda: double.insert(**at(9 + act.number, act.which), attendees=guests("bob@example.com")),
        "whole days": lambda: double.insert(**on(act.which), recurrence=daily(act.number)) if act.number else None,
        "series": lambda: double.insert(**at(9, act.which), recurrence=daily(act.number + 1)),
        "endless": lambda: double.insert(**on(act.which), recurrence=daily()) if act.which == 0 else None,
        "alone": lambda: double.alone(act.number),
        "purge": double.purge,
        "restore": lambda: restore(mine, act),
        "ours": lambda: ours(mine, act),
    }
    if act.what in begin:
        begin[act.what]()
    elif "instance" in act.what and series:
        instance(mine, act, series[act.which % len(series)])
    elif act.what == "repeat" and single:
        double.edit(single[act.which % len(single)], recurrence=daily(act.number + 1))
    elif act.what == "no repeat" and series:
        double.edit(series[act.which % len(series)], recurrence=None)
    elif there:
        change(mine, act, there[act.which % len(there)])


def change(mine: Office, act: Act, one: Stored) -> None:
    double = mine.double
    match act.what:
        case "retime":
            double.edit(one, **(on(act.number) if "date" in one.fields["start"] else at(9 + act.number, act.which)))
        case "retitle":
            double.edit(one, summary=f"Title {act.number}")
        case "remind":
            double.remind(one)
        case "respond" if one.fields.get("attendees"):
            double.respond(one, "bob@example.com", ["accepted", "declined", "tentative", "needsAction"][act.number])
        case "delete":
            double.delete(one)
        case "tentative":
            double.edit(one, status=["tentative", "confirmed"][act.number % 2])
        case "free":
            double.edit(one, transparency=["transparent", "opaque"][act.number % 2])
        case "move" if "recurrence" not in one.fields:
            double.move(one, TEAM)
        case _:
            pass


def instance(mine: Office, act: Act, master: Stored) -> None:
    double = mine.double
    if act.what == "restore instance":
        kept = double.exceptions(master)
        if kept:
            double.restore(kept[act.number % len(kept)])
        return
    times = on(20 + act.number) if "date" in master.fields["start"] else at(17, act.which)
    shown = double.instance(master, act.number, **times)
    if act.what == "cancel instance":
        double.delete(shown)


def restore(mine: Office, act: Act) -> None:
    gone = [one for one in mine.double.events[ADDRESS].values() if one.master is None and one.cancelled]
    if gone:
        mine.double.restore(gone[act.which % len(gone)])


def ours(mine: Office, act: Act) -> None:
    entity = f"booking-{act.number}"
    if own_event_id(entity) not in mine.double.events[ADDRESS]:
        mine.double.insert(event=own_event_id(entity), **at(12, act.which), **mine.booked_for(entity))


FAULTS: dict[str, Fault] = {
    "drop": drops,
    "throttle": replies(403, {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}),
    "fail": replies(503),
    "no object": replies(200, ["no", "object"]),
    "lost": replies(410, {"error": {"errors": [{"reason": "fullSyncRequired"}]}}),
}


def sync(mine: Office, step: Sync) -> None:
    if step.fault is not None:
        path = "/events" if step.fault == "lost" else ""
        mine.faulty.plan(*[None] * step.after, FAULTS[step.fault], path=path)
    meanwhile = step.meanwhile
    source: Source = mine.source
    if meanwhile is not None:
        source = Pages(source, lambda: do(mine, meanwhile))
    try:
        mine.desk.sync(source, full=step.full, crash_after=step.crash)
    except (UnavailableError, CrashError):
        assert step.fault is not None or step.crash is not None
    except BadInputError:
        assert step.fault == "lost"
    mine.faulty.clear()


@given(steps=steps, page=st.sampled_from([1, 2, 3, 2_500]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_events_add_up_to_what_the_calendar_shows(steps: list[Step], page: int) -> None:
    with office(page=page) as mine:
        other: Beside = team(mine)
        for step in steps:
            match step:
                case Sync():
                    sync(mine, step)
                case Forget():
                    mine.double.forget()
                case Elsewhere():
                    other.sync(full=step.full)
                case Zone():
                    mine.double.set_zone(ADDRESS, step.name)
                case Answers():
                    mine.double.repeating, mine.double.bare = step
                case _:
                    do(mine, step)
        mine.desk.sync(mine.source)
        other.sync()
        mine.agree()
        mine.agree(TEAM)
        assert mine.sync() == []
        found = mine.desk.found(mine.source, full=True)
        assert [fact for fact in found if fact.disposition == "applied"] == []
        assert other.sync(full=True) == []


@given(steps=st.lists(acts, max_size=25), cuts=st.sets(st.integers(0, 24)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_how_often_we_look_makes_no_difference(steps: list[Act], cuts: set[int]) -> None:
    """Whoever looks after every act, seldom, or compares everything in the end comes to the same state."""
    states: list[object] = []
    for often, full in ((True, False), (False, False), (False, True)):
        with office() as mine:
            mine.desk.sync(mine.source)
            for number, step in enumerate(steps):
                do(mine, step)
                if often or number in cuts:
                    mine.desk.sync(mine.source)
            mine.desk.sync(mine.source, full=full)
            mine.agree()
            found = mine.desk.states(KIND)
            states.append({entity: state for entity, state in found.items() if not state["removed"]})
    assert states[0] == states[1] == states[2]
