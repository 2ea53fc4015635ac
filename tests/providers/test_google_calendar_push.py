"""What comes to Google Calendar's endpoint, and the channels that it comes on."""

import hmac
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.provider import Delivery, Hint, Watch
from headrace.producers.provider_http import GrantError
from headrace.producers.refusal import NOTIFICATION_REFUSALS, REFUSALS, RefusedError
from tests.doubles.google_calendar import error
from tests.doubles.google_calendar_desk import ADDRESS, HOLIDAYS, TEAM, at
from tests.doubles.google_calendar_push import WEEK_MS, resource
from tests.doubles.http import drops, replies
from tests.providers.google_calendar_parts import ENDPOINT, Office, connected, office

WATCH: Final = Watch("c-1", "secret", 0, {"resource": "res1", "address": ENDPOINT, "renew_at": "0"})
SAID: Final = {
    "X-Goog-Channel-ID": "c-1",
    "X-Goog-Channel-Token": "secret",
    "X-Goog-Channel-Expiration": "Tue, 19 Nov 2013 01:13:52 GMT",
    "X-Goog-Resource-ID": "res1",
    "X-Goog-Resource-URI": "https://www.googleapis.com/calendar/v3/calendars/ann@example.com/events",
    "X-Goog-Resource-State": "exists",
    "X-Goog-Message-Number": "10",
    "Content-Type": "application/json; utf-8",
}
DAY_MS: Final = 24 * 3_600_000


def delivery(said: dict[str, str], body: bytes = b"", method: str = "POST") -> Delivery:
    headers = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in said.items())
    return Delivery(method, headers, (), body, 1_795_000_000.0)


def receive(said: dict[str, str], body: bytes = b"", method: str = "POST") -> tuple[Hint, ...] | str:
    """The hints, or why it was refused."""
    try:
        found = GoogleCalendar().receive(delivery(said, body, method), lambda name: WATCH if name == "c-1" else None)
    except RefusedError as refused:
        told = any(value in str(refused) for value in said.values() if len(value) > 4)
        return refused.reason if not told and 400 <= refused.refusal.status < 500 else f"{refused} tells too much"
    assert found.answer.status == 204
    return found.hints


def test_a_message_is_a_hint() -> None:
    assert receive(SAID) == (Hint("c-1", "c-1:10"),)
    assert receive(SAID | {"X-Goog-Resource-State": "not_exists"}) == (Hint("c-1", "c-1:10"),)
    assert receive(SAID | {"X-Goog-Resource-State": "whatever"}) == (Hint("c-1", "c-1:10"),)
    assert receive(SAID, b"whatever") == (Hint("c-1", "c-1:10"),)
    rest = {name: value for name, value in SAID.items() if name not in {"X-Goog-Channel-Expiration", "Content-Type"}}
    assert receive(rest) == (Hint("c-1", "c-1:10"),)


def test_the_first_message_says_nothing() -> None:
    first = SAID | {"X-Goog-Resource-State": "sync", "X-Goog-Message-Number": "1"}
    assert receive(first) == ()
    assert receive(first | {"X-Goog-Channel-ID": "c-2"}) == (), "it comes before the answer that names the channel"
    assert receive(first | {"X-Goog-Channel-Token": "forged"}) == "forged"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"X-Goog-Channel-Token": "Secret"}, "forged"),
        ({"X-Goog-Channel-Token": "secret "}, "malformed_headers"),
        ({"X-Goog-Channel-Token": "s"}, "forged"),
        ({"X-Goog-Channel-Token": "é"}, "malformed_headers"),
        ({"X-Goog-Channel-Token": None}, "missing_headers"),
        ({"X-Goog-Resource-ID": "res2"}, "forged"),
        ({"X-Goog-Resource-ID": None}, "missing_headers"),
        ({"X-Goog-Resource-State": None}, "missing_headers"),
        ({"X-Goog-Message-Number": None}, "missing_headers"),
        ({"X-Goog-Message-Number": "0"}, "malformed_headers"),
        ({"X-Goog-Message-Number": "-1"}, "malformed_headers"),
        ({"X-Goog-Message-Number": "1e3"}, "malformed_headers"),
        ({"X-Goog-Message-Number": "9" * 21}, "malformed_headers"),
        ({"X-Goog-Channel-ID": None}, "missing_headers"),
        ({"X-Goog-Channel-ID": "c-2"}, "unknown_watch"),
        ({"X-Goog-Channel-ID": "x" * 300}, "malformed_headers"),
    ],
)
def test_what_is_refused(changed: dict[str, str | None], reason: str) -> None:
    said = {name: value for name, value in (SAID | changed).items() if value is not None}
    assert receive(said) == reason


