"""Proposing over HTTP: every verdict with its status, retries, races, answers, claims."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.processors.core.policy import DEFAULT_POLICY, Policy, PolicyRule
from headrace.processors.core.verdicts import ROWS
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef, Token
from tests.integration.api_desk import HOUR, MESSAGE, Desk, meeting, problem, received, serving

REVIEWING = Policy(
    "reviewing",
    (PolicyRule("mail.reply", "mail.labelled", "*", "review"), *DEFAULT_POLICY.rules),
    source_max_staleness_ms=60_000,
)
VERDICT = "urn:headrace:verdict:"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store"), policy=REVIEWING) as served:
        yield served


def refused(answer: httpx.Response, verdict: str) -> dict[str, Any]:
    """The whole verdict in the problem, with the table's status."""
    body = problem(answer, ROWS[verdict].status, verdict)
    assert body["type"] == VERDICT + verdict
    assert body["verdict"] == verdict
    assert body["instance"] == answer.headers["location"]
    assert answer.headers["headrace-position"] == body["position"]
    assert int(answer.headers["headrace-log-time"]) == body["log_time"]
    return body


def test_an_accepted_proposal_becomes_the_head(desk: Desk) -> None:
    shown = desk.thread("ok")
    answer = desk.propose("ok", "p1", shown["basis"])
    assert answer.status_code == 201
    body = answer.json()
    assert (body["verdict"], body["outcome"], body["waits"], body["duplicate"]) == ("accepted", "open", False, False)
    assert body["entity"] == {"kind": "mail.thread", "id": "t1"}
    after = desk.entity("ok", "mail.thread", "t1").json()
    assert after["basis"] == body["token"]
    assert [intent["proposal"] for intent in after["intents"]] == ["p1"]
    assert after["state"] == shown["state"]
    assert len(after["foreseen"]["drafted"]) == 1
    looked_up = desk.http.get(answer.headers["location"]).json()
    assert {**body, **looked_up} == looked_up | {name: body[name] for name in ("position", "log_time")}
    assert [one["verdict"] for one in looked_up["history"]] == ["accepted"]
    assert looked_up["actor"] == "agent/local"


def test_a_stale_proposal_is_superseded_by_name(desk: Desk) -> None:
    shown = desk.thread("stale")
    position = desk.tell("stale", "mail.sent", "t1", received("<m2@x>", in_reply_to=MESSAGE), event_id="the-reply")
    body = refused(desk.propose("stale", "p1", shown["basis"]), "superseded")
    event = body["finding"]["event"]
    assert (event["id"], event["type"], event["actor"], event["offset"]) == (
        "the-reply",
        "mail.sent",
        "user/ann",
        position.offset,
    )
    assert "mail.sent by user/ann" in body["detail"]


def test_an_id_repeated_has_one_effect_and_the_first_ones_answer(desk: Desk) -> None:
    shown = desk.thread("again")
    first = desk.propose("again", "p1", shown["basis"])
    second = desk.propose("again", "p1", shown["basis"])
    assert (first.status_code, second.status_code) == (201, 201)
    moving = {"position", "log_time", "duplicate"}
    assert {k: v for k, v in first.json().items() if k not in moving} == {
        k: v for k, v in second.json().items() if k not in moving
    }
    assert second.json()["duplicate"] is True
    assert len(desk.entity("again", "mail.thread", "t1").json()["intents"]) == 1
    other = refused(desk.propose("again", "p1", shown["basis"], data={}), "conflicting_id")
    assert other["finding"] == {"first": first.json()["submitted_at"]}
    desk.tell("again", "mail.sent", "t1", received("<m2@x>", in_reply_to=MESSAGE))
    late = refused(desk.propose("again", "late", shown["basis"]), "superseded")
    repeated = refused(desk.propose("again", "late", shown["basis"]), "superseded")
    assert repeated["duplicate"] is True
    assert (repeated["offset"], repeated["finding"]) == (late["offset"], late["finding"])


