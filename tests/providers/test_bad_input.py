"""Bad input on every endpoint: each kind has its own status, a counter, and nothing else; and whatever comes, nothing
breaks."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.producers.refusal import NOTIFICATION_REFUSALS, REFUSALS
from tests.doubles.graph_push import TENANT_ID
from tests.providers import doors as parts
from tests.providers.doors import (
    GOOD,
    KEYS,
    OTHER_SECRET,
    TAKEN,
    Answered,
    Doors,
    Sent,
    doors,
    gmail,
    google_calendar,
    graph,
    hook,
    standard,
)
from tests.providers.graph_parts import ONE as MICROSOFT
from tests.providers.test_gmail_push import wrapped

FUZZ: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with doors(tmp_path_factory.mktemp("doors") / "store") as made:
        yield made


def check(site: Doors, sent: Sent) -> Answered:
    """Deliver: below 500; what is refused leaves one count and a line in memory, and nothing on the log."""
    ends, counted, number = site.ends(), site.counted(), site.app.state.context.deliveries.number
    answer = site.ask(sent)
    assert 200 <= answer.status < 500, answer
    assert site.store.applied.failure is None
    if answer.status < 400:
        return answer
    assert site.ends() == ends
    assert answer.headers["content-type"] == "application/problem+json"
    reason = answer.reason
    assert reason is not None
    assert {**REFUSALS, **NOTIFICATION_REFUSALS}[reason].status == answer.status
    after = site.counted()
    grown = {name: value - counted.get(name, 0) for name, value in after.items() if value != counted.get(name, 0)}
    assert list(grown.values()) == [1], grown
    assert next(iter(grown)).endswith(f"/{reason}")
    assert "refused" in next(iter(grown))
    [seen] = site.app.state.context.deliveries.after(number)
    assert (seen.status, seen.reason, seen.hints, seen.events) == (answer.status, reason, (), 0)
    return answer


def changed(sent: Sent, name: bytes, value: bytes | None) -> Sent:
    """With another value of a header, or without it."""
    others = [one for one in sent.headers if one[0] != name]
    return sent._replace(headers=[*others, *([(name, value)] if value is not None else [])])


def retold(token: str) -> Sent:
    """Gmail's, with another token."""
    return changed(gmail(), b"authorization", f"Bearer {token}".encode())


def earlier() -> bytes:
    return str(int(time.time()) - 9).encode()


STRANGER: Final = json.dumps(wrapped({"emailAddress": "x@y", "historyId": 1})).encode()


def old() -> float:
    return time.time() - 3_600


