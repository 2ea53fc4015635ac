"""DESIGN §7, last paragraph: the agent's own act comes back, and whatever people did meanwhile."""

import hashlib
from typing import Any, Final

import pytest

from headrace.processors.core.echoes import MOST_AWAITED, foreseen
from headrace.processors.core.verdicts import canonical
from headrace.processors.kinds.calendar_event import KIND as CALENDAR_EVENT
from headrace.processors.kinds.mail_thread import KIND as MAIL_THREAD
from headrace.schemas.envelope import Envelope
from headrace.schemas.registry import Registry, built_in
from tests.core.planting import planted
from tests.core.scribe import HOME, HOUR, RIVAL, SYSTEM
from tests.core.story import CALENDAR, FIVE, Story

ATTEMPTED_2: Final = ("delivery.attempted", 2)
MARK: Final = "mark-1"
AGENTS: Final = "agent/bot"
PERSONS: Final = "user/ann"
MOVED: Final = {"start": FIVE + 2 * HOUR, "end": FIVE + 3 * HOUR}


def snapshot(start: int = 0, etag: str = "v1", **more: Any) -> dict[str, Any]:
    """A meeting as a source shows it: an hour long, so many hours after five."""
    times = [{"start": FIVE + start * HOUR, "end": FIVE + (start + 1) * HOUR}]
    return {"calendar": CALENDAR, "uid": "u", "resource": "r", "etag": etag, "occurrences": times, **more}


def to_move() -> Story:
    """A meeting of which an agent's moving by two hours is accepted."""
    story = Story()
    story.found(story.meeting, "calendar.created", snapshot())
    story.move(2, 3, id="p1")
    return story


def moving(story: Story, **shown: Any) -> bytes:
    """What the meeting will look like."""
    return foreseen(CALENDAR_EVENT, story.state(story.meeting), "calendar.move", MOVED, **shown)


def moves(story: Story, *, mark: str | None = MARK) -> int:
    """The attempt to carry it out."""
    return story.attempt_marked("p1", echo=moving(story), mark=mark)


# -- calendars: a snapshot that carries a mark ----------------------------------------------------------------------


def test_what_the_provider_stamps_is_no_edit() -> None:
    story = to_move()
    moves(story)
    echo = story.found(story.meeting, "calendar.updated", snapshot(2, "v2", sequence=1), MARK)
    assert (story.became(echo), story.actor(echo)) == ("echo", AGENTS)
    assert story.folded.events[echo]["proposal"] == "p1"
    assert story.proposal("p1")["outcome"] == "echoed"
    assert (story.state(story.meeting)["etag"], story.intents(story.meeting)) == ("v2", [])


def test_who_had_read_the_intent_is_not_superseded_by_its_echo() -> None:
    story = to_move()
    moves(story)
    basis = story.head(story.meeting)
    story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)
    cancel = story.propose(story.meeting, "calendar.cancel", {}, [story.seen(story.meeting, basis)], actor=RIVAL)
    assert story.verdict(cancel) == "accepted"


@pytest.mark.parametrize("edit", [{"start": 3}, {"busy": False}, {"status": "tentative"}, {"calendar": "c2"}])
def test_an_edit_on_top_within_the_same_sync_is_the_persons(edit: dict[str, Any]) -> None:
    story = to_move()
    basis = story.head(story.meeting)
    moves(story)
    found = story.found(story.meeting, "calendar.updated", {**snapshot(edit.pop("start", 2), "v3"), **edit}, MARK)
    assert (story.became(found), story.actor(found)) == ("applied", PERSONS)
    cancel = story.propose(story.meeting, "calendar.cancel", {}, [story.seen(story.meeting, basis)], actor=RIVAL)
    assert (story.verdict(cancel), story.finding(cancel)["event"]["offset"]) == ("superseded", found)
    assert story.finding(cancel)["event"]["actor"] == PERSONS


def test_words_changed_on_top_break_the_seal_so_the_mark_is_not_there() -> None:
    story = to_move()
    moves(story)
    found = story.found(story.meeting, "calendar.updated", snapshot(2, "v3"), None)
    assert (story.became(found), story.actor(found)) == ("applied", PERSONS)
    assert story.became(story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)) == "applied"


def test_another_proposals_mark_is_no_proof() -> None:
    story = to_move()
    moves(story)
    assert story.became(story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), "mark-2")) == "applied"


def test_a_copy_is_another_entity_and_a_persons() -> None:
    story = to_move()
    moves(story)
    other = story.meeting._replace(id="copy")
    copy = story.found(other, "calendar.created", snapshot(2, "v1", uid="u2"), MARK)
    assert (story.became(copy), story.actor(copy)) == ("applied", PERSONS)
    assert story.became(story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)) == "echo"


