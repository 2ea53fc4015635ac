"""What comes to Gmail's endpoint: who may say so, and what it may look like."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError
from headrace.producers.gmail import Gmail, watch_id
from headrace.producers.oidc import GoogleKeys
from headrace.producers.provider import Delivery, Watch
from headrace.producers.refusal import NOTIFICATION_REFUSALS, REFUSALS, RefusedError
from tests.doubles.gmail import ADDRESS
from tests.doubles.http import Reply, Request, transport
from tests.providers.gmail_parts import AUDIENCE, PUSHER, TOPIC, provider

NOW: Final = 1_795_000_000.0
PUSHED: Final = {"emailAddress": ADDRESS, "historyId": 1006196}
UNTIL_2019: Final = (  # the shape of the token in Google's documentation: expired long ago, of an unknown key
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjdkNjgwZDhjNzBkNDRlOTQ3MTMzY2JkNDk5ZWJjMWE2MWMzZDVhYmMiLCJ0eXAiOiJKV1QifQ."
    "eyJhdWQiOiJodHRwczovL2V4YW1wbGUuY29tIiwiZXhwIjoxNTUwMTg1OTM1fQ.Zm9yZ2Vk"
)


class Signer:
    """A key pair of Google's."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon.system.gserviceaccount.com")])
        day = datetime(2026, 1, 1, tzinfo=UTC)
        made = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(day).not_valid_after(day + timedelta(days=400))
        self.pem = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        said = {
            "aud": AUDIENCE,
            "azp": "113774264463038321964",
            "email": PUSHER,
            "email_verified": True,
            "exp": int(NOW) + 3_000,
            "iat": int(NOW) - 600,
            "iss": "https://accounts.google.com",
            "sub": "113774264463038321964",
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not ...}
        parts = [{"alg": "RS256", "kid": self.kid, "typ": "JWT", **(header or {})}, said]
        text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{encoded(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


ONE: Final = Signer("one")
TWO: Final = Signer("two")


class Certificates:
    """Google's certificates, and who asked for them."""

    def __init__(self, *signers: Signer) -> None:
        self.now = 0.0
        self.asked = 0
        self.signers = list(signers)
        self.reply: Callable[[], Reply] | None = None
        self.keys = GoogleKeys(transport=transport(self), clock=lambda: self.now)

    def answer(self, request: Request) -> Reply:
        self.asked += 1
        if self.reply is not None:
            return self.reply()
        said = {signer.kid: signer.pem for signer in self.signers}
        return Reply.json(200, said, {"cache-control": "public, max-age=20000, must-revalidate, no-transform"})


class Door(NamedTuple):
    certificates: Certificates
    gmail: Gmail

    def receive(self, token: str | None, body: object = None, *, now: float = NOW, **headers: str) -> tuple[str, Any]:
        """The watch and the delivery's id, or why it was refused."""
        raw = body if isinstance(body, bytes) else json.dumps(wrapped() if body is None else body).encode()
        named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        if token is not None:
            named.append((b"authorization", f"Bearer {token}".encode()))
        delivery = Delivery("POST", tuple(named), (), raw, now)
        try:
            received = self.gmail.receive(delivery, self.watch)
        except RefusedError as refused:
            if ADDRESS in str(refused):
                return "an address in the message", None
            return refused.reason, refused.refusal.status
        [hint] = received.hints
        assert received.answer.status == 204
        assert hint.kind == "changed"
        return hint.watch, hint.delivery

    @staticmethod
    def watch(watch: str) -> Watch | None:
        return Watch(watch, "", 0, {}) if watch == watch_id(ADDRESS) else None


def wrapped(data: object = None, **message: Any) -> dict[str, Any]:
    raw = json.dumps(PUSHED if data in (None, ...) else data).encode()
    said: dict[str, Any] = {"data": base64.b64encode(raw).decode(), "messageId": "7514282652270598", **message}
    if data is ...:
        del said["data"]
    return {
        "message": {name: value for name, value in said.items() if value is not ...},
        "subscription": "projects/p-1/subscriptions/s",
    }


@pytest.fixture
def door() -> Iterator[Door]:
    made = Certificates(ONE)
    yield Door(made, provider(made.keys))
    made.keys.close()


ACCEPTED: Final = (watch_id(ADDRESS), "7514282652270598")


def test_a_push_is_a_hint(door: Door) -> None:
    assert door.receive(ONE.token()) == ACCEPTED
    assert door.receive(ONE.token(iss="accounts.google.com")) == ACCEPTED
    assert door.certificates.asked == 1


@pytest.mark.parametrize("history", [1006196, "1006196", "18446744073709551615"])
@pytest.mark.parametrize("address", [ADDRESS, "Ann@Example.com"])
@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_every_spelling(
    door: Door, history: object, address: str, alphabet: Callable[[bytes], bytes], padded: bool
) -> None:
    raw = json.dumps({"emailAddress": address, "historyId": history, "more": "ÿ?>~"}, ensure_ascii=False).encode()
    data = alphabet(raw).decode()
    body = wrapped(data=..., messageId=..., message_id="7514282652270598") if padded else wrapped()
    body["message"]["data"] = data if padded else data.rstrip("=")
    body["message"] |= {"attributes": {"a": "b"}, "orderingKey": "", "publishTime": "2023-04-24T11:31:42.877Z"}
    assert door.receive(ONE.token(), body | {"deliveryAttempt": 3}) == ACCEPTED


def test_an_unwrapped_push(door: Door) -> None:
    assert door.receive(ONE.token(), PUSHED, x_goog_pubsub_message_id="75") == (watch_id(ADDRESS), "75")
    assert door.receive(ONE.token(), PUSHED) == (watch_id(ADDRESS), None)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(NOW) - 61}, "stale"),
        ({"iat": int(NOW) + 61}, "future"),
        ({"iss": "https://accounts.google.com.evil.example"}, "wrong_issuer"),
        ({"iss": ["https://accounts.google.com"]}, "wrong_issuer"),
        ({"aud": "https://other.example"}, "wrong_audience"),
        ({"aud": [AUDIENCE]}, "wrong_audience"),
        ({"aud": ...}, "wrong_audience"),
        ({"email": "push@other.iam.gserviceaccount.com"}, "wrong_sender"),
        ({"email": ...}, "wrong_sender"),
        ({"email_verified": False}, "wrong_sender"),
        ({"email_verified": "true"}, "wrong_sender"),
        ({"email_verified": ...}, "wrong_sender"),
        ({"exp": ...}, "malformed_token"),
        ({"exp": "soon"}, "malformed_token"),
        ({"iat": True}, "malformed_token"),
    ],
)
def test_claims_that_are_turned_away(door: Door, claims: dict[str, Any], reason: str) -> None:
    assert door.receive(ONE.token(**claims)) == (reason, NOTIFICATION_REFUSALS.get(reason, REFUSALS.get(reason)).status)  # type: ignore[union-attr]


