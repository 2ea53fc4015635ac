"""Whatever people do, whenever we look and wherever a sync dies: the events add up to what the server has."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.demo.caldav_server import CaldavServer
from headrace.producers.caldav import CaldavSource
from tests.integration.calendar_model import Model, pseudonym

pytestmark = pytest.mark.embedded("opens no store")

_numbers = count()
UIDS = ("one", "two", "three")
NAMES = ("a.ics", "ä b.ics", "100%.ics")


class Text(NamedTuple):
    """What one version of an event says."""

    uid: str
    day: int
    status: str
    response: str
    title: str

    @property
    def ics(self) -> str:
        return "\r\n".join([
            "BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//", "BEGIN:VEVENT", f"UID:{self.uid}",
            "DTSTAMP:20260101T000000Z", f"DTSTART;VALUE=DATE:202601{self.day:02}", f"STATUS:{self.status}",
            f"SUMMARY:{self.title}", f"ATTENDEE;PARTSTAT={self.response}:mailto:ann@example.com",
            "END:VEVENT", "END:VCALENDAR", "",
        ])  # fmt: skip


class Put(NamedTuple):
    calendar: int
    name: str
    text: Text


class Delete(NamedTuple):
    which: int


class Sync(NamedTuple):
    """``crash``: how many events are on the log when it dies, before its cursor is."""

    calendar: int
    stale: bool
    crash: int | None = None


texts = st.builds(
    Text,
    st.sampled_from(UIDS),
    st.integers(1, 2),
    st.sampled_from(["CONFIRMED", "CONFIRMED", "CANCELLED"]),
    st.sampled_from(["ACCEPTED", "DECLINED"]),
    st.sampled_from("xy"),
)
steps = st.lists(
    st.one_of(
        st.builds(Put, st.integers(0, 1), st.sampled_from(NAMES), texts),
        st.builds(Put, st.just(0), st.sampled_from(NAMES), texts),
        st.builds(Delete, st.integers(0, 9)),
        st.builds(Sync, st.integers(0, 1), st.sampled_from([False, False, True])),
        st.builds(Sync, st.integers(0, 1), st.sampled_from([False, False, True]), st.integers(0, 3)),
    ),
    max_size=25,
)


class Account:
    """Two calendars, what people put there, and what we made of it."""

    def __init__(self, server: CaldavServer) -> None:
        self.server = server
        self.calendars = [server.make_calendar(f"any order {next(_numbers)}") for _ in range(2)]
        self.sources = [
            CaldavSource(server.url, server.username, server.password, calendar, pseudonym=pseudonym)
            for calendar in self.calendars
        ]
        self.cursors: list[str | None] = [None, None]
        self.model = Model()
        self.there: dict[tuple[int, str], tuple[str, Text]] = {}

    def put(self, step: Put) -> None:
        for place, (url, text) in list(self.there.items()):
            # An event is in one calendar of an account at a time, and under one name in it (RFC 4791 §4.1).
            if text.uid == step.text.uid and place != (step.calendar, step.name):
                self.server.delete_event(url)
                del self.there[place]
        before = self.there.get((step.calendar, step.name))
        if before is not None and before[1].uid != step.text.uid:
            self.server.delete_event(before[0])
        url = self.server.put_event(self.calendars[step.calendar], step.text.ics, step.name)
        self.there[step.calendar, step.name] = (url, step.text)

    def delete(self, step: Delete) -> None:
        if self.there:
            place = sorted(self.there)[step.which % len(self.there)]
            self.server.delete_event(self.there.pop(place)[0])

    def sync(self, step: Sync) -> list[str]:
        if step.stale:
            self.server.forget_sync_tokens(self.calendars[step.calendar])
        changes = self.sources[step.calendar].changes(self.cursors[step.calendar], self.model)
        assert not {event.id for event in changes.events} & self.model.ids, "every change has an id of its own"
        for event in changes.events[: step.crash]:
            self.model.apply(event)
        if step.crash is None:
            self.cursors[step.calendar] = changes.cursor
        return [event.type for event in changes.events]

    def shown(self) -> Iterator[tuple[object, ...]]:
        for (calendar, _), (url, text) in self.there.items():
            resource = "/" + url.removeprefix(self.server.url)
            what = () if text.status == "CANCELLED" else (text.day, text.response.lower())
            names = (pseudonym(one) for one in (self.calendars[calendar], resource, text.uid))
            yield (*names, text.status.lower(), *what)

    def held(self) -> Iterator[tuple[object, ...]]:
        for state in self.model.states.values():
            if not state["removed"]:
                day = state["occurrences"][0]["start"] // 86_400_000 - 20_453
                what = () if state["status"] == "cancelled" else (day, state["attendees"][0]["response"])
                yield (state["calendar"], state["resource"], state["uid"], state["status"], *what)


@given(steps=steps)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_events_add_up_to_what_the_server_has(
    caldav_server: CaldavServer, steps: list[Put | Delete | Sync]
) -> None:
    account = Account(caldav_server)
    for step in steps:
        match step:
            case Put():
                account.put(step)
            case Delete():
                account.delete(step)
            case Sync():
                account.sync(step)
    for calendar in (0, 1):
        account.sync(Sync(calendar, stale=False))
    assert sorted(account.held()) == sorted(account.shown())
    for stale in (False, True):
        for calendar in (0, 1):
            assert account.sync(Sync(calendar, stale)) == []
