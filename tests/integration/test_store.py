"""A store: made, resumed, folded again, and never taken for another."""

from pathlib import Path
from typing import Final

import pytest

from headrace.errors import HaltError, LogMismatchError
from tests.contract.rich_history import Author, write
from tests.integration.stores import drop_tables, open_store

PATIENCE: Final = 20.0
"""Seconds that something that must happen may take; nothing waits this long when it works."""


def test_tables_that_were_deleted_are_folded_again(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True, partitions=2) as store:
        author = Author(store.log)
        write(author)
        last = author.fact("mail.read", "t-1", "very-last", {})
        assert store.applied.wait(author.partition, last, PATIENCE)
    drop_tables(tmp_path)
    with open_store(tmp_path, writer=True) as store:
        assert store.applied.wait(author.partition, last, PATIENCE)
        assert store.applied.next_offset(author.partition) == last + 1


@pytest.mark.embedded("the log's file is half made; tests/kafka interrupts the creation of a topic")
def test_a_creation_that_was_interrupted_is_resumed(tmp_path: Path) -> None:
    with open_store(tmp_path / "whole", writer=True, partitions=2):
        pass
    half = tmp_path / "half"
    (half / "keys").mkdir(parents=True)
    (half / "keys" / "master").write_bytes((tmp_path / "whole" / "keys" / "master").read_bytes())
    (half / "log.db").touch()
    with open_store(half, writer=True, partitions=2) as store:
        assert store.log.describe().ends == (1, 1)


@pytest.mark.embedded("the log's file is emptied; test_shared_store.py replaces a topic")
def test_a_log_that_was_emptied_under_its_tables_is_no_new_store(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True, partitions=2):
        pass
    (tmp_path / "log.db").write_bytes(b"")
    with pytest.raises(LogMismatchError):
        open_store(tmp_path, writer=True, partitions=2)


@pytest.mark.embedded("the tables' file is overwritten, which no client of PostgreSQL can")
def test_a_store_that_cannot_be_opened_lets_go_of_everything(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True, partitions=2):
        pass
    tables = tmp_path / "tables.db"
    whole = tables.read_bytes()
    for _ in range(2):
        tables.write_bytes(b"no database" * 1_000)
        with pytest.raises(HaltError, match="delete that file"):
            open_store(tmp_path, writer=True)
    tables.write_bytes(whole)
    with open_store(tmp_path, writer=True):
        pass
