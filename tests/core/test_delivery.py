"""DESIGN §8, the fold's part: accepted is not delivered."""

from typing import Any

import pytest

from headrace.processors.core.policy import Policy, PolicyRule
from tests.core.scribe import AGENT, BANK_POLICY, HOME, HOUR, MINUTE, RIVAL, SYSTEM
from tests.core.story import CALENDAR, FIVE, Story


def archived(story: Story) -> dict[str, Any]:
    """The thread as it will be once it is archived."""
    return {**story.state(story.thread), "archived": True, "labels": []}


def archiving(story: Story, proposal: str = "p1") -> int:
    """An agent archives the thread."""
    return story.propose(story.thread, "mail.archive", {}, [story.seen(story.thread)], id=proposal)


def to_archive() -> Story:
    """A thread whose archiving is accepted."""
    story = Story()
    story.mail()
    archiving(story)
    return story


def test_an_attempt_does_not_count_its_own_acceptance_against_itself() -> None:
    story = to_archive()
    granted = story.attempt("p1")
    assert story.became(granted) == "granted"
    assert story.head(story.thread) < granted, "a granted attempt moves nothing"


def test_a_world_that_moved_before_the_attempt_ends_the_intent() -> None:
    story = to_archive()
    reply = story.fact(story.thread, "mail.sent", message="m2", sender="ann", in_reply_to="m1")
    attempt = story.attempt("p1")
    assert (story.verdict(attempt), story.finding(attempt)["event"]["offset"]) == ("superseded", reply)
    assert (story.intents(story.thread), story.head(story.thread)) == ([], attempt)
    assert (story.proposal("p1")["outcome"], story.proposal("p1")["accepted_at"]) == ("superseded", -1)


def test_the_first_attempt_wins_and_a_takeover_only_reconciles() -> None:
    story = to_archive()
    story.attempt("p1", "t1")
    second = story.attempt("p1", "t2")
    assert (story.became(second), "t1 is under way" in story.note(second)) == ("ignored", True)
    assert story.became(story.outcome("succeeded", "p1", "t2")) == "ignored"
    assert story.became(story.outcome("succeeded", "p1", "t1")) == "succeeded"


def test_attempts_on_one_entity_are_sequential() -> None:
    story = Story()
    basis = story.fact(story.bank, "account.opened", balance=100)
    story.adjust(50, id="p1", basis=basis)
    story.adjust(-20, id="p2", basis=basis)
    story.attempt("p1", "t1")
    assert story.became(story.attempt("p2", "t2")) == "ignored"
    story.outcome("succeeded", "p1", "t1")
    assert story.became(story.attempt("p2", "t3")) == "granted"


def test_a_success_becomes_part_of_the_facts() -> None:
    story = to_archive()
    story.attempt("p1")
    done = story.outcome("succeeded", "p1")
    assert (story.state(story.thread)["archived"], story.head(story.thread)) == (True, done)
    assert story.proposal("p1")["outcome"] == "succeeded"


def test_a_success_does_not_set_back_what_a_source_reported_since() -> None:
    story = to_archive()
    story.attempt("p1")
    story.fact(story.thread, "mail.labelled", added=["INBOX"])
    story.outcome("succeeded", "p1")
    assert story.state(story.thread)["archived"] is False


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_what_was_built_on_an_intent_that_failed_is_superseded(how: str) -> None:
    story = to_archive()
    built_on_it = story.head(story.thread)
    story.attempt("p1")
    ended = story.outcome(how, "p1")
    late = story.label(basis=built_on_it)
    assert (story.verdict(late), story.finding(late)["event"]["effect"]) == ("superseded", f"delivery.{how}")
    assert (story.head(story.thread), story.state(story.thread)["archived"]) == (ended, False)


def test_what_was_built_on_an_intent_that_succeeded_stands() -> None:
    story = to_archive()
    built_on_it = story.head(story.thread)
    story.attempt("p1")
    story.outcome("succeeded", "p1")
    assert story.verdict(story.label(basis=built_on_it)) == "accepted"


