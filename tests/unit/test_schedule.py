"""Which source is synced when: one account at a time, retries spread, nobody behind somebody else's slow provider."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.producers.schedule import Outcome, Pace, Schedule, SourceKey

PACE = Pace(period=100.0, fast_lanes=2, slow_lanes=1, threads=6, slow_after=5.0, first_retry=1.0, longest_retry=60.0)


def key(account: str, source: str = "gmail/main") -> SourceKey:
    return SourceKey("acme", account, source)


def schedule(pace: Pace = PACE, *accounts: str, now: float = 0.0) -> Schedule:
    made = Schedule(pace, lambda: 0.5)
    made.keep(map(key, accounts), now)
    return made


def test_a_new_source_is_due_at_once_and_then_every_period() -> None:
    one = schedule(PACE, "ann")
    assert one.take(0.0) == [key("ann")]
    assert one.take(0.0) == []
    one.ended(key("ann"), 1.0, "done")
    assert one.next_time(1.0) == 101.0
    assert one.take(100.9) == []
    assert one.take(101.0) == [key("ann")]


def test_a_hint_brings_it_forward() -> None:
    one = schedule(PACE, "ann")
    one.take(0.0)
    one.hint(key("ann"), 0.5)
    assert one.take(0.5) == [], "one account is synced by one thread at a time"
    one.ended(key("ann"), 1.0, "done")
    one.hint(key("ann"), 1.0)
    assert one.take(1.0) == [key("ann")]
    one.ended(key("ann"), 2.0, "done")
    one.hint(key("ann"), 3.0)
    one.hint(key("ann"), 3.0)
    assert one.take(3.0) == [key("ann")]
    assert one.take(3.0) == []


def test_what_somebody_asks_for_is_due_however_badly_it_did() -> None:
    one = schedule(PACE, "ann")
    one.take(0.0)
    one.ended(key("ann"), 1.0, "refused")
    one.hint(key("ann"), 2.0)
    assert one.take(2.0) == [], "a hint mends nothing"
    one.ask(key("ann"), 2.0)
    assert one.take(2.0) == [key("ann")]
    one.ended(key("ann"), 3.0, "refused")
    assert one.take(4.0) == [], "it was asked for once"
    one.ask(key("zoe"), 4.0)
    assert one.take(4.0) == []


def test_a_pause_that_the_provider_wants_it_has_whoever_asks() -> None:
    one = schedule(PACE, "ann")
    one.take(0.0)
    one.ended(key("ann"), 1.0, "failed", pause=50.0)
    one.ask(key("ann"), 2.0)
    assert one.take(50.9) == []
    assert one.take(51.0) == [key("ann")]


def test_one_that_is_asked_for_while_it_runs_runs_once_more() -> None:
    one = schedule(PACE, "ann")
    one.take(0.0)
    one.ask(key("ann"), 0.5)
    one.ended(key("ann"), 1.0, "refused")
    assert one.take(1.0) == [key("ann")]
    one.ended(key("ann"), 2.0, "done")
    assert one.take(2.0) == []


def test_two_sources_of_an_account_take_turns() -> None:
    one = Schedule(PACE, lambda: 0.5)
    first, second = key("ann", "a"), key("ann", "b")
    one.keep([first, second], 0.0)
    assert one.take(0.0) == [first]
    one.ended(first, 1.0, "done")
    assert one.take(1.0) == [second]


def test_failures_wait_longer_and_longer_and_a_hint_cannot_shorten_that() -> None:
    one = schedule(PACE, "ann")
    now, waits = 0.0, []
    for _ in range(10):
        assert one.take(now) == [key("ann")]
        one.ended(key("ann"), now, "failed")
        one.hint(key("ann"), now)
        due = one.next_time(now)
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits[:4] == [0.75, 1.5, 3.0, 6.0]
    assert waits[-1] == 45.0
    one.take(now)
    one.ended(key("ann"), now, "done", pause=30.0)
    one.hint(key("ann"), now)
    assert one.next_time(now) == now + 30.0


def test_a_provider_that_says_how_long_is_left_alone_so_long() -> None:
    one = schedule(PACE, "ann")
    one.take(0.0)
    one.ended(key("ann"), 0.0, "failed", pause=500.0)
    assert one.next_time(0.0) == 500.0


def test_many_that_hang_take_no_lane_from_one_that_does_well() -> None:
    hanging = [f"h{n}" for n in range(4)]
    one = schedule(PACE, *hanging, "well")
    assert one.take(0.0) == [key("h0"), key("h1")], "nothing is known of them: they are in the fast lanes"
    assert one.take(4.9) == []
    assert one.next_time(4.9) == 5.0
    assert one.take(5.0) == [key("h2"), key("h3")], "what takes long does not count there any more"
    assert one.take(10.0) == [key("well")]
    one.ended(key("well"), 10.1, "done")
    for account in hanging:
        one.ended(key(account), 11.0, "failed")
    one.hint(key("well"), 12.0)
    assert one.take(12.0) == [key("h0"), key("well")], "those that failed share their one lane"


def test_one_that_took_long_is_not_behind_those_that_hang() -> None:
    """As everybody's first sync does."""
    one = schedule(PACE, "long")
    one.take(0.0)
    one.ended(key("long"), 9.0, "done")
    hanging = [f"h{n}" for n in range(3)]
    one.keep(map(key, [*hanging, "long"]), 9.0)
    assert one.take(9.0) == [key("h0"), key("h1")]
    assert one.take(14.0) == [key("h2")]
    one.hint(key("long"), 15.0)
    assert one.take(15.0) == [key("long")]


