"""``headrace replay --rebuild``, killed at named points: the tables are the old ones or the new ones, and the next run
leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from psycopg.conninfo import conninfo_to_dict

from headrace.log.sqlite import SqliteLog
from headrace.projections.sqlite import FILE, SqliteTables
from tests.postgres.both import Contents, contents
from tests.rebuild.conftest import Ask
from tests.rebuild.rebuilds import INSTALLED, REGISTRY, damage, folded, schemas, tables_in, truth

PATIENCE_SECONDS = 120


def run(module: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """A process with these variables."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**known, **variables},
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("point", "when", "count", "new"),
    [
        ("preparing", "after", 1, False),
        ("folding", "after", 2, False),
        ("switching", "before", 1, False),
        ("locking", "after", 1, False),
        ("comparing", "after", 1, False),
        ("switching", "after", 1, True),
        ("making known", "after", 1, True),
        ("dropping", "before", 1, True),
        ("dropping", "after", 1, True),
    ],
)
def test_in_a_database(
    log: SqliteLog,
    tmp_path: Path,
    database: str,
    ask: Ask,
    *,
    schema: str,
    point: str,
    when: str,
    count: int,
    new: bool,
) -> None:
    places = {
        "HEADRACE_DB_URL": "postgresql://?" + urlencode(conninfo_to_dict(database), quote_via=quote),
        "HEADRACE_DB_SCHEMA": schema,
        "HEADRACE_STORE": str(tmp_path / "log"),
    }
    asked = ("replay", "--rebuild", "--json")
    with tables_in(database, schema) as live:
        folded(log, live)
        ask("INSERT INTO delivery_journal VALUES ('acme', 'a-1', 'p-1', 0, 5, 'accepted', '{}', '2026-01-02')")
        journal = ask("SELECT * FROM delivery_journal")
        damage(ask)
        old, before = contents(live, INSTALLED), schemas(database)
        died = run("tests.rebuild.killed_rebuild", point, when, str(count), *asked, **places)
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
        assert contents(live, INSTALLED) == (truth(log) if new else old)
        assert ask("SELECT * FROM delivery_journal") == journal
        done = run("headrace", *asked, **places)
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)["records"] == sum(log.describe().ends)
        assert schemas(database) == before, "nothing is left behind"
        assert contents(live, INSTALLED) == truth(log)
        assert ask("SELECT * FROM delivery_journal") == journal


@pytest.mark.parametrize(
    ("point", "when", "new"),
    [
        ("cleaning up", "after", False),
        ("folding", "after", False),
        ("switching files", "before", False),
        ("comparing files", "after", False),
        ("switching files", "after", True),
    ],
)
def test_in_a_file(log: SqliteLog, tmp_path: Path, point: str, when: str, *, new: bool) -> None:
    directory = tmp_path / "log"
    asked = ("replay", "--rebuild", "--json", "--store", str(directory))

    def now() -> Contents:
        with SqliteTables(directory / FILE, REGISTRY, INSTALLED, writable=False) as tables:
            return contents(tables, INSTALLED)

    with SqliteTables(directory / FILE, REGISTRY, INSTALLED) as tables:
        folded(log, tables)
        tables.connection.execute("UPDATE events SET note = 'damaged'")
        old = contents(tables, INSTALLED)
        died = run("tests.rebuild.killed_rebuild", point, when, "1", *asked)
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
        assert now() == contents(tables, INSTALLED) == (truth(log) if new else old)
        done = run("headrace", *asked)
        assert done.returncode == 0, done.stderr.decode()
        assert now() == contents(tables, INSTALLED) == truth(log)
    assert not [one for one in directory.iterdir() if "rebuild" in one.name and one.suffix != ".lock"]
