"""HMAC signatures in every spelling: what fits passes, and nothing else does."""

import base64
import hashlib
import hmac
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BadInputError
from headrace.producers.hook_signature import Scheme, secret_key, sign, verify
from headrace.producers.hooks import Hook, hook
from headrace.producers.provider import Delivery
from headrace.producers.refusal import RefusedError

KEY: Final = secret_key("0123456789abcdef")
NOW: Final = 1_700_000_000
BODY: Final = b'{"a":1}'
SCHEMES: Final = st.builds(
    Scheme,
    st.just("x-signature"),
    st.sampled_from(["hex", "base64", "base64url"]),
    st.sampled_from(["sha256", "sha384", "sha512"]),
    st.sampled_from(["", "sha256=", "v1"]),
    st.sampled_from([None, "x-time"]),
    st.just(300),
)


def said(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def refused(scheme: Scheme, headers: dict[str, str], body: bytes = BODY, *, now: float = NOW, key: bytes = KEY) -> str:
    """Why, or an empty text."""
    try:
        verify(scheme, [key], said(headers), body, now)
    except RefusedError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("scheme", "signature"),
    [
        (Scheme("x-nylas-signature"), hmac.new(KEY, BODY, hashlib.sha256).hexdigest()),
        (
            Scheme("x-hub-signature-256", prefix="sha256="),
            "sha256=" + hmac.new(KEY, BODY, hashlib.sha256).hexdigest().upper(),
        ),
        (Scheme("x-s", "base64"), base64.b64encode(hmac.new(KEY, BODY, hashlib.sha256).digest()).decode()),
        (Scheme("x-s", "base64"), base64.b64encode(hmac.new(KEY, BODY, hashlib.sha256).digest()).decode().rstrip("=")),
        (Scheme("x-s", "base64url"), base64.urlsafe_b64encode(hmac.new(KEY, BODY, hashlib.sha256).digest()).decode()),
        (Scheme("x-s", "base64", "sha512"), base64.b64encode(hmac.new(KEY, BODY, hashlib.sha512).digest()).decode()),
        (Scheme("x-s"), "AAAA, " + hmac.new(KEY, BODY, hashlib.sha256).hexdigest()),
    ],
)
def test_as_others_spell_it(scheme: Scheme, signature: str) -> None:
    """Made by the standard library, step by step."""
    assert refused(scheme.checked(), {scheme.header: signature}) == ""


def test_a_signed_time() -> None:
    scheme = Scheme("x-s", prefix="v0=", timestamp_header="x-t", tolerance_s=60)
    signature = "v0=" + hmac.new(KEY, b"1700000000." + BODY, hashlib.sha256).hexdigest()
    headers = {"x-s": signature, "x-t": "1700000000"}
    assert sign(scheme, KEY, BODY, NOW) == headers
    for now, reason in ((NOW, ""), (NOW + 60, ""), (NOW - 60, ""), (NOW + 61, "stale"), (NOW - 61, "future")):
        assert refused(scheme, headers, now=now) == reason
    assert refused(scheme, headers | {"x-t": "1700000001"}) == "forged"
    assert refused(scheme, headers | {"x-t": "+1700000000"}) == "malformed_headers"
    assert refused(scheme, {"x-s": signature}) == "missing_headers"
    assert refused(scheme, {"x-s": hmac.new(KEY, BODY, hashlib.sha256).hexdigest(), "x-t": "1700000000"}) == "forged"


@given(scheme=SCHEMES, body=st.binary(max_size=60), at=st.integers(0, 2**33))
def test_what_was_signed_passes_and_a_changed_bit_does_not(scheme: Scheme, body: bytes, at: int) -> None:
    headers = sign(scheme, KEY, body, at)
    assert refused(scheme, headers, body, now=at) == ""
    assert refused(scheme, headers, body + b"\0", now=at) == "forged"
    assert refused(scheme, headers, body, now=at, key=secret_key("x" * 16)) == "forged"
    for place in range(len(scheme.prefix), len(headers[scheme.header])):
        text = headers[scheme.header]
        other = "0" if text[place] != "0" else "1"
        bent = text[:place] + other + text[place + 1 :]
        assert refused(scheme, headers | {scheme.header: bent}, body, now=at) == "forged"


@given(scheme=SCHEMES, value=st.binary(max_size=200), time=st.binary(max_size=20))
def test_whatever_comes_is_refused(scheme: Scheme, value: bytes, time: bytes) -> None:
    headers = [(b"x-signature", value), (b"x-time", time)]
    with pytest.raises(RefusedError):
        verify(scheme, [KEY], headers, BODY, NOW)


