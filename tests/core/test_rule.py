"""DESIGN §2, sentence by sentence: what had been read, what came between, and what the log makes of it."""

import pytest

from headrace.processors.core.policy import Policy, PolicyRule
from headrace.schemas.refs import Token
from tests.core.scribe import (
    AGENT,
    BANK_POLICY,
    HOME,
    HOUR,
    LOG_ID,
    MINUTE,
    NEIGHBOUR,
    PARTITION,
    REGISTRY,
    RIVAL,
    SECOND,
    STRANGER,
    USER,
)
from tests.core.story import CALENDAR, FIVE, Story


def test_a_draft_is_refused_once_the_user_has_answered_by_hand() -> None:
    """The 5:15 race: mail, agent reads, user answers, the agent's draft comes late."""
    story = Story()
    read = story.mail("m1")
    story.now += 55 * SECOND
    answer = story.fact(story.thread, "mail.sent", message="m2", sender="ann", in_reply_to="m1")
    story.now += MINUTE
    late = story.reply(basis=read)
    assert story.verdict(late) == "superseded"
    event = story.finding(late)["event"]
    assert (event["offset"], event["type"], event["actor"]) == (answer, "mail.sent", "user/ann")
    assert event["time"] == story.now - MINUTE


def test_what_had_read_the_head_is_accepted_and_becomes_the_head() -> None:
    story = Story()
    story.mail()
    reply = story.reply(id="p1")
    assert story.verdict(reply) == "accepted"
    assert story.head(story.thread) == reply
    assert story.intents(story.thread) == ["p1"]
    assert story.state(story.thread)["drafted"] == [], "an intent is laid over the facts, never part of them"


def test_an_entity_shows_the_content_of_the_newest_event_that_had_any() -> None:
    """Content is never decided on, but people want to see it."""
    story = Story()
    said = REGISTRY.encode("mail.message_content", {"subject": "Lunch?"})
    story.fact(story.thread, "mail.received", message="m1", sender="bob", content=said)
    story.fact(story.thread, "mail.read")
    row = story.row(story.thread)
    assert row is not None
    assert (row["subject"], row["content"], row["content_key"]) == ("Lunch?", said, None)


def test_refused_proposals_never_invalidate_each_other() -> None:
    story = Story()
    read = story.mail()
    story.fact(story.thread, "mail.archived")
    refused = [story.label(basis=read) for _ in range(3)]
    assert {story.verdict(one) for one in refused} == {"superseded"}
    fresh = story.label()
    assert story.verdict(fresh) == "accepted"
    assert {story.finding(one)["event"]["type"] for one in refused} == {"mail.archived"}


def test_of_two_agents_on_one_head_the_first_in_the_log_wins() -> None:
    story = Story()
    read = story.mail()
    first, second = story.label("a", basis=read), story.label("b", basis=read)
    assert (story.verdict(first), story.verdict(second)) == ("accepted", "superseded")
    assert story.finding(second)["event"]["effect"] == "accepted:mail.label"


def test_a_repeated_proposal_has_no_second_effect() -> None:
    story = Story()
    story.mail()
    first = story.reply(id="p1")
    again = story.again(first)
    assert story.verdict(again) == "duplicate"
    assert story.finding(again) == {"first": first}
    assert story.head(story.thread) == first


def test_the_same_id_with_another_payload_conflicts() -> None:
    story = Story()
    read = story.mail()
    first = story.reply(id="p1")
    other = story.propose(
        story.thread, "mail.archive", {}, [story.read(story.thread, read)], id="p1", payload=b"something else"
    )
    assert (story.verdict(other), story.finding(other)) == ("conflicting_id", {"first": first})


def test_one_proposal_id_in_two_accounts_is_two_proposals() -> None:
    story = Story()
    story.mail()
    theirs = STRANGER.entity("mail.thread", "th1")
    story.mail(about=theirs)
    mine = story.reply(id="p1")
    other = story.propose(theirs, "mail.reply", {"in_reply_to": "m1"}, [story.seen(theirs)], id="p1")
    assert (story.verdict(mine), story.verdict(other)) == ("accepted", "accepted")


@pytest.mark.parametrize("wrong", ["log", "partition", "future", "own offset", "check", "no token", "never a head"])
def test_a_basis_that_never_was_is_unknown(wrong: str) -> None:
    story = Story()
    head = story.mail()
    noise = story.fact(HOME.entity("mail.thread", "th2"), "mail.read")
    token = story.token(head)
    basis = {
        "log": token._replace(log_id=bytes(16)),
        "partition": token._replace(partition=PARTITION + 1),
        "future": Token(LOG_ID, PARTITION, story.next_offset + 5, token.check),
        "own offset": Token(LOG_ID, PARTITION, story.next_offset, token.check),
        "check": token._replace(check=b"truncate"),
        "never a head": story.token(noise),
    }.get(wrong)
    read = {**story.seen(story.thread), "basis": basis.pack() if basis is not None else b"nonsense"}
    proposed = story.propose(story.thread, "mail.reply", {"in_reply_to": "m1"}, [read])
    assert story.verdict(proposed) == "unknown_basis"
    assert story.finding(proposed)["read"] == {"what": "entity", "kind": "mail.thread", "id": "th1"}


