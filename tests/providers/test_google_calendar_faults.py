"""What goes wrong at Google Calendar, and what is made of it."""

import logging
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.producers import google_calendar_series
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.ical import CalendarObject, parse_calendar_object
from headrace.producers.provider_http import GrantError, ProviderHttp, ThrottledError
from tests.doubles.desk import CrashError, Pages
from tests.doubles.google_calendar import OWN, READ, GoogleCalendarDouble, error
from tests.doubles.google_calendar_desk import ADDRESS, HOLIDAYS, TEAM, at, daily
from tests.doubles.http import Grant, Request, drops, replies, served
from tests.providers.google_calendar_parts import Office, connected, office


@pytest.fixture
def mine() -> Iterator[Office]:
    with office() as made:
        yield made


def test_a_lost_token_is_made_good_by_comparing(mine: Office) -> None:
    events = [mine.double.insert(**at(9, n)) for n in range(6)]
    series = mine.double.insert(**at(9), recurrence=daily(3))
    mine.sync()
    mine.double.edit(events[0], **at(15))
    mine.double.delete(events[1])
    mine.double.delete(events[2])
    mine.double.purge()
    mine.double.delete(mine.double.instance(series, 1))
    mine.double.insert(**at(20))
    mine.double.forget()
    asked = len(mine.faulty.asked)
    told = mine.sync()
    assert sorted(told) == [*["calendar.cancelled"] * 2, "calendar.created", *["calendar.updated"] * 2]
    assert len(mine.faulty.asked) - asked == 4, "410, the list, and the two that it lacks"
    mine.agree()
    assert mine.sync() == []
    assert mine.sync(full=True) == []