def test_a_basis_that_never_was_is_unknown(desk: Desk) -> None:
    shown = desk.thread("basis")
    other = desk.thread("basis", "t2")
    token = Token.parse(shown["basis"])
    wrong = {
        "log": token._replace(log_id=bytes(16)),
        "chain": token._replace(check=bytes(8)),
        "partition": token._replace(partition=(token.partition + 1) % 4),
        "future": token._replace(offset=token.offset + 1_000),
        "entity": Token.parse(other["basis"]),
    }
    for name, basis in wrong.items():
        body = refused(desk.propose("basis", f"p-{name}", basis.encode()), "unknown_basis")
        assert body["finding"]["reason"]
    refused(desk.propose("basis", "p-absent", shown["basis"], absent=True), "unknown_basis")
    spans = [{"what": "entity", "kind": "mail.thread", "id": "t1", "basis": shown["basis"], "account": "other"}]
    assert "span" in refused(desk.propose("basis", "p-span", shown["basis"], reads=spans), "unknown_basis")["detail"]


def test_what_has_expired_in_log_time_is_gone(desk: Desk) -> None:
    shown = desk.thread("old")
    late = refused(desk.propose("old", "p1", shown["basis"], expires_at=shown["log_time"]), "expired")
    assert late["finding"]["expires_at"] == shown["log_time"]
    refused(desk.propose("old", "p2", shown["basis"], expires_at="2020-01-01T00:00:00Z"), "expired")
    assert desk.propose("old", "p3", shown["basis"], expires_at="2999-01-01T00:00:00+01:00").status_code == 201


def test_a_guard_rejects(desk: Desk) -> None:
    desk.thread("guard")
    desk.tell("guard", "mail.archived", "t1", {})
    basis = desk.entity("guard", "mail.thread", "t1").json()["basis"]
    assert refused(desk.propose("guard", "p1", basis), "rejected")["finding"] == {"rule": "thread_archived"}


def test_scopes_and_absences_are_judged(desk: Desk) -> None:
    calendar = desk.store.intake.pseudonyms("local", "phantom")("work")
    path = f"/v1/accounts/phantom/scopes/calendar/{calendar}"
    free = desk.http.get(path, params={"from": HOUR, "to": 2 * HOUR}).json()
    absent = desk.entity("phantom", "calendar.event", "new").json()["position"]
    desk.tell("phantom", "calendar.created", "far", meeting("work", 5 * HOUR, 6 * HOUR))
    scope = {"what": "scope", "kind": "calendar", "id": calendar, "start": HOUR, "end": 2 * HOUR}
    booking: dict[str, Any] = {
        "absent": True,
        "entity": {"kind": "calendar.event", "id": "new"},
        "type": "calendar.book",
        "data": {"calendar": "work", "start": HOUR, "end": 2 * HOUR},
        "reads": [{**scope, "basis": free["position"]}],
    }
    assert desk.propose("phantom", "b1", absent, **booking).status_code == 201
    booking["entity"] = {"kind": "calendar.event", "id": "newer"}
    body = refused(desk.propose("phantom", "b2", absent, **booking), "superseded")
    assert body["finding"]["event"]["effect"] == "accepted:calendar.book"


def test_a_verdict_that_takes_longer_is_looked_up(desk: Desk) -> None:
    shown = desk.thread("slow")
    with desk.fold_stalled():
        pending = desk.propose("slow", "p1", shown["basis"], prefer="wait=0")
        assert pending.status_code == 202
        assert pending.json()["proposal"] == "p1"
        assert "verdict" not in pending.json()
        where = pending.headers["location"]
        problem(desk.http.get(where), 404, "no-such-proposal")
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(desk.http.get, where, headers={"Prefer": "wait=20"})
            desk.go_on()
            judged = asked.result()
    assert judged.json()["verdict"] == "accepted"
    assert judged.json()["submitted_at"] == pending.json()["offset"]


