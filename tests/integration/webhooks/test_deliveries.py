"""A signed delivery is on the log, in the tables, once; endpoints bind tenant, source and actor."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from headrace.errors import BadInputError
from headrace.producers.endpoint import webhook_router
from headrace.producers.refusal import REFUSALS
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef
from tests.integration.webhooks.receiver import (
    ENDPOINTS,
    NOW,
    PATH,
    PERSONAL,
    SECOND,
    SECRET,
    SINGLE,
    STRANGER,
    TRACE,
    Delivery,
    Receiver,
    envelope,
    event,
    positions,
    signed,
    stored,
    told,
)


@pytest.mark.parametrize(
    "content_type",
    [SINGLE, "application/json", "Application/CloudEvents+JSON; Charset=UTF-8", f'{SINGLE};charset="utf-8"'],
)
def test_a_signed_event_is_on_the_log_and_in_the_tables(receiver: Receiver, content_type: str) -> None:
    value = event(concerns=f"message:<m0@x>,person:{PERSONAL}", actor="system/root", tenant="t9", correlation="forged")
    [response] = receiver.post(signed(json.dumps(value).encode(), content_type, (b"traceparent", TRACE.encode())))
    places = positions(response)
    [record] = stored(receiver.store, places)
    found = envelope(record)
    assert record.key == b"t1/ann-1"
    assert found == Envelope(
        "e-1",
        "webhook/default/mailer",
        "mail.received",
        ActorRef("user", "ann"),
        "mail.thread",
        "t-1",
        found.concerns,
        "2026-11-21T17:15:00.000Z",
        "2023-11-14T22:13:20.000Z",
        correlation="msg_1",
        traceparent=TRACE,
    )
    assert [key.partition(":p-")[0] for key in found.concerns] == ["message", "person"]
    body = receiver.store.registry.decode(record.value).body
    assert body["sender"] == receiver.store.keys.pseudonym("t1", "ann-1", PERSONAL)
    assert PERSONAL.encode() not in record.value
    assert receiver.store.registry.decode(body["content"]).body["subject"] == "Hi"
    assert receiver.applied(places) == ["applied"]
    assert [(row["subject"], row["messages"]) for row in receiver.rows("SELECT * FROM threads")] == [("Hi", 1)]
    assert receiver.counted() == {"default/accepted": 1}


def test_the_extension_traceparent_comes_before_the_header(receiver: Receiver) -> None:
    other = TRACE.replace("4bf9", "0000")
    header = (b"traceparent", TRACE.encode())
    batch = [event(id="a", traceparent=other), event(id="b"), event(id="c", traceparent="none")]
    [response] = receiver.post(told(batch, header))
    assert [envelope(one).traceparent for one in stored(receiver.store, positions(response))] == [other, TRACE, TRACE]
    [response] = receiver.post(told(event(), (b"traceparent", b"\xff not one"), webhook_id="not/opaque"))
    [found] = map(envelope, stored(receiver.store, positions(response)))
    assert (found.traceparent, found.correlation) == (None, None)


def test_a_batch_lands_whole_with_its_positions_in_order(receiver: Receiver) -> None:
    batch = [event(id=f"e-{n}", account=f"a-{n % 7}", subject=f"mail.thread/t-{n}") for n in range(50)]
    [response] = receiver.post(told(batch))
    places = positions(response)
    assert [envelope(one).id for one in stored(receiver.store, places)] == [f"e-{n}" for n in range(50)]
    assert receiver.applied(places) == ["applied"] * 50
    assert sum(receiver.ends()) == 4 + 50
    [response] = receiver.post(told([]))
    assert positions(response) == []
    assert receiver.counted() == {"default/accepted": 50}


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("DEFLATE", zlib.compress)]
)
def test_compressed_bodies_are_signed_as_sent(
    receiver: Receiver, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    plain = json.dumps(event()).encode()
    packed = pack(plain)
    header = (b"content-encoding", encoding.encode())
    inner = signed(plain, SINGLE, header)
    good, wrong = receiver.post(signed(packed, SINGLE, header), inner._replace(body=packed))
    assert len(positions(good)) == 1
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "forged")


def test_secrets_rotate(receiver: Receiver) -> None:
    first, second, other = (
        told(event(), secret=SECRET),
        told(event(), secret=SECOND),
        told(event(), secret=STRANGER),
    )
    both = [
        (name, value + b" " + dict(other.headers)[name] if name == b"webhook-signature" else value)
        for name, value in second.headers
    ]
    answers = receiver.post(
        first, second, other, Delivery(first.body, both), told(event(), secret=SECRET, path=f"{PATH}/crm")
    )
    assert [answer.status_code for answer in answers] == [202, 202, 401, 202, 401]


def test_endpoints_keep_tenants_apart(receiver: Receiver) -> None:
    mine, theirs = receiver.post(told(event()), told(event(), secret=SECOND, path=f"{PATH}/crm"))
    places = [*positions(mine), *positions(theirs)]
    assert [one.key for one in stored(receiver.store, places)] == [b"t1/ann-1", b"t2/ann-1"]
    assert [envelope(one).actor for one in stored(receiver.store, places)] == [
        ActorRef("user", "ann"),
        ActorRef("system", "crm"),
    ]
    assert receiver.applied(places) == ["applied", "applied"]
    assert receiver.counted() == {"default/accepted": 1, "crm/accepted": 1}


def test_a_redelivery_has_one_effect(receiver: Receiver) -> None:
    batch = [event(), event(id="e-2", type="mail.sent", data={"message": "<m2@x>", "sender": "x"})]
    first = positions(receiver.post(told(batch))[0])
    assert receiver.applied(first) == ["applied", "applied"]
    again = [one for answer in receiver.post(told(batch), told(batch, at=NOW + 200)) for one in positions(answer)]
    assert receiver.applied(again) == ["duplicate"] * 4
    assert [row["messages"] for row in receiver.rows("SELECT messages FROM threads")] == [2]


def test_the_identity_is_source_and_id(receiver: Receiver) -> None:
    batch = [
        event(),
        event(source="other"),
        event(source="/mailer"),
        event(source=f"mailto:{PERSONAL}"),
        event(id=PERSONAL),
        event(id=PERSONAL),
        event(subject="mail.thread/t-2"),
    ]
    places = positions(receiver.post(told(batch))[0])
    assert receiver.applied(places) == [*["applied"] * 5, "duplicate", "conflicting_id"]
    raw = b"".join(b"".join(value for _, value in one.headers) + one.value for one in stored(receiver.store, places))
    assert b"personal" not in raw


def test_the_cloudevents_handshake(receiver: Receiver) -> None:
    async def run() -> list[httpx.Response]:
        asks = {"WebHook-Request-Origin": "emitter.example", "WebHook-Request-Rate": "120"}
        async with receiver.client() as client:
            paths = (PATH, f"{PATH}/crm", f"{PATH}/nobody")
            return [await client.options(path, headers=asks) for path in paths]

    *known, unknown = asyncio.run(run())
    for answer in known:
        assert answer.status_code == 200
        assert answer.headers["webhook-allowed-origin"] == "*"
        assert answer.headers["webhook-allowed-rate"] == "*"
        assert "POST" in answer.headers["allow"]
    assert unknown.status_code == 404
    assert "webhook-allowed-origin" not in unknown.headers


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"tenant": PERSONAL},
        {"source": "with space"},
        {"source": "x" * 136},
        {"source": PERSONAL},
        {"actor": ActorRef("robot", "x")},
        {"actor": ActorRef("user", PERSONAL)},
        {"secrets": ()},
        {"secrets": (SECRET, "whsec_short")},
    ],
)
def test_an_endpoint_that_cannot_work_is_refused_at_the_start(shared: Receiver, changes: dict[str, Any]) -> None:
    endpoint = ENDPOINTS["default"]._replace(**changes)
    with pytest.raises(BadInputError, match=r"endpoint 'default'|webhook secret") as error:
        webhook_router(shared.store, {"default": endpoint}, CollectorRegistry())
    assert SECRET not in str(error.value)


def test_the_longest_source_still_fits_the_record(shared: Receiver) -> None:
    long = ENDPOINTS["default"]._replace(source="x" * 135)
    app = FastAPI()
    app.include_router(webhook_router(shared.store, {"default": long}, CollectorRegistry(), clock=lambda: NOW))
    receiver = Receiver(shared.store, app=app)
    [answer] = receiver.post(told(event(source="y" * 64)))
    assert [envelope(one).source for one in stored(shared.store, positions(answer))] == ["x" * 135 + "/" + "y" * 64]


def test_every_answer_is_in_the_openapi_document(shared: Receiver) -> None:
    paths = shared.app.openapi()["paths"]
    for path in (PATH, f"{PATH}/{{endpoint}}"):
        responses = paths[path]["post"]["responses"]
        assert set(responses) == {"202", *(str(refusal.status) for refusal in REFUSALS.values())}
        assert all(
            "application/problem+json" in answer["content"] for code, answer in responses.items() if code != "202"
        )
        assert SINGLE in paths[path]["post"]["requestBody"]["content"]
