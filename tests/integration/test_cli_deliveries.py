"""``headrace send --fixture``, ``listen`` and ``log redeliver``: deliveries played, watched and run again."""

import signal
from pathlib import Path
from typing import Final

import pytest

from headrace.cli import exits
from headrace.cli.fixtures import FIXTURES
from headrace.producers import oidc
from headrace.producers.connections import key_of
from headrace.producers.provider import Connected, Watch
from headrace.settings import load_settings
from tests.integration.cli_desk import Cli, cli, mail, own_environment
from tests.integration.processes import Following, headrace
from tests.integration.stores import open_store

__all__ = ("cli", "own_environment")

HOOKS: Final = """
[hooks.nylas]
preset = "nylas"
secret_files = ["keys/hook"]
[hooks.mail]
preset = "emailengine"
secret_files = ["keys/hook"]
[google]
client_id = "x"
client_secret_file = "keys/hook"
topic = "projects/p/topics/g"
audience = "https://x"
service_account = "a@b"
[microsoft]
client_id = "x"
client_secret_file = "keys/hook"
"""
IMAP: Final = ("--set", "host=127.0.0.1", "--set", "port=1", "--set", "security=none", "--set", "username=ann")
UNPROVEN: Final = {"gmail", "google_calendar", "graph", "graph_missed", "nylas", "emailengine"}
"""Refused where nothing is connected."""


def set_up(store: Path) -> None:
    (store / "keys").mkdir(parents=True, exist_ok=True)
    (store / "keys" / "hook").write_text("k" * 40)
    (store / "headrace.toml").write_text(HOOKS)


def connect(cli: Cli, store: Path, hook: str, *more: str) -> str:
    password = store / "password"
    password.write_text("x")
    words = ("source", "add", "imap", "--account", "ann", *IMAP, "--set", f"hook={hook}", "--password-file", password)
    added = cli(*words, *more, "--json")
    assert added.code == exits.OK, added.err
    name: str = added.json["source"]
    return name


@pytest.fixture
def store(cli: Cli, tmp_path: Path) -> Path:
    mail(cli)
    set_up(tmp_path / "store")
    return tmp_path / "store"


def test_the_list_has_them_all(cli: Cli) -> None:
    listed = cli("send", "--list", "--json").json
    assert [one["fixture"] for one in listed] == list(FIXTURES)
    assert all(one["fixture"] in cli("send", "--list").out for one in listed)


@pytest.mark.parametrize("name", [name for name in FIXTURES if name != "gmail"])
def test_a_fixture_does_what_it_says(cli: Cli, store: Path, name: str) -> None:
    played = cli("send", "--fixture", name, "--json")
    assert played.code == exits.OK, played.out
    assert played.json["taken"] == (name not in UNPROVEN)
    assert (played.json["note"] is not None) == (name in UNPROVEN or name == "standard")
    told = cli("send", "--fixture", name)
    assert (f"refused ({played.json['reason']}): " if name in UNPROVEN else ", taken") in told.out


def test_gmails_is_refused_and_the_command_says_why(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_answers(_: oidc.GoogleKeys) -> None:
        """Google is not asked here."""

    monkeypatch.setattr(oidc.GoogleKeys, "_fetch", nobody_answers)
    played = cli("send", "--fixture", "gmail")
    assert played.code == exits.OK
    assert "503, refused (keys_unavailable)" in played.out
    assert "only Google can sign it" in played.err


def test_what_is_connected_is_what_they_name(cli: Cli, store: Path) -> None:
    name = connect(cli, store, "nylas/g-1")
    assert connect(cli, store, "mail/ann@example.com") == name  # the hook is no part of where it is
    with open_store(store, writer=False) as opened:
        for provider in ("google_calendar", "graph"):
            source = Connected("local", "bob", f"{provider}/1", provider, {"address": "b@x", "calendar": "b@x"})
            opened.connections.add(source, {})
            watch = Watch("w-1", "watch-secret", 2**40, {"resource": "r-1"})
            opened.connections.put_watch(key_of(source), provider, watch)
    for fixture in ("google_calendar", "graph", "graph_missed", "emailengine"):
        played = cli("send", "--fixture", fixture, "--json")
        assert (played.json["taken"], played.json["note"], played.code) == (True, None, exits.OK), fixture
        assert "watch-secret" not in played.out
    assert not cli("send", "--fixture", "nylas", "--json").json["taken"]
    assert not cli("send", "--fixture", "graph", "--account", "nobody", "--json").json["taken"]
    notified = cli("log", "ls", "--type", "source.notified", "--json").json
    assert [one["account"] for one in notified] == ["bob", "bob", "ann"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fixture", "outlook"], "there is no fixture 'outlook'; there are gmail"),
        (["--fixture", "standard", "--endpoint", "x"], "there is no webhook endpoint 'x'"),
        (["--fixture", "nylas", "--endpoint", "mail"], "no hook of the preset nylas is set up here"),
    ],
)
def test_what_cannot_be_played(cli: Cli, store: Path, words: list[str], told: str) -> None:
    refused = cli("send", *words)
    assert refused.code == exits.ERROR
    assert told in refused.err


