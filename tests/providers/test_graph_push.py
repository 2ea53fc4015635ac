"""What comes to Graph's endpoint, and the subscriptions that have it sent."""

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.graph_calendar import GraphCalendarSource
from headrace.producers.graph_mail import GraphMailSource
from headrace.producers.provider import Answer, Received
from headrace.producers.refusal import RefusedError
from tests.doubles.http import replies
from tests.providers.graph_parts import Door, connected, delivery


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def test_a_subscription_is_made_renewed_and_ended(door: Door) -> None:
    made = door.watch()
    assert made.secret not in repr(made)
    assert 0 < made.expires_at - door.double.now <= 10_080 * 60_000
    assert int(made.details["renew_at"]) - door.double.now == pytest.approx((made.expires_at - door.double.now) / 2, 1)
    kept = door.subscriptions.kept[made.id]
    assert (kept["resource"], kept["clientState"]) == ("me/messages", made.secret)
    door.double.now += 3 * 24 * 3_600_000
    again = door.watch(last=made)
    assert (again.id, again.secret) == (made.id, made.secret)
    assert again.expires_at > made.expires_at
    assert door.subscriptions.authorized == 1
    door.graph.stop(connected(), door.http, again)
    door.graph.stop(connected(), door.http, again)
    assert door.subscriptions.kept == {}
    new = door.watch(last=again)
    assert new.id != again.id
    assert new.secret != again.secret


def test_mail_and_calendar_have_a_subscription_each(door: Door) -> None:
    assert len({door.watch().id, door.watch("calendar").id}) == 2


def test_one_made_otherwise_is_made_anew(door: Door) -> None:
    made = door.watch()
    moved = door.watch(last=made, address="https://other.example/v1/notifications/graph")
    assert moved.id != made.id
    assert list(door.subscriptions.kept) == [moved.id]


def test_one_that_nobody_remembers_makes_way(door: Door) -> None:
    door.watch()
    made = door.watch()
    assert list(door.subscriptions.kept) == [made.id]


def deaf(_: str) -> tuple[int, str | None, bytes]:
    return 404, None, b""


def test_a_handshake_that_fails_is_for_a_person(door: Door) -> None:
    door.subscriptions.endpoint = deaf
    with pytest.raises(BadInputError, match="handshake"):
        door.watch()


def test_a_renewal_that_is_refused(door: Door) -> None:
    made = door.watch()
    door.faulty.plan(replies(400), path=made.id)
    with pytest.raises(BadInputError, match="refuses to watch"):
        door.watch(last=made)
    door.faulty.plan(replies(200, {"id": made.id}), path=made.id)
    with pytest.raises(UnavailableError, match="expirationDateTime"):
        door.watch(last=made)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("Validation: Testing client application reachability for subscription Request-Id: 1", None),
        ("a+b c%20/=é", None),
        ("<script>alert(1)</script>&", "&lt;script&gt;alert(1)&lt;/script&gt;&amp;"),
    ],
)
def test_the_handshake(door: Door, token: str, said: str | None) -> None:
    received = door.graph.receive(delivery(b"", (("validationToken", token),)), door.watches.get)
    assert received == Received((), Answer(200, (said or token).encode(), "text/plain; charset=utf-8"))


@pytest.mark.parametrize("tokens", [[""], ["a", "b"], ["a\r\nb"], ["x" * 5_000], ["\0"]])
def test_what_is_no_handshake(door: Door, tokens: list[str]) -> None:
    query = tuple(("validationToken", token) for token in tokens)
    with pytest.raises(RefusedError) as caught:
        door.graph.receive(delivery(b"", query), door.watches.get)
    assert caught.value.reason == "not_notification"


def test_a_notification_is_a_hint(door: Door) -> None:
    made = door.watch()
    item = door.subscriptions.notify(made.id)
    received = door.receive(item)
    [hint] = received.hints
    assert (hint.watch, hint.kind, received.answer.status, received.dropped) == (made.id, "changed", 202, ())
    assert door.receive(item).hints == (hint,), "the same again is the same"
    assert door.receive({**item, "changeType": "deleted"}).hints != (hint,)
    assert door.receive(item, item).hints == (hint,)


@pytest.mark.parametrize(
    ("event", "kind"),
    [("missed", "missed"), ("reauthorizationRequired", "reauthorize"), ("subscriptionRemoved", "removed")],
)
def test_lifecycles(door: Door, event: str, kind: str) -> None:
    made = door.watch()
    [hint] = door.receive(door.subscriptions.lifecycle(made.id, event)).hints
    assert (hint.watch, hint.kind) == (made.id, kind)
    forged = door.subscriptions.lifecycle(made.id, event) | {"clientState": "x"}
    assert door.refused(forged) == ("forged", 401)


def test_one_bad_item_does_not_take_the_others_with_it(door: Door) -> None:
    mail, calendar = door.watch(), door.watch("calendar")
    good = [door.subscriptions.notify(one.id) for one in (mail, calendar)]
    bad = [
        {**good[0], "clientState": calendar.secret},
        {**good[0], "clientState": None},
        {**good[0], "subscriptionId": "sub-9"},
        {**good[0], "changeType": "exploded"},
        {**good[0], "lifecycleEvent": "rapture"},
        {**good[0], "subscriptionId": 7},
        "x",
    ]
    received = door.receive(bad[0], good[0], *bad[1:], good[1])
    assert {hint.watch for hint in received.hints} == {mail.id, calendar.id}
    assert received.dropped == ("forged", "forged", "unknown_watch", *["not_notification"] * 4)
    assert received.answer.status == 202
    for one, reason in zip(bad, received.dropped, strict=True):
        assert door.refused(one)[0] == reason, "alone, it is refused"


def test_a_subscription_without_a_secret_is_nobodys(door: Door) -> None:
    made = door.watch()
    door.watches[made.id] = made._replace(secret="")
    assert door.refused({**door.subscriptions.notify(made.id), "clientState": ""})[0] == "not_notification"
    assert door.refused({**door.subscriptions.notify(made.id), "clientState": None})[0] == "forged"


@pytest.mark.parametrize(
    "body",
    [[], {}, {"value": []}, {"value": {}}, {"value": [{}] * 1001}, {"value": [{}], "validationTokens": "x"},
     {"value": [{}], "validationTokens": [7]}, {"value": [{}], "validationTokens": ["x"] * 21}],
)  # fmt: skip
def test_bodies_that_are_turned_away(door: Door, body: object) -> None:
    with pytest.raises(RefusedError) as caught:
        door.graph.receive(delivery(body), door.watches.get)
    assert caught.value.reason == "not_notification"


def test_settings(door: Door) -> None:
    def source(**more: str) -> Any:
        return door.graph.source(connected(**more), door.http, lambda text: "p-" + text)

    assert isinstance(source(), GraphMailSource)
    calendar = source(follow="calendar", time_zone="Europe/Berlin", calendar="AAk1=")
    assert isinstance(calendar, GraphCalendarSource)
    assert calendar.feeds == ("calendar.event",)
    assert source(content="text").feeds == ("mail.thread",)
    assert door.graph.name == "graph"
    for wrong in (
        {"address": "ann"},
        {"follow": "files"},
        {"content": "all"},
        {"follow": "calendar", "time_zone": "Mars"},
    ):
        with pytest.raises(BadInputError):
            source(**wrong)
