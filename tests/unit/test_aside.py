"""What a source sets aside: in its order, found again, and nothing to read for anybody else."""

import os
from contextlib import suppress
from stat import S_ISREG

import apsw
import pytest

from headrace.errors import UnavailableError
from headrace.producers.aside import Aside


def test_names_are_seen() -> None:
    with Aside() as aside:
        aside.see(["a", "b"])
        aside.see(["b", "\ud800"])
        assert [aside.has_seen(name) for name in ("a", "b", "\ud800", "c", "")] == [True, True, True, False, False]


def test_items_come_by_owner_in_the_order_they_were_first_put() -> None:
    with Aside() as aside:
        for owner, item, value in (("z", "1", 1), ("a", "2", 2), ("z", "3", 3), ("a", "2", 4)):
            aside.put(owner, item, {"value": value})
        assert list(aside.owners()) == [[{"value": 1}, {"value": 3}], [{"value": 4}]]
        assert aside.of("z") == [{"value": 1}, {"value": 3}]
        assert aside.of("b") == []
        assert (aside.owns("a"), aside.owns("b")) == (True, False)


def test_owners_of_a_smaller_rank_come_first() -> None:
    with Aside() as aside:
        for owner, item, rank in (("late", "1", 30), ("early", "2", 20), ("first", "3", 99), ("first", "4", -5)):
            aside.put(owner, item, {"owner": owner}, rank)
        assert [items[0]["owner"] for items in aside.owners()] == ["first", "early", "late"]


def test_an_item_is_its_last_owners_and_is_dropped() -> None:
    with Aside() as aside:
        aside.put("a", "1", {"text": "\ud800 and \0"})
        aside.put("b", "1", {"text": "\ud800 or \0"})
        aside.put("b", "2", {})
        assert (aside.of("a"), aside.of("b")) == ([], [{"text": "\ud800 or \0"}, {}])
        aside.drop("1")
        aside.drop("none")
        assert aside.of("b") == [{}]
        aside.drop_all(["a", "b"])
        assert list(aside.owners()) == []


def test_owners_may_be_gone_through_while_others_are_looked_up() -> None:
    with Aside() as aside:
        for number in range(100):
            aside.put(f"o{number % 10}", f"i{number}", {"number": number})
        found = [
            (items[0]["number"], len(aside.of(f"o{at}")), aside.owns("none")) for at, items in enumerate(aside.owners())
        ]
        assert found == [(at, 10, False) for at in range(10)]


def test_what_does_not_fit_into_memory_lies_in_a_file_without_a_name_that_says_nothing() -> None:
    before, text = _nameless_files(), "Ann and Bob in room 5 " * 50
    with Aside() as aside:
        for number in range(20_000):
            aside.put(f"owner {number}", f"item {number}", {"text": text})
        files = _nameless_files().keys() - before.keys()
        raw = b"".join(os.pread(file, _nameless_files()[file], 0) for file in files)
        assert len(raw) > 10_000_000
        assert b"room" not in raw
        assert b"owner" not in raw
        assert aside.of("owner 7") == [{"text": text}]
        assert sum(1 for _ in aside.owners()) == 20_000
    assert _nameless_files() == before


def _nameless_files() -> dict[int, int]:
    """Files of this process that no directory has any more, with their sizes."""
    found: dict[int, int] = {}
    for file in range(1_024):
        with suppress(OSError):
            status = os.fstat(file)
            if S_ISREG(status.st_mode) and status.st_nlink == 0:
                found[file] = status.st_size
    return found


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.CantOpenError])
def test_a_disk_that_fails_is_told(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> bytes:
        raise error(name)

    with Aside() as aside:
        monkeypatch.setattr(aside, "_digest", fails)
        for act in (
            lambda: aside.put("a", "1", {}),
            lambda: aside.has_seen("a"),
            lambda: aside.see(["a"]),
            lambda: aside.of("a"),
            lambda: aside.drop_all(["a"]),
        ):
            with pytest.raises(UnavailableError, match="TMPDIR"):
                act()