def test_clocks_may_differ_by_a_minute(door: Door) -> None:
    assert door.receive(ONE.token(exp=int(NOW) - 59)) == ACCEPTED
    assert door.receive(ONE.token(iat=int(NOW) + 59)) == ACCEPTED


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {"alg": ["RS256"]}, {"kid": 5}, {"kid": None}])
def test_only_signatures_of_google(door: Door, header: dict[str, Any]) -> None:
    assert door.receive(ONE.token(header=header))[0] == "malformed_token"


def test_forged(door: Door) -> None:
    head, claims, signature = ONE.token().split(".")
    other = ONE.token(email="eve@example.com").split(".")[1]
    assert door.receive(f"{head}.{other}.{signature}") == ("forged", 401)
    assert door.receive(f"{head}.{claims}.{encoded(b'x' * 256)}") == ("forged", 401)
    assert door.receive(TWO.token(header={"kid": "one"})) == ("forged", 401)
    assert door.receive(TWO.token()) == ("forged", 401)
    assert door.receive(UNTIL_2019) == ("forged", 401)


@pytest.mark.parametrize(
    "token", ["", "x", "a.b", "a.b.c", "a.b.c.d", "e30.e30.e30", "W10.W10.W10", "é.é.é", "a" * 9000, ".."]
)
def test_what_is_no_token(door: Door, token: str) -> None:
    assert door.receive(token)[0] == "malformed_token"


