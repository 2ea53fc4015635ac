"""A store moved to Kafka and PostgreSQL and home again with nothing but commands, as somebody would by hand: what was
answered before is answered after."""

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.cli import exits
from headrace.cli.main import run
from headrace.settings import load_settings
from headrace.store import Store
from tests.kafka.topics import Cluster

PATIENCE_SECONDS = 60.0
MAIL = '{"message": "<1@example.com>", "sender": "bob@example.com"}'
ON_THREAD = ("--account", "ann", "--subject", "mail.thread/t-1")
REPLY = ("propose", *ON_THREAD, "--type", "mail.reply")


class Terminal:
    """Commands and what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *line: str, code: int = exits.OK) -> str:
        """What it printed on stdout; on stderr where it is to fail."""
        ended = run(line)
        printed = self._capsys.readouterr()
        assert ended == code, printed.err
        return printed.out if code == exits.OK else printed.out + printed.err

    def json(self, *line: str, code: int = exits.OK) -> Any:
        """The document that it printed."""
        return json.loads(self.run(*line, "--json", code=code).splitlines()[0])


@pytest.fixture
def terminal(
    postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Terminal]:
    """On a store in files."""
    schema = f"c_{secrets.token_hex(6)}"
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HEADRACE_DB_SCHEMA", schema)
    for name in ("HEADRACE_LOG_URL", "HEADRACE_DB_URL", "HEADRACE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    yield Terminal(capsys)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def answers(terminal: Terminal) -> dict[str, Any]:
    """What anybody may have written down: tokens, positions, verdicts, times."""
    return {
        "entity": terminal.json("entity", "show", "mail.thread/t-1"),
        "proposals": [terminal.json("proposal", "show", name) for name in ("draft-1", "draft-2")],
        "why": terminal.json("audit", "explain", "draft-2"),
        "records": terminal.json("log", "ls", "--account", "ann"),
    }


def test_a_store_grows_up_and_comes_home(
    terminal: Terminal, cluster: Cluster, postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = ("send", *ON_THREAD, "--type", "mail.received", "--data", MAIL)
    old, home, url = tmp_path / "store", tmp_path / "home", cluster.url()
    terminal.run(*send)
    basis = terminal.json("entity", "show", "mail.thread/t-1")["basis"]
    first = terminal.json(*REPLY, "--basis", basis, "--id", "draft-1")
    assert first["verdict"] == "accepted"
    terminal.run(*REPLY, "--basis", basis, "--id", "draft-2", code=exits.STALE)
    before = answers(terminal)
    told = terminal.json("log", "copy", "--from", f"sqlite:{old}", "--to", url)
    assert told["moved"]
    assert "this log is closed; it goes on at kafka://" in terminal.run(*send, code=exits.UNAVAILABLE)
    assert answers(terminal) == before, "it can still be read"
    assert f"this log is closed and takes nothing any more; it goes on at {url.partition('?')[0]}" in said_by_dev(old)

    monkeypatch.setenv("HEADRACE_LOG_URL", url)
    monkeypatch.setenv("HEADRACE_DB_URL", postgres_dsn)
    terminal.run("migrate")
    with folding(old):
        there = on_kafka(terminal, before, told, basis)

    assert not terminal.json("log", "copy", "--from", url, "--to", f"sqlite:{home}")["moved"]
    monkeypatch.delenv("HEADRACE_LOG_URL")
    monkeypatch.delenv("HEADRACE_DB_URL")
    monkeypatch.setenv("HEADRACE_STORE", str(home))
    shutil.copytree(old / "keys", home / "keys")
    terminal.run("replay", "--rebuild")
    assert answers(terminal) == there
    assert terminal.json("audit", "verify")["verified"]
    assert "this log is closed; it goes on at kafka://" in terminal.run(*send, code=exits.UNAVAILABLE)


def said_by_dev(directory: Path) -> str:
    """What ``headrace dev`` says of a store by the time it answers, on stderr."""
    command = [sys.executable, "-m", "headrace", "dev", "--store", str(directory), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answers_at = json.loads(process.stdout.readline())
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert answers_at["url"].startswith("http://127.0.0.1:")
    return said


@contextmanager
def folding(directory: Path) -> Generator[None]:
    """What a worker does; everything is folded that was there before."""
    with Store(directory, writer=True, places=load_settings(directory).places) as store:
        for partition, end in enumerate(store.log.describe().ends):
            assert store.applied.wait(partition, end - 1, PATIENCE_SECONDS)
        yield


def on_kafka(terminal: Terminal, before: dict[str, Any], told: dict[str, Any], basis: str) -> dict[str, Any]:
    """Everything is what it was, and goes on; what is answered at the end."""
    assert answers(terminal) == before
    again = terminal.json(*REPLY, "--basis", basis, "--id", "draft-1")
    assert again["verdict"] == "accepted"
    assert again["duplicate"]
    terminal.run(*REPLY, "--basis", basis, "--id", "draft-3", code=exits.STALE)
    now = before["entity"]["basis"]
    assert terminal.json(*REPLY[:-1], "mail.archive", "--basis", now, "--id", "draft-4")["verdict"] == "accepted"
    assert terminal.json("audit", "verify")["verified"]
    assert terminal.json("replay", "--rebuild")["records"] == told["compared"] + 64 + 3
    return answers(terminal)
