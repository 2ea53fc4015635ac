"""``verify=live``: synced first, judged after, and nothing appended where that cannot be."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.processors.core.policy import DEFAULT_POLICY
from headrace.producers.event import NewEvent
from tests.integration.api_desk import problem, received
from tests.integration.live_desk import Gate, LiveDesk, broken, serving
from tests.integration.stores import open_store


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDesk]:
    """Under the default policy: what was synced a moment ago is fresh, and nothing is held."""
    with serving(tmp_path_factory.mktemp("verify") / "store", policy=DEFAULT_POLICY) as made, made.host():
        yield made


def propose(desk: LiveDesk, account: str, basis: str, proposal: str = "p1", **more: Any) -> httpx.Response:
    body = {
        "entity": {"kind": "mail.thread", "id": "t1"},
        "basis": basis,
        "type": "mail.reply",
        "data": {"in_reply_to": "<m1@example.org>"},
        **more,
    }
    headers = {"Idempotency-Key": proposal, "Prefer": str(body.pop("prefer", "wait=20"))}
    path = f"/v1/accounts/{account}/proposals"
    return desk.http.post(path, params={"verify": "live"}, json=body, headers=headers)


def proposals(desk: LiveDesk, account: str) -> list[str]:
    return desk.became(account, "proposal.submitted")


def test_what_nobody_has_told_yet_is_found_before_it_is_judged(desk: LiveDesk) -> None:
    basis = desk.begin("found")
    sent = NewEvent("mail.sent", "mail.thread", "t1", "by-hand", received("<hand@example.org>"))
    desk.provider.does["found", "mail"] = lambda: [sent]
    refused = propose(desk, "found", basis)
    said = problem(refused, 409, "superseded")
    assert said["finding"]["event"]["type"] == "mail.sent"
    assert [row["disposition"] for row in desk.history("found", "proposal.submitted")] == ["superseded"]


def test_without_it_the_same_is_accepted(desk: LiveDesk) -> None:
    basis = desk.begin("unverified")
    sent = NewEvent("mail.sent", "mail.thread", "t1", "by-hand", received("<hand@example.org>"))
    desk.provider.does["unverified", "mail"] = lambda: [sent]
    assert desk.propose("unverified", "p1", basis).status_code == 201
    assert desk.provider.fetched("unverified") == 1


def test_one_that_still_holds_is_accepted_at_once(desk: LiveDesk) -> None:
    basis = desk.begin("fine")
    accepted = propose(desk, "fine", basis)
    assert (accepted.status_code, accepted.json()["verdict"]) == (201, "accepted")
    types = [row["type"] for row in desk.history("fine")]
    assert types[-4:] == ["source.notified", "source.sync_started", "source.synced", "proposal.submitted"]


def test_what_cannot_be_checked_in_time_is_not_proposed_and_can_be_sent_again(desk: LiveDesk) -> None:
    basis = desk.begin("late")
    gate = Gate()
    desk.provider.does["late", "mail"] = gate
    refused = propose(desk, "late", basis, prefer="wait=1")
    said = problem(refused, 503, "not-checked")
    assert [one["source"] for one in said["sources"]] == ["scripted/mail"]
    assert said["sources"][0]["fresh_at"] > 0
    assert refused.headers["retry-after"]
    assert proposals(desk, "late") == []
    gate.let()
    desk.synced("late")
    del desk.provider.does["late", "mail"]
    assert propose(desk, "late", basis).status_code == 201
    assert proposals(desk, "late") == ["accepted"]


def test_a_provider_that_is_away_is_told_as_that(desk: LiveDesk) -> None:
    basis = desk.begin("away")
    desk.provider.does["away", "mail"] = broken
    said = problem(propose(desk, "away", basis, prefer="wait=1"), 503, "not-checked")
    assert "headrace source doctor" in said["detail"]
    assert proposals(desk, "away") == []


def test_a_sync_that_was_under_way_does_not_count(desk: LiveDesk) -> None:
    basis = desk.begin("flight")
    under_way = Gate()
    desk.provider.does["flight", "mail"] = under_way
    desk.store.connections.put_due(desk.connect("flight"), asked=True)
    desk.provider.until(lambda: desk.provider.fetched("flight") == 2)
    desk.provider.does["flight", "mail"] = lambda: [desk.archived()]
    with ThreadPoolExecutor(1) as agents:
        asked = agents.submit(propose, desk, "flight", basis)
        desk.until("flight", lambda: bool(desk.history("flight", "source.notified")))
        under_way.let()
        problem(asked.result(), 409, "superseded")


def test_an_account_that_no_source_feeds_cannot_be_checked(desk: LiveDesk) -> None:
    desk.provider.feeds["calendar"] = ("calendar.event",)
    basis = desk.thread("nothing")["basis"]
    problem(propose(desk, "nothing", basis), 422, "nothing-to-check")
    desk.connect("nothing", "calendar")
    desk.synced("nothing", "calendar")
    problem(propose(desk, "nothing", basis), 422, "nothing-to-check")
    assert proposals(desk, "nothing") == []


def test_a_retry_of_one_that_is_on_the_log_asks_no_provider(desk: LiveDesk) -> None:
    basis = desk.begin("retry")
    assert propose(desk, "retry", basis).status_code == 201
    desk.provider.does["retry", "mail"] = broken
    again = propose(desk, "retry", basis)
    assert (again.status_code, again.json()["verdict"], again.json()["duplicate"]) == (201, "accepted", True)
    other = propose(desk, "retry", basis, data={"in_reply_to": "<other@example.org>"})
    problem(other, 409, "conflicting_id")
    assert desk.provider.fetched("retry") == 2


def test_what_is_wrong_with_a_request_is_told_before_anybody_is_asked(desk: LiveDesk) -> None:
    basis = desk.begin("wrong")
    problem(propose(desk, "wrong", basis, type="mail.nonsense"), 422, "bad-input")
    problem(propose(desk, "wrong", "B" * 50), 422, "bad-input")
    path = "/v1/accounts/wrong/proposals"
    problem(desk.http.post(path, params={"verify": "dead"}, json={}), 422, "bad-input")
    assert desk.provider.fetched("wrong") == 1
    assert desk.history("wrong", "source.notified") == []


def test_many_at_once_share_their_syncs(desk: LiveDesk) -> None:
    basis = desk.begin("burst")
    with ThreadPoolExecutor(20) as agents:
        asked = [agents.submit(propose, desk, "burst", basis, f"p{number}") for number in range(20)]
        answers = [one.result() for one in asked]
    assert sorted({answer.status_code for answer in answers}) == [201, 409]
    assert [answer.status_code for answer in answers].count(201) == 1
    assert desk.provider.fetched("burst") <= 10


def test_with_no_bound_it_is_held_no_longer_than_its_own_check(tmp_path: Path) -> None:
    """A policy under which nothing is ever fresh enough: what was checked is checked once more, after it."""
    with serving(tmp_path / "store") as desk, desk.host():
        basis = desk.begin("ann")
        asked = propose(desk, "ann", basis)
        assert (asked.status_code, asked.json()["verdict"]) == (202, "held")
        desk.judged("ann", "p1", "accepted")
        assert desk.provider.fetched("ann") == 3


@pytest.mark.shared("a store in a directory is one process's: it serves and syncs")
def test_a_process_that_only_serves_has_others_sync(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with open_store(store, writer=True, partitions=4) as worker, serving(store, fold=False) as desk:
        basis = desk.thread("ann")["basis"]
        problem(propose(desk, "ann", basis), 422, "nothing-to-check")
        desk.connect("ann")
        with desk.host(worker):
            desk.synced("ann")
            desk.provider.does["ann", "mail"] = lambda: [desk.archived()]
            problem(propose(desk, "ann", basis), 409, "superseded")
        problem(propose(desk, "ann", basis, "p2", prefer="wait=1"), 503, "not-checked")
