"""DESIGN §2, answers: what waits is judged again at the answer's own offset, against everything up to there."""

import pytest

from headrace.processors.core.policy import Policy, PolicyRule
from headrace.schemas.refs import ActorRef
from tests.core.scribe import AGENT, BANK_POLICY, HOME, MINUTE, NEIGHBOUR, RIVAL, SYSTEM, USER
from tests.core.story import Story

RULES = (PolicyRule("mail.*", "mail.unread", "*", "review"), *BANK_POLICY.rules)
REVIEWED = Policy("reviewed", RULES)
STALE = 16 * MINUTE


def for_review(story: Story, proposal: str = "p1") -> int:
    """A label that waits for a person, because somebody marked the thread unread meanwhile."""
    read = story.mail()
    story.fact(story.thread, "mail.unread")
    label = story.label(id=proposal, basis=read)
    assert story.verdict(label) == "needs_review"
    return label


def approve(story: Story, proposal: str = "p1", read: int | None = None, actor: ActorRef = USER) -> int:
    token = story.token(story.next_offset - 1 if read is None else read).pack()
    return story.say(HOME, "review.approved", {"proposal": proposal, "read": token}, actor=actor)


def confirm(story: Story, proposal: str = "p1") -> int:
    return story.say(HOME, "source.confirmed", {"proposal": proposal}, actor=SYSTEM)


def held(story: Story, proposal: str = "p1") -> int:
    """A label that is held, because the mailbox was synced too long ago."""
    story.mail()
    story.started("s1")
    story.synced("s1")
    story.now += STALE
    label = story.label(id=proposal)
    assert story.verdict(label) == "held"
    return label


def test_a_person_approves_what_waited_and_it_becomes_the_head_there() -> None:
    story = Story(REVIEWED)
    label = for_review(story)
    assert story.head(story.thread) < label, "what waits moves nothing"
    approved = approve(story)
    assert story.verdict(approved) == "accepted"
    assert (story.head(story.thread), story.proposal("p1")["accepted_at"]) == (approved, approved)


def test_an_approval_waives_only_what_the_reviewer_had_read() -> None:
    story = Story(REVIEWED)
    seen = for_review(story)
    unread = story.fact(story.thread, "mail.unread")
    approved = approve(story, read=seen)
    assert story.verdict(approved) == "needs_review"
    assert story.finding(approved)["event"]["offset"] == unread
    assert story.verdict(approve(story, read=unread)) == "accepted"


def test_an_approval_can_itself_be_stale() -> None:
    """What invalidates is not for the reviewer to waive, whether it came before or after what was read."""
    story = Story(REVIEWED)
    for_review(story)
    archived = story.fact(story.thread, "mail.archived")
    approved = approve(story)
    assert (story.verdict(approved), story.finding(approved)["event"]["offset"]) == ("superseded", archived)
    assert story.became(approve(story)) == "ignored", "it waits no more"


def test_only_a_person_approves_or_dismisses() -> None:
    story = Story(REVIEWED)
    for_review(story)
    assert story.became(approve(story, actor=AGENT)) == "ignored"
    assert story.became(story.say(HOME, "review.dismissed", {"proposal": "p1"}, actor=SYSTEM)) == "ignored"
    dismissed = story.say(HOME, "review.dismissed", {"proposal": "p1"}, actor=USER)
    assert story.verdict(dismissed) == "rejected"
    assert story.finding(dismissed) == {"rule": "review.dismissed", "by": "user/ann", "offset": dismissed}


@pytest.mark.parametrize("wrong", ["future", "another log", "a hole", "no token"])
def test_an_approval_of_something_unread_is_ignored(wrong: str) -> None:
    story = Story(REVIEWED)
    for_review(story)
    token = story.token(story.next_offset - 1)
    read = {
        "future": token._replace(offset=token.offset + 9).pack(),
        "another log": token._replace(log_id=bytes(16)).pack(),
        "a hole": token._replace(check=bytes(8)).pack(),
        "no token": b"yes",
    }[wrong]
    answer = story.say(HOME, "review.approved", {"proposal": "p1", "read": read})
    assert story.became(answer) == "ignored"
    assert story.verdict(approve(story)) == "accepted", "a wrong answer uses nothing up"


def test_an_answer_from_another_account_finds_nothing() -> None:
    story = Story(REVIEWED)
    label = for_review(story)
    body = {"proposal": "p1", "read": story.token(label).pack()}
    assert story.became(story.say(NEIGHBOUR, "review.approved", body)) == "ignored"
    assert story.proposal("p1")["verdict"] == "needs_review"


def test_an_approval_still_holds_when_the_proposal_is_carried_out() -> None:
    """Otherwise every attempt would send it back to review, for ever."""
    story = Story(REVIEWED)
    for_review(story)
    approve(story)
    assert story.became(story.attempt("p1")) == "granted"


