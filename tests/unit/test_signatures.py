"""Standard Webhooks signatures: the vector of the specification, the reference package opposite, hostile headers."""

import base64
import gzip
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from headrace.errors import BadInputError
from headrace.producers.refusal import RefusedError
from headrace.producers.signatures import Endpoint, Signed, read_signed, secret_key, sign, verify
from headrace.schemas.refs import ActorRef

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the specification's example
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NOW = 1_700_000_000
BODY = b'{"test": 2432232314}'


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI gives them."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def signed(body: bytes = BODY, secret: str = SECRET, at: int = NOW) -> Signed:
    """A delivery of now."""
    return read_signed(raw(sign(secret, "msg_1", at, body)), NOW)


def reason_of(headers: list[tuple[bytes, bytes]], now: float = NOW) -> str:
    """Why the headers are refused."""
    with pytest.raises(RefusedError) as refused:
        read_signed(headers, now)
    assert refused.value.refusal.status == 401
    return refused.value.reason


def is_forged(delivery: Signed, secrets: list[str], body: bytes = BODY) -> bool:
    """Whether no signature matches."""
    try:
        verify(delivery, [secret_key(secret) for secret in secrets], body)
    except RefusedError as refused:
        return refused.reason == "forged"
    return False


def test_the_specifications_vector() -> None:
    made = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert not is_forged(read_signed(raw(made), 1614265330), [SECRET])


@given(
    body=st.text(max_size=200),
    key=st.binary(min_size=24, max_size=64),
    id_=st.from_regex(r"[A-Za-z0-9_:-]{1,40}", fullmatch=True),
    at=st.integers(0, 4_000_000_000),
)
def test_agrees_with_the_reference_packages_signer(body: str, key: bytes, id_: str, at: int) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    theirs = Webhook(secret).sign(id_, datetime.fromtimestamp(at, UTC), body)
    assert sign(secret, id_, at, body.encode())["webhook-signature"] == theirs


@given(body=st.recursive(st.integers() | st.text(), st.lists, max_leaves=5).map(repr))
def test_the_reference_package_verifies_what_we_sign(body: str) -> None:
    made = sign(SECRET, "msg_1", int(time.time()), body.encode())
    Webhook(SECRET).verify(body.encode(), made, json_parse=False)


def test_why_the_reference_package_does_not_verify_for_us() -> None:
    """Should this fail, the package has mended itself and may be used after all."""
    packed = gzip.compress(BODY)
    now = int(time.time())
    with pytest.raises(UnicodeDecodeError):
        Webhook(SECRET).verify(packed, sign(SECRET, "msg_1", now, packed))
    good = sign(SECRET, "msg_1", now, BODY)
    Webhook(SECRET).verify(BODY, good | {"webhook-timestamp": f"{now}.9"}, json_parse=False)  # takes floats
    for garbage in ("garbage", "v1,a,b", "v1,a"):
        with pytest.raises(ValueError, match=r"."):
            Webhook(SECRET).verify(BODY, good | {"webhook-signature": garbage})
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, sign(SECRET, "msg_1", NOW, BODY))  # no way to tell it the time


def test_a_changed_byte_of_anything_signed_is_forged() -> None:
    delivery = signed()
    assert not is_forged(delivery, [SECRET])
    assert is_forged(delivery, [SECRET], BODY + b" ")
    assert is_forged(delivery._replace(id=b"msg_2"), [SECRET])
    assert is_forged(delivery._replace(timestamp=str(NOW + 1).encode()), [SECRET])
    assert is_forged(delivery, [OTHER])


def test_rotation_several_secrets_and_several_signatures() -> None:
    old, new = sign(SECRET, "msg_1", NOW, BODY), sign(OTHER, "msg_1", NOW, BODY)
    both = old | {"webhook-signature": f"{old['webhook-signature']} {new['webhook-signature']}"}
    for secrets in ([SECRET], [OTHER], [SECRET, OTHER], [OTHER, SECRET]):
        assert not is_forged(read_signed(raw(both), NOW), secrets)
    for one in (old, new):
        assert not is_forged(read_signed(raw(one), NOW), [SECRET, OTHER])
    assert is_forged(read_signed(raw(old), NOW), [OTHER])
    assert is_forged(read_signed(raw(both), NOW), [])


def test_other_versions_are_passed_over() -> None:
    made = sign(SECRET, "msg_1", NOW, BODY)
    digest = made["webhook-signature"].removeprefix("v1,")
    for text in (f"v1a,{digest}", f"v2,{digest}", digest, f"v1,{digest}x", f"V1,{digest}", f"v1,{digest[:-1]}"):
        assert is_forged(read_signed(raw(made | {"webhook-signature": text}), NOW), [SECRET])
    around = f"v1a,{digest}  garbage v1,a,b {made['webhook-signature']} v9"
    assert not is_forged(read_signed(raw(made | {"webhook-signature": around}), NOW), [SECRET])