def test_without_a_token(door: Door) -> None:
    assert door.receive(None) == ("missing_token", 401)
    assert door.receive(None, authorization="Basic abc") == ("malformed_token", 401)
    assert door.receive(ONE.token(), authorization=f"Bearer {ONE.token()}") == ("malformed_token", 401)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_utf8"),
        ([], "not_notification"),
        ({}, "not_notification"),
        ({"message": "x"}, "not_notification"),
        (wrapped(messageId=...), "not_notification"),
        (wrapped(messageId=7), "not_notification"),
        (wrapped(messageId="a@b"), "not_notification"),
        (wrapped(data=...), "not_notification"),
        (wrapped(data={}), "not_notification"),
        (wrapped({"emailAddress": ADDRESS}), "not_notification"),
        (wrapped({"emailAddress": ADDRESS, "historyId": True}), "not_notification"),
        (wrapped({"emailAddress": ADDRESS, "historyId": -1}), "not_notification"),
        (wrapped({"emailAddress": ADDRESS, "historyId": "1x"}), "not_notification"),
        (wrapped({"emailAddress": "ann", "historyId": 1}), "not_notification"),
        (wrapped({"emailAddress": [ADDRESS], "historyId": 1}), "not_notification"),
        (wrapped({"emailAddress": "a@" + "b" * 400, "historyId": 1}), "not_notification"),
        (wrapped([PUSHED]), "not_notification"),
        ({"message": {"messageId": "1", "data": "!!!"}}, "not_notification"),
        ({"message": {"messageId": "1", "data": "é"}}, "not_notification"),
        ({"message": {"messageId": "1", "data": "AAAAA"}}, "not_notification"),
        ({"message": {"messageId": "1", "data": "eA=="}}, "not_json"),
        (wrapped({"emailAddress": "carol@example.com", "historyId": 1}), "unknown_watch"),
    ],
)
def test_bodies_that_are_turned_away(door: Door, body: object, reason: str) -> None:
    assert door.receive(ONE.token(), body)[0] == reason


def test_nothing_is_parsed_that_nobody_signed(door: Door) -> None:
    assert door.receive("x", b"{{{")[0] == "malformed_token"


def test_a_new_key_is_fetched_once(door: Door) -> None:
    assert door.receive(ONE.token()) == ACCEPTED
    door.certificates.signers = [ONE, TWO]
    assert door.receive(TWO.token())[0] == "forged", "Google was asked a moment ago"
    door.certificates.now = 61
    assert door.receive(TWO.token()) == ACCEPTED
    assert door.certificates.asked == 2
    for number in range(20):
        assert door.receive(TWO.token(header={"kid": f"k{number}"}))[0] == "forged"
    assert door.certificates.asked == 2
    door.certificates.now = 122
    for number in range(20):
        assert door.receive(TWO.token(header={"kid": f"k{number}"}))[0] == "forged"
    assert door.certificates.asked == 3


def test_keys_are_kept_for_as_long_as_google_says(door: Door) -> None:
    assert door.receive(ONE.token()) == ACCEPTED
    door.certificates.now = 19_999
    assert door.receive(ONE.token()) == ACCEPTED
    assert door.certificates.asked == 1
    door.certificates.signers = [TWO]
    door.certificates.now = 20_000
    assert door.receive(ONE.token())[0] == "forged"
    assert door.receive(TWO.token()) == ACCEPTED
    assert door.certificates.asked == 2