Refused = tuple[str, str, Callable[[], Sent], int, str]
TABLE: Final[list[Refused]] = [
    ("gmail", "forged", lambda: retold(parts.google_token() + "x"), 401, "forged"),
    ("gmail", "expired", lambda: gmail(exp=int(time.time()) - 3_600), 401, "stale"),
    ("gmail", "oversized", lambda: gmail(b" " * 1_100_000), 413, "too_large"),
    ("gmail", "wrong audience", lambda: gmail(aud="https://elsewhere"), 403, "wrong_audience"),
    ("gmail", "unknown account", lambda: gmail(STRANGER), 404, "unknown_watch"),
    ("gmail", "malformed", lambda: gmail(b"{}"), 400, "not_notification"),
    ("google_calendar", "forged", lambda: google_calendar(Channel_Token="guess"), 401, "forged"),
    ("google_calendar", "expired", lambda: google_calendar(Channel_ID="c-0"), 404, "unknown_watch"),
    ("google_calendar", "oversized", lambda: google_calendar(b" " * 1_100_000), 413, "too_large"),
    ("google_calendar", "wrong audience", lambda: google_calendar(Channel_Token="secret-2"), 401, "forged"),
    ("google_calendar", "unknown account", lambda: google_calendar(Channel_ID="x"), 404, "unknown_watch"),
    ("google_calendar", "malformed", lambda: google_calendar(Message_Number="ten"), 401, "malformed_headers"),
    ("graph", "forged", lambda: graph(clientState="guess"), 401, "forged"),
    ("graph", "expired", lambda: graph(subscriptionId="sub-0"), 404, "unknown_watch"),
    ("graph", "oversized", lambda: graph(b" " * 1_100_000), 413, "too_large"),
    ("graph", "wrong audience", lambda: graph(clientState="state-2"), 401, "forged"),
    ("graph", "unknown account", lambda: graph(subscriptionId="x"), 404, "unknown_watch"),
    ("graph", "malformed", lambda: graph(changeType="moved"), 400, "not_notification"),
    ("nylas", "forged", lambda: hook("nylas", key="x" * 32), 401, "forged"),
    ("nylas", "oversized", lambda: hook("nylas", b" " * 1_100_000), 413, "too_large"),
    ("nylas", "wrong audience", lambda: hook("nylas", key=KEYS["mail"]), 401, "forged"),
    ("nylas", "unknown account", lambda: hook("nylas", b'{"data":{"grant_id":"x"}}'), 404, "unknown_account"),
    ("nylas", "malformed", lambda: hook("nylas", b'{"data":{}}'), 400, "not_notification"),
    ("mail", "forged", lambda: hook("mail", key="x" * 32), 401, "forged"),
    ("mail", "oversized", lambda: hook("mail", b" " * 1_100_000), 413, "too_large"),
    ("mail", "wrong audience", lambda: hook("mail", key=KEYS["nylas"]), 401, "forged"),
    ("mail", "unknown account", lambda: hook("mail", b'{"account":"x"}'), 404, "unknown_account"),
    ("mail", "malformed", lambda: hook("mail", b"account=eve"), 400, "not_json"),
    ("stamped", "forged", lambda: hook("stamped", key="x" * 32), 401, "forged"),
    ("stamped", "expired", lambda: hook("stamped", at=old()), 401, "stale"),
    ("stamped", "too early", lambda: hook("stamped", at=time.time() + 3_600), 401, "future"),
    ("stamped", "another time", lambda: changed(hook("stamped"), b"x-time", earlier()), 401, "forged"),
    ("stamped", "oversized", lambda: hook("stamped", b" " * 1_100_000), 413, "too_large"),
    ("stamped", "wrong audience", lambda: hook("stamped", key=KEYS["nylas"]), 401, "forged"),
    ("stamped", "unknown account", lambda: hook("stamped", b'{"who":"x"}'), 404, "unknown_account"),
    ("stamped", "malformed", lambda: hook("stamped", b"[]"), 400, "not_notification"),
    ("standard", "forged", lambda: standard(secret=OTHER_SECRET), 401, "forged"),
    ("standard", "expired", lambda: standard(at=old()), 401, "stale"),
    ("standard", "oversized", lambda: standard(b" " * 1_100_000), 413, "too_large"),
    ("standard", "wrong audience", lambda: standard(secret=OTHER_SECRET), 401, "forged"),
    ("standard", "unknown account", lambda: standard(account="gus@example.com"), 422, "not_opaque"),
    ("standard", "malformed", lambda: standard(b"{}"), 400, "not_cloudevent"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "made", "status", "reason"),
    [(row[0], *row[2:]) for row in TABLE],
    ids=[" ".join(row[:2]) for row in TABLE],
)
def test_each_kind_has_its_own_answer(
    site: Doors, name: str, made: Callable[[], Sent], status: int, reason: str
) -> None:
    sent = made()
    answer = check(site, sent)
    assert (answer.status, answer.reason) == (status, reason)
    assert b"example.com" not in answer.body
    for secret in (*KEYS.values(), "secret-1", "state-1"):
        assert secret.encode() not in answer.body
    assert name in sent.path


@pytest.mark.parametrize("name", GOOD)
def test_a_replay_does_no_harm(tmp_path: Path, name: str) -> None:
    """The exact same again: of a notification no further record; of a webhook one that has no effect."""
    with doors(tmp_path / "store") as site:
        sent = GOOD[name]()
        before = sum(site.ends())
        assert [check(site, sent).status for _ in range(3)] == [TAKEN[name]] * 3
        hinted = {"nylas": 2, "standard": 0}.get(name, 1)
        accounts = ("ann", "bob", "cid", "dan", "eve", "fay")
        assert sum(site.records(account, "source.notified") for account in accounts) == hinted
        if name == "standard":
            partition = site.store.intake.partition("local", "gus")
            assert site.store.applied.wait(partition, site.ends()[partition] - 1, 20)
            with site.store.tables.snapshot() as reader:
                found = reader.rows("SELECT disposition FROM events WHERE account = 'gus' ORDER BY offset", {})
            assert [one["disposition"] for one in found] == ["applied", "duplicate", "duplicate"]
        else:
            assert sum(site.ends()) - before == hinted


@pytest.mark.parametrize("name", ["nylas", "mail"])
def test_of_what_has_no_signed_time_age_is_not_known(site: Doors, name: str) -> None:
    """So an old one is a hint like any: the sync it leads to finds nothing new."""
    assert check(site, hook(name, at=old())).status == 200


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("chunks", [1, 3])
def test_what_is_good_is_taken(site: Doors, name: str, chunks: int) -> None:
    assert check(site, GOOD[name]()._replace(chunks=chunks)).status == TAKEN[name]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("chunks", [1, 3])