def test_an_unknown_outcome_leaves_the_intent_open_until_it_is_reconciled() -> None:
    story = to_archive()
    story.attempt("p1")
    assert story.became(story.outcome("unknown", "p1")) == "unknown"
    assert story.intents(story.thread) == ["p1"]
    assert story.became(story.attempt("p1", "t2")) == "ignored", "never blindly repeated"
    assert story.became(story.outcome("succeeded", "p1")) == "succeeded"


def test_an_intent_under_way_is_not_withdrawn() -> None:
    story = to_archive()
    story.attempt("p1")
    assert story.became(story.say(HOME, "proposal.withdrawn", {"proposal": "p1"}, actor=AGENT)) == "ignored"


# -- echoes -------------------------------------------------------------------------------------------------------


def test_the_agents_own_act_that_comes_back_is_an_echo_once() -> None:
    story = to_archive()
    story.attempt("p1", foreseen=archived(story))
    echo = story.fact(story.thread, "mail.archived")
    assert (story.became(echo), story.proposal("p1")["outcome"]) == ("echo", "echoed")
    again = story.fact(story.thread, "mail.archived")
    assert story.became(again) == "applied"
    assert story.became(story.outcome("succeeded", "p1")) == "ignored", "the echo has ended it"


def test_an_echo_supersedes_nobody() -> None:
    story = to_archive()
    read = story.head(story.thread)
    story.attempt("p1", foreseen=archived(story))
    story.fact(story.thread, "mail.archived")
    assert story.verdict(story.label(basis=read)) == "accepted"


def test_a_fact_that_leaves_another_state_is_somebodys_edit() -> None:
    story = to_archive()
    story.attempt("p1", foreseen=archived(story))
    edit = story.fact(story.thread, "mail.labelled", added=["x"])
    assert story.became(edit) == "applied"
    assert story.intents(story.thread) == ["p1"]


def test_no_echo_once_another_fact_came_between() -> None:
    story = to_archive()
    foreseen = archived(story)
    story.attempt("p1", foreseen=foreseen)
    story.fact(story.thread, "mail.read")
    story.fact(story.thread, "mail.unread")
    assert story.became(story.fact(story.thread, "mail.archived")) == "applied"
    assert story.state(story.thread) == foreseen


def test_an_attempt_that_foresaw_nothing_has_no_echo() -> None:
    story = to_archive()
    story.attempt("p1")
    assert story.became(story.fact(story.thread, "mail.archived")) == "applied"


# -- proposals built on one another -------------------------------------------------------------------------------


def test_what_was_built_on_an_intent_does_not_hinder_it() -> None:
    """The booking is accepted, then moved by another proposal that knew of it; both are carried out, in order."""
    story = Story()
    data = {"calendar": CALENDAR, "start": FIVE, "end": FIVE + HOUR}
    story.propose(story.meeting, "calendar.book", data, [story.absent(story.meeting)], id="book")
    assert story.verdict(story.move(2, 3, id="move")) == "accepted"
    assert story.became(story.attempt("book", "t1")) == "granted"
    story.outcome("succeeded", "book", "t1")
    assert story.became(story.attempt("move", "t2")) == "granted"
    story.outcome("succeeded", "move", "t2")
    assert story.state(story.meeting)["starts_at"] == FIVE + 2 * HOUR


def test_the_guard_of_an_attempt_sees_what_was_accepted_before_it() -> None:
    story = Story()
    basis = story.fact(story.bank, "account.opened", balance=100)
    story.adjust(-80, id="p1", basis=basis)
    story.adjust(70, id="p2", basis=basis)
    story.fact(story.bank, "account.adjusted", amount=-50)
    refused = story.attempt("p1", "t1")
    assert (story.verdict(refused), story.finding(refused)) == ("rejected", {"rule": "below_zero"})
    assert story.became(story.attempt("p2", "t2")) == "granted"


