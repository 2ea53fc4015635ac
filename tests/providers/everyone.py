"""Every provider's source at its double or real server, in one shape: for what has to be so of all of them."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from headrace.demo.caldav_server import CaldavServer
from headrace.producers.caldav import CaldavSource
from headrace.producers.event import Source
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.graph_api import GraphApi
from headrace.producers.graph_calendar import GraphCalendarSource
from headrace.producers.graph_mail import GraphMailSource
from headrace.producers.webdav import canonical_url
from infra.stack.dovecot import DovecotServer
from tests.doubles.desk import Desk, desk
from tests.doubles.google_calendar_desk import ADDRESS as GOOGLE_ADDRESS
from tests.doubles.google_calendar_desk import at as hour
from tests.doubles.graph_calendar import DAY
from tests.doubles.graph_people import ADDRESS as GRAPH_ADDRESS
from tests.imap.parts import box as imap_box
from tests.integration.calendar_desk import ics
from tests.providers import gmail_parts, google_calendar_parts, graph_parts

NAMES: Final = ("gmail", "google_calendar", "graph mail", "graph calendar", "imap", "caldav")
_numbers = count()


class Everywhere(NamedTuple):
    """One source of one account. ``add`` has somebody write a message or an event, which is one event on the log, and
    ``take back`` has the last one gone for good; ``another`` is the source as another process has it."""

    name: str
    kind: str
    desk: Desk
    add: Callable[[], object]
    take_back: Callable[[], object]
    another: Callable[[], Source]
    agree: Callable[[], None]


@contextmanager
def gmail() -> Generator[Everywhere]:
    with gmail_parts.box(page=2) as mine:
        double = mine.double

        def take_back() -> None:
            double.delete(list(double.mails.values())[-1])

        def another() -> Source:
            return gmail_parts.provider().source(gmail_parts.connected(), mine.http, mine.desk.pseudonym)

        def add() -> None:
            double.receive(next((mail.thread for mail in double.mails.values()), None))

        yield Everywhere("gmail", "mail.thread", mine.desk, add, take_back, another, mine.agree)


@contextmanager
def google_calendar() -> Generator[Everywhere]:
    with google_calendar_parts.office(page=2) as mine:
        double = mine.double
        days = count()

        def add() -> None:
            double.insert(**hour(9, next(days)))

        def take_back() -> None:
            double.delete(max(double.events[GOOGLE_ADDRESS].values(), key=lambda one: one.version))

        def another() -> Source:
            connected = google_calendar_parts.connected()
            return GoogleCalendar().source(connected, mine.http, mine.desk.pseudonym)

        yield Everywhere("google_calendar", "calendar.event", mine.desk, add, take_back, another, mine.agree)


@contextmanager
def graph_mail() -> Generator[Everywhere]:
    with graph_parts.box(page=2) as mine:
        double = mine.double

        def take_back() -> None:
            double.delete(list(double.mails.values())[-1])

        def another() -> Source:
            return GraphMailSource(GraphApi(mine.http), mine.names, texts=False)

        def add() -> None:
            double.receive(next((mail.thread for mail in double.mails.values()), None))

        yield Everywhere("graph mail", "mail.thread", mine.desk, add, take_back, another, mine.agree)


@contextmanager
def graph_calendar() -> Generator[Everywhere]:
    with graph_parts.diary(page=2) as mine:
        double = mine.double
        days = count()

        def add() -> None:
            double.book(mine.now + next(days) * DAY)

        def take_back() -> None:
            double.delete(list(double.events.values())[-1])

        def another() -> Source:
            return GraphCalendarSource(
                GraphApi(mine.http),
                GRAPH_ADDRESS,
                mine.desk.pseudonym,
                calendar=None,
                zone=UTC,
                clock=lambda: mine.now / 1000,
            )

        yield Everywhere("graph calendar", "calendar.event", mine.desk, add, take_back, another, mine.agree)


@contextmanager
def imap(server: DovecotServer, index: Path) -> Generator[Everywhere]:
    with imap_box(server, index) as mine:
        names = list[str]()

        def add() -> None:
            names.append(mine.person.receive(names[0] if names else None))

        def take_back() -> None:
            mine.person.expunge("INBOX", names.pop())

        yield Everywhere("imap", "mail.thread", mine.desk, add, take_back, mine.another, mine.agree)


@contextmanager
def caldav(server: CaldavServer) -> Generator[Everywhere]:
    with desk("calendar.event") as at:
        url = server.make_calendar(f"everywhere {next(_numbers)}")
        there = dict[str, int]()
        days = count(1)

        def add() -> None:
            day = next(days)
            there[f"d{day}"] = day
            server.put_event(url, ics(uid=f"d{day}", start=f"202601{day:02}T090000Z"), f"d{day}.ics")

        def take_back() -> None:
            name, _ = there.popitem()
            server.delete_event(f"{url}{name}.ics")

        def another() -> Source:
            return CaldavSource(server.url, server.username, server.password, url, pseudonym=at.pseudonym)

        def agree() -> None:
            held = {
                str(state["uid"]): state["occurrences"][0]["start"]
                for state in at.states("calendar.event").values()
                if not state["removed"]
            }
            first = 1_767_171_600_000  # 2025-12-31, 09:00 UTC
            assert held == {at.pseudonym(name): first + day * DAY for name, day in there.items()}
            assert {state["calendar"] for state in at.states("calendar.event").values()} <= {
                at.pseudonym(canonical_url(url))
            }
            assert at.idle("calendar.event") == []

        yield Everywhere("caldav", "calendar.event", at, add, take_back, another, agree)


def everywhere(name: str, request: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Everywhere]:
    """The source of a name; real servers are started where they are needed."""
    if name == "imap":
        return imap(request.getfixturevalue("dovecot"), folder)
    if name == "caldav":
        return caldav(request.getfixturevalue("radicale"))
    doubles: dict[str, Callable[[], AbstractContextManager[Everywhere]]] = {
        "gmail": gmail,
        "google_calendar": google_calendar,
        "graph mail": graph_mail,
        "graph calendar": graph_calendar,
    }
    return doubles[name]()