def test_what_breaks_off_is_not_taken(site: Doors, name: str, chunks: int) -> None:
    answer = check(site, GOOD[name]()._replace(chunks=chunks, broken=True))
    assert (answer.status, answer.reason) == (400, "incomplete_body")


@pytest.mark.parametrize("name", [name for name in GOOD if name != "standard"])
def test_only_hooks_with_a_handshake_answer_a_get(site: Doors, name: str) -> None:
    answer = check(site, parts.challenge(name, challenge="bc609b38-c81f"))
    if name == "nylas":
        assert (answer.status, answer.body) == (200, b"bc609b38-c81f")
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-length"] == "13"
    else:
        assert (answer.status, answer.reason, answer.headers["allow"]) == (405, "no_handshake", "POST")
    assert check(site, parts.challenge("nobody", challenge="x")).status == 404


@pytest.mark.parametrize(
    "query", [{}, {"challenge": ""}, {"challenge": "ü"}, {"challenge": "a\r\nb"}, {"challenge": "x" * 513}]
)
def test_what_is_no_challenge_is_not_repeated(site: Doors, query: dict[str, str]) -> None:
    assert check(site, parts.challenge("nylas", **query)).status == 400


def test_a_compressed_body_is_signed_as_sent(site: Doors) -> None:
    """Nylas' compressed_delivery."""
    plain = json.dumps(parts.HOOK_BODIES["nylas"]).encode()
    packed = hook("nylas", gzip.compress(plain), more={"Content-Encoding": "gzip"})
    assert check(site, packed).status == 200
    assert check(site, packed._replace(body=plain)).reason == "forged"
    assert check(site, hook("nylas", plain, more={"Content-Encoding": "gzip"})).reason == "not_compressed"
    bomb = hook("nylas", gzip.compress(b" " * 50_000_000), more={"Content-Encoding": "gzip"})
    assert check(site, bomb).reason == "expands_too_far"


# Whatever comes.

VALUES: Final = st.binary(max_size=60).map(lambda one: bytes(byte for byte in one if byte not in b"\r\n\0"))
NAMES: Final = st.sampled_from(
    [
        b"authorization", b"content-type", b"content-encoding", b"x-goog-channel-id", b"x-goog-channel-token",
        b"x-goog-resource-id", b"x-goog-resource-state", b"x-goog-message-number", b"x-goog-pubsub-message-id",
        b"x-nylas-signature", b"x-ee-wh-signature", b"x-ee-wh-event-id", b"x-signature", b"x-time", b"webhook-id",
        b"webhook-timestamp", b"webhook-signature", b"traceparent", b"content-length", b"transfer-encoding",
        b"\xff\xfe",
    ]
)  # fmt: skip
HUGE: Final = st.sampled_from([b"9" * 70_000, b"\xff" * 70_000, b"," * 70_000, b"Bearer " + b"a." * 40_000])
HEADERS: Final = st.lists(st.tuples(NAMES, VALUES | HUGE), max_size=6)
JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
BODIES: Final = st.binary(max_size=300) | JSON.map(lambda one: json.dumps(one).encode())


@FUZZ
@given(
    name=st.sampled_from([*GOOD, "imap", "caldav", "nobody"]) | st.text(max_size=12),
    method=st.sampled_from(["POST", "POST", "POST", "GET"]),
    headers=HEADERS,
    query=st.binary(max_size=60) | st.just(b"validationToken=x&validationToken=%ff&challenge=%00"),
    body=BODIES,
    chunks=st.integers(1, 3),
)
def test_noise(  # noqa: PLR0917 - hypothesis names them
    site: Doors, name: str, method: str, headers: list[tuple[bytes, bytes]], query: bytes, body: bytes, chunks: int
) -> None:
    if method == "GET" or "/" in name or not name:
        name = "nylas"
    path = GOOD[name]().path if name in GOOD and method == "POST" else f"/v1/notifications/{name}"
    answer = check(site, Sent(path, headers, body, method, query, chunks))
    shown = name == "graph" and b"validationToken" in query
    assert answer.status >= 400 or shown or (method == "GET" and b"challenge" in query) or _is_first(name, headers)


def _is_first(name: str, headers: list[tuple[bytes, bytes]]) -> bool:
    return name == "google_calendar" and (b"x-goog-resource-state", b"sync") in headers