def test_headers_that_come_twice_and_other_methods() -> None:
    twice = delivery(SAID)
    twice = twice._replace(headers=(*twice.headers, (b"x-goog-channel-token", b"secret")))
    with pytest.raises(RefusedError) as refused:
        GoogleCalendar().receive(twice, lambda _: WATCH)
    assert refused.value.reason == "malformed_headers"
    assert receive(SAID, method="GET") == "not_notification"


def test_a_channel_without_a_token_lets_nobody_in() -> None:
    with pytest.raises(RefusedError) as refused:
        GoogleCalendar().receive(delivery(SAID), lambda _: WATCH._replace(secret=""))
    assert refused.value.reason == "forged"


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    receive(SAID | {"X-Goog-Channel-Token": "other"})
    assert compared == [(b"other", b"secret")]


class Door:
    """The endpoint, with the channels that are on record."""

    def __init__(self) -> None:
        self.watches: dict[str, Watch] = {}
        self.hints: list[Hint] = []
        self.status: int | None = None

    def take(self, message: dict[str, str]) -> int:
        if self.status is not None:
            return self.status
        try:
            found = GoogleCalendar().receive(delivery(message), self.watches.get)
        except RefusedError as refused:
            return refused.refusal.status
        self.hints += found.hints
        return found.answer.status


def watch(mine: Office, last: Watch | None = None, calendar: str = ADDRESS, address: str = ENDPOINT) -> Watch | None:
    return GoogleCalendar().watch(connected(calendar), mine.http, address, last, mine.double.now)


def made(mine: Office, last: Watch | None = None) -> Watch:
    found = watch(mine, last)
    assert found is not None
    return found


def test_a_channel_from_its_first_message_to_its_last() -> None:
    with office() as mine:
        door, push = Door(), mine.double.push
        first = made(mine)
        assert first.expires_at == mine.double.now + WEEK_MS
        assert first.details["renew_at"] == str(first.expires_at - DAY_MS)
        assert first.details["resource"] == resource(ADDRESS)
        assert first.secret not in repr(first)
        assert push.deliver(door.take) == 1, "sync, though nobody knows the channel yet"
        door.watches[first.id] = first
        mine.double.insert(**at(9))
        mine.double.insert(calendar=TEAM, **at(9))
        mine.double.insert(**at(10))
        door.status = 503
        assert push.deliver(door.take) == 0
        door.status = None
        assert push.deliver(door.take) == 2, "again after 503"
        numbers = [int(str(hint.delivery).rpartition(":")[2]) for hint in door.hints]
        assert numbers == sorted(set(numbers))
        assert numbers != [2, 3], "larger, and not sequential"
        GoogleCalendar().stop(connected(), mine.http, first)
        mine.double.insert(**at(11))
        assert push.deliver(door.take) == 0
        GoogleCalendar().stop(connected(), mine.http, first)
        assert push.lost == []


def test_a_channel_is_replaced_before_its_end_and_both_notify_meanwhile() -> None:
    with office() as mine:
        door = Door()
        first = made(mine)
        assert watch(mine, first) == first, "it lasts"
        mine.double.now = int(first.details["renew_at"])
        second = made(mine, first)
        assert (second.id == first.id, second.secret == first.secret) == (False, False)
        door.watches = {one.id: one for one in (first, second)}
        mine.double.insert(**at(9))
        mine.double.push.deliver(door.take)
        assert {hint.watch for hint in door.hints} == {first.id, second.id}
        assert len({hint.delivery for hint in door.hints}) == 2
        mine.double.now = first.expires_at
        mine.double.insert(**at(10))
        door.hints.clear()
        del door.watches[first.id]
        mine.double.push.deliver(door.take)
        assert {hint.watch for hint in door.hints} == {second.id}
        assert mine.double.push.lost == []


