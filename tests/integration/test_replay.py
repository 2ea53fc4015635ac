"""Replay: a log folded aside is what the tables hold, or held."""

from pathlib import Path
from typing import Any

import pytest

from headrace.errors import BadInputError
from headrace.processors.replay import replay
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from tests.integration.audited_store import COLUMNS, KEYS, KINDS, REGISTRY, build
from tests.integration.stores import read_parts as opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's log and tables, folded and closed."""
    directory: Path = tmp_path_factory.mktemp("replay") / "store"
    build(directory)
    return directory


def contents(tables: SqliteTables | PostgresTables) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the tables."""
    with tables.snapshot() as reader:
        return {
            table: list(reader.values(f"SELECT * FROM {table} ORDER BY {', '.join(KEYS[table])}", {}))
            for table in COLUMNS
        }


def test_replay_is_what_the_tables_hold(store: Path) -> None:
    with opened(store) as (log, live), SqliteTables.in_memory(REGISTRY, KINDS) as aside:
        replay(log, REGISTRY, KINDS, aside)
        assert contents(aside) == contents(live)


def test_replay_to_a_position_and_further(store: Path) -> None:
    with opened(store) as (log, live), SqliteTables.in_memory(REGISTRY, KINDS) as aside:
        assert replay(log, REGISTRY, KINDS, aside, until={1: 15}) == {1: 15}
        with aside.snapshot() as reader:
            assert reader.rows("SELECT partition, next_offset FROM partitions", {}) == [
                {"partition": 1, "next_offset": 15}
            ]
            assert reader.rows("SELECT max(offset) AS last FROM events", {}) == [{"last": 14}]
        replay(log, REGISTRY, KINDS, aside)
        assert contents(aside) == contents(live)


@pytest.mark.parametrize("until", [{1: 10_000}, {2: 1}, {-1: 1}, {1: -1}])
def test_replay_refuses_positions_that_are_not(store: Path, until: dict[int, int]) -> None:
    with (
        opened(store) as (log, _),
        SqliteTables.in_memory(REGISTRY, KINDS) as aside,
        pytest.raises(BadInputError, match="partition"),
    ):
        replay(log, REGISTRY, KINDS, aside, until=until)


def test_replay_goes_not_back(store: Path) -> None:
    with opened(store) as (log, _), SqliteTables.in_memory(REGISTRY, KINDS) as aside:
        replay(log, REGISTRY, KINDS, aside, until={1: 15})
        with pytest.raises(BadInputError, match="fresh tables"):
            replay(log, REGISTRY, KINDS, aside, until={1: 14})