@st.composite
def bent(draw: st.DrawFn) -> Sent:
    """A good delivery, with something done to it on its way."""
    sent = GOOD[draw(st.sampled_from(list(GOOD)))]()
    body, headers = bytearray(sent.body), list(sent.headers)
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["flip", "cut", "grow", "header", "drop", "twice", "more", "gzip", "type"])):
            case "flip" if body:
                body[draw(st.integers(0, len(body) - 1))] ^= draw(st.integers(1, 255))
            case "cut":
                del body[draw(st.integers(0, len(body))) :]
            case "grow":
                body += draw(st.binary(min_size=1, max_size=20))
            case "header" if headers:
                at = draw(st.integers(0, len(headers) - 1))
                headers[at] = headers[at][0], draw(VALUES | HUGE)
            case "drop" if headers:
                del headers[draw(st.integers(0, len(headers) - 1))]
            case "twice" if headers:
                headers.append(draw(st.sampled_from(headers)))
            case "more":
                headers.append((draw(NAMES), draw(VALUES)))
            case "gzip":
                body = bytearray(gzip.compress(bytes(body)))
                headers.append((b"content-encoding", b"gzip"))
            case "type":
                headers = [one for one in headers if one[0] != b"content-type"]
                headers.append(
                    (b"content-type", draw(VALUES | st.sampled_from([b"text/html", b"multipart/form-data"])))
                )
            case _:
                pass
    return sent._replace(body=bytes(body), headers=headers, chunks=draw(st.integers(1, 3)))


@FUZZ
@given(sent=bent())
def test_good_deliveries_that_were_bent(site: Doors, sent: Sent) -> None:
    check(site, sent)


@FUZZ
@given(
    body=BODIES | st.binary(max_size=60).map(gzip.compress),
    encoding=VALUES | st.just(b"gzip"),
    name=st.sampled_from(list(GOOD)),
)
def test_proven_noise(site: Doors, body: bytes, encoding: bytes, name: str) -> None:
    """Whoever may send, sends anything."""
    match name:
        case "gmail":
            sent = gmail(body)
        case "google_calendar":
            sent = google_calendar(body)
        case "graph":
            sent = graph(body)
        case "standard":
            sent = standard(body)
        case _:
            sent = hook(name, body)
    answer = check(site, sent._replace(headers=[*sent.headers, (b"content-encoding", encoding)]))
    assert answer.status >= 400 or name in {"google_calendar", "standard"}


@pytest.mark.parametrize("name", GOOD)
@FUZZ
@given(values=st.dictionaries(st.integers(0, 6), VALUES | HUGE | st.just(b"\xff"), min_size=1, max_size=2))
def test_headers_near_good_ones(site: Doors, name: str, values: dict[int, bytes]) -> None:
    sent = GOOD[name]()
    headers = [(header, values.get(at, value)) for at, (header, value) in enumerate(sent.headers)]
    check(site, sent._replace(headers=headers))


FIELDS: Final = st.sampled_from(
    [
        "subscriptionId", "clientState", "changeType", "lifecycleEvent", "encryptedContent", "tenantId", "resource",
        "resourceData", "id",
    ]
)  # fmt: skip


@FUZZ
@given(
    items=st.lists(
        st.dictionaries(FIELDS, JSON | st.sampled_from(["missed", "removed", "created"]), max_size=4) | JSON, max_size=3
    ),
    tokens=JSON | st.just([MICROSOFT.token(time.time())]),
)
def test_items_near_good_ones(site: Doors, items: list[Any], tokens: Any) -> None:
    """Of Graph; rich ones, too."""
    good = {"subscriptionId": "sub-1", "clientState": "state-1", "changeType": "updated", "tenantId": TENANT_ID}
    value = [{**good, **one} if isinstance(one, dict) else one for one in items]
    check(site, graph(json.dumps({"value": value, "validationTokens": tokens}).encode()))


@FUZZ
@given(
    changes=st.dictionaries(st.sampled_from(["data", "messageId", "message_id", "attributes"]), JSON, max_size=2),
    data=JSON,
)
def test_pushes_near_good_ones(site: Doors, changes: dict[str, Any], data: Any) -> None:
    body = wrapped(data)
    body["message"] |= changes
    check(site, gmail(json.dumps(body).encode()))


@FUZZ
@given(
    said=JSON,
    name=st.sampled_from(["nylas", "mail", "stamped"]),
    where=st.sampled_from(["data", "account", "who", "id"]),
)
def test_hooks_near_good_ones(site: Doors, said: Any, name: str, where: str) -> None:
    body = {**parts.HOOK_BODIES[name], where: said}
    check(site, hook(name, json.dumps(body).encode()))