def test_a_booking_comes_back_under_the_providers_names() -> None:
    story = Story()
    data = {"calendar": CALENDAR, "start": FIVE, "end": FIVE + HOUR, "attendees": ["bob"]}
    story.propose(story.meeting, "calendar.book", data, [story.absent(story.meeting)], id="p1")
    story.attempt_marked("p1", echo=foreseen(CALENDAR_EVENT, None, "calendar.book", data, organizer="me"), mark=MARK)
    asked = [{"who": "bob", "response": "needs-action"}]
    echo = story.found(story.meeting, "calendar.created", snapshot(organizer="me", attendees=asked), MARK)
    assert (story.became(echo), story.state(story.meeting)["uid"]) == ("echo", "u")


def test_a_deletion_carries_no_mark_and_is_told_by_its_state() -> None:
    story = Story()
    story.found(story.meeting, "calendar.created", snapshot())
    story.propose(story.meeting, "calendar.cancel", {}, [story.seen(story.meeting)], id="p1")
    gone = foreseen(CALENDAR_EVENT, story.state(story.meeting), "calendar.cancel", {}, removed=True)
    story.attempt_marked("p1", echo=gone)
    story.outcome("succeeded", "p1")
    echo = story.found(story.meeting, "calendar.cancelled", {"removed": True, "etag": None})
    assert (story.became(echo), story.actor(echo)) == ("echo", AGENTS)


@pytest.mark.parametrize(("moved_by", "became"), [("mail.archived", "echo"), ("mail.labelled", "applied")])
def test_a_record_of_version_1_is_judged_as_ever(moved_by: str, became: str) -> None:
    """Its echo is whoever's brought it: verdicts that are on record name them."""
    older = Registry([one for one in built_in() if (one["headrace.type"], one["headrace.version"]) != ATTEMPTED_2])
    story = Story()
    story.mail()
    story.propose(story.thread, "mail.archive", {}, [story.seen(story.thread)], id="p1")
    after = {**story.state(story.thread), "archived": True, "labels": []}
    body = {"proposal": "p1", "attempt": "t1", "foreseen": hashlib.sha256(canonical(after)).digest()}
    envelope = Envelope("a-1", "test", "delivery.attempted", SYSTEM)
    assert story.became(story.record(HOME, envelope, older.encode("delivery.attempted", body))) == "granted"
    fact = story.fact(story.thread, moved_by)
    assert (story.became(fact), story.actor(fact)) == (became, PERSONS)


# -- late echoes ----------------------------------------------------------------------------------------------------


def test_an_echo_after_the_success_is_one() -> None:
    story = to_move()
    moves(story)
    done = story.outcome("succeeded", "p1", reference="v2")
    assert story.head(story.meeting) == done
    echo = story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)
    assert (story.became(echo), story.actor(echo), story.head(story.meeting)) == ("echo", AGENTS, echo)
    assert story.proposal("p1")["outcome"] == "succeeded"
    again = story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)
    assert story.became(again) == "applied", "once"


@pytest.mark.parametrize(("etag", "became"), [("v2", "echo"), ("v3", "applied")])
def test_the_version_that_the_answer_named_stands_for_a_mark_that_the_provider_lost(etag: str, became: str) -> None:
    story = to_move()
    moves(story)
    story.outcome("succeeded", "p1", reference="v2")
    assert story.became(story.found(story.meeting, "calendar.updated", snapshot(2, etag))) == became


def test_an_edit_after_the_success_ends_the_wait() -> None:
    story = to_move()
    moves(story)
    story.outcome("succeeded", "p1", reference="v2")
    assert (
        story.became(story.found(story.meeting, "calendar.updated", snapshot(2, "v3", busy=False), None)) == "applied"
    )
    back = story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)
    assert (story.became(back), story.actor(back)) == ("applied", PERSONS)


def test_what_the_log_says_did_not_happen_is_news_when_it_has() -> None:
    story = to_move()
    moves(story)
    story.outcome("failed", "p1")
    assert story.became(story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)) == "applied"


def test_an_unknown_outcome_is_settled_by_the_echo() -> None:
    story = to_move()
    moves(story)
    story.outcome("unknown", "p1")
    assert story.became(story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)) == "echo"
    assert (story.intents(story.meeting), story.proposal("p1")["outcome"]) == ([], "echoed")


def label(story: Story, name: str, proposal: str) -> None:
    """An agent's label is put on, and nothing of it has come back yet."""
    story.label(name, id=proposal)
    echo = foreseen(MAIL_THREAD, story.state(story.thread), "mail.label", {"added": [name], "removed": []})
    story.attempt_marked(proposal, f"t-{proposal}", echo=echo)
    story.outcome("succeeded", proposal, f"t-{proposal}")


def labelled(story: Story, name: str) -> int:
    """A source tells of a label."""
    return story.found(story.thread, "mail.labelled", {"added": [name]})


def two_labels() -> Story:
    """Two acts on one thread, the second foreseen on top of the first."""
    story = Story()
    story.mail()
    label(story, "a", "p1")
    label(story, "b", "p2")
    return story