def test_an_approval_still_holds_after_a_live_check() -> None:
    story = Story(Policy("both", RULES, source_max_staleness_ms=STALE - 1))
    story.started("s1")
    story.synced("s1")
    story.now += STALE
    for_review(story)
    assert story.verdict(approve(story)) == "held"
    story.started("s2")
    story.synced("s2")
    assert story.verdict(confirm(story)) == "accepted"


def test_what_needs_review_after_the_acceptance_is_not_waived_at_the_attempt() -> None:
    story = Story(REVIEWED)
    for_review(story)
    approve(story)
    story.fact(story.thread, "mail.unread")
    attempt = story.attempt("p1")
    assert story.verdict(attempt) == "needs_review"
    assert story.verdict(approve(story)) == "accepted", "and a person may approve it anew"


# -- held ---------------------------------------------------------------------------------------------------------


def test_a_held_proposal_is_released_by_a_sync_that_started_after_it() -> None:
    story = Story()
    held(story)
    assert story.verdict(confirm(story)) == "held", "nothing was looked at yet"
    story.started("s2")
    assert story.verdict(confirm(story)) == "held", "a start has put nothing into the log"
    story.synced("s2")
    assert story.verdict(confirm(story)) == "accepted"


def test_a_sync_that_started_before_it_does_not_release_it() -> None:
    story = Story()
    story.mail()
    story.started("s1")
    story.now += STALE
    label = story.label(id="p1")
    story.synced("s1")
    assert (story.verdict(label), story.verdict(confirm(story))) == ("held", "held")


def test_what_the_live_check_found_supersedes() -> None:
    story = Story()
    held(story)
    story.started("s2")
    story.say(HOME, "mail.archived", {}, about=story.thread, source="imap", sync="s2", actor=SYSTEM)
    story.synced("s2")
    confirmed = confirm(story)
    assert (story.verdict(confirmed), story.finding(confirmed)["event"]["type"]) == ("superseded", "mail.archived")


def test_two_proposals_released_by_one_sync_still_race_fairly() -> None:
    story = Story()
    held(story, "p1")
    story.label("other", id="p2")
    story.started("s2")
    story.synced("s2")
    second, first = confirm(story, "p2"), confirm(story, "p1")
    assert (story.verdict(second), story.verdict(first)) == ("accepted", "superseded")


def test_freshness_counts_from_the_start_of_the_last_completed_sync() -> None:
    story = Story()
    story.mail()
    story.started("s1")
    story.now += 10 * MINUTE
    story.synced("s1")
    story.now += 5 * MINUTE
    assert story.verdict(story.label("a")) == "accepted"
    story.now += 1
    late = story.label("b")
    assert (story.verdict(late), story.finding(late)["staleness_ms"]) == ("held", 15 * MINUTE + 1)


def test_a_source_of_other_things_holds_nothing_up() -> None:
    story = Story()
    story.mail()
    story.started("s1", feeds=("calendar.event",), source="caldav")
    assert story.verdict(story.label("a")) == "accepted"
    reads = [story.seen(story.thread), story.scope("calendar", "c1")]
    reader = story.propose(story.thread, "mail.label", {}, reads)
    assert (story.verdict(reader), story.finding(reader)["source"]) == ("held", "caldav")


# -- withdrawal ---------------------------------------------------------------------------------------------------


def test_the_agent_that_made_it_takes_a_proposal_back() -> None:
    story = Story(REVIEWED)
    for_review(story)
    foreign = story.say(HOME, "proposal.withdrawn", {"proposal": "p1"}, actor=RIVAL)
    assert story.became(foreign) == "ignored"
    own = story.say(HOME, "proposal.withdrawn", {"proposal": "p1"}, actor=AGENT)
    assert (story.verdict(own), story.finding(own)["rule"]) == ("rejected", "proposal.withdrawn")


def test_a_withdrawn_intent_ends_effectively() -> None:
    story = Story()
    story.mail()
    accepted = story.reply(id="p1")
    withdrawn = story.say(HOME, "proposal.withdrawn", {"proposal": "p1"}, actor=USER)
    assert (story.head(story.thread), story.intents(story.thread)) == (withdrawn, [])
    built_on_it = story.label(basis=accepted)
    assert story.finding(built_on_it)["event"]["offset"] == withdrawn
    assert story.verdict(story.reply(id="p2")) == "accepted", "the guard sees no draft any more"


def test_an_answer_given_twice_counts_once() -> None:
    story = Story(REVIEWED)
    for_review(story)
    approved = approve(story)
    assert story.became(story.again(approved)) == "duplicate"
    assert story.became(approve(story)) == "ignored"
    assert story.head(story.thread) == approved
