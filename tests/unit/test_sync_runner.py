"""The threads that run syncs: hints, coalescing, and nobody delayed by somebody else's provider."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from headrace.errors import BadInputError, HeadraceError, UnavailableError
from headrace.producers.provider_http import ThrottledError
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.sync import Synced
from headrace.producers.sync_runner import SyncRunner

PATIENCE = 20.0
PACE = Pace(period=3600.0, fast_lanes=2, slow_lanes=1, slow_after=0.2, first_retry=0.01, refused_retry=0.01)
DONE = Synced(1, False, "c")


def key(account: str) -> SourceKey:
    return SourceKey("acme", account, "gmail/main")


def hanging_until(release: threading.Event) -> Callable[[], Synced]:
    """A provider that answers when it is told to."""

    def answer() -> Synced:
        assert release.wait(PATIENCE)
        return DONE

    return answer


class Providers:
    """Providers that do what a test says, and the tables' idea of who has a hint."""

    def __init__(self) -> None:
        self.does: dict[SourceKey, Callable[[], Synced]] = {}
        self.hints: set[SourceKey] = set()
        self.synced: list[SourceKey] = []
        self.told: list[tuple[SourceKey, Synced | HeadraceError]] = []
        self.changed = threading.Condition()

    def sync(self, source: SourceKey) -> Synced:
        with self.changed:
            self.hints.discard(source)  # the start is on the log
            self.synced.append(source)
            self.changed.notify_all()
        return self.does.get(source, lambda: DONE)()

    def hear(self, source: SourceKey, how: Synced | HeadraceError) -> None:
        with self.changed:
            self.told.append((source, how))
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), (self.synced, self.told)


@pytest.fixture
def providers() -> Providers:
    return Providers()


@pytest.fixture
def runner(providers: Providers) -> Iterator[SyncRunner]:
    made = SyncRunner(providers.sync, lambda: list(providers.hints), pace=PACE, told=providers.hear)
    made.start()
    yield made
    assert made.stop(PATIENCE)


def test_a_source_is_synced_at_once_and_again_for_a_hint(providers: Providers, runner: SyncRunner) -> None:
    runner.keep([key("ann")])
    providers.until(lambda: len(providers.told) == 1)
    providers.hints.add(key("ann"))
    runner.look()
    providers.until(lambda: len(providers.told) == 2)
    assert providers.told == [(key("ann"), DONE)] * 2


def test_a_burst_of_hints_during_a_sync_is_one_sync_more(providers: Providers, runner: SyncRunner) -> None:
    go = threading.Event()
    providers.does[key("ann")] = hanging_until(go)
    runner.keep([key("ann")])
    providers.until(lambda: len(providers.synced) == 1)
    for _ in range(1_000):
        providers.hints.add(key("ann"))
        runner.look()
    assert providers.synced == [key("ann")], "one account is synced by one thread at a time"
    go.set()
    providers.until(lambda: len(providers.told) == 2)
    runner.look()
    runner.keep([key("ann"), key("bob")])
    providers.until(lambda: providers.told[-1][0] == key("bob"))
    assert providers.synced.count(key("ann")) == 2


def test_accounts_that_hang_delay_nobody(providers: Providers, runner: SyncRunner) -> None:
    release = threading.Event()
    hanging = [key(f"hangs-{n}") for n in range(8)]
    for one in hanging:
        providers.does[one] = hanging_until(release)
    runner.keep([*hanging, key("well")])
    try:
        providers.until(lambda: (key("well"), DONE) in providers.told)
        assert not release.is_set()
    finally:
        release.set()


@pytest.mark.parametrize(
    "error",
    [UnavailableError("down"), ThrottledError("slower", 0.01), BadInputError("no grant"), ValueError("a bug")],
    ids=lambda error: type(error).__name__,
)
def test_one_that_fails_is_tried_again_and_delays_nobody(
    providers: Providers, runner: SyncRunner, error: Exception
) -> None:
    def fails() -> Synced:
        raise error

    providers.does[key("bad")] = fails
    runner.keep([key("bad"), key("well")])
    providers.until(lambda: providers.synced.count(key("bad")) >= 3 and (key("well"), DONE) in providers.told)
    del providers.does[key("bad")]
    providers.until(lambda: (key("bad"), DONE) in providers.told)
    said = [how for source, how in providers.told if source == key("bad") and how != DONE]
    assert all(how is error for how in said)
    assert bool(said) == isinstance(error, HeadraceError)


def test_a_source_that_is_dropped_is_left_alone(providers: Providers, runner: SyncRunner) -> None:
    runner.keep([key("ann")])
    providers.until(lambda: len(providers.told) == 1)
    runner.keep([key("bob")])
    providers.hints.add(key("ann"))
    runner.look()
    providers.until(lambda: len(providers.told) == 2)
    assert providers.synced == [key("ann"), key("bob")]


def test_hints_that_cannot_be_seen_now_are_seen_later(providers: Providers) -> None:
    away = threading.Event()
    away.set()

    def hints() -> list[SourceKey]:
        if away.is_set():
            away.clear()
            raise UnavailableError("the tables cannot be read now")
        return list(providers.hints)

    made = SyncRunner(providers.sync, hints, pace=PACE, told=providers.hear)
    made.keep([key("ann")])
    made.start()
    try:
        providers.until(lambda: len(providers.told) == 1)
        away.set()
        providers.hints.add(key("ann"))
        made.look()
        providers.until(lambda: len(providers.told) == 2)
    finally:
        assert made.stop(PATIENCE)


def test_stopping_leaves_what_hangs_behind_in_bounded_time(providers: Providers) -> None:
    release = threading.Event()
    providers.does[key("ann")] = hanging_until(release)
    made = SyncRunner(providers.sync, list, pace=PACE)
    made.keep([key("ann")])
    made.start()
    providers.until(lambda: len(providers.synced) == 1)
    try:
        assert not made.stop(0.05)
    finally:
        release.set()


def test_a_thousand_commits_are_few_looks(providers: Providers) -> None:
    looks = list[float]()

    def hinted() -> list[SourceKey]:
        looks.append(time.monotonic())
        return list(providers.hints)

    runner = SyncRunner(providers.sync, hinted, pace=PACE, told=providers.hear)
    runner.start()
    try:
        runner.keep([key("ann")])
        providers.until(lambda: len(providers.told) == 1)
        for _ in range(1_000):
            runner.look()
        providers.hints.add(key("ann"))
        runner.look()  # the last one is not lost
        providers.until(lambda: len(providers.told) == 2)
    finally:
        assert runner.stop(PATIENCE)
    assert all(later - one > 0.04 for one, later in pairwise(looks))