def test_echoes_of_several_acts_come_one_by_one() -> None:
    story = Story()
    story.found(story.meeting, "calendar.created", snapshot())
    story.move(2, 3, id="p1")
    moves(story)
    story.outcome("succeeded", "p1", reference="v2")
    story.move(4, 5, id="p2")
    data = {"start": FIVE + 4 * HOUR, "end": FIVE + 5 * HOUR}
    echo = foreseen(CALENDAR_EVENT, story.state(story.meeting), "calendar.move", data)
    story.attempt_marked("p2", "t2", echo=echo, mark="mark-2")
    story.outcome("succeeded", "p2", "t2")
    first = story.found(story.meeting, "calendar.updated", snapshot(2, "v2"), MARK)
    second = story.found(story.meeting, "calendar.updated", snapshot(4, "v3"), "mark-2")
    assert [story.folded.events[one]["proposal"] for one in (first, second)] == ["p1", "p2"]
    assert [story.became(one) for one in (first, second)] == ["echo", "echo"]
    assert story.state(story.meeting)["starts_at"] == data["start"]


def test_one_snapshot_of_several_acts_is_the_last_ones_echo() -> None:
    story = two_labels()
    both = labelled(story, "b")
    assert (story.became(both), story.folded.events[both]["proposal"]) == ("echo", "p2")
    assert story.became(labelled(story, "a")) == "applied", "the first is in it"


def test_so_many_echoes_are_awaited_and_no_more() -> None:
    story = Story()
    story.mail()
    for number in range(MOST_AWAITED + 1):
        story.reply(id=f"p{number}")
        story.attempt_marked(f"p{number}", f"t{number}", mark=f"mark-{number}")
        story.outcome("succeeded", f"p{number}", f"t{number}")
        story.found(story.thread, "mail.received", {"message": "m1", "sender": "bob"})
        story.fact(story.thread, "mail.sent", message=f"by-hand-{number}", sender="ann", in_reply_to="m1")
        story.mail(f"n{number}")
    became = [
        story.became(story.found(story.thread, "mail.sent", {"message": "x", "sender": "me"}, f"mark-{number}"))
        for number in (0, 1)
    ]
    granted = [one for one in story.folded.dispositions if one == "granted"]
    assert became == (["applied", "echo"] if len(granted) > MOST_AWAITED else ["echo", "applied"])


# -- mail: what a message is, nobody changes ------------------------------------------------------------------------


def sent(mark: str | None, **more: Any) -> dict[str, Any]:
    return {"message": mark or "m9", "sender": "me", "in_reply_to": "m1", **more}


def to_send() -> Story:
    """A reply that the agent sends itself is under way."""
    story = Story()
    story.mail()
    story.reply(id="p1")
    story.attempt_marked("p1", mark=MARK)
    return story


@pytest.mark.parametrize("outcome", [None, "succeeded", "unknown"])
def test_a_message_of_ours_is_known_whatever_came_between(outcome: str | None) -> None:
    story = to_send()
    if outcome is not None:
        story.outcome(outcome, "p1")
    story.fact(story.thread, "mail.read")
    story.mail("m2")
    found = story.found(story.thread, "mail.sent", sent(MARK), MARK)
    assert (story.became(found), story.actor(found)) == ("echo", AGENTS)
    state = story.state(story.thread)
    assert (state["answered"], state["drafted"], state["messages"]) == (["m1"], [], 3)


def test_a_reply_by_hand_is_a_persons_though_ours_is_under_way() -> None:
    story = to_send()
    by_hand = story.found(story.thread, "mail.sent", sent(None))
    ours = story.found(story.thread, "mail.sent", sent(MARK), MARK)
    assert [story.became(one) for one in (by_hand, ours)] == ["applied", "echo"]
    assert [story.actor(one) for one in (by_hand, ours)] == [PERSONS, AGENTS]


def test_a_draft_that_a_person_sends_is_the_persons() -> None:
    """The proposal was to save a draft; that it was sent, somebody decided."""
    story = Story()
    story.mail()
    story.reply(id="p1")
    story.attempt_marked("p1")
    story.outcome("succeeded", "p1")
    basis = story.head(story.thread)
    found = story.found(story.thread, "mail.sent", sent(MARK), MARK)
    assert (story.became(found), story.actor(found)) == ("applied", PERSONS)
    stale = story.reply(basis=basis)
    assert (story.verdict(stale), story.finding(stale)["event"]["offset"]) == ("superseded", found)


def test_a_planted_bug_about_what_is_left_of_the_wait_is_found() -> None:
    bug = ("place > at or (one.echo is None and place < at)", "one.echo is None and place != at")
    with planted("processors.core.echoes:settle", *bug), pytest.raises(AssertionError):
        test_echoes_of_several_acts_come_one_by_one()