def test_of_32_proposals_on_one_head_one_is_accepted(desk: Desk) -> None:
    shown = desk.thread("race")
    with ThreadPoolExecutor(32) as agents:
        asked = [agents.submit(desk.propose, "race", f"p{n}", shown["basis"]) for n in range(32)]
    answers = [one.result() for one in asked]
    accepted = [one for one in answers if one.status_code == 201]
    assert len(accepted) == 1
    winner = accepted[0].json()["proposal"]
    for one in answers:
        if one is not accepted[0]:
            event = refused(one, "superseded")["finding"]["event"]
            assert (event["id"], event["effect"]) == (winner, "accepted:mail.reply")
    listed = desk.http.get("/v1/accounts/race/proposals", params={"verdict": "accepted"}).json()
    assert [one["proposal"] for one in listed["proposals"]] == [winner]
    found, cursor = set[str](), None
    while not found or cursor:
        page = desk.http.get(
            "/v1/accounts/race/proposals", params={"limit": 10} | ({"cursor": cursor} if cursor else {})
        ).json()
        found |= {one["proposal"] for one in page["proposals"]}
        cursor = page["next"]
    assert found == {f"p{n}" for n in range(32)}


def test_32_retries_of_one_proposal_have_one_effect(desk: Desk) -> None:
    shown = desk.thread("herd")
    with ThreadPoolExecutor(32) as agents:
        asked = [agents.submit(desk.propose, "herd", "same", shown["basis"]) for _ in range(32)]
    answers = [one.result() for one in asked]
    assert {one.status_code for one in answers} == {201}
    assert len({one.json()["offset"] for one in answers}) == 1
    assert sum(not one.json()["duplicate"] for one in answers) == 1
    assert len(desk.entity("herd", "mail.thread", "t1").json()["intents"]) == 1


def _waiting(desk: Desk, account: str) -> dict[str, Any]:
    """A proposal that waits for review."""
    shown = desk.thread(account)
    desk.tell(account, "mail.labelled", "t1", {"added": ["later"]})
    answer = desk.propose(account, "p1", shown["basis"])
    assert answer.status_code == 202
    body: dict[str, Any] = answer.json()
    assert (body["verdict"], body["waits"]) == ("needs_review", True)
    return body


