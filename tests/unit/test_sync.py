"""One synchronisation: the order of what it does, and where it stops."""

from collections.abc import Iterator, Sequence

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.sync import Synced, run_sync

EVENTS = tuple(NewEvent("calendar.cancelled", "calendar.event", f"e{n}", f"id{n}", {"removed": True}) for n in range(2))


class Empty:
    def where(self, kind: str, **columns: str) -> Iterator[KnownEntity]:
        yield from ()


class Port:
    """A log in memory that notes what happens, and when."""

    def __init__(self, cursor: str | None = "c1", *, broken: bool = False) -> None:
        self.notes: list[object] = []
        self._cursor, self._broken = cursor, broken
        self._known = Empty()

    def started(self, full: bool) -> str:
        self.notes.append(("started", full))
        return "s1"

    def cursor(self) -> str | None:
        self.notes.append("cursor")
        return self._cursor

    def known(self) -> Known:
        return self._known

    def finish(self, sync: str, events: Sequence[NewEvent], cursor: str | None) -> None:
        if self._broken:
            raise UnavailableError("the log does not answer")
        self.notes.append(("finish", sync, tuple(events), cursor))


class Provider:
    feeds = ("calendar.event",)

    def __init__(self, port: Port, error: Exception | None = None) -> None:
        self._port, self._error = port, error

    def changes(self, cursor: str | None, known: Known) -> Changes:
        self._port.notes.append(("asked", cursor))
        assert known is self._port.known()
        if self._error is not None:
            raise self._error
        return Changes(EVENTS, "c2", full=cursor is None)


def test_starts_then_asks_then_finishes() -> None:
    port = Port()
    assert run_sync(Provider(port), port) == Synced(2, False, "c2")
    assert port.notes == [("started", False), "cursor", ("asked", "c1"), ("finish", "s1", EVENTS, "c2")]


def test_a_full_one_does_not_look_at_the_cursor() -> None:
    port = Port()
    assert run_sync(Provider(port), port, full=True) == Synced(2, True, "c2")
    assert port.notes == [("started", True), ("asked", None), ("finish", "s1", EVENTS, "c2")]


def test_the_first_one_has_no_cursor() -> None:
    port = Port(None)
    assert run_sync(Provider(port), port).full
    assert port.notes[:2] == [("started", False), "cursor"]


@pytest.mark.parametrize("error", [UnavailableError("down"), BadInputError("password")])
def test_a_provider_that_fails_leaves_only_the_start(error: Exception) -> None:
    port = Port()
    with pytest.raises(type(error)) as caught:
        run_sync(Provider(port, error), port)
    assert caught.value is error
    assert port.notes == [("started", False), "cursor", ("asked", "c1")]


def test_a_log_that_fails_is_told() -> None:
    port = Port(broken=True)
    with pytest.raises(UnavailableError, match="the log"):
        run_sync(Provider(port), port)
