"""Whatever Graph answers: events, or an error that says what to do."""

from contextlib import suppress
from datetime import UTC
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import HeadraceError, UnavailableError
from headrace.producers.event import Source
from headrace.producers.graph_api import GraphApi, SyncStateLostError
from headrace.producers.graph_calendar import GraphCalendarSource, Window
from headrace.producers.graph_folders import Cursor, Folder, Folders
from headrace.producers.graph_mail import GraphMailSource
from headrace.producers.graph_thread import Mailbox
from headrace.producers.provider_http import ProviderHttp
from tests.doubles.desk import Desk, desk
from tests.doubles.graph import BASE
from tests.doubles.graph_people import ADDRESS, START
from tests.doubles.http import Grant, Reply, Request, transport

NAMES: Final = (
    "id", "value", "@odata.nextLink", "@odata.deltaLink", "@removed", "parentFolderId", "isHidden", "conversationId",
    "isRead", "categories", "flag", "from", "emailAddress", "address", "toRecipients", "receivedDateTime", "start",
    "dateTime", "timeZone", "type", "seriesMasterId", "iCalUId", "recurrence", "range", "attendees", "error", "code",
    "singleValueExtendedProperties", "body", "internetMessageHeaders", "conversationIndex", "internetMessageId",
)  # fmt: skip
LINKS: Final = tuple(
    f"{BASE}{path}?$deltatoken=1"
    for path in ("me/mailFolders/delta", "me/mailFolders/F/messages/delta", "me/calendarView/delta")
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["F", "1", "UTC", "2026-11-18T11:06:41Z", "seriesMaster", "exception", ADDRESS, "\ud800", *LINKS])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=14,
)
times = st.fixed_dictionaries(
    {
        "timeZone": st.sampled_from(["UTC", "UTC", "Mars"]),
        "dateTime": st.sampled_from(["2026-12-01T10:00:00.0000000", "x"]),
    }
)
things = st.fixed_dictionaries(
    {"id": st.sampled_from(["1", "2", "F"])},
    optional={
        "conversationId": st.sampled_from(["c1", "c/2=", "c 3"]) | values,
        "parentFolderId": st.just("F") | values,
        "internetMessageId": values,
        "conversationIndex": values,
        "isRead": st.booleans() | values,
        "categories": values,
        "from": st.fixed_dictionaries({"emailAddress": st.fixed_dictionaries({"address": st.just(ADDRESS)})}) | values,
        "receivedDateTime": st.just("0001-01-01T00:00:00Z") | st.just("9999-12-31T23:59:59.9999999Z") | values,
        "type": st.sampled_from(["singleInstance", "occurrence", "seriesMaster"]) | values,
        "seriesMasterId": st.just("2") | values,
        "iCalUId": st.just("u") | values,
        "start": times | values,
        "end": times | values,
        "recurrence": values,
        "attendees": values,
        "lastModifiedDateTime": st.just("0001-01-01T00:00:00Z") | values,
    },
)
near = st.one_of(
    values,
    st.fixed_dictionaries(
        {"value": st.lists(things, max_size=3)}, optional={"@odata.deltaLink": st.sampled_from(LINKS)}
    ),
    st.fixed_dictionaries(
        {"value": st.lists(things, max_size=3), "@odata.deltaLink": st.sampled_from(LINKS)},
    ),
    things,
    st.just({"id": "F", "mail": ADDRESS, "userPrincipalName": ADDRESS}),
)


class Whatever:
    def __init__(self, data: st.DataObject) -> None:
        self._data, self._left = data, 14

    def answer(self, request: Request) -> Reply:
        self._left -= 1
        if self._left < 0:
            return Reply(500)
        if request.path.endswith("/me"):
            return Reply.json(200, {"mail": ADDRESS})
        status = self._data.draw(st.sampled_from([200, 200, 200, 200, 404, 410, 400]))
        return Reply.json(status, self._data.draw(near))


def sources(at: Desk, http: ProviderHttp) -> dict[str, tuple[Source, str]]:
    """Each source, with a cursor of its own."""
    api = GraphApi(http)
    folders = Folders([Folder("F", "root", hidden=False)], {"I": "inbox"})
    calendar = GraphCalendarSource(api, ADDRESS, at.pseudonym, calendar=None, zone=UTC, clock=lambda: START / 1000)
    return {
        "headers": (
            GraphMailSource(api, Mailbox(ADDRESS, at.pseudonym)),
            Cursor(folders, LINKS[0], {"F": LINKS[1]}, 0).write(),
        ),
        "text": (GraphMailSource(api, Mailbox(ADDRESS, at.pseudonym), texts=True), ""),
        "calendar": (calendar, Window("cal", START, START + 400 * 86_400_000, LINKS[2]).write()),
    }


@given(data=st.data(), known=st.booleans(), which=st.sampled_from(["headers", "text", "calendar"]))
@settings(max_examples=500, deadline=None)
def test_no_answer_is_a_crash(data: st.DataObject, known: bool, which: str) -> None:
    with (
        desk("mail.thread", "calendar.event") as at,
        ProviderHttp(BASE, Grant().tokens(), transport=transport(Whatever(data))) as http,
    ):
        source, cursor = sources(at, http)[which]
        at.feed.begin(full=False)
        with suppress(HeadraceError):
            for page in source.pages(cursor if known else None, at.feed):
                if page.events:
                    at.feed.found("s-1", page.events)


@given(cursor=st.text(max_size=80) | st.builds("m1:{}".format, st.text()) | st.builds("c1:{}".format, st.text()))
def test_any_cursor(cursor: str) -> None:
    assert Cursor.read(cursor) is None
    assert Window.read(cursor) is None


def test_cursors_are_read_as_they_were_written() -> None:
    folders = Folders([Folder("F", None, hidden=True), Folder("I", "root", hidden=False)], {"I": "inbox"})
    before = Cursor(folders, LINKS[0], {"I": LINKS[1]}, 7)
    after = Cursor.read(before.write())
    assert after is not None
    assert after.folders.by_id == folders.by_id
    assert after.folders.words == folders.words
    assert after._replace(folders=folders) == before
    window = Window("cal", 1, 2, LINKS[2])
    assert Window.read(window.write()) == window


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({"value": [{"id": "1"}]}, "deltaLink"),
        ({"@odata.deltaLink": LINKS[0]}, "value"),
        ({"value": [{}], "@odata.deltaLink": LINKS[0]}, "id"),
        ({"value": [7], "@odata.deltaLink": LINKS[0]}, "object"),
        ({"value": [], "@odata.deltaLink": 7}, "deltaLink"),
        ({"value": [], "@odata.nextLink": "/relative"}, "nextLink"),
    ],
)
def test_the_field_that_is_missing_is_named(answer: dict[str, Any], field: str) -> None:
    class Lacking:
        def answer(self, request: Request) -> Reply:
            said = {"mail": ADDRESS} if request.path.endswith("/me") else answer
            return Reply.json(200, said)

    with desk("mail.thread") as at, ProviderHttp(BASE, Grant().tokens(), transport=transport(Lacking())) as http:
        source = GraphMailSource(GraphApi(http), Mailbox(ADDRESS, at.pseudonym))
        with pytest.raises(UnavailableError, match=field):
            list(source.pages(None, at.feed))


def test_folders_that_lie_in_each_other() -> None:
    folders = Folders([Folder("a", "b", hidden=False), Folder("b", "a", hidden=False)], {})
    with pytest.raises(UnavailableError, match="in each other"):
        folders.labels("a")


def test_what_is_lost_never_leaves_a_source() -> None:
    assert not issubclass(SyncStateLostError, HeadraceError)