@pytest.mark.parametrize("end", ["withdrawn", "failed"])
def test_a_later_intent_that_came_to_nothing_does_not_hinder_an_earlier_one(end: str) -> None:
    story = Story()
    story.mail()
    story.label("a", id="p1")
    archiving(story, "p2")
    if end == "withdrawn":
        story.say(HOME, "proposal.withdrawn", {"proposal": "p2"}, actor=AGENT)
    else:
        story.attempt("p2", "t2")
        story.outcome("failed", "p2", "t2")
    assert story.became(story.attempt("p1", "t1")) == "granted"


def test_a_later_intent_that_the_world_refused_does() -> None:
    """412: the world moved, and nobody has read where to."""
    story = Story()
    story.mail()
    story.label("a", id="p1")
    archiving(story, "p2")
    story.attempt("p2", "t2")
    story.outcome("refused", "p2", "t2")
    attempt = story.attempt("p1", "t1")
    assert story.finding(attempt)["event"]["effect"] == "delivery.refused"


def test_an_earlier_intent_that_failed_hinders_what_knew_of_it() -> None:
    story = Story()
    story.mail()
    story.label("a", id="p1")
    archiving(story, "p2")
    story.attempt("p1", "t1")
    story.outcome("failed", "p1", "t1")
    attempt = story.attempt("p2", "t2")
    assert story.finding(attempt)["event"]["effect"] == "delivery.failed"


def test_an_intent_that_knew_nothing_of_it_supersedes_it_before_the_attempt() -> None:
    """The reply says "five is free"; before it is sent, another agent books five without having seen the reply."""
    story = Story()
    story.mail()
    reads = [story.seen(story.thread), story.scope("calendar", CALENDAR, FIVE, FIVE + HOUR)]
    story.propose(story.thread, "mail.reply", {"in_reply_to": "m1"}, reads, id="reply")
    data = {"calendar": CALENDAR, "start": FIVE, "end": FIVE + HOUR}
    booked = story.propose(story.meeting, "calendar.book", data, [story.absent(story.meeting)], actor=RIVAL)
    attempt = story.attempt("reply")
    assert (story.verdict(attempt), story.finding(attempt)["event"]["offset"]) == ("superseded", booked)


def test_bookings_in_one_calendar_that_know_of_each_other_are_both_carried_out() -> None:
    story = Story()
    for number, name in enumerate(("ev1", "ev2")):
        ref = HOME.entity("calendar.event", name)
        data = {"calendar": CALENDAR, "start": FIVE + number * HOUR, "end": FIVE + (number + 1) * HOUR}
        story.propose(ref, "calendar.book", data, [story.absent(ref), story.scope("calendar", CALENDAR)], id=name)
    assert [story.became(story.attempt(name, f"t-{name}")) for name in ("ev1", "ev2")] == ["granted", "granted"]


def test_an_attempt_is_held_to_expiry_claims_and_freshness_like_an_answer() -> None:
    story = Story(Policy("bank", (PolicyRule("*", "delivery.*", "*", "ignore"), *BANK_POLICY.rules)))
    story.mail()
    read = [story.seen(story.thread)]
    story.propose(story.thread, "mail.archive", {}, read, id="p1", expires_at=story.now + MINUTE)
    story.now += MINUTE
    assert story.verdict(story.attempt("p1")) == "expired"
    story.label(id="p2")
    story.say(HOME, "claim.taken", {"claim": "c", "until": story.now + 1}, about=story.thread, actor=RIVAL)
    assert story.verdict(story.attempt("p2")) == "claimed"
    story.now += 1
    assert story.verdict(story.label(id="p3")) == "accepted"


def test_an_attempt_may_find_the_source_stale_and_wait_for_a_live_check() -> None:
    story = Story()
    story.mail()
    story.started("s1")
    story.synced("s1")
    story.label(id="p1")
    story.now += 16 * MINUTE
    assert story.verdict(story.attempt("p1", "t1")) == "held"
    story.started("s2")
    story.synced("s2")
    confirmed = story.say(HOME, "source.confirmed", {"proposal": "p1"}, actor=SYSTEM)
    assert story.verdict(confirmed) == "accepted"
    assert story.became(story.attempt("p1", "t2")) == "granted"
