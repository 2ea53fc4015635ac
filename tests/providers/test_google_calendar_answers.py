"""Whatever Google answers: events, or an error that says what to do; and what the double refuses, as Google does."""

from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError, HeadraceError, UnavailableError
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.google_calendar_api import GoogleCalendarApi
from headrace.producers.google_calendar_series import zone_of
from headrace.producers.provider_http import ProviderHttp, StatusError
from tests.doubles.google_calendar import WRITE
from tests.doubles.google_calendar_desk import ADDRESS, at, daily
from tests.doubles.http import Grant, Reply, Request, transport
from tests.providers.google_calendar_parts import BASE, Office, connected, office

FIELDS: Final = [
    "id", "etag", "status", "recurringEventId", "originalStartTime", "start", "end", "date", "dateTime", "timeZone",
    "recurrence", "iCalUID", "updated", "sequence", "transparency", "organizer", "attendees", "email", "responseStatus",
    "summary", "items", "nextPageToken", "nextSyncToken", "extendedProperties", "private",
]  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8),
    st.sampled_from(["e1", "cancelled", "2026-11-23", "2026-11-23T09:00:00Z"]),
    st.sampled_from(["0001-01-01", "9999-12-31T23:59:59-12:00"]),
    st.sampled_from(["RRULE:FREQ=DAILY;COUNT=2", "EXDATE:x", "Europe/Berlin", "../etc", "America", "a@b"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=14,
)
whens = st.one_of(
    st.just({"date": "2026-11-23"}),
    st.just({"dateTime": "2026-11-23T09:00:00+01:00", "timeZone": "Europe/Berlin"}),
    st.fixed_dictionaries({}, optional={"date": scalars, "dateTime": scalars, "timeZone": scalars}),
)
near = st.fixed_dictionaries(
    {"id": st.sampled_from(["e1", "e2", "e1_20261123"]), "iCalUID": st.just("u")},
    optional={
        "start": whens, "end": whens, "originalStartTime": whens, "etag": scalars, "sequence": scalars,
        "status": st.sampled_from(["confirmed", "cancelled", "x"]), "recurringEventId": st.sampled_from(["e1", "e9"]),
        "recurrence": st.lists(st.one_of(scalars, st.just("RRULE:FREQ=WEEKLY")), max_size=2),
        "attendees": st.lists(values, max_size=2), "organizer": values, "updated": scalars, "summary": scalars,
        "extendedProperties": values,
    },
)  # fmt: skip
pages = st.fixed_dictionaries(
    {"timeZone": st.sampled_from(["Europe/Berlin", "Europe/Berlin", "Mars"]), "items": st.lists(near, max_size=3)},
    optional={"nextSyncToken": st.just("t"), "nextPageToken": st.just("p")},
)


class Whatever:
    def __init__(self, data: st.DataObject) -> None:
        self._data, self._left = data, 6

    def answer(self, request: Request) -> Reply:
        self._left -= 1
        if self._left < 0:
            return Reply(500)
        if request.path.endswith("/events"):
            return Reply.json(200, self._data.draw(st.one_of(pages, pages, values)))
        return Reply.json(self._data.draw(st.sampled_from([200, 404])), self._data.draw(st.one_of(near, values)))


@given(data=st.data(), cursor=st.sampled_from([None, "Europe/Berlin t"]))
@settings(max_examples=400, deadline=None)
def test_no_answer_is_a_crash(data: st.DataObject, cursor: str | None) -> None:
    with (
        office() as mine,
        ProviderHttp(BASE, Grant().tokens(), transport=transport(Whatever(data))) as http,
    ):
        source = GoogleCalendar().source(connected(), http, mine.desk.pseudonym)
        mine.desk.feed.begin(full=False)
        with suppress(HeadraceError):
            for page in source.pages(cursor, mine.desk.feed):
                if page.events:
                    mine.desk.feed.found("s-1", page.events)
        mine.desk.fold()


@pytest.mark.parametrize(
    "missing", ["id", "iCalUID", "start", "end", "originalStartTime", "timeZone", "nextSyncToken", "items"]
)
def test_the_field_that_is_missing_is_named(missing: str) -> None:
    item: dict[str, Any] = {"id": "e1", "iCalUID": "u", "recurringEventId": "e0", **at(9)}
    item["originalStartTime"] = item["start"]
    said: dict[str, Any] = {"timeZone": "Europe/Berlin", "nextSyncToken": "t", "items": [item]}
    if missing == "items":
        said["items"] = "none"
    else:
        (said if missing in said else item).pop(missing)

    class Lacking:
        def answer(self, request: Request) -> Reply:
            return Reply.json(200, said)

    with office() as mine, ProviderHttp(BASE, Grant().tokens(), transport=transport(Lacking())) as http:
        source = GoogleCalendar().source(connected(), http, mine.desk.pseudonym)
        with pytest.raises(UnavailableError, match=missing):
            list(source.pages(None, mine.desk.feed))


@given(
    name=st.one_of(st.text(max_size=20), st.sampled_from(["", "/etc", "..", "America", "Europe/Berlin\0", "\ud800"]))
)
@settings(max_examples=200, deadline=None)
def test_any_name_of_a_zone(name: str) -> None:
    with suppress(BadInputError):
        zone_of(name)


# The double: what it refuses.


def refused(mine: Office, method: str, path: str, **more: Any) -> tuple[int, str]:
    with pytest.raises(StatusError) as caught:
        mine.http.ask(method, path, **more)
    return caught.value.status, caught.value.body["error"]["errors"][0]["reason"]


EVENTS: Final = f"calendars/{ADDRESS}/events"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iCalUID", "u"), ("orderBy", "updated"), ("privateExtendedProperty", "a=b"), ("q", "x"),
        ("sharedExtendedProperty", "a=b"), ("timeMin", "2026-01-01T00:00:00Z"), ("timeMax", "2026-01-01T00:00:00Z"),
        ("updatedMin", "2026-01-01T00:00:00Z"), ("showDeleted", "false"), ("maxAttendees", "1"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_sync_token(name: str, value: str) -> None:
    with office() as mine:
        token = mine.http.ask("GET", EVENTS)["nextSyncToken"]
        assert mine.http.ask("GET", EVENTS, params={"syncToken": token})["items"] == []
        assert refused(mine, "GET", EVENTS, params={"syncToken": token, name: value})[0] == 400


def test_pages_are_of_one_query_and_tokens_of_one_calendar() -> None:
    with office(page=1) as mine:
        for _ in range(3):
            mine.double.insert(**at(9))
        said = mine.http.ask("GET", EVENTS, params={"maxResults": 2})
        assert "nextSyncToken" not in said
        page = said["nextPageToken"]
        assert refused(mine, "GET", EVENTS, params={"maxResults": 3, "pageToken": page}) == (400, "invalid")
        assert refused(mine, "GET", EVENTS, params={"maxResults": 2, "pageToken": "x"}) == (400, "invalid")
        assert refused(mine, "GET", EVENTS, params={"syncToken": page}) == (400, "invalid")
        assert refused(mine, "GET", EVENTS, params={"maxResults": 2_501}) == (400, "badRequest")
        assert refused(mine, "GET", EVENTS, params={"unknown": 1}) == (400, "badRequest")
        mine.double.page = 9
        token = mine.http.ask("GET", EVENTS)["nextSyncToken"]
        assert refused(mine, "GET", EVENTS.replace("ann", "bob")) == (404, "notFound")
        mine.double.forget()
        assert refused(mine, "GET", EVENTS, params={"syncToken": token}) == (410, "fullSyncRequired")


def test_writing_has_preconditions() -> None:
    with office(scope=WRITE) as mine:
        made = mine.http.ask("POST", EVENTS, body={"id": "abcde", **at(9)})
        assert refused(mine, "POST", EVENTS, body={"id": "abcde", **at(9)}) == (409, "duplicate")
        assert refused(mine, "POST", EVENTS, body={"id": "w-1", **at(9)}) == (400, "invalid")
        assert refused(mine, "POST", EVENTS, body={}) == (400, "required")
        stale = {"If-Match": made["etag"]}
        mine.http.ask("PATCH", f"{EVENTS}/abcde", body={"summary": "New"}, headers=stale)
        assert refused(mine, "PATCH", f"{EVENTS}/abcde", body={}, headers=stale) == (412, "conditionNotMet")
        assert refused(mine, "DELETE", f"{EVENTS}/abcde", headers=stale) == (412, "conditionNotMet")
        mine.http.ask("DELETE", f"{EVENTS}/abcde")
        assert refused(mine, "DELETE", f"{EVENTS}/abcde") == (410, "deleted")
        assert mine.http.ask("GET", f"{EVENTS}/abcde")["status"] == "cancelled"
        assert refused(mine, "GET", f"{EVENTS}/other") == (404, "notFound")
    with office() as mine, pytest.raises(BadInputError, match="403"):
        mine.http.ask("POST", EVENTS, body=at(9))


def test_channels_have_rules() -> None:
    with office() as mine:
        body = {"id": "c-1", "type": "web_hook", "address": "https://headrace.example/", "token": "t"}
        made = mine.http.ask("POST", f"{EVENTS}/watch", body=body)
        for changed in ({}, {"id": "x" * 65}, {"type": "email"}, {"token": "t" * 257}, {"address": "http://a"}):
            assert refused(mine, "POST", f"{EVENTS}/watch", body={**body, "id": "c-2", **changed} if changed else body)[
                0
            ] == 400  # fmt: skip
        stop = {"id": "c-1", "resourceId": "other"}
        assert refused(mine, "POST", "channels/stop", body=stop) == (404, "notFound")
        mine.http.ask("POST", "channels/stop", body=stop | {"resourceId": made["resourceId"]})
        assert refused(mine, "POST", f"{EVENTS}/watch", body=body) == (400, "channelIdNotUnique")


def test_the_double_lists_what_google_lists() -> None:
    with office() as mine:
        series = mine.double.insert(**at(9), recurrence=daily(3))
        instance = mine.double.instance(series, 1)
        mine.double.delete(instance)
        gone = mine.double.insert(**at(9))
        mine.double.delete(gone)
        listed = {one["id"] for one in mine.http.ask("GET", EVENTS)["items"]}
        assert listed == {series.id, instance.id}, "cancelled instances, and not what was deleted as a whole"
        everything = {one["id"] for one in mine.http.ask("GET", EVENTS, params={"showDeleted": "true"})["items"]}
        assert everything == {series.id, instance.id, gone.id}
        [page] = GoogleCalendarApi(mine.http, ADDRESS).events(None)
        bare = next(one for one in page.items if one.id == instance.id)
        assert bare.body.keys() == {"kind", "id", "status", "recurringEventId", "originalStartTime"}
