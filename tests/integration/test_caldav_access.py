"""How a calendar is found, and what is said when it cannot be."""

from pathlib import Path

import pytest

from headrace.demo.caldav_server import CaldavServer
from headrace.errors import BadInputError, UnavailableError
from headrace.producers.caldav import CaldavSource
from tests.integration.calendar_desk import Desk, ics
from tests.integration.calendar_model import Model, pseudonym

pytestmark = pytest.mark.embedded("opens no store")


@pytest.fixture
def desk(caldav_server: CaldavServer) -> Desk:
    return Desk(caldav_server)


def test_the_calendar_by_its_name_or_path(desk: Desk) -> None:
    desk.put(ics())
    server = desk.server
    path = desk.path
    name = path.rstrip("/").rsplit("/", 1)[-1].replace("%20", " ")
    found = [
        CaldavSource(server.url, server.username, server.password, calendar, pseudonym=pseudonym).changes(None, Model())
        for calendar in (desk.calendar, path, path.replace("%20", " ").rstrip("/"), name)
    ]
    assert all(changes.events == found[0].events for changes in found)


def test_refusals_say_what_to_mend(desk: Desk) -> None:
    server = desk.server

    def source(password: str = server.password, calendar: str = desk.calendar) -> CaldavSource:
        return CaldavSource(server.url, server.username, password, calendar, pseudonym=pseudonym)

    with pytest.raises(BadInputError, match=r"127\.0\.0\.1 refuses the user name or the password") as caught:
        source(password="secret-but-wrong").changes(None, Model())
    assert "secret" not in str(caught.value)
    with pytest.raises(BadInputError, match="no calendar at this address"):
        source(calendar=f"{server.url}{server.username}/nowhere/").changes(None, Model())
    with pytest.raises(BadInputError, match="no calendars of this name"):
        source(calendar="nowhere").changes(None, Model())
    with pytest.raises(BadInputError, match="does not let this user"):
        source(calendar=f"{server.url}somebody-else/private/").changes(None, Model())
    with pytest.raises(BadInputError, match="refuses the user name"):
        source(password="wrong", calendar="any name").changes("cursor", Model())


def test_a_server_that_is_down(tmp_path: Path) -> None:
    with CaldavServer(tmp_path) as server:
        desk = Desk(server)
        desk.put(ics())
        desk.sync()
        port = server.url
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1 cannot be reached"):
        desk.source.changes(desk.cursor, desk.model)
    with pytest.raises(UnavailableError, match="not running"):
        server.put_event(desk.calendar, ics())
    with server:
        moved = Desk.__new__(Desk)
        moved.server, moved.model, moved.cursor = server, Model(), None
        moved.calendar = desk.calendar.replace(port, server.url)
        moved.source = CaldavSource(server.url, server.username, server.password, moved.calendar, pseudonym=pseudonym)
        assert moved.told() == ["calendar.created"], "what it kept outlives the process"


def test_without_radicale_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", missing)
    with pytest.raises(UnavailableError, match=r"pip install 'headrace\[demo\]'"):
        CaldavServer(tmp_path / "none").start()
    assert not (tmp_path / "none").exists()


def test_a_server_that_cannot_come_up_says_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "collections").write_text("in the way", encoding="utf-8")
    with pytest.raises(UnavailableError, match=r"radicale\.log"):
        CaldavServer(tmp_path).start()
