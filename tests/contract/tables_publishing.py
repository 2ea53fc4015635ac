"""What every tables adapter must do with what is published before a commit: a part of the suite of tables."""

from collections.abc import Callable

import pytest

from headrace.errors import FencedError, UnavailableError
from headrace.processors.core.memory import Memory
from headrace.processors.engine import Engine
from headrace.projections.port import Tables
from tests.contract.tables_recording import KINDS, REGISTRY, Stores, counts, history


class TablesPublishing:
    """With the fixtures of the suite."""

    def test_what_is_published_is_so_before_it_is_committed_and_after_it_is_fenced(
        self, stores: Stores, tables: Tables
    ) -> None:
        log, partition = history()
        other, said = stores.second(), list[str]()

        def publish(memory: Memory) -> Callable[[], None]:
            said.append(f"begun at {memory.first_offset}")
            return lambda: said.append(f"done, {next_offset(other, partition)} there")

        engine = Engine(REGISTRY, KINDS, tables, publish=publish)
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 0, 20))
        engine.apply(partition, log.read(partition, 20, 20))
        assert said == ["begun at 0", "done, None there", "begun at 20", "done, 20 there"]
        stale = Engine(REGISTRY, KINDS, other, publish=publish)
        stale.resume(log, partition)
        engine.apply(partition, log.read(partition, 40, 5))
        with pytest.raises(FencedError):
            stale.apply(partition, log.read(partition, 40, 5))
        assert said[4:] == ["begun at 40", "done, 40 there"], "a stale owner said nothing"

    def test_what_cannot_be_published_is_not_committed(self, tables: Tables) -> None:
        log, partition = history()

        def publish(_: Memory) -> Callable[[], None]:
            def wait() -> None:
                raise UnavailableError("nobody takes it")

            return wait

        engine = Engine(REGISTRY, KINDS, tables, publish=publish)
        engine.resume(log, partition)
        with pytest.raises(UnavailableError, match="nobody takes it"):
            engine.apply(partition, log.read(partition, 0, 20))
        assert tables.resume(partition) is None
        assert not any(counts(tables).values())


def next_offset(tables: Tables, partition: int) -> int | None:
    """How far the tables are."""
    with tables.snapshot() as reader:
        found = reader.rows("SELECT next_offset FROM partitions WHERE partition = :partition", {"partition": partition})
    return found[0]["next_offset"] if found else None
