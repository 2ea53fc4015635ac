"""Notifications that bring the changed resource along: who vouches for it, and what it takes to read it; and whatever
else may come to the endpoint."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.producers.provider import Answer, Hint, Received, Watch
from headrace.producers.refusal import RefusedError
from tests.doubles.graph_push import CLIENT_ID, TENANT_ID, Certificate
from tests.doubles.http import Reply
from tests.providers.graph_parts import BOTH, CERTIFICATE, NOW, OLD, ONE, TWO, Door, delivery


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def rich() -> Iterator[Door]:
    made = Door(BOTH)
    yield made
    made.close()


def test_what_is_brought_along(rich: Door) -> None:
    made = rich.watch()
    kept = rich.subscriptions.kept[made.id]
    assert made.expires_at - rich.double.now <= 1_440 * 60_000
    assert kept["resource"] == "me/messages?$select=id,isDraft"
    assert (kept["includeResourceData"], kept["encryptionCertificateId"]) == (True, "c-1")
    token = ONE.token(NOW)
    for certificate in (CERTIFICATE, OLD):
        item = rich.subscriptions.notify(made.id, encryptedContent=certificate.encrypted({"id": "1", "isDraft": False}))
        assert len(rich.receive(item, tokens=[token]).hints) == 1
    draft = rich.subscriptions.notify(made.id, encryptedContent=CERTIFICATE.encrypted({"id": "1", "isDraft": True}))
    assert rich.receive(draft, tokens=[ONE.token(NOW, version=2)]) == Received((), Answer(202), ())
    gone = rich.subscriptions.notify(made.id, changeType="deleted")
    assert len(rich.receive(draft, gone, tokens=[token]).hints) == 1, "what is gone brings nothing along"
    assert rich.published.asked == 1


def test_one_tenants_token_speaks_for_no_other(rich: Door) -> None:
    made = rich.watch()
    item = rich.subscriptions.notify(made.id, encryptedContent=CERTIFICATE.encrypted({"id": "1"}))
    other = "11111111-520d-49c0-85cc-7b25c78d4a93"
    theirs = ONE.token(NOW, tid=other, iss=f"https://sts.windows.net/{other}/")
    assert rich.refused(item, tokens=[theirs]) == ("missing_token", 401)
    assert len(rich.receive(item, tokens=[theirs, ONE.token(NOW)]).hints) == 1
    assert rich.refused({**item, "tenantId": None}, tokens=[ONE.token(NOW)]) == ("missing_token", 401)
    assert rich.refused(item) == ("missing_token", 401)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another"}, "wrong_audience"),
        ({"aud": [CLIENT_ID]}, "wrong_audience"),
        ({"iss": "https://accounts.google.com"}, "wrong_issuer"),
        ({"iss": f"https://sts.windows.net/{TENANT_ID}/x"}, "wrong_issuer"),
        ({"iss": f"https://login.microsoftonline.com/{TENANT_ID}/v2.0"}, "wrong_sender"),
        ({"appid": "another"}, "wrong_sender"),
        ({"appid": ..., "azp": "0bf30f3b-4a52-48df-9a82-234910c4a086"}, "wrong_sender"),
        ({"tid": ...}, "malformed_token"),
        ({"tid": 7}, "malformed_token"),
        ({"exp": int(NOW) - 61}, "stale"),
        ({"iat": int(NOW) + 61}, "future"),
        ({"header": {"alg": "none"}}, "malformed_token"),
        ({"header": {"kid": "two"}}, "forged"),
    ],
)
def test_tokens_that_are_turned_away(rich: Door, claims: dict[str, Any], reason: str) -> None:
    made = rich.watch()
    item = rich.subscriptions.notify(made.id, encryptedContent=CERTIFICATE.encrypted({"id": "1"}))
    assert rich.refused(item, tokens=[ONE.token(NOW, **claims)])[0] == reason
    plain = rich.subscriptions.notify(made.id)
    received = rich.receive(item, plain, tokens=[ONE.token(NOW, **claims)])
    assert (len(received.hints), received.dropped) == (1, (reason,))


def test_forged_tokens(rich: Door) -> None:
    made = rich.watch()
    item = rich.subscriptions.notify(made.id, encryptedContent=CERTIFICATE.encrypted({"id": "1"}))
    head, _, signature = ONE.token(NOW).split(".")
    other = ONE.token(NOW, tid="x").split(".")[1]
    for token in (TWO.token(NOW), TWO.token(NOW, header={"kid": "one"}), f"{head}.{other}.{signature}"):
        assert rich.refused(item, tokens=[token]) == ("forged", 401)
    for token in ("", "x", "é.é.é", "a" * 9_000, "e30.e30.e30"):
        assert rich.refused(item, tokens=[token])[0] == "malformed_token"


def test_without_microsofts_keys_it_is_sent_again_later(rich: Door) -> None:
    made = rich.watch()
    item = rich.subscriptions.notify(made.id, encryptedContent=CERTIFICATE.encrypted({"id": "1"}))
    for body in (b"", b"[]", b'{"keys": 5}', b'{"keys": [{"kty": "RSA", "kid": "one", "n": "!", "e": 7}]}'):
        rich.published.reply = Reply(200, body)
        rich.published.now += 120
        assert rich.refused("x", item, tokens=[ONE.token(NOW)]) == ("keys_unavailable", 503)
    rich.published.reply = None
    rich.published.now += 120
    assert len(rich.receive(item, tokens=[ONE.token(NOW)]).hints) == 1


def broken(name: str) -> dict[str, Any]:
    """What is brought along, with one thing wrong."""
    whole = CERTIFICATE.encrypted({"id": "1"})
    raw = bytearray(base64.b64decode(whole.get(name) or ""))
    match name:
        case "data" | "dataKey" | "dataSignature":
            raw[5] ^= 1
            return {**whole, name: base64.b64encode(bytes(raw)).decode()}
        case "another app":
            return {**Certificate("c-1").encrypted({"id": "1"}), "encryptionCertificateId": "c-1"}
        case "unknown":
            return {**whole, "encryptionCertificateId": "c-9"}
        case "short key":
            return CERTIFICATE.encrypted({"id": "1"}, data_key=b"x" * 16) | {"data": "AAAA"}
        case _:
            return CERTIFICATE.encrypted(["no", "object"])


@pytest.mark.parametrize(
    "name", ["data", "dataKey", "dataSignature", "another app", "unknown", "short key", "no object"]
)
def test_what_cannot_be_decrypted(rich: Door, name: str) -> None:
    made = rich.watch()
    item = rich.subscriptions.notify(made.id, encryptedContent=broken(name))
    assert rich.refused(item, tokens=[ONE.token(NOW)]) == ("forged", 401)


def test_a_certificate_that_nobody_has_here(door: Door) -> None:
    made = door.watch()
    item = door.subscriptions.notify(made.id, encryptedContent=CERTIFICATE.encrypted({"id": "1"}))
    assert door.refused(item, tokens=[ONE.token(NOW)]) == ("forged", 401)
    assert "c-1" in repr(BOTH)
    assert "RSAPrivateKey" not in repr(BOTH)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
odd = st.one_of(json_values, st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()))
_ALWAYS: Final = Door(BOTH)
_KNOWN: Final = Watch("sub-1", "s3cret", 0, {})
_GOOD: Final = ONE.token(NOW)
_CONTENT: Final = CERTIFICATE.encrypted({"id": "1"})


@given(body=st.binary(max_size=200), token=st.none() | st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_bytes(body: bytes, token: str | None) -> None:
    query = () if token is None else (("validationToken", token),)
    with suppress(RefusedError):
        assert _ALWAYS.graph.receive(delivery(body, query), lambda _: None).hints == ()


@given(
    item=st.fixed_dictionaries(
        {"subscriptionId": st.sampled_from(["sub-1", "sub-2"]), "clientState": st.sampled_from(["s3cret", "x", None])},
        optional={
            "changeType": odd | st.just("updated"),
            "lifecycleEvent": odd | st.just("missed"),
            "tenantId": odd | st.just(TENANT_ID),
            "encryptedContent": odd
            | st.fixed_dictionaries(
                {name: odd | st.just(_CONTENT[name]) for name in ("data", "dataKey", "dataSignature")},
                optional={"encryptionCertificateId": st.just("c-1") | odd},
            ),
        },
    ),
    tokens=st.lists(st.just(_GOOD) | st.text(max_size=30), max_size=2),
)
@settings(max_examples=300, deadline=None)
def test_any_item(item: dict[str, Any], tokens: list[str]) -> None:
    body = {"value": [item], "validationTokens": tokens}
    with suppress(RefusedError):
        received = _ALWAYS.graph.receive(delivery(body), lambda name: _KNOWN if name == "sub-1" else None)
        assert item["subscriptionId"] == "sub-1"
        assert item["clientState"] == "s3cret"
        assert all(isinstance(hint, Hint) for hint in received.hints)


@given(header=json_values, claims=json_values)
@settings(max_examples=200, deadline=None)
def test_any_token(header: Any, claims: Any) -> None:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    item = {
        "subscriptionId": "sub-1", "clientState": "s3cret", "changeType": "updated", "tenantId": TENANT_ID,
        "encryptedContent": _CONTENT,
    }  # fmt: skip
    body = {"value": [item], "validationTokens": [".".join([*parts, "AAAA"])]}
    with pytest.raises(RefusedError):
        _ALWAYS.graph.receive(delivery(body), lambda _: _KNOWN)
