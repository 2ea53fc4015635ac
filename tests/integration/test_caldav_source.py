"""The CalDAV source against a real server: what people do in their calendars, and what becomes of it."""

import logging
from collections.abc import Callable, Mapping

import pytest
from caldav.davclient import DAVClient
from caldav.response import DAVResponse

from headrace.demo.caldav_server import CaldavServer
from tests.integration.calendar_desk import Desk, ics
from tests.integration.calendar_model import pseudonym

pytestmark = pytest.mark.embedded("opens no store")


@pytest.fixture
def desk(caldav_server: CaldavServer) -> Desk:
    return Desk(caldav_server)


def test_an_event_from_its_making_to_its_end(desk: Desk) -> None:
    url = desk.put(ics("SUMMARY:First"))
    first = desk.sync()
    assert first.full
    [created] = first.events
    assert (created.type, created.kind, created.entity) == (
        "calendar.created",
        "calendar.event",
        pseudonym("one@example.com"),
    )
    assert created.body["uid"] == "one@example.com"
    assert created.body["calendar"] == desk.calendar
    assert created.content is not None
    assert created.content["title"] == "First"
    assert created.occurred_at == "2026-01-01T00:00:00.000Z"
    assert desk.told() == []

    desk.put(ics("SUMMARY:First", "SEQUENCE:1", start="20260105T140000Z"))
    [moved] = desk.sync().events
    assert moved.type == "calendar.updated"
    assert moved.body["occurrences"] == [{"start": 1767621600000, "end": 1767625200000}]
    assert moved.body["sequence"] == 1

    desk.put(ics("SUMMARY:Renamed", "SEQUENCE:1", start="20260105T140000Z"))
    [renamed] = desk.sync().events
    assert (renamed.type, renamed.body["occurrences"]) == ("calendar.updated", moved.body["occurrences"])

    desk.put(ics("SUMMARY:Renamed", "STATUS:CANCELLED", "SEQUENCE:2"))
    [cancelled] = desk.sync().events
    assert (cancelled.type, cancelled.body["removed"]) == ("calendar.cancelled", False)
    assert desk.told() == []

    desk.server.delete_event(url)
    last = desk.sync()
    assert not last.full
    assert [(event.type, dict(event.body)) for event in last.events] == [
        ("calendar.cancelled", {"removed": True, "etag": None})
    ]
    assert desk.told() == []


def test_a_series_of_which_one_instance_is_moved(desk: Desk) -> None:
    master = ics("RRULE:FREQ=DAILY;COUNT=3", start="20260105T090000Z")
    desk.put(master)
    desk.sync()
    override = "\r\n".join([
        "BEGIN:VEVENT", "UID:one@example.com", "DTSTAMP:20260101T000000Z", "RECURRENCE-ID:20260106T090000Z",
        "DTSTART:20260106T150000Z", "DURATION:PT1H", "END:VEVENT", "END:VCALENDAR",
    ])  # fmt: skip
    desk.put(master.replace("END:VCALENDAR", override))
    [event] = desk.sync().events
    assert event.type == "calendar.updated"
    starts = [one["start"] for one in event.body["occurrences"]]
    assert starts == [1767603600000, 1767711600000, 1767776400000]


