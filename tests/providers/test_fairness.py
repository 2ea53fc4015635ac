"""Everybody's sources in one process, at real providers' doubles: what is wrong with some delays none of the others."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from headrace.producers.schedule import Pace
from tests.doubles.http import Fault, drops, held, replies
from tests.providers.world import Person, World, world

PROVIDERS: Final = ("gmail", "google_calendar", "graph", "graph calendar")
_MANY: Final = 12
"""More than there are lanes for what does well."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "store") as made:
        yield made


def endless(person: Person, fault: Fault) -> None:
    """From now on."""
    person.faulty.plan(*[fault] * 10_000)


def arrives(site: World, person: Person) -> None:
    """Something happens at a provider, which notifies: it gets to the log."""
    before = person.events()
    person.add()
    assert person.push() in {202, 204}
    site.until(lambda: person.events() == before + 1)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_that_hangs_delays_nobody_elses_and_no_answer(site: World, provider: str) -> None:
    """The accounts that hang are at the same provider as those that do well, and at all the others."""
    hanging = [site.person(provider, f"hangs{number}", f"t-{number % 3}") for number in range(_MANY)]
    well = [site.person(one, f"well{number}", "other") for number, one in enumerate(PROVIDERS)]
    for person in (*hanging, *well):
        person.connect()
    go_on = threading.Event()
    with site.host(Pace(period=3_600.0, slow_after=0.3)):
        site.until(lambda: all(person.fresh() and person.watched() for person in (*hanging, *well)))
        asked = [threading.Event() for _ in hanging]
        for person, reached in zip(hanging, asked, strict=True):
            endless(person, held(reached, go_on))
            person.add()
            assert person.push() in {202, 204}
        try:
            assert asked[0].wait(20)
            for person in well:
                arrives(site, person)
            for person in hanging:
                assert person.push() in {202, 204}, "while its provider hangs"
            assert [person.events() for person in hanging] == [0] * _MANY
            assert site.slowest < 3, "the strictest deadline of any provider"
        finally:
            for person in hanging:
                person.faulty.clear()
            go_on.set()
        site.until(lambda: all(person.events() == 1 for person in hanging))


@pytest.mark.parametrize("trouble", ["revoked", "token endpoint down", "failing", "broken connections", "429 at once"])
def test_what_ails_some_delays_none_of_the_others(site: World, trouble: str) -> None:
    ailing = [site.person(PROVIDERS[number % 4], f"ails{number}", f"t-{number % 3}") for number in range(_MANY)]
    well = [site.person(one, f"well{number}", "other") for number, one in enumerate(PROVIDERS)]
    for person in (*ailing, *well):
        person.connect()
    with site.host():
        site.until(lambda: all(person.fresh() and person.watched() for person in (*ailing, *well)))
        for person in ailing:
            ail(person, trouble)
            person.add()
            assert person.push() in {202, 204}
        for _ in range(3):
            for person in well:
                arrives(site, person)
        assert [person.events() for person in ailing] == [0] * _MANY
        for person in ailing:
            person.faulty.clear()
            person.server.ailing.clear()
            if trouble == "revoked":
                person.connect()
        site.until(lambda: all(person.events() == 1 for person in ailing))


def ail(person: Person, trouble: str) -> None:
    match trouble:
        case "revoked":
            person.server.revoke()
        case "token endpoint down":
            person.server.access.clear()  # what she has is turned down, and no other can be had
            person.server.ailing = [503] * 10_000
        case "failing":
            endless(person, replies(500))
        case "429 at once":
            endless(person, replies(429, {}, {"retry-after": "0"}))
        case _:
            endless(person, drops)


def test_whoever_asks_to_be_left_alone_is_whatever_comes_in(site: World) -> None:
    """Not one request within the time that ``Retry-After`` names; nobody else waits for it."""
    throttled = [site.person(one, f"throttled{number}", "one") for number, one in enumerate(PROVIDERS)]
    well = [site.person(one, f"well{number}", "two") for number, one in enumerate(PROVIDERS)]
    for person in (*throttled, *well):
        person.connect()
    with site.host():
        site.until(lambda: all(person.fresh() and person.watched() for person in (*throttled, *well)))
        before, began = [person.asked for person in throttled], time.monotonic()
        for person in throttled:
            endless(person, replies(429, {}, {"retry-after": "3"}))
            person.add()
            person.push()
        once = [asked + 1 for asked in before]
        site.until(lambda: [person.asked for person in throttled] == once)
        for person in itertools.cycle(well):
            arrives(site, person)
            for other in throttled:
                other.push()
            assert [other.asked for other in throttled] == once
            if time.monotonic() - began > 2:
                break
        assert time.monotonic() - began < 3, "or it would have been let in again"
        for person in throttled:
            person.faulty.clear()
        site.until(lambda: all(person.events() == 1 for person in throttled))
        assert time.monotonic() - began >= 3