def test_a_message_on_a_channel_that_nobody_knows_is_lost_and_found_by_the_next_sync() -> None:
    with office() as mine:
        made(mine)
        mine.double.insert(**at(9))
        mine.double.push.deliver(Door().take)
        assert [message["X-Goog-Resource-State"] for message in mine.double.push.lost] == ["exists"]
        assert mine.sync() == ["calendar.created"]


def test_another_address_takes_another_channel() -> None:
    with office() as mine:
        first = made(mine)
        moved = watch(mine, first, address="https://new.example/v1/notifications/google_calendar")
        assert moved is not None
        assert moved.id != first.id


def test_short_lived_and_endless_channels() -> None:
    with office() as mine:
        for said, ends, renewed in ((str(mine.double.now + 3_600_000), 3_600_000, 1_800_000), (None, 30, 29)):
            reply = {"resourceId": "r", **({"expiration": said} if said is not None else {})}
            mine.faulty.plan(replies(200, reply), path="/watch")
            found = made(mine)
            unit = 1 if said is not None else DAY_MS
            assert found.expires_at == mine.double.now + ends * unit
            assert found.details["renew_at"] == str(mine.double.now + renewed * unit)


def test_calendars_that_google_never_notifies_of_are_polled() -> None:
    with office() as mine:
        assert watch(mine, calendar=HOLIDAYS) is None


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (404, "notFound", "share the calendar"),
        (410, "deleted", "share the calendar"),
        (400, "push.webhookUrlNotHttps", "certificate"),
        (401, "push.webhookUrlUnauthorized", "grant"),
        (400, "channelIdNotUnique", "refuses to watch"),
        (403, "forbidden", "scopes"),
    ],
)
def test_a_watch_that_google_refuses_says_what_to_mend(status: int, reason: str, words: str) -> None:
    with office() as mine:
        refusal = error(status, reason)
        mine.faulty.plan(lambda _: refusal, lambda _: refusal, path="/watch")
        with pytest.raises(BadInputError, match=words) as caught:
            watch(mine)
        assert ADDRESS not in str(caught.value)


def test_addresses_and_outages() -> None:
    with office() as mine:
        with pytest.raises(BadInputError, match="https"):
            watch(mine, address="http://headrace.example/")
        mine.faulty.plan(drops, path="/watch")
        with pytest.raises(UnavailableError):
            watch(mine)
        mine.faulty.plan(replies(200, {"expiration": "soon"}), path="/watch")
        with pytest.raises(UnavailableError, match="resourceId"):
            watch(mine)
        first = made(mine)
        mine.faulty.plan(lambda _: error(403, "forbidden"), path="/stop")
        with pytest.raises(GrantError):
            GoogleCalendar().stop(connected(), mine.http, first)


NAMES: Final = [name.lower().encode() for name in SAID]
values = st.one_of(st.binary(max_size=40), st.sampled_from([value.encode() for value in SAID.values()]))


@given(
    headers=st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), st.binary(max_size=20)), values), max_size=10),
    body=st.binary(max_size=40),
    method=st.sampled_from(["POST", "GET", "", "é"]),
)
@settings(max_examples=300, deadline=None)
def test_any_request(headers: list[tuple[bytes, bytes]], body: bytes, method: str) -> None:
    with suppress(RefusedError):
        found = GoogleCalendar().receive(Delivery(method, tuple(headers), (), body, 0.0), lambda _: WATCH)
        said = dict(headers)
        assert found.hints == () or said[b"x-goog-channel-token"] == b"secret"


@given(said=st.fixed_dictionaries({name: st.text(max_size=30) for name in SAID}), known=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_headers(said: dict[str, str], known: bool) -> None:
    headers = tuple((name.lower().encode(), value.encode()) for name, value in said.items())
    with suppress(RefusedError):
        found = GoogleCalendar().receive(Delivery("POST", headers, (), b"", 0.0), lambda _: WATCH if known else None)
        assert found.hints == () or known


def test_reasons_are_of_the_table() -> None:
    used = {"malformed_headers", "missing_headers", "forged", "unknown_watch", "not_notification"}
    assert used <= {*REFUSALS, *NOTIFICATION_REFUSALS}