def test_answers_are_told_apart_from_changes(desk: Desk) -> None:
    def invitation(ann: str, bob: str, *more: str) -> str:
        people = [f"ATTENDEE;PARTSTAT={ann}:mailto:ann@example.com", f"ATTENDEE;PARTSTAT={bob}:MAILTO:Bob@example.com"]
        return ics("ORGANIZER:mailto:boss@example.com", *people, *more)

    desk.put(invitation("NEEDS-ACTION", "NEEDS-ACTION"))
    desk.sync()
    desk.put(invitation("NEEDS-ACTION", "ACCEPTED"))
    [answered] = desk.sync().events
    assert answered.type == "calendar.responded"
    assert answered.body["responses"] == [{"who": "bob@example.com", "response": "accepted"}]
    assert answered.body["etag"] == desk.state()["etag"]
    assert answered.content is None

    desk.put(invitation("DECLINED", "TENTATIVE"))
    [both] = desk.sync().events
    assert [one["response"] for one in both.body["responses"]] == ["declined", "tentative"]

    desk.put(invitation("ACCEPTED", "TENTATIVE", "SEQUENCE:1"))
    assert desk.told() == ["calendar.updated"], "an answer and a change at once is a change"
    desk.put(ics("ORGANIZER:mailto:boss@example.com", "ATTENDEE:mailto:ann@example.com", "SEQUENCE:1"))
    assert desk.told() == ["calendar.updated"], "somebody is not asked any more"


def test_deleted_and_made_again_with_the_same_text(desk: Desk) -> None:
    desk.put(ics())
    [first] = desk.sync().events
    desk.server.delete_event(desk.put(ics()))
    assert desk.told() == ["calendar.cancelled"]
    desk.put(ics())
    [again] = desk.sync().events
    assert (again.type, again.body) == ("calendar.created", first.body), "Radicale even gives the same etag"
    assert again.id != first.id

    desk.server.delete_event(desk.put(ics()))
    desk.put(ics())
    assert desk.told() == [], "between two syncs, nothing that anybody could have seen"


def test_there_and_back_again_gives_two_events(desk: Desk) -> None:
    desk.put(ics())
    ids = [event.id for event in desk.sync().events]
    for start in ("20260105T100000Z", "20260105T090000Z", "20260105T100000Z"):
        desk.put(ics(start=start))
        ids += [event.id for event in desk.sync().events]
    assert len(ids) == len(set(ids)) == 4


def test_fetching_again_gives_the_same_ids(desk: Desk) -> None:
    desk.put(ics())
    desk.put(ics(uid="two@example.com"), "two.ics")
    once = desk.source.changes(None, desk.model)
    assert desk.source.changes(None, desk.model).events == once.events
    desk.sync()
    cursor = desk.cursor
    desk.server.delete_event(desk.put(ics()))
    desk.put(ics("SEQUENCE:1", uid="two@example.com"), "two.ics")
    once = desk.source.changes(cursor, desk.model)
    again = desk.source.changes(cursor, desk.model)
    full = desk.source.changes(None, desk.model)
    assert once.events == again.events == full.events
    assert len(once.events) == 2
    assert [event.body.get("resource") for event in once.events].count(None) == 1


