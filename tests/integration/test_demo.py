"""The demo as a newcomer meets it: it prints what the README shows, and leaves a store to look into."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from headrace.demo.run import run_demo
from headrace.errors import BadInputError, UnavailableError
from headrace.processors.audit import verify
from tests.integration.stores import adopt_demo, open_store, places_of, shared, variables

ON_KAFKA = {True: ("--on", "kafka"), False: ()}
README = Path(__file__).parents[2] / "README.md"


def played(place: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "headrace", "demo", *ON_KAFKA[shared()], *arguments]
    environment = {**os.environ, **variables(place)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert done.stderr == ""
    return done.stdout


def test_the_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    shown = README.read_text(encoding="utf-8").split("What one sees:\n\n```\n")[1].split("\n```")[0]
    printed = [line.rstrip() for line in played(tmp_path).rstrip().splitlines()]
    if shared():
        shown = shown.replace("headrace demo ", "headrace demo --on kafka ")
    assert printed == shown.splitlines()


def test_every_step_as_json_and_a_store_to_look_into(tmp_path: Path) -> None:
    *steps, end = map(json.loads, played(tmp_path, "--json", "--store", str(tmp_path / "store")).splitlines())
    assert end == {"summary": {"accepted": 3, "superseded": 3, "verified": True}}
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    verdicts = [(step["act"], step["verdict"]) for step in steps if "verdict" in step]
    assert verdicts == [
        (act, verdict) for act in ("mail", "calendar", "phantom") for verdict in ("superseded", "accepted")
    ]
    assert all(step["why"] and step["averted"] for step in steps if step.get("verdict") == "superseded")
    adopt_demo(tmp_path / "store")
    with open_store(tmp_path / "store", writer=False) as store:
        report = verify(store.log, store.tables, store.registry, store.kinds)
        assert report.verified
        assert report.records > len(steps)
        with store.tables.snapshot() as reader:
            told = reader.rows("SELECT verdict, count(*) AS n FROM proposals GROUP BY verdict ORDER BY verdict", {})
    assert told == [{"verdict": "accepted", "n": 3}, {"verdict": "superseded", "n": 3}]


@pytest.mark.embedded("`headrace demo --on kafka` takes a topic of its own, so there is nothing to play over")
def test_a_store_is_never_played_over(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True) as store:
        ends = store.log.describe().ends
    with pytest.raises(BadInputError, match="directory of its own"):
        run_demo(store=tmp_path, as_json=True)
    with open_store(tmp_path, writer=False) as store:
        assert store.log.describe().ends == ends


@pytest.mark.shared("embedded, the demo borrows nothing")
def test_what_it_borrowed_is_given_back(tmp_path: Path) -> None:
    db_url = places_of(tmp_path).db_url
    assert db_url is not None

    def schemas() -> set[str]:
        with psycopg.connect(db_url) as connection:
            found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'headrace_demo_%'")
            return {name for (name,) in found}

    before = schemas()
    assert "it verifies" in played(tmp_path)
    assert schemas() == before


@pytest.mark.embedded("opens no store")
def test_without_a_calendar_server_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        """No such package."""

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    with pytest.raises(UnavailableError, match=r"headrace\[demo\]"):
        run_demo(store=tmp_path / "store", as_json=True)
