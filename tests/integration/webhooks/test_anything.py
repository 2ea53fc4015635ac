"""Whatever comes: an answer below 500, nothing written that was refused, and a fold that survives."""

import gzip
import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.producers.refusal import REFUSALS
from tests.integration.webhooks.receiver import (
    BATCH,
    PATH,
    SINGLE,
    Delivery,
    Headers,
    Receiver,
    event,
    positions,
    signed,
    told,
)

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
VALUES = st.binary(max_size=40).map(lambda raw: bytes(byte for byte in raw if byte not in b"\r\n\0"))
NAMES = st.sampled_from(
    [b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"content-type", b"content-encoding", b"traceparent"]
)


def check(receiver: Receiver, delivery: Delivery) -> httpx.Response:
    """Deliver; no answer but 202 and 4xx, nothing written unless it is 202, and the fold survives what was taken."""
    before = receiver.ends()
    [response] = receiver.post(delivery)
    assert response.status_code == 202 or 400 <= response.status_code < 500, response.text
    if response.status_code == 202:
        assert "quarantined" not in receiver.applied(positions(response))
    else:
        assert receiver.ends() == before
        assert response.json()["reason"] in REFUSALS
    assert receiver.store.applied.failure is None
    return response


@FUZZ
@given(
    body=st.binary(max_size=300),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=6),
    path=st.sampled_from(["", "/default", "/crm", "/x"]),
)
def test_unsigned_noise_is_refused(shared: Receiver, body: bytes, headers: Headers, path: str) -> None:
    assert check(shared, Delivery(body, headers, PATH + path)).status_code in (401, 404)


@FUZZ
@given(
    body=st.binary(max_size=300) | st.binary(max_size=50).map(gzip.compress),
    content_type=VALUES | st.sampled_from([SINGLE.encode(), BATCH.encode()]),
    encoding=VALUES | st.sampled_from([b"gzip", b"deflate", b"identity", b""]),
)
def test_signed_noise_is_refused(shared: Receiver, body: bytes, content_type: bytes, encoding: bytes) -> None:
    delivery = signed(body)
    headers = [*delivery.headers[:3], (b"content-type", content_type), (b"content-encoding", encoding)]
    check(shared, delivery._replace(headers=headers))


@FUZZ
@given(value=JSON, content_type=st.sampled_from([SINGLE, BATCH, "application/json"]))
def test_signed_json_of_any_structure(shared: Receiver, value: Any, content_type: str) -> None:
    response = check(shared, signed(json.dumps(value).encode(), content_type))
    assert response.status_code != 202 or value == []


@FUZZ
@given(
    changes=st.dictionaries(st.sampled_from([*event(), "concerns", "traceparent", "content_key"]), JSON, max_size=2),
    id_=st.text(min_size=1, max_size=12),
    data=st.dictionaries(
        st.sampled_from(
            ["message", "sender", "labels", "recipients", "in_reply_to", "content", "occurrences", "removed"]
        ),
        JSON,
        max_size=2,
    ),
    type_=st.sampled_from(["mail.received", "mail.labelled", "mail.deleted", "calendar.created", "calendar.cancelled"]),
    subject=st.sampled_from(["mail.thread/f", "calendar.event/f"]),
)
def test_events_near_good_ones_never_hurt_the_fold(  # noqa: PLR0917 - hypothesis names them
    shared: Receiver, changes: dict[str, Any], id_: str, data: dict[str, Any], type_: str, subject: str
) -> None:
    plain: dict[str, Any] = {"calendar": "c", "uid": "u"} if type_ == "calendar.created" else {}
    plain = event()["data"] if type_ == "mail.received" else plain
    value = event(type=type_, subject=subject, id=id_, data=plain | data) | changes
    check(shared, told(value))
