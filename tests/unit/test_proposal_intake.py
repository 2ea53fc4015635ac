"""The intake of proposals: what is said goes on the log without an address, and equal proposals hash alike."""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError
from headrace.keys import Keys
from headrace.log.port import Record
from headrace.producers.intake import Intake
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import ActorRef, EntityRef, Token
from headrace.schemas.registry import Registry, SchemaVersion, built_in
from tests.unit.avro_data import data

REGISTRY = Registry(built_in())
KEYS = Keys(bytes(range(32)))
INTAKE = Intake(REGISTRY, KEYS, 64)
NOW = "2026-11-21T17:15:00.000Z"
BOT = ActorRef("agent", "bot")
REF = EntityRef("t", "a", "mail.thread", "t-17")
TOKEN = Token(bytes(16), 3, 7, b"checksum")
PROPOSALS = [version for version in REGISTRY.newest.values() if version.role == "proposal"]
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def mine(text: str) -> str:
    return KEYS.pseudonym("t", "a", text)


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
