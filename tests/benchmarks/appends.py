"""Durable appends a second: one writer, 32 writers, against one commit per event."""

import threading
from pathlib import Path

import apsw

from headrace.log.port import Record
from headrace.log.sqlite import SqliteLog
from tests.benchmarks.figures import Figure, rate, show
from tests.benchmarks.history import facts, intake, new_log

ALONE, EACH, WRITERS = 300, 60, 32


def _plain(path: Path, records: list[Record]) -> None:
    """The peer: SQLite, WAL, FULL, one commit per event."""
    with_database = apsw.Connection(str(path))
    with_database.execute("PRAGMA journal_mode=WAL")
    with_database.execute("PRAGMA synchronous=FULL")
    with_database.execute("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, key BLOB, value BLOB)")
    for record in records:
        with_database.execute("INSERT INTO records (key, value) VALUES (?, ?)", (record.key, record.value))
    with_database.close()


def _many(log: SqliteLog, shares: list[list[Record]]) -> None:
    def write(share: list[Record]) -> None:
        for record in share:
            log.append([record])

    threads = [threading.Thread(target=write, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(directory: Path) -> None:
    """Measure and print."""
    records = list(facts(intake(1), WRITERS * EACH, 100))
    alone, shares = records[:ALONE], [records[at::WRITERS] for at in range(WRITERS)]
    plain = rate(ALONE, lambda: _plain(directory / "plain.db", alone))
    with new_log(directory / "log") as log:
        one = rate(ALONE, lambda: [log.append([record]) for record in alone])
        many = rate(len(records), lambda: _many(log, shares))
    show(
        "Durable appends",
        (
            Figure("SQLite, one commit per event (the peer)", plain, "events/s"),
            Figure("headrace log, 1 writer", one, "events/s", one / plain, "peer"),
            Figure("headrace log, 32 writers", many, "events/s", many / plain, "peer"),
        ),
    )