def test_reads_that_span_accounts_are_an_unknown_basis() -> None:
    story = Story()
    story.mail()
    elsewhere = {**story.seen(story.thread), "account": NEIGHBOUR.account}
    reads = [story.seen(story.thread), elsewhere]
    proposed = story.propose(story.thread, "mail.reply", {"in_reply_to": "m1"}, reads)
    assert story.verdict(proposed) == "unknown_basis"
    assert story.finding(proposed)["reason"] == "reads span accounts"


def test_expiry_is_in_the_logs_time() -> None:
    story = Story()
    story.mail()
    read, at = story.seen(story.thread), story.now
    story.now += SECOND
    in_time = story.propose(story.thread, "mail.label", {}, [read], expires_at=story.now + 1)
    too_late = story.propose(story.thread, "mail.label", {}, [read], expires_at=story.now)
    assert story.verdict(in_time) == "accepted"
    assert (story.verdict(too_late), story.finding(too_late)["expires_at"]) == ("expired", at + SECOND)


def test_a_basis_older_than_the_policys_bound_has_expired() -> None:
    story = Story(Policy("aged", BANK_POLICY.rules, basis_max_age_ms=MINUTE))
    read = story.mail()
    story.now += MINUTE
    assert story.verdict(story.label("a", basis=read)) == "accepted"
    story.now += 1
    late = story.label("b", basis=read)
    assert (story.verdict(late), story.finding(late)["age_ms"]) == ("expired", MINUTE + 1)


def test_an_absent_entity_that_comes_to_be_supersedes() -> None:
    story = Story()
    absent = story.absent(story.meeting)
    hour = {"start": FIVE, "end": FIVE + HOUR}
    early = story.propose(story.meeting, "calendar.book", {"calendar": CALENDAR, **hour}, [absent])
    assert story.verdict(early) == "accepted"
    other = HOME.entity("calendar.event", "ev2")
    unseen = story.absent(other)
    story.meets(3, 4, about=other)
    late = story.propose(other, "calendar.book", {"calendar": CALENDAR, **hour}, [unseen])
    assert (story.verdict(late), story.finding(late)["event"]["type"]) == ("superseded", "calendar.created")
    lying = story.propose(other, "calendar.book", {"calendar": CALENDAR, **hour}, [story.absent(other)])
    assert story.verdict(lying) == "unknown_basis"


@pytest.mark.parametrize(
    ("start", "end", "verdict"),
    [(0, 1, "superseded"), (2, 3, "accepted"), (1, 2, "accepted"), (-1, 0, "accepted"), (-1, 3, "superseded")],
)
def test_scopes_end_phantoms(start: int, end: int, verdict: str) -> None:
    """An agent books five to six because the hour was free; somebody fills this hour, or one beside it."""
    story = Story()
    reads = [story.absent(story.meeting), story.scope("calendar", CALENDAR, FIVE, FIVE + HOUR)]
    story.meets(start, end, about=HOME.entity("calendar.event", "ev2"))
    data = {"calendar": CALENDAR, "start": FIVE, "end": FIVE + HOUR}
    booked = story.propose(story.meeting, "calendar.book", data, reads)
    assert story.verdict(booked) == verdict


def test_a_meeting_moved_out_of_a_scope_touches_it_too() -> None:
    story = Story()
    story.meets(0, 1)
    scope = story.scope("calendar", CALENDAR, FIVE, FIVE + HOUR)
    other = HOME.entity("calendar.event", "ev2")
    absent = story.absent(other)
    story.meets(5, 6, type_="calendar.updated")
    data = {"calendar": CALENDAR, "start": FIVE, "end": FIVE + HOUR}
    assert story.verdict(story.propose(other, "calendar.book", data, [absent, scope])) == "superseded"


def test_a_series_without_end_touches_everything_after_it() -> None:
    story = Story()
    reads = [story.absent(story.meeting), story.scope("calendar", CALENDAR, FIVE + 900 * HOUR, FIVE + 901 * HOUR)]
    other = HOME.entity("calendar.event", "ev2")
    story.fact(other, "calendar.created", calendar=CALENDAR, uid="u", unbounded_from=FIVE)
    data = {"calendar": CALENDAR, "start": FIVE + 900 * HOUR, "end": FIVE + 901 * HOUR}
    assert story.verdict(story.propose(story.meeting, "calendar.book", data, reads)) == "superseded"


def test_another_agents_booking_in_the_hour_supersedes_before_it_is_carried_out() -> None:
    story = Story()
    one, other = (HOME.entity("calendar.event", name) for name in ("ev1", "ev2"))
    scope = story.scope("calendar", CALENDAR, FIVE, FIVE + HOUR)
    data = {"calendar": CALENDAR, "start": FIVE, "end": FIVE + HOUR}
    first = story.propose(one, "calendar.book", data, [story.absent(one, 0), scope])
    second = story.propose(other, "calendar.book", data, [story.absent(other, 0), scope], actor=RIVAL)
    assert (story.verdict(first), story.verdict(second)) == ("accepted", "superseded")