def test_while_google_does_not_answer_the_last_keys_serve_for_an_hour(door: Door) -> None:
    assert door.receive(ONE.token()) == ACCEPTED
    door.certificates.reply = lambda: Reply(500)
    door.certificates.now = 20_000 + 3_599
    assert door.receive(ONE.token()) == ACCEPTED
    assert door.receive(TWO.token()) == ("keys_unavailable", 503)
    door.certificates.now = 20_000 + 3_600
    assert door.receive(ONE.token()) == ("keys_unavailable", 503)
    door.certificates.reply = None
    door.certificates.now += 61
    assert door.receive(ONE.token()) == ACCEPTED


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b'{"one": 5}', b'{"one": "no certificate"}', b"x" * 300_000])
def test_what_is_no_set_of_keys(door: Door, said: bytes) -> None:
    door.certificates.reply = lambda: Reply(200, said)
    assert door.receive(ONE.token()) == ("keys_unavailable", 503)


def test_many_threads_fetch_once() -> None:
    asked, go_on = threading.Event(), threading.Event()
    made = Certificates(ONE)

    def slowly() -> Reply:
        asked.set()
        assert go_on.wait(20)
        return Reply.json(200, {ONE.kid: ONE.pem})

    made.reply = slowly
    gate, found = Door(made, provider(made.keys)), list[tuple[str, Any]]()
    token = ONE.token()
    threads = [threading.Thread(target=lambda: found.append(gate.receive(token))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert asked.wait(20)
    go_on.set()
    for thread in threads:
        thread.join()
    assert found == [ACCEPTED] * 8
    assert made.asked == 1
    made.keys.close()


def test_a_topic_is_named_in_full() -> None:
    with pytest.raises(BadInputError, match="projects"):
        Gmail(topic="gmail", audience=AUDIENCE, service_account=PUSHER, keys=GoogleKeys())
    assert TOPIC.startswith("projects/")


_KEPT: Final = Certificates(ONE)
_DOOR: Final = Door(_KEPT, provider(_KEPT.keys))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
odd = st.one_of(json_values, st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()))


@given(token=st.one_of(st.binary(max_size=200), st.just(ONE.token().encode())), body=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(token: bytes, body: bytes) -> None:
    delivery = Delivery("POST", ((b"authorization", b"Bearer " + token),), (), body, NOW)
    with pytest.raises(RefusedError):
        _DOOR.gmail.receive(delivery, lambda _: None)


@given(header=json_values, claims=json_values)
@settings(max_examples=200, deadline=None)
def test_any_token(header: Any, claims: Any) -> None:
    parts = [encoded(json.dumps(part).encode()) for part in (header, claims)]
    assert _DOOR.receive(".".join([*parts, "AAAA"]))[0] in {*REFUSALS, *NOTIFICATION_REFUSALS}


@given(
    message=st.fixed_dictionaries({}, optional={"data": odd, "messageId": odd, "message_id": odd}),
    data=st.fixed_dictionaries({}, optional={"emailAddress": odd, "historyId": odd}),
    whole=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_push(message: dict[str, Any], data: dict[str, Any], whole: bool) -> None:
    if whole:
        message = {"data": base64.b64encode(json.dumps(data).encode()).decode(), "messageId": "1"}
    body = {"message": message, **data}
    delivery = Delivery("POST", ((b"authorization", f"Bearer {_TOKEN}".encode()),), (), json.dumps(body).encode(), NOW)
    with suppress(RefusedError):
        _DOOR.gmail.receive(delivery, lambda name: Watch(name, "", 0, {}))


_TOKEN: Final = ONE.token()


def test_the_reasons_do_not_overlap() -> None:
    assert not REFUSALS.keys() & NOTIFICATION_REFUSALS.keys()
    assert httpx.codes.is_client_error(NOTIFICATION_REFUSALS["unknown_watch"].status)
