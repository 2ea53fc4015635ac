"""Held proposals are checked against their sources, and judged again: by themselves, and only then."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from headrace.errors import BadInputError
from headrace.producers.event import NewEvent
from headrace.producers.feed import Feed
from headrace.producers.live_checks import confirmation_id
from headrace.producers.schedule import Pace
from headrace.producers.sync import OvertakenError
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef
from tests.integration.api_desk import ANN, WAIT, received
from tests.integration.live_desk import Gate, LiveDesk, live_checks, serving
from tests.integration.stores import variables

SYNC = ActorRef("system", "sync")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDesk]:
    with serving(tmp_path_factory.mktemp("live") / "store") as made, made.host():
        yield made


def held(desk: LiveDesk, account: str, proposal: str, basis: str, **more: object) -> None:
    answer = desk.propose(account, proposal, basis, **more)
    assert (answer.status_code, answer.json()["verdict"]) == (202, "held"), answer.text
    assert answer.json()["finding"]["source"].startswith("scripted/")


def test_a_held_proposal_is_judged_again_once_its_source_was_synced(desk: LiveDesk) -> None:
    basis = desk.begin("plain")
    held(desk, "plain", "p1", basis)
    found = desk.judged("plain", "p1", "accepted")
    assert [one["verdict"] for one in found["history"]] == ["held", "accepted"]
    types = [row["type"] for row in desk.history("plain")]
    at = types.index("proposal.submitted")
    assert types[at + 1 :] == ["source.notified", "source.sync_started", "source.synced", "source.confirmed"]


def test_it_is_the_tables_that_say_when_not_a_clock(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as desk:
        desk.connect("ann")
        with desk.host(look_seconds=3_600.0):
            held(desk, "ann", "p1", desk.begin("ann"))
            desk.judged("ann", "p1", "accepted")


def test_what_the_check_finds_supersedes(desk: LiveDesk) -> None:
    basis = desk.begin("found")
    desk.provider.does["found", "mail"] = lambda: [desk.archived()]
    held(desk, "found", "p1", basis)
    found = desk.judged("found", "p1", "superseded")
    assert found["finding"]["event"]["type"] == "mail.archived"


def test_a_reply_that_arrives_while_a_sync_is_in_flight_is_not_missed(desk: LiveDesk) -> None:
    """That sync has read the mailbox before the reply: its end proves nothing. Only one that starts after does."""
    basis = desk.begin("flight")
    under_way, after = Gate(), Gate()
    desk.provider.does["flight", "mail"] = under_way
    hint(desk, "flight")
    desk.provider.until(lambda: desk.provider.fetched("flight") == 2)
    desk.provider.does["flight", "mail"] = after
    held(desk, "flight", "p1", basis)
    under_way.let()
    desk.provider.until(lambda: desk.provider.fetched("flight") == 3)
    assert desk.became("flight", "source.synced") == ["noted", "noted"], "the sync under way has ended well"
    assert (desk.verdict("flight", "p1"), desk.became("flight", "source.confirmed")) == ("held", [])
    after.let(NewEvent("mail.sent", "mail.thread", "t1", "reply", {**received("<r@example.org>")}))
    found = desk.judged("flight", "p1", "superseded")
    assert found["finding"]["event"]["type"] == "mail.sent"


def hint(desk: LiveDesk, account: str, source: str = "mail") -> None:
    envelope = Envelope(f"hint-{account}-{len(desk.history(account))}", f"scripted/{source}", "source.notified", SYNC)
    desk.put(desk.store.intake.record(desk.tenant, account, envelope, {"delivery": None, "content": None}))


def feed(desk: LiveDesk, account: str) -> Feed:
    """Of another process, which does not know better."""
    store = desk.store
    return Feed(
        store.log,
        store.tables,
        store.applied,
        store.intake,
        store.kinds,
        tenant=desk.tenant,
        account=account,
        source="scripted/mail",
        feeds=("mail.thread",),
        actor=ANN,
    )


def test_a_slow_old_fetch_that_appends_last_sets_nothing_back(desk: LiveDesk) -> None:
    """It has begun before the proposal; the live check's sync replaces it. What it still brings is ineffective, its end
    does not release the proposal, and its event is still free for who brings it in time."""
    basis = desk.thread("slow")["basis"]
    old, new = feed(desk, "slow"), feed(desk, "slow")
    first = old.begin(full=False)
    held(desk, "slow", "p1", basis)
    second = new.begin(full=False)
    with pytest.raises(OvertakenError):
        old.found(first.sync, [desk.archived("late")])
    with pytest.raises(OvertakenError):
        old.finish(first.sync, "old")
    assert set(desk.became("slow", "mail.archived")) <= {"stale_sync"}
    assert set(desk.became("slow", "source.synced")) <= {"stale_sync"}
    assert desk.verdict("slow", "p1") == "held"
    new.found(second.sync, [])
    new.finish(second.sync, "new")
    assert desk.judged("slow", "p1", "accepted")["finding"] == {}
    assert desk.entity("slow", "mail.thread", "t1").json()["state"]["archived"] is False


def test_two_that_are_released_by_one_sync_race_fairly(desk: LiveDesk) -> None:
    basis = desk.begin("race")
    go = Gate()
    desk.provider.does["race", "mail"] = go
    held(desk, "race", "p1", basis)
    held(desk, "race", "p2", basis)
    go.let()
    second = desk.judged("race", "p2", "superseded")
    first = desk.judged("race", "p1", "accepted")
    assert second["finding"]["event"]["effect"] == "accepted:mail.reply"
    assert second["finding"]["event"]["offset"] == first["offset"], "who was held first is judged first"


def test_every_source_that_bears_on_it_is_checked_and_no_other(desk: LiveDesk) -> None:
    desk.provider.feeds["calendar"] = ("calendar.event",)
    basis = desk.begin("bears", "mail", "calendar", "other")
    desk.provider.feeds["other"] = ("mail.thread",)
    hint(desk, "bears", "other")
    desk.provider.until(lambda: desk.provider.fetched("bears", "other") == 2)
    desk.synced("bears", "other")
    gate = Gate()
    desk.provider.does["bears", "other"] = gate
    held(desk, "bears", "p1", basis)
    desk.provider.until(lambda: desk.provider.fetched("bears", "mail") == 2)
    desk.provider.until(lambda: desk.provider.fetched("bears", "other") == 3)
    assert desk.became("bears", "source.confirmed") == []
    gate.let()
    desk.judged("bears", "p1", "accepted")
    assert desk.provider.fetched("bears", "calendar") == 1, "it feeds nothing that was read"


def test_a_scope_that_was_read_brings_its_sources_in(desk: LiveDesk) -> None:
    desk.provider.feeds["calendar"] = ("calendar.event",)
    basis = desk.begin("scope", "mail", "calendar")
    position = desk.entity("scope", "mail.thread", "t1").json()["position"]
    scope = {"what": "scope", "kind": "calendar", "id": "c1", "basis": position, "start": 0, "end": 1}
    held(desk, "scope", "p1", basis, reads=[scope])
    desk.judged("scope", "p1", "accepted")
    assert desk.provider.fetched("scope", "calendar") == 2


def test_many_held_proposals_are_one_hint_and_one_sync(desk: LiveDesk) -> None:
    basis = desk.begin("many")
    go = Gate()
    desk.provider.does["many", "mail"] = go
    for number in range(20):
        held(desk, "many", f"p{number:02}", basis)
    go.let()
    for number in range(20):
        desk.judged("many", f"p{number:02}", "accepted" if number == 0 else "superseded")
    # The first was held before its sync began, the others perhaps after: those share the next one.
    assert desk.provider.fetched("many") <= 3
    assert len(desk.history("many", "source.notified")) <= 2


# -- a source that cannot be synced -------------------------------------------------------------------------------


def revoked() -> list[NewEvent]:
    raise BadInputError("the grant was revoked; connect the source again")


def test_while_its_source_is_broken_it_stays_held_and_goes_on_once_that_is_mended(desk: LiveDesk) -> None:
    basis = desk.begin("broken")
    desk.provider.does["broken", "mail"] = revoked
    held(desk, "broken", "p1", basis)
    desk.provider.until(lambda: desk.provider.fetched("broken") >= 5)
    found = desk.http.get("/v1/accounts/broken/proposals/p1").json()
    assert (found["verdict"], found["waits"], found["finding"]["source"]) == ("held", True, "scripted/mail")
    assert len(desk.history("broken", "source.notified")) == 1, "a start that fails needs no other hint"
    del desk.provider.does["broken", "mail"]
    desk.judged("broken", "p1", "accepted")


def test_a_source_that_is_connected_again_is_synced_at_once(tmp_path: Path) -> None:
    """Not when the next look at a source that refuses us is due."""
    with serving(tmp_path / "store") as desk, desk.host(pace=Pace(refused_retry=3_600.0)):
        basis = desk.begin("ann")
        refused = threading.Event()

        def refuses() -> list[NewEvent]:
            refused.set()
            return revoked()

        desk.provider.does["ann", "mail"] = refuses
        held(desk, "ann", "p1", basis)
        assert refused.wait(WAIT)
        del desk.provider.does["ann", "mail"]
        desk.connect("ann")
        desk.judged("ann", "p1", "accepted")


def test_one_that_runs_out_of_time_while_it_waits_ends_as_expired(desk: LiveDesk) -> None:
    basis = desk.begin("expires")
    desk.provider.does["expires", "mail"] = Gate()
    log_time = desk.entity("expires", "mail.thread", "t1").json()["log_time"]
    held(desk, "expires", "p1", basis, expires_at=log_time + 2_000)
    found = desk.judged("expires", "p1", "expired")
    assert found["finding"]["reason"] == "expires_at"
    assert found["time"] >= log_time + 2_000
    gone = desk.propose("expires", "p1", basis, expires_at=log_time + 2_000)
    assert (gone.status_code, gone.json()["duplicate"]) == (410, True), gone.text


def test_one_can_be_taken_back_while_it_waits(desk: LiveDesk) -> None:
    basis = desk.begin("back")
    go = Gate()
    desk.provider.does["back", "mail"] = go
    held(desk, "back", "p1", basis)
    assert desk.http.post("/v1/accounts/back/proposals/p1/withdraw").json()["verdict"] == "rejected"
    go.let()
    desk.synced("back")
    assert desk.propose("back", "p2", desk.entity("back", "mail.thread", "t1").json()["basis"]).status_code == 202
    desk.judged("back", "p2", "accepted")
    assert desk.verdict("back", "p1") == "rejected"


def test_a_provider_that_hangs_delays_no_other_account(desk: LiveDesk) -> None:
    hanging = [f"hangs-{number}" for number in range(6)]
    bases = {account: desk.begin(account) for account in (*hanging, "well")}
    gate = Gate()
    for account in hanging:
        desk.provider.does[account, "mail"] = gate
        held(desk, account, "p1", bases[account])
    held(desk, "well", "p1", bases["well"])
    desk.judged("well", "p1", "accepted")
    assert [desk.verdict(account, "p1") for account in hanging] == ["held"] * len(hanging)
    gate.let()
    for account in hanging:
        desk.judged(account, "p1", "accepted")


# -- several processes --------------------------------------------------------------------------------------------


class Share:
    """The accounts in ``mine``."""

    def __init__(self, *mine: str) -> None:
        self.mine = set(mine)

    def holds(self, tenant: str, account: str) -> bool:
        return account in self.mine

    def listening(self, listener: Callable[[], object]) -> AbstractContextManager[None]:
        return nullcontext()


def test_a_process_checks_what_is_its_share(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as desk:
        bases = {account: desk.thread(account)["basis"] for account in ("ours", "theirs")}
        for account, basis in bases.items():
            desk.connect(account)
            feed(desk, account).begin(full=False)
            held(desk, account, "p1", basis)
        share = Share("ours")
        with desk.host(share=share):
            desk.judged("ours", "p1", "accepted")
            assert desk.became("theirs", "source.notified") == []
            share.mine.add("theirs")
            desk.judged("theirs", "p1", "accepted")


def checked_once(desk: LiveDesk, account: str) -> None:
    """An account with a held proposal whose check is made, and nobody has said so yet."""
    basis = desk.thread(account)["basis"]
    feed(desk, account).begin(full=False)
    held(desk, account, "p1", basis)
    check = feed(desk, account)
    check.finish(check.begin(full=False).sync, "c")


def test_two_processes_that_say_the_same_have_one_effect(tmp_path: Path) -> None:
    """As when partitions change hands: both see a check that is made and not said yet."""
    with serving(tmp_path / "store") as desk:
        checked_once(desk, "ann")
        first, second = live_checks(desk.store), live_checks(desk.store)
        with desk.fold_stalled():
            first.turn()
            second.turn()
            first.turn()
        desk.until("ann", lambda: len(desk.history("ann", "source.confirmed")) == 2)
        assert desk.became("ann", "source.confirmed") == ["accepted", "duplicate"]
        assert desk.verdict("ann", "p1") == "accepted"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_is_killed_at_the_confirmation_is_followed_by_another(tmp_path: Path, when: str) -> None:
    store = tmp_path / "store"
    with serving(store) as desk:
        checked_once(desk, "ann")
        assert desk.verdict("ann", "p1") == "held"
    words = [sys.executable, "-m", "tests.integration.live_kill9", str(store), when]
    killed = subprocess.run(words, env={**os.environ, **variables(store)}, capture_output=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with serving(store) as desk, desk.host():
        found = desk.judged("ann", "p1", "accepted")
        assert [one["verdict"] for one in found["history"]] == ["held", "accepted"]
        confirmed = desk.history("ann", "source.confirmed")
        assert {row["event_id"] for row in confirmed} == {confirmation_id("p1", found["submitted_at"])}
        assert [row["disposition"] for row in confirmed if row["disposition"] != "duplicate"] == ["accepted"]
        shown = desk.entity("ann", "mail.thread", "t1").json()
        assert [intent["proposal"] for intent in shown["intents"]] == ["p1"]
