"""``headrace source`` with a calendar on a real server."""

from pathlib import Path

import pytest

from headrace.cli import connected, exits
from headrace.demo.caldav_server import CaldavServer
from tests.integration.calendar_desk import Desk, ics
from tests.integration.cli_desk import Cli, Ran, cli, mail, own_environment
from tests.integration.processes import Following, headrace

__all__ = ("cli", "own_environment")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Kafka somebody folds here and nobody syncs: it need not be waited for that a worker takes a sync up."""
    monkeypatch.setattr(connected, "PATIENCE_SECONDS", 0.2)


@pytest.fixture
def desk(caldav_server: CaldavServer) -> Desk:
    return Desk(caldav_server)


@pytest.fixture
def password(caldav_server: CaldavServer, tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(caldav_server.password + "\n", encoding="utf-8")
    return file


def settings(desk: Desk) -> list[str]:
    server = desk.server
    said = {"url": server.url, "username": server.username, "calendar": desk.calendar}
    return [word for name, value in said.items() for word in ("--set", f"{name}={value}")]


def connect(cli: Cli, desk: Desk, password: Path, *more: str) -> Ran:
    return cli("source", "add", "caldav", "--account", "ann", *settings(desk), "--password-file", password, *more)


def test_from_adding_to_removing(cli: Cli, desk: Desk, password: Path) -> None:
    mail(cli)
    desk.put(ics("SUMMARY:First"))
    added = connect(cli, desk, password, "--json")
    assert added.code == exits.OK, added.err
    name = added.json["source"]
    assert added.json == {"source": name, "provider": "caldav", "tenant": "local", "account": "ann", "new": True}
    assert desk.server.username not in name
    assert connect(cli, desk, password).out == f"{name} of ann is connected again\n"
    ailing = cli("source", "doctor")
    assert ailing.code == exits.ERROR
    assert "never synced" in ailing.out
    assert cli("source", "sync", name, "--account", "ann").out == f"{name} of ann: 1 events, compared in full\n"
    assert cli("source", "sync", name, "--account", "ann", "--json").json["events"] == 0
    [event] = cli("entity", "ls", "--kind", "calendar.event", "--json").json
    assert event["account"] == "ann"
    well = cli("source", "doctor", "--json")
    assert well.code == exits.OK, well.out
    assert [one["check"] for one in well.json] == ["settings", "grant", "watch", "freshness"]
    assert {one["fault"] for one in well.json} == {None}
    [listed] = [one for one in cli("source", "ls", "--json").json if one["source"] == name]
    assert listed["state"] == "idle"
    assert cli("source", "rm", name, "--account", "ann").code == exits.OK
    assert cli("source", "sync", name, "--account", "ann").code == exits.NOT_FOUND
    assert cli("source", "rm", name, "--account", "ann").code == exits.NOT_FOUND
    assert len(cli("entity", "ls", "--kind", "calendar.event", "--json").json) == 1


def test_a_wrong_password_is_told_by_the_doctor_and_by_a_sync(cli: Cli, desk: Desk, tmp_path: Path) -> None:
    mail(cli)
    wrong = tmp_path / "wrong"
    wrong.write_text("swordfish", encoding="utf-8")
    name = connect(cli, desk, wrong, "--json").json["source"]
    synced = cli("source", "sync", name, "--account", "ann")
    assert synced.code == exits.ERROR
    assert "password" in synced.err
    assert "swordfish" not in synced.err


CALDAV = ("caldav", "--account", "ann", "--set", "username=a", "--set", "calendar=c")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nope", "--account", "ann"], "there is no provider 'nope'; there are caldav, gmail"),
        (["gmail", "--account", "ann"], "put the section [google] with topic, audience and service_account into"),
        (["graph", "--account", "ann"], "put the section [microsoft] into headrace.toml"),
        (["caldav", "--account", "ann@example.com"], "is not an opaque id"),
        (["caldav", "--account", "ann"], "a CalDAV source needs url, username, calendar"),
        ([*CALDAV, "--set", "url=http://dav.example.com/"], "http:// shows the password to the network"),
        ([*CALDAV, "--set", "url=http://[::1"], "is an address that begins with https://"),
        ([*CALDAV, "--set", "url=dav.example.com"], "is an address that begins with https://"),
        (["caldav", "--account", "ann", "--set", "url"], "'url' is no setting: write NAME=VALUE"),
        (["caldav", "--account", "ann", "--set", "a=1", "--set", "a=2"], "each name once"),
        (
            ["caldav", "--account", "ann", "--set", "url=https://x/", "--set", "username=a", "--set", "calendar=c"],
            "give --password-file, or set HEADRACE_SOURCE_PASSWORD",
        ),
    ],
)
def test_what_is_missing_is_told(cli: Cli, words: list[str], told: str) -> None:
    mail(cli)
    refused = cli("source", "add", *words)
    assert refused.code == exits.ERROR
    assert told in refused.err
    assert cli("source", "doctor").err.startswith("headrace: no sources are connected")


def event_of(watch: Following) -> str:
    """The type of the next record that is no bookkeeping of a source."""
    while True:
        found: str = watch.line()["type"]
        if not found.startswith("source."):
            return found


def test_a_running_process_takes_a_source_up_and_lets_it_go(desk: Desk, password: Path, tmp_path: Path) -> None:
    store = tmp_path / "running"
    desk.put(ics("SUMMARY:First"))
    with Following("dev", "--store", store, "--port", "0", "--json") as dev:
        dev.line()
        with Following("watch", "--store", store, "--account", "ann", "--json") as watch:
            assert watch.err.readline().startswith("headrace: watching ann")
            words = ("--account", "ann", *settings(desk), "--password-file", password, "--store", store)
            added = headrace("source", "add", "caldav", *words, "--json")
            assert added.code == exits.OK, added.err
            name = added.json["source"]
            assert event_of(watch) == "calendar.created"
            desk.put(ics("SUMMARY:First", "SEQUENCE:1", start="20260105T140000Z"))
            asked = headrace("source", "sync", name, "--account", "ann", "--store", store)
            assert asked.out == f"{name} of ann: the process that syncs it was asked\n"
            assert event_of(watch) == "calendar.updated"
            assert headrace("source", "rm", name, "--account", "ann", "--store", store).code == exits.OK
