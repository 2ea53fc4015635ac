"""Putting another policy, or a newly installed entity kind, in force on a log that is already there."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace import store as stores
from headrace.cli import exits
from headrace.cli.main import run
from headrace.errors import BadInputError
from headrace.kinds import installed_kinds
from headrace.producers.event import NewEvent
from headrace.schemas.refs import ActorRef, EntityRef, Token
from headrace.store import Store
from tests.integration.stores import open_store, others_fold, variables

TENANT, ACCOUNT, THREAD = "local", "ann", "t-1"
NOW = "2026-11-21T17:15:00.000Z"


@pytest.fixture(autouse=True)
def _store_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands find the test's store."""
    for name, value in variables(tmp_path / "store").items():
        monkeypatch.setenv(name, value)


def tell(store: Store, event: NewEvent) -> None:
    record = store.intake.event(TENANT, ACCOUNT, event, source="test", actor=ActorRef("user", "ann"), observed_at=NOW)
    (position,) = store.log.append([record])
    assert store.applied.wait(position.partition, position.offset, 30)


def received(store: Store) -> None:
    tell(store, NewEvent("mail.received", "mail.thread", THREAD, "m-1", {"message": "m1", "sender": "bob"}))


def head(store: Store) -> Token:
    with store.tables.snapshot() as reader:
        (row,) = reader.rows("SELECT partition, head_offset, head_check FROM threads", {})
    log_id = store.log.describe().log_id
    assert log_id is not None
    return Token(log_id, row["partition"], row["head_offset"], row["head_check"])


def verdict(store: Store, proposal: str, basis: Token) -> str:
    record = store.intake.proposal(
        EntityRef(TENANT, ACCOUNT, "mail.thread", THREAD),
        proposal,
        "mail.label",
        actor=ActorRef("agent", "bot"),
        source="test",
        reads=[{"what": "entity", "kind": "mail.thread", "id": THREAD, "basis": basis}],
        data={"added": [proposal]},
        content=None,
        expires_at=None,
        said_concerns=(),
        observed_at=NOW,
    )
    (position,) = store.log.append([record])
    assert store.applied.wait(position.partition, position.offset, 30)
    with store.tables.snapshot() as reader:
        (row,) = reader.rows("SELECT verdict FROM proposals WHERE id = :id", {"id": proposal})
    found: str = row["verdict"]
    return found


def shown(capsys: pytest.CaptureFixture[str], directory: Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["policy", "show", "--json", "--store", str(directory)]) == exits.OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_policy_counts_from_where_it_was_put_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "store"
    with open_store(directory, writer=True) as store:
        received(store)
        basis = head(store)
        tell(store, NewEvent("mail.labelled", "mail.thread", THREAD, "l-1", {"added": ["work"]}))
        assert verdict(store, "before", basis) == "superseded"
    policy = shown(capsys, directory)
    policy["policy"]["name"] = "labels commute"
    policy["policy"]["rules"].insert(
        0, {"proposal": "mail.label", "event": "mail.labelled", "actor": "*", "effect": "ignore", "concerns": False}
    )
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy), encoding="utf-8")

    with others_fold(directory):
        assert run(["policy", "activate", "--file", str(file), "--store", str(directory)]) == exits.OK

    assert shown(capsys, directory) == policy
    with open_store(directory, writer=True) as store:
        assert verdict(store, "after", basis) == "accepted"
        with store.tables.snapshot() as reader:
            (row,) = reader.rows("SELECT verdict FROM proposals WHERE id = 'before'", {})
        assert row["verdict"] == "superseded"
    assert run(["audit", "verify", "--store", str(directory)]) == exits.OK


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"policy": {"name": "x", "rules": [{"effect": "perhaps"}]}}'])
def test_what_is_no_policy_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    directory = tmp_path / "store"
    with open_store(directory, writer=True) as store:
        assert store.applied.wait(0, 0, 30)
    before = shown(capsys, directory)
    file = tmp_path / "policy.json"
    file.write_text(text, encoding="utf-8")
    assert run(["policy", "activate", "--file", str(file), "--store", str(directory)]) == exits.ERROR
    assert "policy show --json" in capsys.readouterr().err
    assert shown(capsys, directory) == before


def test_a_kind_installed_later_is_refused_until_it_is_put_in_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "store"
    with monkeypatch.context() as earlier:
        earlier.setattr(stores, "installed_kinds", lambda: {"calendar.event": installed_kinds()["calendar.event"]})
        with open_store(directory, writer=True) as store:
            assert store.applied.wait(0, 0, 30)
    with open_store(directory, writer=True) as store, pytest.raises(BadInputError, match="headrace policy activate"):
        received(store)
    assert shown(capsys, directory)["kinds"] == ["calendar.event"]

    with others_fold(directory):
        assert run(["policy", "activate", "--store", str(directory)]) == exits.OK

    assert shown(capsys, directory)["kinds"] == ["calendar.event", "mail.thread"]
    with open_store(directory, writer=True) as store:
        received(store)
        assert head(store).offset > 0


def test_an_event_type_of_another_kind_is_refused(tmp_path: Path) -> None:
    stray = NewEvent("mail.received", "calendar.event", "c-1", "m-1", {"message": "m1", "sender": "bob"})
    with open_store(tmp_path / "store", writer=True) as store:
        ends = store.log.describe().ends
        with pytest.raises(BadInputError, match=r"mail\.received says nothing about a calendar\.event"):
            tell(store, stray)
        assert store.log.describe().ends == ends


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert run(["policy", "activate", "--store", str(tmp_path / "none")]) == exits.NOT_FOUND
    assert not (tmp_path / "none").exists()
