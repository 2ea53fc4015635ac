"""CloudEvents into headrace's terms: what is read, what is refused, and that two identities never become one."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.keys import Keys
from headrace.producers.cloud_events import Incoming, Translation, opaque, read_events, trace_parent
from headrace.producers.intake import Intake
from headrace.producers.refusal import RefusedError
from headrace.schemas.refs import OPAQUE_ID
from headrace.schemas.registry import Registry, built_in

REGISTRY = Registry(built_in())
KEYS = Keys(bytes(range(32)))
INTAKE = Intake(REGISTRY, KEYS, 8)
TRANSLATION = Translation(INTAKE, REGISTRY, {"mail.thread", "calendar.event"})
SECRET = "ann@personal.example"
UNUSABLE: tuple[Any, ...] = (..., None, "", 7, {}, ["x"])
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(**changes: Any) -> dict[str, Any]:
    """A good CloudEvent with some attributes changed; ``...`` takes one out."""
    good: dict[str, Any] = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "mailer",
        "type": "mail.received",
        "subject": "mail.thread/t-1",
        "account": "ann-1",
        "time": "2026-11-21T17:15:00Z",
        "data": {"message": "<m1@x.example>", "sender": SECRET, "labels": ["INBOX"]},
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def translated(value: Mapping[str, Any]) -> Incoming:
    """One event, all the way."""
    return TRANSLATION.translate("t", read_events(value, batch=False)[0])


def reason_of(value: Any) -> str:
    """Why it is refused; and that the message repeats nothing of it."""
    with pytest.raises(RefusedError) as refused:
        translated(value)
    assert SECRET not in str(refused.value)
    assert "personal" not in str(refused.value)
    return refused.value.reason


def test_a_good_event() -> None:
    found = translated(event(concerns=f"message:<m0@x>, person:{SECRET}", traceparent=TRACE))
    assert found.account == "ann-1"
    assert found.source == "mailer"
    assert found.traceparent == TRACE
    new = found.event
    assert (new.type, new.kind, new.entity, new.id) == ("mail.received", "mail.thread", "t-1", "e-1")
    assert new.body == {"message": "<m1@x.example>", "sender": SECRET, "labels": ["INBOX"]}
    assert new.content is None
    assert new.occurred_at == "2026-11-21T17:15:00.000Z"
    assert new.concerns == ("message:<m0@x>", f"person:{SECRET}")


def test_content_is_kept_apart() -> None:
    data = event()["data"] | {"content": {"subject": "Hi", "text": "?"}}
    found = translated(event(data=data)).event
    assert found.content == {"subject": "Hi", "text": "?"}
    assert "content" not in found.body
    assert translated(event(data=data | {"content": None})).event.content is None


@pytest.mark.parametrize("missing", ["time", "data", "traceparent", "concerns"])
@pytest.mark.parametrize("value", [..., None])
def test_optional_attributes_may_be_left_out_or_null(missing: str, value: Any) -> None:
    found = translated(event(type="mail.archived", **({"data": {}} | {missing: value})))
    assert found.event.body == {}
    assert (found.event.occurred_at is None) == (missing == "time")


@pytest.mark.parametrize(
    ("time", "normal"),
    [
        ("2026-11-21T17:15:00.123456789Z", "2026-11-21T17:15:00.123Z"),
        ("2026-11-21T18:15:00+01:00", "2026-11-21T17:15:00.000Z"),
        ("2026-11-21t17:15:00z", "2026-11-21T17:15:00.000Z"),
    ],
)
def test_times_become_utc_milliseconds(time: str, normal: str) -> None:
    assert translated(event(time=time)).event.occurred_at == normal


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        [],
        {},
        event(specversion=...),
        event(specversion="0.3"),
        event(specversion=1.0),
        *(event(**{name: bad}) for name in ("id", "source", "type") for bad in UNUSABLE),
        event(extension={"nested": SECRET}),
        event(extension=[1]),
        event(extension=1.5),
        *(
            event(time=bad)
            for bad in (
                "yesterday", 7, "2026-11-21", "2026-11-21T17:15:00", "2026-13-01T00:00:00Z", "2026-11-21 17:15:00Z",
                "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-W47-6T17:15:00Z", SECRET,
            )
        ),
    ],
)  # fmt: skip
def test_no_cloudevent(value: Any) -> None:
    assert reason_of(value) == "not_cloudevent"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "mail.exploded"}, "unknown_type"),
        ({"type": SECRET}, "unknown_type"),
        ({"type": "proposal.submitted"}, "unknown_type"),
        ({"type": "log.opened"}, "unknown_type"),
        ({"type": "source.synced"}, "unknown_type"),
        ({"type": "mail.reply"}, "unknown_type"),
        ({"type": "mail.message_content"}, "unknown_type"),
        ({"subject": "mail.cupboard/1"}, "unknown_kind"),
        ({"subject": ...}, "not_opaque"),
        ({"subject": ""}, "not_opaque"),
        ({"subject": "t-1"}, "not_opaque"),
        ({"subject": 7}, "not_opaque"),
        ({"subject": "mail.thread/"}, "not_opaque"),
        ({"subject": "mail.thread/a/b"}, "not_opaque"),
        ({"subject": f"mail.thread/{SECRET}"}, "not_opaque"),
        ({"subject": "mail.thread/" + "x" * 201}, "not_opaque"),
        ({"account": ...}, "not_opaque"),
        ({"account": 7}, "not_opaque"),
        ({"account": True}, "not_opaque"),
        ({"account": SECRET}, "not_opaque"),
        ({"account": "a/b"}, "not_opaque"),
        ({"account": "ann\n"}, "not_opaque"),
        ({"concerns": 7}, "bad_concerns"),
        ({"concerns": SECRET}, "bad_concerns"),
        ({"concerns": "message:"}, "bad_concerns"),
        ({"concerns": "message:x,,message:y"}, "bad_concerns"),
        ({"data": "personal"}, "schema"),
        ({"data": [SECRET]}, "schema"),
        ({"data": ...}, "schema"),
        ({"data_base64": "e30="}, "schema"),
        ({"datacontenttype": "text/xml"}, "schema"),
        ({"datacontenttype": 7}, "schema"),
    ],
)
def test_events_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    assert reason_of(event(**changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"message": ...},
        {"message": None},
        {"message": 7},
        {"message": ["personal"]},
        {"sender": {"address": SECRET}},
        {"labels": "INBOX"},  # Avro's writer takes it for five labels
        {"labels": {"INBOX": 1}},
        {"labels": [1]},
        {"labels": None},
        {"labels": ["x", None]},
        {SECRET: 1},
        {"content_key": "k1"},  # would say that the content is sealed
        {"content": "personal"},
        {"content": [SECRET]},
        {"content": {"subject": 7}},
        {"content": {SECRET: "x"}},
        {"content": {"subject": ["personal"]}},
    ],
)
def test_data_that_does_not_fit(changes: dict[str, Any]) -> None:
    data = {name: value for name, value in (event()["data"] | changes).items() if value is not ...}
    assert reason_of(event(data=data)) == "schema"


@pytest.mark.parametrize(
    "changes",
    [
        {"busy": "no"},  # Avro's writer takes it for true
        {"busy": 0},
        {"sequence": True},
        {"sequence": 1.5},
        {"sequence": "1"},
        {"unbounded_from": 1.0},
        {"occurrences": [{"start": 1}]},
        {"occurrences": [[1, 2]]},
        {"occurrences": {"start": 1, "end": 2}},
        {"attendees": [{"who": SECRET}]},
        {"attendees": [SECRET]},
    ],
)
def test_types_are_not_bent(changes: dict[str, Any]) -> None:
    good = {"calendar": "c", "uid": "u", "occurrences": [{"start": 1, "end": 2}]}
    fits = event(type="calendar.created", subject="calendar.event/1", data=good)
    assert translated(fits).event.body == good
    assert reason_of(fits | {"data": good | changes}) == "schema"


def test_the_message_names_the_field() -> None:
    with pytest.raises(RefusedError, match="data lacks message, which"):
        translated(event(data={"sender": "x"}))
    with pytest.raises(RefusedError, match="at labels"):
        translated(event(data=event()["data"] | {"labels": [1]}))
    with pytest.raises(RefusedError, match=r"data\.content does not fit headrace\.mail\.MessageContent at subject"):
        translated(event(data=event()["data"] | {"content": {"subject": 7}}))


def test_tenant_actor_and_source_in_the_body_are_passed_over() -> None:
    plain = translated(event())
    assert translated(event(tenant="other", actor="system/root", sync="s1", correlation="c", partition=3)) == plain


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
def test_json_data(content_type: str) -> None:
    assert translated(event(datacontenttype=content_type)) == translated(event())


def test_batches() -> None:
    assert read_events([], batch=True) == []
    found = read_events([event(id="a"), event(id="b")], batch=True)
    assert [one.id for one in found] == ["a", "b"]
    with pytest.raises(RefusedError, match="batch") as refused:
        read_events([event()], batch=False)
    assert refused.value.reason == "not_cloudevent"
    with pytest.raises(RefusedError, match="cloudevents\\+json") as refused:
        read_events(event(), batch=True)
    assert refused.value.reason == "not_cloudevent"
    with pytest.raises(RefusedError, match="event 2 of the batch") as refused:
        read_events([event(), event(), event(id="")], batch=True)
    assert len(read_events([event()] * 5, batch=True, max_events=5)) == 5
    with pytest.raises(RefusedError) as refused:
        read_events([event()] * 6, batch=True, max_events=5)
    assert refused.value.reason == "too_many_events"


@pytest.mark.parametrize(
    "text", [TRACE.upper(), TRACE[:-1], TRACE + "-x", "", "00", 7, None, f"{TRACE}\n", SECRET]
)  # fmt: skip
def test_what_is_no_traceparent_is_passed_over(text: object) -> None:
    assert trace_parent(text) is None


SAFE = re.compile(r"[a-z.-]{1,64}\Z")
TEXTS = st.text(min_size=1, max_size=70) | st.text("p-a7@/", min_size=1, max_size=30) | st.just("p-" + "a" * 26)


@given(texts=st.lists(TEXTS, min_size=2, max_size=6, unique=True))
def test_two_texts_never_share_an_opaque_one(texts: list[str]) -> None:
    pseudonym = INTAKE.pseudonyms("t", "a")
    closed = [opaque(text, "id", SAFE, pseudonym) for text in texts]
    # What one text was turned into, offered as a text itself, becomes something else again.
    again = [opaque(text, "id", SAFE, pseudonym) for text in closed if text not in texts]
    assert len({*closed, *again}) == len(closed) + len(again)
    assert all(OPAQUE_ID.match(text) for text in closed)
    assert [opaque(text, "id", SAFE, pseudonym) for text in texts] == closed


def test_ids_and_sources_that_are_not_opaque_are_hidden() -> None:
    found = translated(event(id=SECRET, source=f"mailto:{SECRET}"))
    assert re.fullmatch(r"p-[a-z2-7]{26}", found.event.id)
    assert re.fullmatch(r"p-[a-z2-7]{26}", found.source)
    assert found.event.id != translated(event(id=SECRET, account="bob-1")).event.id, "keyed per account"
    assert translated(event(source="https://x.example/mail")).source.startswith("p-"), "no slash: it parts the source"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
TYPES = sorted(version.type for version in REGISTRY.versions)


@given(
    changes=st.dictionaries(
        st.sampled_from([*event(), "concerns", "datacontenttype", "data_base64"]), JSON, max_size=2
    ),
    type_=st.sampled_from(TYPES),
    data=st.dictionaries(
        st.sampled_from(["message", "sender", "labels", "content", "calendar", "uid", "occurrences", "removed"]),
        JSON | st.just("x") | st.just([{"start": 1, "end": 2}]) | st.just({"subject": "x"}),
    ),
)
def test_any_structure_is_translated_or_refused(changes: dict[str, Any], type_: str, data: dict[str, Any]) -> None:
    value = event(type=type_, data=event()["data"] | data) | changes
    try:
        found = translated(json.loads(json.dumps(value)))
    except RefusedError as refused:
        assert refused.refusal.status in (400, 422)  # noqa: PT017
    else:
        assert REGISTRY.schema(found.event.type).role == "event"
        json.dumps(found.event.body)
