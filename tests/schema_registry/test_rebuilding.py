"""A store in Confluent wire format, rebuilt with nothing but commands: its tables come out as they were."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import exits
from headrace.cli.main import run
from headrace.log.sqlite import SqliteLog
from headrace.schemas.registry import WIRE_MARKER

MAIL = '{"message": "<1@example.com>", "sender": "bob@example.com"}'


def test_a_rebuild_reads_wire_format(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("HEADRACE_STORE", str(store))
    monkeypatch.setenv("HEADRACE_SCHEMA_REGISTRY_URL", registry_url)

    def said(*line: str, code: int = exits.OK) -> Any:
        assert run([*line, "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out.splitlines()[0])

    said("send", "--account", "ann", "--subject", "mail.thread/t-1", "--type", "mail.received", "--data", MAIL)
    before = said("entity", "show", "mail.thread/t-1")
    with SqliteLog.open(store, writer=False) as log:
        ends = log.describe().ends
        written = [one.value for partition, end in enumerate(ends) for one in log.read(partition, 0, end)]
    assert all(value.startswith(WIRE_MARKER) for value in written)
    assert said("replay", "--rebuild")["records"] == len(written)
    assert said("entity", "show", "mail.thread/t-1") == before
    assert said("audit", "verify")["verified"]

    monkeypatch.delenv("HEADRACE_SCHEMA_REGISTRY_URL")
    assert run(["replay", "--rebuild"]) != exits.OK
    assert "HEADRACE_SCHEMA_REGISTRY_URL" in capsys.readouterr().err
    monkeypatch.setenv("HEADRACE_SCHEMA_REGISTRY_URL", registry_url)
    assert said("entity", "show", "mail.thread/t-1") == before, "what it could not read it did not replace"
