"""One synchronisation: the order of what it does, and where it stops."""

from collections.abc import Iterator, Sequence, Set

import pytest

from headrace.errors import BadInputError, HaltError, UnavailableError
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.sync import Begun, Synced, run_sync

EVENTS = tuple(NewEvent("calendar.cancelled", "calendar.event", f"e{n}", f"id{n}", {"removed": True}) for n in range(2))


class Empty:
    def where(self, kind: str, **columns: str | Set[str]) -> Iterator[KnownEntity]:
        yield from ()


class Port:
    """A log in memory that notes what happens, and when."""

    def __init__(self, cursor: str | None = "c1", *, broken: bool = False) -> None:
        self.notes: list[object] = []
        self._cursor, self._broken = cursor, broken
        self._known = Empty()

    def begin(self, full: bool) -> Begun:
        self.notes.append(("begin", full))
        return Begun("s1", self._cursor, self._known)

    def found(self, sync: str, events: Sequence[NewEvent]) -> None:
        if self._broken:
            raise UnavailableError("the log does not answer")
        self.notes.append(("found", sync, tuple(events)))

    def finish(self, sync: str, cursor: str | None) -> None:
        self.notes.append(("finish", sync, cursor))


class Provider:
    """Shows its events on two pages."""

    feeds = ("calendar.event",)

    def __init__(self, port: Port, error: Exception | None = None, *, ends: bool = True) -> None:
        self._port, self._error, self._ends = port, error, ends

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        self._port.notes.append(("asked", cursor))
        assert isinstance(known, Empty)
        yield Changes(EVENTS[:1], None, full=cursor is None, more=True)
        self._port.notes.append("asked on")
        if self._error is not None:
            raise self._error
        yield Changes(EVENTS[1:], "c2", full=cursor is None, more=not self._ends)


def test_what_a_page_found_is_on_the_log_before_the_next_is_asked_for() -> None:
    port = Port()
    assert run_sync(Provider(port), port) == Synced(2, False, "c2")
    assert port.notes == [
        ("begin", False),
        ("asked", "c1"),
        ("found", "s1", EVENTS[:1]),
        "asked on",
        ("found", "s1", EVENTS[1:]),
        ("finish", "s1", "c2"),
    ]


def test_a_full_one_does_not_look_at_the_cursor() -> None:
    port = Port()
    assert run_sync(Provider(port), port, full=True) == Synced(2, True, "c2")
    assert port.notes[:2] == [("begin", True), ("asked", None)]


def test_the_first_one_has_no_cursor() -> None:
    port = Port(None)
    assert run_sync(Provider(port), port).full
    assert port.notes[:2] == [("begin", False), ("asked", None)]


@pytest.mark.parametrize("error", [UnavailableError("down"), BadInputError("password")])
def test_a_provider_that_fails_leaves_what_it_had_shown_and_no_end(error: Exception) -> None:
    port = Port()
    with pytest.raises(type(error)) as caught:
        run_sync(Provider(port, error), port)
    assert caught.value is error
    assert port.notes == [("begin", False), ("asked", "c1"), ("found", "s1", EVENTS[:1]), "asked on"]


def test_a_provider_without_a_last_page_never_moves_the_cursor() -> None:
    port = Port()
    with pytest.raises(HaltError, match="no last page"):
        run_sync(Provider(port, ends=False), port)
    assert ("finish", "s1", "c2") not in port.notes


def test_a_log_that_fails_is_told() -> None:
    port = Port(broken=True)
    with pytest.raises(UnavailableError, match="the log"):
        run_sync(Provider(port), port)