def _answer(desk: Desk, account: str, verb: str, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Prefer": "wait=20"} | ({"Idempotency-Key": key} if key is not None else {})
    return desk.http.post(f"/v1/accounts/{account}/proposals/p1/{verb}", json=body, headers=headers)


def test_an_approval_that_had_read_everything_is_accepted(desk: Desk) -> None:
    waiting = _waiting(desk, "yes")
    answer = _answer(desk, "yes", "approve", read=waiting["position"])
    assert (answer.status_code, answer.json()["verdict"]) == (200, "accepted")
    assert answer.json()["offset"] > waiting["offset"]
    shown = desk.http.get("/v1/accounts/yes/proposals/p1").json()
    assert [one["verdict"] for one in shown["history"]] == ["needs_review", "accepted"]
    events = desk.http.get("/v1/accounts/yes/entities/mail.thread/t1/events").json()["events"]
    assert (events[-1]["type"], events[-1]["actor"]) == ("review.approved", "user/local")
    again = problem(_answer(desk, "yes", "approve", read=waiting["position"]), 409, "not-waiting")
    assert again["current"]["verdict"] == "accepted"


def test_an_approval_can_itself_be_stale(desk: Desk) -> None:
    waiting = _waiting(desk, "overtaken")
    desk.tell("overtaken", "mail.sent", "t1", received("<m2@x>", in_reply_to=MESSAGE))
    answer = _answer(desk, "overtaken", "approve", read=waiting["position"])
    assert answer.status_code == 409
    assert (answer.json()["type"], answer.json()["finding"]["event"]["type"]) == (VERDICT + "superseded", "mail.sent")


def test_an_approval_waives_only_what_its_reader_had_read(desk: Desk) -> None:
    waiting = _waiting(desk, "partly")
    desk.tell("partly", "mail.labelled", "t1", {"added": ["urgent"]})
    answer = _answer(desk, "partly", "approve", read=waiting["position"])
    assert (answer.status_code, answer.json()["verdict"]) == (202, "needs_review")
    elsewhere = Token.parse(waiting["position"])._replace(check=bytes(8)).encode()
    problem(_answer(desk, "partly", "approve", read=elsewhere), 422, "unknown-position")
    assert _answer(desk, "partly", "approve", read=answer.json()["position"]).json()["verdict"] == "accepted"


def test_a_proposal_is_dismissed(desk: Desk) -> None:
    _waiting(desk, "no")
    answer = _answer(desk, "no", "dismiss", key="d1", reason="not now")
    assert (answer.status_code, answer.json()["verdict"]) == (200, "rejected")
    assert answer.json()["finding"]["by"] == "user/local"
    retried = _answer(desk, "no", "dismiss", key="d1", reason="not now")
    assert (retried.status_code, retried.json()["offset"]) == (200, answer.json()["offset"])
    problem(_answer(desk, "no", "dismiss", key="d1", reason="never"), 409, "not-waiting")
    problem(_answer(desk, "no", "dismiss", key="d2"), 409, "not-waiting")


def test_an_accepted_proposal_is_withdrawn_without_a_body(desk: Desk) -> None:
    shown = desk.thread("back")
    accepted = desk.propose("back", "p1", shown["basis"]).json()
    answer = desk.http.post("/v1/accounts/back/proposals/p1/withdraw")
    assert (answer.status_code, answer.json()["verdict"], answer.json()["outcome"]) == (200, "rejected", "withdrawn")
    after = desk.entity("back", "mail.thread", "t1").json()
    assert after["intents"] == []
    assert after["basis"] != accepted["token"]
    problem(desk.http.post("/v1/accounts/back/proposals/p1/withdraw"), 409, "not-waiting")


@pytest.mark.parametrize("verb", ["approve", "dismiss", "withdraw"])
def test_answers_to_what_is_not_there(desk: Desk, verb: str) -> None:
    read = desk.thread("void")["position"]
    body = {"read": read} if verb == "approve" else {}
    answer = desk.http.post(f"/v1/accounts/void/proposals/none/{verb}", json=body)
    problem(answer, 404, "no-such-proposal")


def test_a_stale_source_holds_and_a_confirmation_releases(desk: Desk) -> None:
    shown = desk.thread("held")
    actor = ActorRef("system", "sync")
    start = Envelope("s1", "imap/held", "source.sync_started", actor)
    body = {"sync": "s1", "full": False, "feeds": ["mail.thread"]}
    desk.put(desk.store.intake.record("local", "held", start, body))
    answer = desk.propose("held", "p1", shown["basis"])
    assert (answer.status_code, answer.json()["verdict"]) == (202, "held")
    done = Envelope("d1", "imap/held", "source.synced", actor, sync="s1")
    desk.put(desk.store.intake.record("local", "held", done, {"sync": "s1", "cursor": "c"}))
    confirmed = Envelope("c1", "imap/held", "source.confirmed", actor)
    desk.put(desk.store.intake.record("local", "held", confirmed, {"proposal": "p1"}))
    shown = desk.http.get("/v1/accounts/held/proposals/p1").json()
    assert [one["verdict"] for one in shown["history"]] == ["held", "accepted"]


def test_claims_keep_other_agents_out_until_released(desk: Desk) -> None:
    shown = desk.thread("claim")
    until = shown["log_time"] + HOUR
    claim = {"entity": {"kind": "mail.thread", "id": "t1"}, "until": until}
    taken = desk.http.post("/v1/accounts/claim/claims", json=claim, headers={"Idempotency-Key": "c1"})
    assert taken.status_code == 201
    assert taken.json()["claim"] == {
        "claim": "c1",
        "holder": "agent/local",
        "until": until,
        "offset": taken.json()["claim"]["offset"],
    }
    held = desk.entity("claim", "mail.thread", "t1")
    assert held.json()["claim"] == taken.json()["claim"]
    again = desk.http.post("/v1/accounts/claim/claims", json=claim, headers={"Idempotency-Key": "c1"})
    assert (again.status_code, again.json()["claim"]) == (201, taken.json()["claim"])
    other = Envelope("theirs", "api/other", "claim.taken", ActorRef("agent", "other"), "mail.thread", "t2")
    desk.put(desk.store.intake.record("local", "claim", other, {"claim": "theirs", "until": until}))
    theirs = {"entity": {"kind": "mail.thread", "id": "t2"}, "until": until}
    lost = desk.http.post("/v1/accounts/claim/claims", json=theirs)
    assert problem(lost, 409, "claimed")["claim"]["holder"] == "agent/other"
    entity = {"kind": "mail.thread", "id": "t2"}
    basis = desk.thread("claim", "t2")["basis"]
    body = refused(desk.propose("claim", "p2", basis, entity=entity), "claimed")
    assert body["finding"]["holder"] == "agent/other"
    assert desk.propose("claim", "p1", desk.entity("claim", "mail.thread", "t1").json()["basis"]).status_code == 201
    for name in ("c1", "theirs"):
        gone = desk.http.delete(f"/v1/accounts/claim/claims/{name}")
        assert (gone.status_code, gone.json()["claim"]) == (200, None)
        problem(desk.http.delete(f"/v1/accounts/claim/claims/{name}"), 404, "no-such-claim")
    past = desk.entity("claim", "mail.thread", "t1", at=held.json()["position"]).json()
    assert past["claim"] == taken.json()["claim"]
    assert desk.entity("claim", "mail.thread", "t1").json()["claim"] is None
    claim["until"] = shown["log_time"]
    problem(desk.http.post("/v1/accounts/claim/claims", json=claim), 422, "bad-input")


LONG_LABEL: dict[str, Any] = {"type": "mail.label", "data": {"added": ["y" * 500, "x" * 501], "removed": ["z" * 900]}}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"type": "mail.nonsense"}, "cannot be proposed"),
        ({"type": "calendar.book"}, "cannot be proposed"),
        ({"entity": {"kind": "no.kind", "id": "t1"}}, "no entity kind"),
        ({"data": {"nonsense": 1}}, "nonsense"),
        (LONG_LABEL, "added holds a text of 501 characters; a mail.label may have 500 at the most"),
        ({"data": {"in_reply_to": 7}}, "in_reply_to"),
        ({"concerns": ["nonsense"]}, "concern"),
        ({"actor": "user/eve"}, "actor"),
        ({"tenant": "other"}, "tenant"),
        ({"basis": "B" * 50}, "token"),
        ({"basis": ""}, "basis"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": 1.5}, "expires_at"),
        ({"entity": {"kind": "mail.thread", "id": "ann@example.org"}}, "entity/id"),
        ({"reads": [{"what": "guess"}]}, "reads"),
    ],
)
def test_what_cannot_be_proposed_leaves_no_trace(desk: Desk, change: dict[str, Any], detail: str) -> None:
    shown = desk.thread(f"door-{abs(hash(str(change)))}")
    ends = desk.store.log.describe().ends
    answer = desk.propose(shown["account"], "p1", shown["basis"], **change)
    assert detail in problem(answer, 422, "bad-input")["detail"]
    assert desk.store.log.describe().ends == ends


def test_the_id_is_required_and_opaque(desk: Desk) -> None:
    basis = desk.thread("key")["basis"]
    body = {"entity": {"kind": "mail.thread", "id": "t1"}, "basis": basis, "type": "mail.reply"}
    missing = desk.http.post("/v1/accounts/key/proposals", json=body)
    assert "idempotency-key" in problem(missing, 422, "bad-input")["detail"].lower()
    wrong = desk.http.post("/v1/accounts/key/proposals", json=body, headers={"Idempotency-Key": "ann@example.org"})
    problem(wrong, 422, "bad-input")


def test_content_and_payload_survive_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as first:
        shown = first.thread("a")
        before = first.propose("a", "p1", shown["basis"]).json()
        entity = first.entity("a", "mail.thread", "t1")
    with serving(tmp_path / "store") as second:
        again = second.entity("a", "mail.thread", "t1")
        assert again.json() == entity.json()
        assert again.headers["etag"] == entity.headers["etag"]
        retried = second.propose("a", "p1", shown["basis"])
        assert (retried.status_code, retried.json()["offset"]) == (201, before["offset"])
