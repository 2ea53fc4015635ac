"""The intake: what identifies somebody gets on the log as a pseudonym or not at all, and equal proposals hash alike."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError
from headrace.keys import Keys
from headrace.log.port import Record
from headrace.producers.event import NewEvent
from headrace.producers.intake import Intake, concerns
from headrace.schemas.envelope import Envelope, from_headers
from headrace.schemas.refs import ActorRef, EntityRef, Token, account_key
from headrace.schemas.registry import Registry, SchemaVersion, built_in
from tests.unit.avro_data import Source, data, field, schema

REGISTRY = Registry(built_in())
KEYS = Keys(bytes(range(32)))
INTAKE = Intake(REGISTRY, KEYS, 64)
NOW = "2026-11-21T17:15:00.000Z"
ANN, BOT = ActorRef("user", "ann"), ActorRef("agent", "bot")
REF = EntityRef("t", "a", "mail.thread", "t-17")
TOKEN = Token(bytes(16), 3, 7, b"checksum")
EVENTS = [version for version in REGISTRY.newest.values() if version.role == "event"]
PROPOSALS = [version for version in REGISTRY.newest.values() if version.role == "proposal"]
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


def proposal(intake: Intake = INTAKE, ref: EntityRef = REF, **changed: Any) -> Record:
    said: dict[str, Any] = {
        "proposal_id": "p-1",
        "proposal_type": "mail.reply",
        "actor": BOT,
        "source": "api",
        "reads": [{"what": "entity", "kind": "mail.thread", "id": "t-17", "basis": TOKEN}],
        "data": {"in_reply_to": "<1@x.org>", "recipients": ["bob@x.org"]},
        "content": {"text": "Dear Bob", "to": "bob@x.org"},
        "expires_at": 1_795_256_100_000,
        "said_concerns": ["person:bob@x.org", "message:1"],
        "observed_at": NOW,
        **changed,
    }
    return intake.proposal(ref, **said)


def body(record: Record) -> dict[str, Any]:
    return REGISTRY.decode(record.value).body


def payload_hash(record: Record) -> bytes:
    found: bytes = body(record)["payload_hash"]
    return found


# -- events -------------------------------------------------------------------------------------------------------


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


# -- proposals ----------------------------------------------------------------------------------------------------


def test_a_proposal_stands_on_the_log_in_the_logs_terms() -> None:
    record = proposal(correlation="c-1")
    envelope = from_headers(record.headers)
    assert envelope[:6] == ("p-1", "api", "proposal.submitted", BOT, "mail.thread", "t-17")
    assert set(envelope.concerns) == {f"person:{mine('bob@x.org')}", f"message:{mine('1')}"}
    found = body(record)
    decoded = REGISTRY.decode(found["data"])
    assert (decoded.type, decoded.role) == ("mail.reply", "proposal")
    assert decoded.body == {"in_reply_to": mine("<1@x.org>"), "recipients": [mine("bob@x.org")]}
    assert json.loads(found["content"]) == {"text": "Dear Bob", "to": "bob@x.org"}
    assert found["reads"][0]["basis"] == TOKEN.pack()
    shown = repr((record.headers, found | {"content": None}, decoded))
    assert "@" not in shown


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_CONTENT = st.dictionaries(st.text(max_size=3), _JSON, max_size=3)


def reordered(value: Any) -> Any:
    """The same JSON, objects the other way round."""
    if isinstance(value, dict):
        return {key: reordered(inner) for key, inner in reversed(value.items())}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


@given(content=_CONTENT, keys=st.permutations(["in_reply_to", "recipients"]))
def test_the_same_proposal_hashes_alike_however_it_is_written(content: dict[str, Any], keys: list[str]) -> None:
    values = {"in_reply_to": "<1@x.org>", "recipients": ["bob@x.org"]}
    first = proposal(content=content)
    again = proposal(
        content=reordered(copy.deepcopy(content)),
        data={key: values[key] for key in keys},
        reads=[
            {
                "basis": TOKEN,
                "start": None,
                "account": None,
                "id": "t-17",
                "end": None,
                "kind": "mail.thread",
                "what": "entity",
            }
        ],
        said_concerns=["message:1", "person:bob@x.org", "message:1"],
        observed_at="2026-11-22T00:00:00.000Z",
        correlation="other",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        actor=ActorRef("agent", "other"),
        source="elsewhere",
        proposal_id="p-2",
    )
    assert payload_hash(first) == payload_hash(again)


@given(one=_CONTENT, other=_CONTENT)
def test_other_content_hashes_otherwise(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (payload_hash(proposal(content=one)) == payload_hash(proposal(content=other))) is same


_READ = {"what": "entity", "kind": "mail.thread", "id": "t-17", "basis": TOKEN}
COVERED: dict[str, dict[str, Any]] = {
    "type": {"proposal_type": "mail.archive", "data": {}},
    "data": {"data": {"in_reply_to": "<2@x.org>", "recipients": ["bob@x.org"]}},
    "data left out": {"data": {}},
    "basis": {"reads": [{**_READ, "basis": TOKEN._replace(offset=8)}]},
    "basis check": {"reads": [{**_READ, "basis": TOKEN._replace(check=b"CHECKSUM")}]},
    "another read": {"reads": [_READ, {**_READ, "id": "t-18"}]},
    "what was read": {"reads": [{**_READ, "what": "absent"}]},
    "scope": {"reads": [{**_READ, "what": "scope", "start": 1}]},
    "scope end": {"reads": [{**_READ, "what": "scope", "end": 1}]},
    "read's account": {"reads": [{**_READ, "account": "b"}]},
    "no reads": {"reads": []},
    "expiry": {"expires_at": 1_795_256_100_001},
    "no expiry": {"expires_at": None},
    "content": {"content": {"text": "Dear Eve"}},
    "no content": {"content": None},
    "concerns": {"said_concerns": ["person:eve@x.org"]},
    "subject": {"ref": REF._replace(id="t-18")},
    "account": {"ref": REF._replace(account="b")},
    "tenant": {"ref": REF._replace(tenant="s")},
}


def test_whatever_the_hash_covers_changes_it() -> None:
    hashes = {"as it was": payload_hash(proposal())}
    hashes |= {name: payload_hash(proposal(**changed)) for name, changed in COVERED.items()}
    assert len(set(hashes.values())) == len(hashes)
    assert all(len(one) == 32 for one in hashes.values())


def test_the_hash_is_keyed() -> None:
    other = Intake(REGISTRY, Keys(bytes(32)), 64)
    same: dict[str, Any] = {"data": {}, "said_concerns": []}
    assert payload_hash(proposal(other, **same)) != payload_hash(proposal(**same))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"proposal_type": "mail.received"}, "mail.received cannot be proposed; proposals: .*mail.reply"),
        ({"proposal_type": "mail.eat"}, "'mail.eat' is no type"),
        ({"proposal_id": "a b"}, "proposal id 'a b' is not an opaque id"),
        ({"data": {"colour": "x"}}, "no such field: colour"),
        ({"data": {"recipients": "bob"}}, "recipients must be a list"),
        ({"expires_at": 1 << 63}, "expires_at must be a whole number of 64 bits"),
        ({"expires_at": 1.5}, "expires_at must be a whole number"),
        ({"content": {"x": float("nan")}}, "the proposal is no JSON"),
        ({"content": {"x": float("inf")}}, "the proposal is no JSON"),
        ({"content": {"x": "\ud800"}}, "the proposal is no JSON"),
        ({"content": {"x": b"x"}}, "the proposal is no JSON"),
        ({"reads": [{**_READ, "colour": "x"}]}, r"no such field: reads\[0\]\.colour"),
        ({"reads": [{**_READ, "what": "guess"}]}, r"reads\[0\]\.what must be one of entity, absent, scope"),
        ({"reads": [{**_READ, "id": "\ud800"}]}, "the proposal is no JSON"),
        ({"said_concerns": ["bob"]}, "must be what:value"),
        (
            {"proposal_type": "mail.label", "data": {"added": ["x", "ann@x.org"]}},
            r"added\[1\] holds an address, which may not stand on the log; say it in content",
        ),
        ({"observed_at": "now"}, "'now' is no UTC time"),
        ({"source": "a b"}, "ce_source 'a b'"),
    ],
)
def test_a_proposal_that_may_not_stand_on_the_log_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        proposal(**changed)


def test_content_nested_beyond_reason_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    try:
        with pytest.raises(BadInputError, match="the proposal is no JSON"):
            proposal(content={"x": deep})
    finally:
        while isinstance(deep, list):  # taken apart by hand: freeing it at once would recurse
            deep = deep.pop()


@slow
@given(drawn=st.data())
@pytest.mark.parametrize("version", PROPOSALS, ids=lambda version: version.type)
def test_the_data_of_every_proposal_is_plain_json(version: SchemaVersion, drawn: st.DataObject) -> None:
    said = drawn.draw(data(version.shape))
    assume("@" not in repr(said))
    found = REGISTRY.decode(body(proposal(proposal_type=version.type, data=said))["data"]).body
    assert json.loads(json.dumps(found, allow_nan=False)) == found