def test_one_that_took_long_is_not_behind_those_that_failed() -> None:
    failed = [f"f{n}" for n in range(3)]
    one = schedule(PACE, *failed, "long")
    for at in (0.0, 5.0):
        one.take(at)
    for account, outcome in (*((each, "failed") for each in failed), ("long", "done")):
        one.ended(key(account), 20.0, outcome)  # type: ignore[arg-type]
    one.hint(key("long"), 80.0)
    assert one.take(80.0) == [key("f0"), key("long")]


def test_those_that_failed_and_hang_leave_threads_to_others() -> None:
    """Half of them, however many there are; to those that took long a quarter."""
    pace = Pace(period=1e6, fast_lanes=100, slow_lanes=100, threads=8, slow_after=1.0, first_retry=1.0)
    one = Schedule(pace, lambda: 0.0)
    failed, slow = [key(f"a-failed{n}") for n in range(8)], [key(f"b-slow{n}") for n in range(8)]
    one.keep([*failed, *slow], 0.0)
    for source in (*one.take(0.0), *one.take(1.0)):
        one.ended(source, 2.0, "failed" if source in failed else "done")
    for source in one.take(2.0):
        one.ended(source, 4.0, "done")
    for source in (*failed, *slow):
        one.hint(source, 100.0)
    assert one.take(100.0) == [*failed[:4], *slow[:2]]
    one.keep([*failed, *slow, *(key(f"new{n}") for n in range(8))], 101.0)
    assert len(one.take(101.0)) == 2
    assert one.take(1_000.0) == []


def test_another_group_never_notices() -> None:
    """Not even when everything of one provider hangs at once, and none of it had ever done badly."""
    one = Schedule(PACE, lambda: 0.5, lambda source: source.source.partition("/")[0])
    hanging, well = [key(f"h{n}") for n in range(40)], key("zoe", "imap/main")
    one.keep([*hanging, well], 0.0)
    assert well in one.take(0.0)
    one.ended(well, 0.1, "done")
    now = 0.0
    for _ in range(10):
        now += 5.0
        one.take(now)
    assert one.running == PACE.threads
    one.hint(well, now)
    assert one.take(now) == [well]


def test_a_source_that_is_gone_is_never_taken_again() -> None:
    one = schedule(PACE, "ann", "bob")
    one.keep([key("bob")], 0.0)
    assert one.take(0.0) == [key("bob")]
    one.keep([], 0.0)
    one.ended(key("bob"), 1.0, "done")
    assert one.next_time(1.0) is None
    assert one.running == 0


class Life(RuleBasedStateMachine):
    """Any order of everything, on a clock that goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.schedule = Schedule(PACE, lambda: 0.25)
        self.running: dict[SourceKey, float] = {}
        self.kept: set[SourceKey] = set()
        self.pauses: dict[SourceKey, float] = {}

    keys = st.builds(key, st.sampled_from("abcdef"), st.sampled_from(["x", "y"]))

    @rule(sources=st.sets(keys))
    def keep(self, sources: set[SourceKey]) -> None:
        self.kept = sources | self.running.keys()
        self.schedule.keep(self.kept, self.now)
        self.pauses = {one: until for one, until in self.pauses.items() if one in self.kept}

    @rule(source=keys)
    def hint(self, source: SourceKey) -> None:
        self.schedule.hint(source, self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 60.0, 200.0]))
    def later(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        for source in self.schedule.take(self.now):
            assert source in self.kept
            assert source[:2] not in {one[:2] for one in self.running}
            assert self.pauses.get(source, 0.0) <= self.now
            self.running[source] = self.now

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(["done", "failed", "refused"]), pause=st.sampled_from([0.0, 7.0]))
    def end(self, data: st.DataObject, outcome: Outcome, pause: float) -> None:
        source = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[source]
        self.schedule.ended(source, self.now, outcome, pause=pause)
        self.pauses[source] = self.now + pause

    @invariant()
    def bounded(self) -> None:
        assert self.schedule.running == len(self.running) <= PACE.threads

    def teardown(self) -> None:
        """Whatever happened, everything that is kept gets its turn."""
        for source in list(self.running):
            self.schedule.ended(source, self.now, "done")
        seen: set[SourceKey] = set()
        for _ in range(200):
            if seen == self.kept:
                break
            while taken := self.schedule.take(self.now):
                for source in taken:
                    seen.add(source)
                    self.schedule.ended(source, self.now, "done")
            due = self.schedule.next_time(self.now)
            if due is None:
                break
            assert due > self.now, "or whoever waits for it would spin"
            self.now = due
        assert seen == self.kept


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 40))
def test_no_wait_is_longer_than_the_longest(random: float, failures: int) -> None:
    one = Schedule(PACE, lambda: random)
    one.keep([key("ann")], 0.0)
    now = 0.0
    for _ in range(failures):
        assert one.take(now)
        one.ended(key("ann"), now, "failed")
        due = one.next_time(now)
        assert due is not None
        assert 0 < due - now <= PACE.longest_retry
        now = due