def test_one_of_several_secrets_is_enough() -> None:
    scheme, old = Scheme("x-s"), secret_key("y" * 32)
    headers = said(sign(scheme, old, BODY, NOW))
    verify(scheme, [KEY, old], headers, BODY, NOW)
    verify(scheme, [old, KEY], headers, BODY, NOW)
    with pytest.raises(RefusedError, match="sign the body"):
        verify(scheme, [KEY], headers, BODY, NOW)


def test_a_header_comes_once() -> None:
    scheme = Scheme("x-s")
    one = said(sign(scheme, KEY, BODY, NOW))
    with pytest.raises(RefusedError) as twice:
        verify(scheme, [KEY], [*one, *one], BODY, NOW)
    assert twice.value.reason == "malformed_headers"
    with pytest.raises(RefusedError) as many:
        verify(scheme, [KEY], [(b"x-s", b"a," * 16)], BODY, NOW)
    assert many.value.reason == "malformed_headers"


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme("X-Signature"),
        Scheme("x signature"),
        Scheme(""),
        Scheme("x-s", "base32"),  # type: ignore[arg-type]
        Scheme("x-s", algorithm="md5"),  # type: ignore[arg-type]
        Scheme("x-s", prefix="a,b"),
        Scheme("x-s", prefix="ü"),
        Scheme("x-s", timestamp_header="x-s"),
        Scheme("x-s", timestamp_header="x-t", tolerance_s=0),
        Scheme("x-s", timestamp_header="x-t", tolerance_s=86_400),
    ],
)
def test_what_cannot_be_a_scheme(scheme: Scheme) -> None:
    with pytest.raises(BadInputError):
        scheme.checked()


@pytest.mark.parametrize("secret", ["", "short", "x" * 1_025])
def test_what_cannot_be_a_secret(secret: str) -> None:
    with pytest.raises(BadInputError) as wrong:
        secret_key(secret)
    assert not secret or secret not in str(wrong.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"preset": "cronofy"}, "there is no preset 'cronofy'; there are nylas, emailengine"),
        ({}, "say which header has the signature"),
        ({"header": "x-s"}, "say which field names the account"),
        ({"header": "x-s", "account": ("a..b",)}, "say which field names the account"),
        ({"header": "x s", "account": ("a",)}, "is no header's name"),
    ],
)
def test_what_cannot_be_a_hook(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        hook("one", settings, ["k" * 16])


def test_a_hook_without_a_secret_is_one_that_is_asked_first() -> None:
    with pytest.raises(BadInputError, match="the hook mail has no secret"):
        hook("mail", {"preset": "emailengine"}, [])
    waiting = hook("nylas", {"preset": "nylas"}, [])
    assert waiting.handshake([("challenge", "abc")]).body == b"abc"
    with pytest.raises(RefusedError) as refused_:
        waiting.receive(Delivery("POST", (), (), b"{}", NOW))
    assert refused_.value.reason == "keys_unavailable"
    assert refused_.value.refusal.status == 503


def made(**settings: Any) -> Hook:
    return hook("one", {"header": "X-S", "account": ("a.b", "c"), **settings}, ["k" * 16, "l" * 16])


@pytest.mark.parametrize(
    ("body", "account"),
    [
        (b'{"a":{"b":"x"},"c":"y"}', "x"),
        (b'{"a":{"b":null},"c":"y"}', "y"),
        (b'{"a":[],"c":17}', "17"),
        (b'{"a":"b","c":true}', None),
        (b'{"c":""}', None),
        (b'{"c":{"c":"x"}}', None),
        (b'"c"', None),
    ],
)
def test_the_first_field_that_is_there_names_the_account(body: bytes, account: str | None) -> None:
    delivery = Delivery("POST", (), (), body, NOW)
    if account is None:
        with pytest.raises(RefusedError, match=r"names no account at a\.b or c"):
            made().read(delivery)
    else:
        assert made().read(delivery).watch == account


def test_the_deliverys_own_id() -> None:
    delivery = Delivery("POST", ((b"x-id", b"d-1"),), (), b'{"c":"x","n":{"id":"d-2"}}', NOW)
    assert made().read(delivery).delivery is None
    assert made(delivery="n.id").read(delivery).delivery == "d-2"
    assert made(delivery_header="X-Id").read(delivery).delivery == "d-1"
    assert "k" * 16 not in repr(made())
