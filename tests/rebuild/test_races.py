"""Rebuilds while others fold and read: nobody meets two ages of tables, and nobody goes back."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
from psycopg import sql

from headrace.cli.rebuilding import in_database
from headrace.log.sqlite import SqliteLog
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine
from headrace.projections.port import Reader
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import Author, mail
from tests.postgres.both import contents
from tests.rebuild.rebuilds import INSTALLED, REGISTRY, folded, tables_in

REBUILDS = 4
PARTITIONS = 3
PATIENCE_SECONDS = 60.0
_PARTITIONS = "SELECT partition, next_offset FROM partitions"
_COUNTS = "SELECT partition, count(*) AS events, max(offset) AS last FROM events GROUP BY partition"
_AT_ONCE = """
SELECT p."partition", p.next_offset, count(e."offset"), max(e."offset"), max(p.tableoid::bigint)
FROM {schema}.partitions p LEFT JOIN {schema}.events e ON p."partition" = e."partition" GROUP BY 1, 2
"""


class ViolationError(AssertionError):
    """What no reader may ever see."""


class Watcher:
    """Reads again and again, by snapshots and by single statements as anybody may write them."""

    def __init__(self, tables: PostgresTables, database: str, schema: str) -> None:
        self._tables = tables
        self._database = database
        self._sql = sql.SQL(_AT_ONCE).format(schema=sql.Identifier(schema))
        self._seen = [dict.fromkeys(range(PARTITIONS), 0) for _ in range(2)]
        self.reads = 0
        self.ages: set[int] = set()

    def watch(self, stop: threading.Event) -> None:
        """Until told to stop.

        :raises ViolationError: something is wrong.
        """
        with psycopg.connect(self._database, autocommit=True) as connection:
            while not stop.is_set():
                with self._tables.snapshot() as reader:
                    self._look(reader)
                for partition, end, count, last, age in connection.execute(self._sql).fetchall():
                    self._check(1, partition, end, count, last)
                    self.ages.add(age)
                self.reads += 1

    def _look(self, reader: Reader) -> None:
        ends = {row["partition"]: row["next_offset"] for row in reader.rows(_PARTITIONS, {})}
        found = {row["partition"]: (row["events"], row["last"]) for row in reader.rows(_COUNTS, {})}
        for partition, end in ends.items():
            self._check(0, partition, end, *found[partition])

    def _check(self, way: int, partition: int, end: int, count: int, last: int) -> None:
        if (count, last) != (end, end - 1):
            raise ViolationError(
                f"partition {partition} is folded up to {end} and has {count} events, the last at {last}"
            )
        if end < self._seen[way][partition]:
            raise ViolationError(f"partition {partition} went back from {self._seen[way][partition]} to {end}")
        self._seen[way][partition] = end


def races(
    log: SqliteLog, database: str, schema: str, rebuild: Callable[[], object], *, rebuilds: int = REBUILDS
) -> tuple[Watcher, PostgresTables]:
    """Rebuild while one appends, one folds and two read."""
    stop = threading.Event()
    chance = random.Random(7)

    def append() -> None:
        authors = [Author(log, f"r-{n}") for n in range(6)]
        n = 0
        while not stop.is_set():
            authors[chance.randrange(6)].fact("mail.received", "t-1", f"m-{n}", mail(n))
            n += 1
            stop.wait(0.002)

    with (
        tables_in(database, schema) as live,
        tables_in(database, schema, migrating=False) as aside,
        ThreadPoolExecutor(4) as threads,
        ExitStack() as ends,
    ):
        folded(log, live)
        watchers = [Watcher(aside, database, schema) for _ in range(2)]
        host = EmbeddedHost(log, Engine(REGISTRY, INSTALLED, live))
        host.start()
        ends.callback(host.stop)
        running: list[Future[None]] = [threads.submit(append)]
        running += [threads.submit(one.watch, stop) for one in watchers]
        try:
            for _ in range(rebuilds):
                rebuild()
        finally:
            stop.set()
            for one in running:
                one.result(PATIENCE_SECONDS)
        assert host.applied.failure is None
        for partition, end in enumerate(log.describe().ends):
            assert host.applied.wait(partition, end - 1, PATIENCE_SECONDS)
        assert host.stop()
        with SqliteTables.in_memory(REGISTRY, INSTALLED) as expected:
            assert contents(live, INSTALLED) == contents(folded(log, expected), INSTALLED)
        return watchers[0], live


def test_queries_and_the_fold_go_on(log: SqliteLog, database: str, schema: str) -> None:
    told: list[object] = []
    watcher, _ = races(log, database, schema, lambda: told.append(in_database(log, database, schema, REGISTRY)))
    assert len(told) == REBUILDS
    assert watcher.reads > 10
    assert len(watcher.ages) > 1, "nobody read the new tables while the old ones still counted for anybody"