def test_a_scope_that_nothing_could_ever_touch_is_malformed() -> None:
    """A misspelt container would otherwise protect nothing and say nothing."""
    story = Story()
    story.mail()
    scope = story.scope("calender", CALENDAR)
    proposed = story.propose(story.thread, "mail.label", {}, [story.seen(story.thread), scope])
    assert story.verdict(proposed) == "malformed"
    assert "calender/c1" in story.finding(proposed)["reason"]


def test_a_scope_of_all_threads_with_a_label() -> None:
    story = Story()
    story.mail()
    scope, read = story.scope("mail.label", "INBOX"), story.seen(story.thread)
    story.mail(about=HOME.entity("mail.thread", "th2"))
    assert story.verdict(story.propose(story.thread, "mail.label", {}, [read, scope])) == "superseded"
    assert story.verdict(story.propose(story.thread, "mail.label", {}, [read])) == "accepted"


def test_commuting_operations_both_land_and_the_guard_holds_the_invariant() -> None:
    story = Story()
    basis = story.fact(story.bank, "account.opened", balance=100)
    paid_in, taken_out = story.adjust(50, basis=basis, id="p1"), story.adjust(-20, basis=basis, id="p2")
    too_much = story.adjust(-200, basis=basis, id="p3")
    assert [story.verdict(one) for one in (paid_in, taken_out, too_much)] == ["accepted", "accepted", "rejected"]
    assert story.finding(too_much) == {"rule": "below_zero"}
    for number, proposal in enumerate(("p2", "p1")):
        story.attempt(proposal, f"t{number}")
        story.outcome("succeeded", proposal, f"t{number}")
    assert (story.state(story.bank)["balance"], story.intents(story.bank)) == (130, [])


def test_the_guard_sees_what_is_accepted_already() -> None:
    story = Story()
    basis = story.fact(story.bank, "account.opened", balance=100)
    verdicts = [story.verdict(story.adjust(-60, basis=basis)) for _ in range(2)]
    assert verdicts == ["accepted", "rejected"]


def test_the_guard_forbids_whatever_the_basis_was() -> None:
    story = Story()
    story.mail()
    story.fact(story.thread, "mail.archived")
    reply = story.reply()
    assert (story.verdict(reply), story.finding(reply)) == ("rejected", {"rule": "thread_archived"})


def test_two_peoples_questions_in_one_thread_do_not_supersede_each_other() -> None:
    story = Story()
    read = story.mail("m1", concerns=("person:bob",))
    story.mail("m2", concerns=("person:eve",))
    assert story.verdict(story.reply(basis=read, concerns=("person:bob",))) == "accepted"


def test_a_second_question_of_the_same_person_supersedes() -> None:
    story = Story()
    read = story.mail("m1", concerns=("person:bob",))
    story.mail("m2", concerns=("person:bob",))
    assert story.verdict(story.reply(basis=read, concerns=("person:bob",))) == "superseded"
    assert story.verdict(story.reply(basis=read)) == "superseded", "who names no concern is concerned by all"


def test_unknown_types_invalidate_and_read_flags_do_not() -> None:
    story = Story()
    read = story.mail()
    story.fact(story.thread, "mail.read")
    assert story.verdict(story.reply(basis=read)) == "accepted"
    read = story.head(story.thread)
    story.fact(story.thread, "account.opened", balance=1)
    assert story.verdict(story.label(basis=read)) == "superseded"


def test_a_policy_speaks_of_the_kind_of_actor() -> None:
    rules = (PolicyRule("mail.label", "mail.archived", "agent", "ignore"), *BANK_POLICY.rules)
    story = Story(Policy("agents", rules))
    read = story.mail()
    story.say(HOME, "mail.archived", {}, about=story.thread, actor=AGENT)
    assert story.verdict(story.label("a", basis=read)) == "accepted"
    read = story.head(story.thread)
    story.say(HOME, "mail.archived", {}, about=story.thread, actor=USER)
    assert story.verdict(story.label("b", basis=read)) == "superseded"


def test_a_policy_counts_from_its_own_offset_on() -> None:
    story = Story()
    read = story.mail()
    story.fact(story.thread, "mail.labelled", added=["x"])
    before = story.reply(id="p1", basis=read)
    story.activate(Policy("strict", ()))
    after = story.label(basis=read)
    assert (story.verdict(before), story.verdict(after)) == ("accepted", "superseded")
    assert story.finding(after)["event"]["type"] == "mail.labelled"


def test_a_retried_policy_does_not_come_back() -> None:
    """The log's own records have identities, too: a producer may retry them for ever."""
    story = Story()
    story.activate(Policy("first", ()), id="policy-1")
    story.activate(BANK_POLICY, id="policy-2")
    retried = story.activate(Policy("first", ()), id="policy-1")
    assert story.became(retried) == "duplicate"
    (partition,) = story.folded.tables["partitions"]
    assert '"name":"bank"' in partition["policy"]