Requests = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """What was asked of the server since the last call: method, and which report."""
    sent: list[tuple[str, str]] = []
    ask = DAVClient.request

    def listening(self: DAVClient, url: str, method: str, body: str, headers: Mapping[str, str]) -> DAVResponse:
        names = ("calendar-multiget", "sync-collection", "propfind")
        sent.append((method, next((name for name in names if name in body), "")))
        sent.extend(("", "href") for _ in range(body.count(":href>") // 2))
        return ask(self, url, method, body, headers)

    monkeypatch.setattr(DAVClient, "request", listening)

    def taken() -> list[tuple[str, str]]:
        result = list(sent)
        sent.clear()
        return result

    return taken


def test_only_what_changed_is_fetched(desk: Desk, requests: Requests) -> None:
    for number in range(120):
        desk.put(ics(uid=f"{number}@example.com"), f"{number}.ics")
    requests()
    assert len(desk.sync().events) == 120
    asked = requests()
    assert asked.count(("REPORT", "calendar-multiget")) == 3, "in batches"
    assert asked.count(("", "href")) == 120

    desk.put(ics("SEQUENCE:1", uid="7@example.com"), "7.ics")
    requests()
    assert desk.told() == ["calendar.updated"]
    assert requests() == [("REPORT", "sync-collection"), ("REPORT", "calendar-multiget"), ("", "href")]
    assert desk.told() == []
    assert requests() == [("REPORT", "sync-collection")]

    desk.server.forget_sync_tokens(desk.calendar)
    desk.put(ics("SEQUENCE:2", uid="7@example.com"), "7.ics")
    requests()
    assert desk.sync().full
    assert requests() == [
        ("REPORT", "sync-collection"),
        ("REPORT", "sync-collection"),
        ("REPORT", "calendar-multiget"),
        ("", "href"),
    ]


@pytest.mark.parametrize("token", ["http://radicale.org/ns/sync/" + "0" * 64, "no token of yours", "forgotten"])
def test_a_stale_token_gives_real_differences_only(desk: Desk, token: str) -> None:
    for uid in ("stays", "changes", "goes", "gone before"):
        desk.put(ics(uid=uid), f"{uid}.ics")
    desk.sync()
    desk.server.delete_event(desk.put(ics(uid="gone before"), "gone before.ics"))
    desk.sync()
    desk.put(ics("SEQUENCE:1", uid="changes"), "changes.ics")
    desk.server.delete_event(desk.put(ics(uid="goes"), "goes.ics"))
    desk.put(ics(uid="new"), "new.ics")
    if token == "forgotten":
        desk.server.forget_sync_tokens(desk.calendar)
    else:
        desk.cursor = token
    changes = desk.sync()
    assert changes.full
    assert {(event.type, event.entity) for event in changes.events} == {
        ("calendar.updated", pseudonym("changes")),
        ("calendar.cancelled", pseudonym("goes")),
        ("calendar.created", pseudonym("new")),
    }
    assert [desk.told(), desk.sync().full] == [[], False]


def test_two_calendars_of_one_account(caldav_server: CaldavServer) -> None:
    work = Desk(caldav_server)
    home = Desk(caldav_server, work.model)
    work.put(ics(uid="w"), "w.ics")
    home.put(ics(uid="h"), "h.ics")
    assert [work.told(), home.told()] == [["calendar.created"]] * 2
    work.cursor = home.cursor = None
    assert [work.told(), home.told()] == [[], []], "a full comparison of one leaves the other alone"

    work.server.delete_event(work.put(ics(uid="w"), "w.ics"))
    home.put(ics(uid="w"), "moved here.ics")
    assert [home.told(), work.told()] == [["calendar.updated"], []], "moved, and seen first where it is now"
    assert home.state("w")["calendar"] == pseudonym(home.calendar)

    home.server.delete_event(home.put(ics(uid="w"), "moved here.ics"))
    work.put(ics(uid="w"), "w.ics")
    assert [home.told(), work.told()] == [["calendar.cancelled"], ["calendar.created"]], "seen first where it was"
    work.cursor = home.cursor = None
    assert [work.told(), home.told()] == [[], []]


def test_a_renamed_resource_is_the_same_event(desk: Desk) -> None:
    desk.server.delete_event(desk.put(ics(), "z.ics"))
    desk.put(ics(), "m.ics")
    desk.sync()
    for name in ("a.ics", "z.ics"):
        url = desk.calendar + ("m.ics" if name == "a.ics" else "a.ics")
        desk.server.delete_event(url)
        desk.put(ics(), name)
        assert desk.told() == ["calendar.updated"], "whichever of the two comes first"
    desk.server.forget_sync_tokens(desk.calendar)
    desk.server.delete_event(desk.calendar + "z.ics")
    desk.put(ics(), "b.ics")
    assert desk.told() == ["calendar.updated"]


def test_another_event_under_the_same_name(desk: Desk) -> None:
    desk.server.delete_event(desk.put(ics(uid="old")))
    desk.put(ics(uid="old"))
    desk.sync()
    desk.server.delete_event(desk.calendar + "one.ics")
    desk.put(ics(uid="new"))
    assert {(event.type, event.entity) for event in desk.sync().events} == {
        ("calendar.cancelled", pseudonym("old")),
        ("calendar.created", pseudonym("new")),
    }
    desk.server.delete_event(desk.calendar + "one.ics")
    desk.put(ics(uid="old", name="VTODO"))
    assert desk.told() == ["calendar.cancelled"], "what is there now is no event"


def test_a_copy_with_the_same_uid_in_one_calendar_is_left_out(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 4791 §4.1 forbids it, but a file copied into the storage makes it so."""
    desk.put(ics(), "m.ics")
    desk.sync()
    for name in ("a.ics", "z.ics"):
        (desk.folder / name).write_bytes((desk.folder / "m.ics").read_bytes())
        assert desk.told() == []
    assert "repeats the UID" in caplog.text
    desk.put(ics("SEQUENCE:1"), "m.ics")
    assert desk.told() == ["calendar.updated"]
    desk.cursor = None
    assert desk.told() == [], "the one that is known stays the event"
    desk.server.delete_event(desk.calendar + "m.ics")
    desk.cursor = None
    assert desk.told() == ["calendar.updated"], "and a copy takes its place when it goes"
    assert desk.state()["resource"] == pseudonym(desk.path + "a.ics")


def test_what_is_no_event_is_passed_over(desk: Desk) -> None:
    desk.put(ics(uid="todo", name="VTODO"), "todo.ics")
    desk.put(ics(), "event.ics")
    assert desk.told() == ["calendar.created"]
    desk.put(ics("SEQUENCE:1", uid="todo", name="VTODO"), "todo.ics")
    assert desk.told() == []


NAMES = ["with space.ics", "100%.ics", "a%40b.ics", "a@b.ics", "a%2Fb.ics", "a#b.ics", "a+b.ics", "ünï 日本.ics"]


def test_names_that_have_to_be_escaped(desk: Desk) -> None:
    for name in NAMES:
        desk.put(ics(uid=name), name)
    desk.put(ics(uid="u\u0308.ics"), "u\u0308.ics")
    assert len(desk.sync().events) == len(NAMES) + 1
    desk.cursor = None
    assert desk.told() == []
    for name in NAMES:
        desk.put(ics("SEQUENCE:1", uid=name), name)
    assert desk.told() == ["calendar.updated"] * len(NAMES)
    for name in NAMES:
        desk.server.delete_event(desk.put(ics(uid=name), name))
    assert desk.told() == ["calendar.cancelled"] * len(NAMES)


def test_what_cannot_be_read_stays_as_it_was_known(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    unreadable = ics("SUMMARY:Private", "SEQUENCE:-1")
    desk.put(ics(), "one.ics")
    desk.put(ics(uid="two"), "two.ics")
    desk.sync()
    before = dict(desk.state())
    desk.put(unreadable, "one.ics")
    desk.put(ics("SEQUENCE:1", uid="two"), "two.ics")
    with caplog.at_level(logging.WARNING, logger="headrace"):
        assert desk.told() == ["calendar.updated"]
        desk.cursor = None
        assert desk.told() == [], "nor is it taken for deleted"
    assert (desk.state(), desk.source.left_out) == (before, 2)
    [line, _] = [record.getMessage() for record in caplog.records if record.name.startswith("headrace")]
    assert pseudonym(desk.path + "one.ics") in line
    assert "SEQUENCE" in line
    assert not any(word in line for word in ("Private", "one.ics", "example.com"))
    desk.put(ics("SEQUENCE:2"), "one.ics")
    assert desk.told() == ["calendar.updated"]


def test_a_file_that_the_server_itself_cannot_read(desk: Desk) -> None:
    """Radicale passes over it, as if it were not there: so does everybody who asks Radicale."""
    desk.put(ics())
    desk.sync()
    (desk.folder / "broken.ics").write_text("BEGIN:VCALENDAR\nnothing", encoding="utf-8")
    assert desk.told() == []