@pytest.mark.parametrize(
    ("seconds", "reason"), [(-300, None), (300, None), (0, None), (-301, "stale"), (301, "future"), (10**11, "future")]
)
def test_the_replay_window_is_five_minutes_either_way(seconds: int, reason: str | None) -> None:
    headers = raw(sign(SECRET, "msg_1", NOW + seconds, BODY))
    if reason is None:
        assert read_signed(headers, float(NOW)).id == b"msg_1"
    else:
        assert reason_of(headers, float(NOW)) == reason


@pytest.mark.parametrize(
    "text",
    [b"1e9", b"nan", b"inf", b"-1", b"+1", b" 1", b"1.0", b"01", b"0x1", b"1_0", b"1\n", b"9" * 13, b"\xd9\xa1", b"x"],
)
def test_a_time_is_whole_seconds_in_digits(text: bytes) -> None:
    headers = raw(sign(SECRET, "msg_1", NOW, BODY))
    headers[1] = (b"webhook-timestamp", text)
    assert reason_of(headers) == "malformed_headers"


@pytest.mark.parametrize("text", [b"a.b", b"a b", b"\xff", b"x" * 257, "é".encode(), b"a\x7f"])
def test_an_id_is_visible_ascii_without_the_separator(text: bytes) -> None:
    headers = raw(sign(SECRET, "msg_1", NOW, BODY))
    headers[0] = (b"webhook-id", text)
    assert reason_of(headers) == "malformed_headers"
    with pytest.raises(BadInputError, match="webhook id"):
        sign(SECRET, text.decode("latin-1"), NOW, BODY)


def test_fields_cannot_be_shifted_into_one_another() -> None:
    """A captured ``a`` + ``.T`` + ``.1.{…}`` is not also ``a.T`` + ``.1`` + ``.{…}``."""
    body = f"{NOW}.{{}}".encode()
    made = sign(SECRET, "a", NOW, body)
    shifted = made | {"webhook-id": f"a.{NOW}"}
    assert reason_of(raw(shifted)) == "malformed_headers"


def test_each_header_is_needed_once() -> None:
    headers = raw(sign(SECRET, "msg_1", NOW, BODY))
    for index in range(3):
        name = headers[index][0]
        assert reason_of(headers[:index] + headers[index + 1 :]) == "missing_headers"
        assert reason_of([(n, b"" if n == name else v) for n, v in headers]) == "missing_headers"
        assert reason_of([*headers, headers[index]]) == "malformed_headers"
    assert reason_of([]) == "missing_headers"


@given(
    id_=st.binary(max_size=40),
    at=st.binary(max_size=14) | st.integers(NOW - 400, NOW + 400).map(lambda n: str(n).encode()),
    signatures=st.binary(max_size=120) | st.just(b"v1,\xff\xfe v1, , ,, v1"),
    body=st.binary(max_size=40),
)
def test_hostile_headers_are_refused_and_nothing_else(id_: bytes, at: bytes, signatures: bytes, body: bytes) -> None:
    names = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
    with pytest.raises(RefusedError) as refused:
        verify(
            read_signed(zip(names, (id_, at, signatures), strict=True), NOW),
            [secret_key(SECRET), secret_key(OTHER)],
            body,
        )
    assert refused.value.refusal.status == 401


@pytest.mark.parametrize("length", [0, 23, 65])
def test_a_secret_has_24_to_64_bytes(length: int) -> None:
    with pytest.raises(BadInputError, match="24 to 64"):
        secret_key("whsec_" + base64.b64encode(bytes(length)).decode())


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_not base64 at all!!", "whsec_é", "whpk_" + SECRET[6:]])
def test_no_secret_and_none_shown(text: str) -> None:
    with pytest.raises(BadInputError) as error:
        secret_key(text)
    assert text[6:] == "" or text[6:] not in str(error.value)


@given(key=st.binary(min_size=24, max_size=64))
def test_secrets_with_and_without_prefix_and_padding(key: bytes) -> None:
    text = base64.b64encode(key).decode()
    assert {secret_key(one) for one in (text, "whsec_" + text, "whsec_" + text.rstrip("="))} == {key}


def test_an_endpoint_does_not_show_its_secrets() -> None:
    endpoint = Endpoint("default", "t", "webhook/x", ActorRef("user", "ann"), (SECRET,))
    assert SECRET not in f"{endpoint!r} {endpoint}"
    assert "default" in repr(endpoint)
