"""What sources ask of the tables: some entities at a time, and those that they name by their columns' indexes."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from headrace.errors import BadInputError
from headrace.kinds import installed_kinds
from headrace.producers.event import NewEvent
from headrace.projections.known import AT_ONCE, entities_where
from headrace.projections.port import Reader
from tests.doubles.desk import ACCOUNT, TENANT, Desk, desk

KIND = installed_kinds()["calendar.event"]
MANY = 2 * AT_ONCE + 50


def booked(number: int, calendar: str = "work") -> NewEvent:
    body: dict[str, Any] = {
        "calendar": calendar,
        "uid": f"u{number}",
        "resource": f"r{number}",
        "etag": "1",
        "sequence": 0,
        "status": "confirmed",
        "busy": True,
        "all_day": False,
        "occurrences": [{"start": number, "end": number + 1}],
        "unbounded_from": None,
        "organizer": None,
        "attendees": [],
    }
    return NewEvent("calendar.created", KIND.name, f"e{number:04}", f"created-{number}", body)


@contextmanager
def many() -> Generator[Desk]:
    """Events in one calendar, and one in another."""
    with desk(KIND.name) as mine:
        begun = mine.feed.begin(full=True)
        mine.feed.found(begun.sync, [*(booked(number) for number in range(MANY)), booked(MANY, "home")])
        yield mine


def names(mine: Desk, **columns: Any) -> list[str]:
    return [entity.id for entity in mine.feed.where(KIND.name, **columns)]


def test_all_of_them_come_by_id_however_many_there_are() -> None:
    with many() as mine:
        assert names(mine) == [f"e{number:04}" for number in range(MANY + 1)]
        assert names(mine, calendar=mine.pseudonym("work")) == [f"e{number:04}" for number in range(MANY)]
        assert names(mine, calendar=mine.pseudonym("home")) == [f"e{MANY:04}"]


def test_a_set_asks_for_the_entities_of_any_of_its_values() -> None:
    with many() as mine:
        work = mine.pseudonym("work")
        every = {mine.pseudonym(f"r{number}") for number in range(0, MANY + 1, 2)} | {mine.pseudonym("none")}
        wanted = [f"e{number:04}" for number in range(0, MANY + 1, 2)]
        assert sorted(names(mine, resource=every)) == wanted
        assert sorted(names(mine, resource=every, calendar=work)) == wanted[:-1]
        assert sorted(names(mine, id=set(wanted))) == wanted
        assert names(mine, resource={mine.pseudonym("r7")}, calendar=work) == ["e0007"]
        assert names(mine, resource={mine.pseudonym("r7")}, calendar=mine.pseudonym("home")) == []
        assert names(mine, resource=set[str]()) == []
        # More of them than are read at once may have one value.
        assert names(mine, calendar={work}) == [f"e{number:04}" for number in range(MANY)]


def test_what_changed_since_the_first_were_read_is_as_it_is_by_then() -> None:
    with many() as mine:
        reading = mine.feed.where(KIND.name)
        assert next(reading).id == "e0000"
        begun = mine.feed.begin(full=True)
        last = f"e{MANY:04}"
        mine.feed.found(
            begun.sync, [NewEvent("calendar.cancelled", KIND.name, last, "gone", {"removed": True, "etag": None})]
        )
        assert [entity.id for entity in reading if entity.state["removed"]] == [last]


class Plans:
    """A reader that asks how the database would answer."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.steps: list[str] = []

    def rows(self, sql: str, parameters: Any) -> list[dict[str, Any]]:
        self.steps += [row["detail"] for row in self._reader.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        return self._reader.rows(sql, parameters)

    def values(self, sql: str, parameters: Any) -> Iterator[tuple[Any, ...]]:
        raise AssertionError("not asked for")


@pytest.mark.parametrize(
    "columns", [{"resource": {"x"}}, {"id": {"x"}}, {"id": "x"}, {"resource": {"x"}, "calendar": "y"}]
)
def test_what_is_asked_for_by_name_is_not_looked_for_in_the_whole_account(columns: dict[str, Any]) -> None:
    with many() as mine, mine.tables.snapshot() as reader:
        plans = Plans(reader)
        assert entities_where(plans, KIND, TENANT, ACCOUNT, columns) == []
        assert plans.steps
        searched = [step for step in plans.steps if step.startswith(("SEARCH", "SCAN"))]
        assert all("id=?" in step or "resource=?" in step for step in searched), searched


def test_a_column_that_the_kind_lacks_is_named() -> None:
    with desk(KIND.name) as mine, pytest.raises(BadInputError, match="no column colour; it has all_day"):
        names(mine, colour="red")
