"""``headrace propose --verify live``: against a calendar on a real server, that somebody else changes meanwhile."""

from pathlib import Path

import pytest

from headrace.cli import exits
from headrace.demo.caldav_server import CaldavServer
from tests.integration.calendar_desk import Desk, ics
from tests.integration.cli_desk import Cli, basis_of, cli, mail, own_environment, propose
from tests.integration.processes import Following, Ran, headrace
from tests.integration.test_cli_sources import event_of

__all__ = ("cli", "own_environment")

pytestmark = pytest.mark.embedded("tests/integration/test_verify_live.py has what differs with a log in Kafka")


def test_what_somebody_has_just_changed_is_found_first(caldav_server: CaldavServer, tmp_path: Path) -> None:
    desk, store, password = Desk(caldav_server), tmp_path / "store", tmp_path / "password"
    password.write_text(caldav_server.password, encoding="utf-8")
    desk.put(ics("SUMMARY:First"))
    said = {"url": caldav_server.url, "username": caldav_server.username, "calendar": desk.calendar}
    settings = [word for name, value in said.items() for word in ("--set", f"{name}={value}")]
    with Following("dev", "--store", store, "--port", "0", "--json") as dev:
        dev.line()
        with Following("watch", "--store", store, "--account", "ann", "--json") as watch:
            assert watch.err.readline().startswith("headrace: watching ann")
            words = ("source", "add", "caldav", "--account", "ann", *settings, "--password-file", password)
            assert headrace(*words, "--store", store).code == exits.OK
            assert event_of(watch) == "calendar.created"
        (shown,) = headrace("entity", "ls", "--kind", "calendar.event", "--store", store, "--json").json
        subject = f"calendar.event/{shown['id']}"
        basis = headrace("entity", "show", subject, "--store", store, "--json").json["basis"]

        def cancel(proposal: str, *more: str) -> Ran:
            asked = ("--id", proposal, "--type", "calendar.cancel", "--subject", subject, "--account", "ann")
            return headrace("propose", *asked, "--basis", basis, *more, "--store", store, "--json")

        desk.put(ics("SUMMARY:First", "SEQUENCE:1", start="20260105T140000Z"))
        refused = cancel("p1", "--verify", "live")
        assert (refused.code, refused.json["verdict"]) == (exits.STALE, "superseded"), refused.err
        assert refused.json["finding"]["event"]["type"] == "calendar.updated"


def test_without_a_process_that_syncs_it_says_so_and_proposes_nothing(cli: Cli) -> None:
    mail(cli)
    basis = basis_of(cli, "mail.thread/t-1")
    refused = propose(cli, "p1", "mail.label", "mail.thread/t-1", basis, "--verify", "live")
    assert refused.code == exits.UNAVAILABLE
    assert "start `headrace dev`; nothing was proposed" in refused.err
    assert cli("proposal", "ls", "--json").json == []
    accepted = propose(cli, "p1", "mail.label", "mail.thread/t-1", basis, "--data", '{"added": ["x"]}')
    assert accepted.code == exits.OK, accepted.err
