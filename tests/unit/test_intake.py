"""The intake of events: what identifies somebody gets on the log as a pseudonym or not at all."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError
from headrace.keys import Keys
from headrace.log.port import Record
from headrace.processors.core.model import Event, State
from headrace.processors.kinds.mail_thread import MailThread
from headrace.producers.event import NewEvent
from headrace.producers.intake import Intake, TooLongError, concerns
from headrace.schemas.envelope import Envelope, from_headers
from headrace.schemas.refs import ActorRef, account_key
from headrace.schemas.registry import Registry, SchemaVersion, built_in
from tests.unit.avro_data import Source, data, field, schema

REGISTRY = Registry(built_in())
KEYS = Keys(bytes(range(32)))
INTAKE = Intake(REGISTRY, KEYS, 64)
NOW = "2026-11-21T17:15:00.000Z"
ANN = ActorRef("user", "ann")
EVENTS = [version for version in REGISTRY.newest.values() if version.role == "event"]
_ADDRESSES = st.emails().map(lambda address: address[:100]).filter(lambda address: "@" in address[1:-1])
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def mine(text: str) -> str:
    return KEYS.pseudonym("t", "a", text)


def event(new: NewEvent, intake: Intake = INTAKE, **other: Any) -> Record:
    said: dict[str, Any] = {"source": "webhook/x", "actor": ANN, "observed_at": NOW, **other}
    return intake.event("t", "a", new, **said)


def received(**changed: Any) -> NewEvent:
    body = {
        "message": "<1@x.org>",
        "sender": "bob@x.org",
        "recipients": ["ann@x.org", "eve@x.org"],
        "labels": ["INBOX"],
    }
    return NewEvent("mail.received", "mail.thread", "t-17", "e-1", body)._replace(**changed)


def body(record: Record) -> dict[str, Any]:
    return REGISTRY.decode(record.value).body


def test_an_event_stands_on_the_log_in_the_logs_terms() -> None:
    new = received(occurred_at="2026-11-21T18:14:59+01:00", concerns=("person:bob@x.org",), content={"subject": "Hi"})
    record = event(new, sync="s-1", correlation="c-1")
    assert record.key == account_key("t", "a")
    assert record.partition == INTAKE.partition("t", "a")
    assert from_headers(record.headers) == Envelope(
        "e-1",
        "webhook/x",
        "mail.received",
        ANN,
        "mail.thread",
        "t-17",
        (f"person:{mine('bob@x.org')}",),
        "2026-11-21T17:14:59.000Z",
        NOW,
        correlation="c-1",
        sync="s-1",
    )
    found = body(record)
    content = REGISTRY.decode(found.pop("content"))
    assert content.type == "mail.message_content"
    assert content.body == {"subject": "Hi", "text": None, "sender": None, "recipients": []}
    assert found == {
        "message": mine("<1@x.org>"),
        "in_reply_to": None,
        "sender": mine("bob@x.org"),
        "recipients": [mine("ann@x.org"), mine("eve@x.org")],
        "labels": ["INBOX"],
        "content_key": None,
    }


def test_nested_records_null_and_left_out_fields_are_followed() -> None:
    said = {
        "calendar": "ann@x.org",
        "uid": "u@x",
        "resource": None,
        "attendees": ({"who": "bob@x.org", "response": "accepted"}, {"who": "eve@x.org", "response": "declined"}),
    }
    found = body(event(NewEvent("calendar.created", "calendar.event", "c-1", "e-1", said)))
    assert (found["calendar"], found["uid"]) == (mine("ann@x.org"), mine("u@x"))
    assert found["resource"] is None
    assert found["organizer"] is None
    assert found["attendees"] == [
        {"who": mine("bob@x.org"), "response": "accepted"},
        {"who": mine("eve@x.org"), "response": "declined"},
    ]
    assert said["calendar"] == "ann@x.org", "what was given is left as it was"


_MARK = {"headrace.pseudonym": True}
_WHO: Source = {
    "type": "record",
    "name": "Who",
    "fields": [field("address", "string", **_MARK), field("since", "long")],
}


def test_marks_are_followed_through_names_maps_and_lists_of_lists() -> None:
    fields = [
        field("one", _WHO),
        field("again", ["null", "Who"], default=None),
        field("named", {"type": "map", "values": "Who"}),
        field("many", {"type": "array", "items": {"type": "array", "items": "string"}}, **_MARK),
    ]
    registry = Registry([*built_in(), schema(fields)])
    who = {"address": "bob", "since": 1}
    said = {"one": who, "again": who, "named": {"x": who, "bob@x.org": who}, "many": [["bob"], []]}
    record = event(NewEvent("shop.sold", "shop.order", "o-1", "e-1", said), Intake(registry, KEYS, 64))
    hidden = {"address": mine("bob"), "since": 1}
    assert registry.decode(record.value).body == {
        "one": hidden,
        "again": hidden,
        "named": {"x": hidden, mine("bob@x.org"): hidden},
        "many": [[mine("bob")], []],
    }


def put(shape: Any, drawn: Any, address: str) -> Any:
    """``drawn`` with the address in every text."""
    if isinstance(drawn, str):
        symbols = shape["symbols"] if isinstance(shape, Mapping) and "symbols" in shape else None
        return drawn if symbols else address
    if isinstance(drawn, list):
        inner = shape if isinstance(shape, Mapping) else next(one for one in shape if one != "null")
        return [put(inner["items"], one, address) for one in drawn]
    if isinstance(drawn, dict):
        types = {one["name"]: one["type"] for one in shape["fields"]}
        return {name: put(types[name], value, address) for name, value in drawn.items()}
    return drawn


@slow
@given(drawn=st.data(), address=_ADDRESSES)
@pytest.mark.parametrize("version", EVENTS, ids=lambda version: version.type)
def test_no_address_stands_anywhere_but_in_content(version: SchemaVersion, drawn: st.DataObject, address: str) -> None:
    assume(address.isascii())
    said = {name: value for name, value in drawn.draw(data(version.shape)).items() if not name.startswith("content")}
    content = {"title": address} if version.type.startswith("calendar") else {"subject": address}
    carries = any(one["name"] == "content" for one in version.shape["fields"])
    new = NewEvent(
        version.type,
        "mail.thread",
        "t-17",
        "e-1",
        put(version.shape, said, address),
        content if carries else None,
        concerns=(f"person:{address}",),
    )
    record = event(new)
    found = body(record)
    sealed = found.pop("content", None)
    assert (sealed is not None and address.encode() in sealed) is carries
    shown = repr((record.key, record.headers, found))
    assert address not in shown
    assert "@" not in shown
    bare = REGISTRY.encode(version.type, {**found, "content": None} if carries else found)
    assert address.encode() not in bare


@given(address=_ADDRESSES)
@pytest.mark.parametrize("place", ["id", "entity", "source", "correlation", "sync", "kind", "type"])
def test_an_address_for_an_id_is_refused(place: str, address: str) -> None:
    beside = place in ("source", "correlation", "sync")
    changed: dict[str, Any] = {} if beside else {place: address}
    other: dict[str, Any] = {place: address} if beside else {}
    with pytest.raises(BadInputError):
        event(received(**changed), **other)
    for tenant, account in ((address, "a"), ("t", address)):
        with pytest.raises(BadInputError, match="is not an opaque id"):
            INTAKE.event(tenant, account, received(), source="x", actor=ANN, observed_at=NOW)


@slow
@given(drawn=st.data())
@pytest.mark.parametrize("version", EVENTS, ids=lambda version: version.type)
def test_what_the_log_holds_may_be_handed_in_again(version: SchemaVersion, drawn: st.DataObject) -> None:
    said = {name: value for name, value in drawn.draw(data(version.shape)).items() if not name.startswith("content")}
    once = event(NewEvent(version.type, "mail.thread", "t-17", "e-1", said))
    found = {name: value for name, value in body(once).items() if not name.startswith("content")}
    assert event(NewEvent(version.type, "mail.thread", "t-17", "e-1", found)) == once


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"type": "mail.reply"}, "mail.reply is no event type; events: .*mail.received"),
        ({"type": "source.synced"}, "source.synced is no event type"),
        ({"type": "mail.eaten"}, "'mail.eaten' is no type that this log knows"),
        ({"id": "a b"}, "event id 'a b' is not an opaque id"),
        ({"entity": ""}, "entity id '' is not an opaque id"),
        ({"kind": ""}, "entity 't-17' may not stand on the log"),
        ({"body": {}}, "message is missing"),
        ({"body": {"message": 5, "sender": "x"}}, "message must be text"),
        ({"body": {"message": "x", "sender": "x", "labels": [5]}}, r"labels\[0\] must be text"),
        ({"body": {"message": "x\ud800", "sender": "x"}}, "half a surrogate pair"),
        (
            {"body": {"message": "x", "sender": "x", "content": b"x"}},
            "content and content_key are no fields of the body",
        ),
        ({"body": {"message": "x", "sender": "x", "content_key": "k"}}, "give content beside it"),
        ({"content": {"colour": "x"}}, "mail.message_content does not fit its schema: no such field: colour"),
        ({"occurred_at": "yesterday"}, "'yesterday' is no time"),
        ({"concerns": ("bob",)}, "concern 'bob' must be what:value"),
        ({"type": "mail.read", "body": {}, "content": {"subject": "x"}}, "mail.read carries no content; leave it out"),
    ],
)
def test_what_may_not_stand_on_the_log_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        event(received(**changed))


class Brittle(MailThread):
    """A kind that cannot begin with what it is given."""

    def evolve(self, state: State | None, event: Event) -> dict[str, Any]:
        """See the built-in kind."""
        raise KeyError(event.type)


def test_a_label_may_be_as_long_as_reads_can_name_it() -> None:
    intake = Intake(REGISTRY, KEYS, 64, {"mail.thread": MailThread()})
    with pytest.raises(TooLongError, match=r"^labels holds a text of 501 characters; a mail\.label may have 500 "):
        event(received(body={"message": "m", "sender": "s", "labels": ["INBOX", "x" * 501]}), intake)
    event(received(body={"message": "m", "sender": "s", "labels": ["x" * 500]}), intake)
    long = NewEvent("mail.labelled", "mail.thread", "t-17", "e-2", {"added": ["x" * 501], "removed": []})
    gone = long._replace(body={"added": [], "removed": ["x" * 501]})
    assert body(event(gone, intake))["removed"] == ["x" * 501], "what stands there already may be taken off"
    assert body(event(long, intake, sync="s-1"))["added"] == ["x" * 501], "what a sync finds is the provider's"
    event(long, Intake(REGISTRY, KEYS, 64, {"mail.thread": Brittle()}))


def test_a_record_of_the_logs_own_account_is_refused_an_address() -> None:
    envelope = Envelope("r-1", "x", "source.notified", ANN)
    with pytest.raises(BadInputError, match=r"account 'ann@x\.org' is not an opaque id"):
        INTAKE.record("t", "ann@x.org", envelope, {})


# -- concerns -----------------------------------------------------------------------------------------------------


def test_concerns_are_pseudonyms_sorted_and_each_once() -> None:
    said = ["person:bob@x.org", "message:<1@x>", f"person:{mine('bob@x.org')}", "person:bob@x.org"]
    assert concerns(said, mine) == (f"message:{mine('<1@x>')}", f"person:{mine('bob@x.org')}")
    assert concerns(list(reversed(said)), mine) == concerns(said, mine)
    assert concerns(["a:b:c"], mine) == (f"a:{mine('b:c')}",)


@pytest.mark.parametrize("said", ["", ":", "x", "x:", ":x", "a b:x", "é:x", "a@b:x", "a-b:x"])
def test_a_concern_of_another_form_is_refused(said: str) -> None:
    with pytest.raises(BadInputError, match=r"must be what:value, for example person:ann@example\.com"):
        concerns([said], mine)