def test_events_do_not_go_with_a_fixture(cli: Cli, store: Path) -> None:
    assert cli("send", "--fixture", "nylas", "--type", "mail.received").code == exits.USAGE
    assert cli("send", "--list", "--data", "{}").code == exits.USAGE


def test_a_source_needs_a_hook_that_is_there(cli: Cli, store: Path) -> None:
    words = ("source", "add", "imap", "--account", "ann", *IMAP)
    assert "put the section [hooks.crm] into headrace.toml" in cli(*words, "--set", "hook=crm/1").err
    assert "a source's hook is NAME/ACCOUNT" in cli(*words, "--set", "hook=nylas").err


def test_the_doctor_looks_at_the_hook(cli: Cli, store: Path) -> None:
    connect(cli, store, "nylas/g-1")

    def found() -> dict[str, str | None]:
        [one] = [one for one in cli("source", "doctor", "--json").json if one["check"] == "hook"]
        return {"said": one["said"], "fault": one["fault"]}

    assert found() == {"said": "nylas", "fault": None}
    (store / "headrace.toml").unlink()
    assert "put [hooks.nylas] into headrace.toml" in str(found()["fault"])


def test_a_delivery_is_run_again(cli: Cli, store: Path) -> None:
    name = connect(cli, store, "nylas/g-1")
    assert cli("send", "--fixture", "nylas", "--json").json["taken"]
    [one] = cli("log", "ls", "--type", "source.notified", "--json").json
    dry = cli("log", "redeliver", one["position"], "--dry-run")
    assert dry.code == exits.OK, dry.err
    assert dry.out.endswith(f"a hint for {name} of ann would be given\n")
    again = cli("log", "redeliver", one["position"])
    assert again.out.endswith(f"{name} of ann waits for a sync already: no hint was added\n")
    said = cli("log", "redeliver", one["position"], "--json").json
    assert (said["to"], said["source"], said["kinds"], said["added"]) == ("nylas", name, ["changed"], False)
    [event] = cli("log", "ls", "--type", "mail.received", "--json").json
    refused = cli("log", "redeliver", event["position"])
    assert refused.code == exits.ERROR
    assert "the record is a mail.received, no delivery" in refused.err
    assert cli("log", "redeliver", "0:99999").code == exits.NOT_FOUND
    cli("source", "rm", name, "--account", "ann")
    gone = cli("log", "redeliver", one["position"])
    assert gone.code == exits.NOT_FOUND
    assert f"no source {name} of the account ann is connected" in gone.err


def test_listening_to_a_running_process(tmp_path: Path) -> None:
    store = tmp_path / "running"
    set_up(store)
    nobody = headrace("listen", "--store", store)
    assert nobody.code == exits.UNAVAILABLE
    assert "start `headrace dev`" in nobody.err
    with Following("dev", "--store", store, "--port", "0", "--json") as dev:
        dev.line()
        assert headrace("send", "--fixture", "nylas_challenge", "--store", store).code == exits.OK
        with Following("listen", "--json", "-n", "1", "--store", store) as listen:
            assert listen.err.readline().startswith("headrace: listening at http://127.0.0.1:")
            assert (listen.line()["method"], load_settings(store).port) == ("GET", 8416)
            assert headrace("send", "--fixture", "emailengine", "--store", store).code == exits.OK
            seen = listen.line()
            assert (seen["name"], seen["status"], seen["reason"]) == ("mail", 404, "unknown_account")
            assert headrace("send", "--fixture", "standard", "--store", store).code == exits.OK
            assert listen.line()["events"] == 1
            assert listen.ends(signal.SIGINT) == exits.INTERRUPTED
        with Following("listen", "-n", "0", "--store", store) as listen:
            listen.err.readline()
            headrace("send", "--fixture", "emailengine", "--store", store)
            assert "refused: unknown_account" in listen.out.readline()
            assert dev.ends(signal.SIGINT) == exits.OK
            assert listen.process.wait(30) == exits.UNAVAILABLE
