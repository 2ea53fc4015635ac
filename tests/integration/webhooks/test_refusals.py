"""What is refused has its documented status and leaves a counter, and nothing else."""

import gzip
import json
import logging
import re
import zlib
from pathlib import Path

import pytest

from headrace.producers.refusal import REFUSALS
from tests.integration.webhooks.receiver import (
    BATCH,
    GOOD,
    NOW,
    PATH,
    PERSONAL,
    SINGLE,
    STRANGER,
    Delivery,
    Receiver,
    event,
    replaced,
    signed,
    told,
    without,
)


def nested(levels: int) -> bytes:
    """An event whose data is ``levels`` deep."""
    return json.dumps(event(data={"message": "M"})).encode().replace(b'"M"', b"[" * levels + b"]" * levels)


GZIP, DEFLATE = (b"content-encoding", b"gzip"), (b"content-encoding", b"deflate")
BOMB = gzip.compress(b" " * 50_000_000)
MORE = {"responses": [{"who": PERSONAL, "response": "x", "personal": 1}]}
TWICE = b'{"specversion":"1.0","id":"a","id":"personal"}'
REFUSED: list[tuple[str, Delivery, str]] = [
    ("no such endpoint", GOOD._replace(path=f"{PATH}/personal"), "unknown_endpoint"),
    ("strange endpoint", GOOD._replace(path=f"{PATH}/%00%ff"), "unknown_endpoint"),
    ("no id", without(GOOD, b"webhook-id"), "missing_headers"),
    ("no time", without(GOOD, b"webhook-timestamp"), "missing_headers"),
    ("no signature", without(GOOD, b"webhook-signature"), "missing_headers"),
    ("empty signature", replaced(GOOD, b"webhook-signature", b""), "missing_headers"),
    ("no headers at all", Delivery(b"{}", []), "missing_headers"),
    ("non-ASCII id", replaced(GOOD, b"webhook-id", b"\xff\xfe"), "malformed_headers"),
    ("non-ASCII time", replaced(GOOD, b"webhook-timestamp", b"\xb2\xb3"), "malformed_headers"),
    ("float time", replaced(GOOD, b"webhook-timestamp", b"1e9"), "malformed_headers"),
    ("two times", GOOD._replace(headers=[*GOOD.headers, GOOD.headers[1]]), "malformed_headers"),
    ("five minutes old", told(event(), at=NOW - 301), "stale"),
    ("five minutes ahead", told(event(), at=NOW + 301), "future"),
    ("other secret", told(event(), secret=STRANGER), "forged"),
    ("other endpoint's secret", told(event(), path=f"{PATH}/crm"), "forged"),
    ("non-ASCII signature", replaced(GOOD, b"webhook-signature", b"v1,\xff\xfe\xe9"), "forged"),
    ("garbage signature", replaced(GOOD, b"webhook-signature", b"garbage, ,v1,,v1,=== v1,a,b  "), "forged"),
    ("other version", replaced(GOOD, b"webhook-signature", b"v1a,AAAA"), "forged"),
    ("body changed", GOOD._replace(body=GOOD.body + b" "), "forged"),
    ("body reformatted", GOOD._replace(body=json.dumps(json.loads(GOOD.body), indent=1).encode()), "forged"),
    ("no body", GOOD._replace(body=b""), "forged"),
    ("time changed", replaced(GOOD, b"webhook-timestamp", str(NOW + 1).encode()), "forged"),
    ("too large", signed(b" " * (1024 * 1024 + 1)), "too_large"),
    ("too large, unsigned", GOOD._replace(body=b" " * (1024 * 1024 + 1)), "too_large"),
    ("gzip bomb", signed(BOMB, SINGLE, GZIP), "expands_too_far"),
    ("deflate bomb", signed(zlib.compress(b"[" * 9_000_000), SINGLE, DEFLATE), "expands_too_far"),
    ("bomb in a bomb", signed(gzip.compress(BOMB), SINGLE, (b"content-encoding", b"gzip, gzip")), "content_encoding"),
    ("brotli", signed(b"x", SINGLE, (b"content-encoding", b"br")), "content_encoding"),
    ("non-ASCII encoding", signed(b"x", SINGLE, (b"content-encoding", b"\xff")), "content_encoding"),
    ("no gzip", signed(b"personal", SINGLE, GZIP), "not_compressed"),
    ("half a gzip", signed(gzip.compress(GOOD.body)[:-9], SINGLE, GZIP), "not_compressed"),
    ("two gzips", signed(gzip.compress(b"{") + gzip.compress(b"}"), SINGLE, GZIP), "not_compressed"),
    ("gzip unsaid", signed(gzip.compress(GOOD.body)), "not_utf8"),
    ("no content type", without(GOOD, b"content-type"), "content_type"),
    ("text", signed(GOOD.body, "text/plain"), "content_type"),
    ("form", signed(b"a=personal", "application/x-www-form-urlencoded"), "content_type"),
    ("Latin-1", signed(GOOD.body, f"{SINGLE}; charset=iso-8859-1"), "content_type"),
    ("non-ASCII content type", replaced(GOOD, b"content-type", b"\xff\xfe"), "content_type"),
    ("two content types", GOOD._replace(headers=[*GOOD.headers, (b"content-type", b"text/plain")]), "content_type"),
    ("not UTF-8", signed(b'{"personal": "\xff"}'), "not_utf8"),
    ("UTF-16", signed(GOOD.body.decode().encode("utf-16")), "not_utf8"),
    ("not JSON", signed(b"personal"), "not_json"),
    ("nothing", signed(b""), "not_json"),
    ("deep", signed(nested(40)), "too_deep"),
    ("very deep", signed(nested(200_000)), "too_deep"),
    ("deep and never closed", signed(b'{"a":' * 200_000), "too_deep"),
    ("a key twice", signed(TWICE), "duplicate_key"),
    ("NaN", signed(b'{"personal": NaN}'), "bad_number"),
    ("huge integer", signed(b'{"personal": %b}' % (b"9" * 100_000)), "bad_number"),
    ("huge float", signed(b'{"personal": 1e400}'), "bad_number"),
    ("half a surrogate pair", signed(json.dumps(event(source="\ud800")).encode()), "bad_text"),
    ("NUL", told(event(account="a\0")), "bad_text"),
    ("no CloudEvent", told({"type": "mail.received", "timestamp": "personal", "data": {}}), "not_cloudevent"),
    ("old CloudEvent", told(event(specversion="0.3")), "not_cloudevent"),
    ("binary mode", signed(b"{}", "application/json", (b"ce-specversion", b"1.0"), (b"ce-id", b"1")), "not_cloudevent"),
    ("a batch as one", signed(json.dumps([event()]).encode()), "not_cloudevent"),
    ("one as a batch", signed(GOOD.body, BATCH), "not_cloudevent"),
    ("a number", told(7), "not_cloudevent"),
    ("no such time", told(event(time="personal")), "not_cloudevent"),
    ("too many events", told([event()] * 1_001), "too_many_events"),
    ("unknown type", told(event(type="personal.type")), "unknown_type"),
    ("a proposal", told(event(type="proposal.submitted", data={})), "unknown_type"),
    ("the log's own", told(event(type="log.closed", data={"successor": "personal"})), "unknown_type"),
    ("a sync", told(event(type="source.synced", data={})), "unknown_type"),
    ("unknown kind", told(event(subject="personal/1")), "unknown_kind"),
    ("no account", told(event(account=...)), "not_opaque"),
    ("an address as account", told(event(account=PERSONAL)), "not_opaque"),
    ("an address as entity", told(event(subject=f"mail.thread/{PERSONAL}")), "not_opaque"),
    ("no entity", told(event(subject=...)), "not_opaque"),
    ("concerns", told(event(concerns=PERSONAL)), "bad_concerns"),
    ("concern too long to keep", told(event(concerns="x" * 300 + ":personal")), "schema"),
    ("too many concerns", told(event(concerns=",".join(f"k:{n}" for n in range(65)))), "schema"),
    ("data misses a field", told(event(data={"sender": PERSONAL})), "schema"),
    ("data with more", told(event(data=event()["data"] | {PERSONAL: 1})), "schema"),
    ("data of another type", told(event(data=event()["data"] | {"labels": "personal"})), "schema"),
    ("sealed content", told(event(data=event()["data"] | {"content_key": "personal"})), "schema"),
    ("nested data with more", told(event(type="calendar.responded", data=MORE)), "schema"),
    ("a label of 501 characters", told(event(type="mail.labelled", data={"added": ["x" * 501]})), "schema"),
    ("no such day", told(event(time="2026-02-30T00:00:00Z")), "not_cloudevent"),
    ("the last of a batch", told([*[event()] * 20, event(account=PERSONAL)]), "not_opaque"),
]  # fmt: skip