def test_after_a_lost_token_only_what_changed_is_worked_out(mine: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    series = [mine.double.insert(**at(9), recurrence=daily()) for _ in range(3)]
    mine.sync()
    read: list[str] = []

    def parse(text: str, zone: ZoneInfo) -> CalendarObject | None:
        read.append(text)
        return parse_calendar_object(text, zone)

    monkeypatch.setattr(google_calendar_series, "parse_calendar_object", parse)
    mine.double.edit(series[0], **at(10))
    mine.double.forget()
    assert mine.sync() == ["calendar.updated"]
    assert len(read) == 1
    assert mine.sync(full=True) == []
    assert len(read) == 4, "who asks for everything has everything worked out"


@pytest.mark.parametrize(
    "lost",
    [error(410, "fullSyncRequired"), error(410, "updatedMinTooLongAgo"), replies(410)(None), error(400, "invalid")],  # type: ignore[arg-type]
)
def test_what_a_lost_token_looks_like(mine: Office, lost: Any) -> None:
    mine.sync()
    mine.double.insert(**at(9))
    mine.faulty.plan(lambda _: lost)
    assert mine.desk.sync(mine.source).full
    mine.agree()


def test_gone_is_not_always_a_lost_token(mine: Office) -> None:
    """410 ``deleted``: of the calendar, a person must act; of an event, it is gone. Neither compares everything."""
    event = mine.double.insert(**at(9))
    mine.sync()
    mine.faulty.plan(lambda _: error(410, "deleted"))
    with pytest.raises(BadInputError, match="no such calendar"):
        mine.sync()
    mine.double.delete(event)
    mine.double.purge()
    mine.double.forget()
    mine.faulty.plan(lambda _: error(410, "deleted"), path=event.id)
    assert mine.sync() == ["calendar.cancelled"]


@pytest.mark.parametrize("cursor", ["", "x", "Europe/Berlin", " token", "Europe/Berlin x", "Europe/Berlin é"])
def test_a_cursor_that_is_none_compares_everything(mine: Office, cursor: str) -> None:
    mine.double.insert(**at(9))
    *_, last = mine.source.pages(cursor, mine.desk.feed)
    assert last.full


def test_what_a_list_lacks_and_is_there_is_not_gone(mine: Office) -> None:
    event, series = mine.double.insert(**at(9)), mine.double.insert(**at(9), recurrence=daily(3))
    mine.sync()
    listed = {"kind": "calendar#events", "timeZone": "Europe/Berlin", "items": [], "nextSyncToken": "t"}
    mine.faulty.plan(replies(200, listed), path="/events")
    assert mine.sync(full=True) == []
    mine.double.edit(event, **at(10))
    mine.double.instance(series, 1, **at(17, 1))
    mine.faulty.plan(replies(200, listed), path="/events")
    assert mine.sync(full=True) == ["calendar.updated"] * 2
    mine.agree()


def test_many_pages() -> None:
    with office(page=3) as mine:
        series = mine.double.insert(**at(9), recurrence=daily(30))
        for number in range(10):
            mine.double.instance(series, number, **at(17, number))
            mine.double.insert(**at(9, number))
        assert sorted(mine.sync()) == ["calendar.created"] * 11
        mine.agree()
        for event in list(mine.double.events[ADDRESS].values()):
            mine.double.edit(event, summary="New")
        mine.double.repeating = True
        assert mine.sync() == ["calendar.updated"] * 11
        assert mine.sync(full=True) == []
        mine.agree()


def test_a_sync_that_breaks_off_is_repeated_under_the_same_ids() -> None:
    with office(page=2) as mine:
        events = [mine.double.insert(**at(9, n)) for n in range(4)]
        series = mine.double.insert(**at(9), recurrence=daily(3))
        mine.sync()
        for event in events:
            mine.double.edit(event, **at(10))
        mine.double.delete(mine.double.instance(series, 1))
        mine.double.delete(events[0])
        for left in range(6):
            with pytest.raises(CrashError):
                mine.desk.sync(mine.source, crash_after=left)
        mine.desk.sync(mine.source)
        mine.agree()
        assert len([fact for fact in mine.desk.applied() if fact.type == "calendar.updated"]) == 4
        assert mine.sync() == []


def test_what_happens_while_pages_are_told_is_told_by_the_next_sync() -> None:
    with office(page=1) as mine:
        events = [mine.double.insert(**at(9, n)) for n in range(3)]
        left = iter(range(2))

        def act() -> None:
            match next(left, None):
                case 0:
                    mine.double.delete(events[0])
                case 1:
                    mine.double.edit(events[2], **at(11))
                case _:
                    pass

        mine.desk.sync(Pages(mine.source, act))
        mine.desk.sync(mine.source)
        mine.agree()
        assert mine.sync() == []


@pytest.mark.parametrize("full", [True, False])
def test_an_event_that_comes_twice_in_a_list_is_what_it_is_the_second_time(full: bool) -> None:
    with office(page=1) as mine:
        event, other = mine.double.insert(**at(9)), mine.double.insert(**at(9))
        mine.double.repeating = True
        mine.sync()
        mine.double.edit(event, **at(10))
        mine.double.edit(other, **at(10))
        left = iter(range(1))

        def act() -> None:
            for _ in left:
                mine.double.edit(event, **at(11))

        before = len(mine.desk.facts)
        mine.desk.sync(Pages(mine.source, act), full=full)
        told = [fact for fact in mine.desk.facts[before:] if fact.entity == mine.names.entity(event.id)]
        assert [fact.disposition for fact in told] == ["applied"] * 2
        mine.agree()


def test_an_event_that_comes_back_while_pages_are_turned_is_not_gone() -> None:
    with office(page=1) as mine:
        event, other = mine.double.insert(**at(9)), mine.double.insert(**at(9))
        mine.sync()
        mine.double.repeating = True
        mine.double.delete(event)
        mine.double.edit(other, **at(10))

        def turn(request: Request) -> None:
            if request.one("pageToken") is not None:
                mine.double.restore(event)

        mine.faulty.plan(turn, turn, path="/events")
        assert set(mine.sync()) == {"calendar.updated"}
        mine.agree()


def test_an_event_that_cannot_be_read_does_not_hold_up_the_others(
    mine: Office, caplog: pytest.LogCaptureFixture
) -> None:
    bad = mine.double.insert(**at(9), recurrence=["RRULE:FREQ=NEVER"])
    odd = mine.double.insert(**at(9), recurrence=daily(2))
    mine.double.edit(odd, start={"dateTime": "2026-11-23T09:00:00+01:00", "timeZone": "Mars/Olympus"})
    late = mine.double.insert(start={"date": "tomorrow"}, end={"date": "tomorrow"})
    mine.double.insert(**at(9))
    with caplog.at_level(logging.WARNING):
        assert mine.sync() == ["calendar.created"]
    assert mine.source.left_out == 3
    assert "@" not in caplog.text
    assert not any(one.id in caplog.text for one in (bad, odd, late))
    mine.double.edit(bad, recurrence=daily(2))
    assert mine.sync() == ["calendar.created"]


@pytest.mark.parametrize(
    ("status", "reason", "seconds"),
    [
        (403, "rateLimitExceeded", 1),
        (403, "userRateLimitExceeded", 1),
        (403, "quotaExceeded", 3600),
        (403, "dailyLimitExceeded", 3600),
        (429, "rateLimitExceeded", 1),
    ],
)
def test_limits_are_waited_for(mine: Office, status: int, reason: str, seconds: float) -> None:
    mine.faulty.plan(lambda _: error(status, reason))
    with pytest.raises(ThrottledError) as caught:
        mine.sync()
    assert caught.value.retry_after == seconds
    mine.double.insert(**at(9))
    assert mine.sync() == ["calendar.created"]


def test_google_may_say_how_long(mine: Office) -> None:
    body = {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}
    mine.faulty.plan(replies(403, body, {"retry-after": "17"}))
    with pytest.raises(ThrottledError) as caught:
        mine.sync()
    assert caught.value.retry_after == 17


@pytest.mark.parametrize("reason", ["domainPolicy", "accessNotConfigured", "notACalendarUser", "forbidden", ""])
def test_other_refusals_are_for_a_person(mine: Office, reason: str) -> None:
    mine.faulty.plan(lambda _: error(403, reason))
    with pytest.raises(BadInputError) as caught:
        mine.sync()
    assert not isinstance(caught.value, UnavailableError)
    assert isinstance(caught.value, GrantError) == (reason in {"forbidden", ""})


def test_scopes(mine: Office) -> None:
    for scope, readable in ((OWN, {ADDRESS}), (READ, {ADDRESS, TEAM, HOLIDAYS}), ("profile", set[str]())):
        with office(scope=scope) as one:
            for calendar in (ADDRESS, TEAM, HOLIDAYS):
                source = GoogleCalendar().source(connected(calendar), one.http, one.desk.pseudonym)
                if calendar in readable:
                    assert one.desk.sync(source, full=True).events == 0
                else:
                    with pytest.raises(GrantError, match="scopes"):
                        one.desk.sync(source, full=True)
    source = GoogleCalendar().source(connected("bob@example.com"), mine.http, mine.desk.pseudonym)
    with pytest.raises(BadInputError, match="share the calendar") as caught:
        mine.desk.sync(source)
    assert "bob" not in str(caught.value)


def test_tokens_age_and_grants_end(mine: Office) -> None:
    mine.double.insert(**at(9))
    mine.double.grant.expire()
    assert mine.sync() == ["calendar.created"]
    mine.double.grant.revoke()
    with pytest.raises(GrantError):
        mine.sync()


def test_a_page_that_google_no_longer_takes_is_asked_for_again_later() -> None:
    with office(page=1) as mine:
        for _ in range(3):
            mine.double.insert(**at(9))
        mine.faulty.plan(None, lambda _: error(400, "invalid"))
        with pytest.raises(UnavailableError, match="page"):
            mine.desk.sync(mine.source)
        mine.faulty.plan(None, drops)
        with pytest.raises(UnavailableError):
            mine.desk.sync(mine.source)
        mine.desk.sync(mine.source)
        mine.agree()


def test_a_page_that_leads_to_itself_ends(mine: Office) -> None:
    answer = {"nextPageToken": "p1", "timeZone": "Europe/Berlin"}
    mine.faulty.plan(*[replies(200, answer)] * 3)
    with pytest.raises(UnavailableError, match="same page"):
        mine.sync()


def test_the_same_over_a_socket() -> None:
    double = GoogleCalendarDouble(Grant([READ]))
    with office() as mine, served(double) as url, ProviderHttp(f"{url}/calendar/v3/", double.grant.tokens()) as http:
        source = GoogleCalendar().source(connected(), http, mine.desk.pseudonym)
        series = double.insert(**at(9), recurrence=daily(3))
        double.insert(event="imported/x?y", **at(10))
        assert mine.desk.told(source) == ["calendar.created"] * 2
        double.delete(double.instance(series, 1))
        double.grant.expire()
        assert mine.desk.told(source) == ["calendar.updated"]
        holidays = GoogleCalendar().source(connected(HOLIDAYS), http, mine.desk.pseudonym)
        assert mine.desk.sync(holidays, full=True).events == 0


def test_settings_that_cannot_be_used(mine: Office) -> None:
    for wrong in ("", "primary", "ann", " ann@example.com"):
        with pytest.raises(BadInputError, match="id of its calendar"):
            GoogleCalendar().source(connected(wrong), mine.http, mine.desk.pseudonym)
