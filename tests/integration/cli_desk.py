"""A command line on the test's own store, and the few lines that every test of it begins with."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace.cli import exits
from headrace.cli.main import run
from tests.integration.stores import others_fold, variables


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of a developer's shell, and no default store of theirs."""
    for name in ("HEADRACE_STORE", "HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return iter([None])


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs a command line on the test's own store. The first event makes it."""
    own, made = tmp_path / "store", list[Path]()
    for name, value in variables(own).items():
        monkeypatch.setenv(name, value)

    with ExitStack() as others:

        def ran(*words: object, store: Path | None = own) -> Ran:
            if words[0] == "send" and not made:
                made.append(own)
                others.enter_context(others_fold(own))
            capsys.readouterr()
            code = run([*map(str, words), *(["--store", str(store)] if store is not None else [])])
            printed = capsys.readouterr()
            return Ran(code, printed.out, printed.err)

        yield ran


def mail(cli: Cli, type_: str = "mail.received", thread: str = "t-1", **data: object) -> str:
    """One mail event; its position."""
    said = {"message": f"<{type_}-{thread}@example.com>", "sender": "bob@example.com"} | data
    sent = cli(
        *("send", "--json", "--account", "ann", "--type", type_, "--subject", f"mail.thread/{thread}"),
        *("--data", json.dumps(said), "--content", json.dumps({"subject": "Lunch?\x1b[31m"})),
    )
    assert sent.code == exits.OK, sent.err
    assert sent.json["to"] == "in process"
    position: str = sent.json["positions"][0]
    return position


def propose(cli: Cli, proposal: str, type_: str, subject: str, basis: str, *more: object) -> Ran:
    asked = ("--id", proposal, "--type", type_, "--subject", subject, "--account", "ann", "--basis", basis)
    return cli("propose", "--json", *asked, *more)


def basis_of(cli: Cli, subject: str) -> str:
    shown = cli("entity", "show", subject, "--json")
    assert shown.code == exits.OK, shown.err
    basis: str = shown.json["basis"]
    return basis