@pytest.mark.parametrize(("delivery", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refusal_leaves_a_counter_and_nothing_else(
    shared: Receiver, delivery: Delivery, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(shared.store)
    ends = receiver.ends()
    with caplog.at_level(logging.INFO):
        [response] = receiver.post(delivery)
    problem = response.json()
    status, title = REFUSALS[reason]
    assert (response.status_code, problem["reason"], problem["status"], problem["title"]) == (
        status,
        reason,
        status,
        title,
    )
    assert 400 <= status < 500
    assert response.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert problem["type"] == f"urn:headrace:webhook:{reason}"
    assert "personal" not in response.text
    assert "whsec" not in response.text
    assert receiver.ends() == ends
    name = "(unknown)" if reason == "unknown_endpoint" else delivery.path.removeprefix(PATH).strip("/") or "default"
    assert receiver.counted() == {f"{name}/{reason}": 1}
    assert [one for one in caplog.records if not one.name.startswith(("httpx", "asyncio", "headrace.fold"))] == []


def test_every_reason_has_a_test() -> None:
    elsewhere = {"busy", "slow_body", "incomplete_body", "log_unavailable", "outcome_unknown"}
    assert {row[2] for row in REFUSED} | elsewhere == set(REFUSALS)


def test_the_documentation_has_every_refusal() -> None:
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    documented = {
        reason: int(status) for status, reason in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page, re.MULTILINE)
    }
    assert documented == {reason: refusal.status for reason, refusal in REFUSALS.items()}


def test_a_label_that_no_read_can_name_is_refused_by_its_field(shared: Receiver) -> None:
    ends = shared.ends()
    batch = [event(type="mail.labelled", data={"added": ["a", "personal" * length]}) for length in (62, 63)]
    [response] = shared.post(told(batch))
    assert response.json()["detail"] == (
        "event 1 of the batch: added holds a text of 504 characters; a mail.label may have 500 at the most: shorten it"
    )
    assert shared.ends() == ends


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_one_bad_event_refuses_the_batch_and_is_named(shared: Receiver, bad: int) -> None:
    ends = shared.ends()
    batch = [event(id=f"e-{n}") for n in range(20)]
    batch[bad] = event(data={"sender": PERSONAL})
    [response] = shared.post(told(batch))
    assert response.status_code == 422
    assert f"event {bad} of the batch: data lacks message" in response.json()["detail"]
    assert shared.ends() == ends
