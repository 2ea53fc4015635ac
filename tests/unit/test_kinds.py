"""The built-in kinds: what facts do, what proposals will do, what is forbidden, what is touched."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.account.headrace_account.kind import KIND as BANK_ACCOUNT
from headrace.errors import HaltError
from headrace.kinds import installed_kinds
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import Event, State
from headrace.processors.core.verdicts import canonical
from headrace.processors.engine import require_kinds
from headrace.processors.kinds.calendar_event import KIND as CALENDAR_EVENT
from headrace.processors.kinds.mail_thread import KIND as MAIL_THREAD
from headrace.schemas.refs import ActorRef, Touch
from headrace.schemas.registry import built_in
from tests.core import happenings
from tests.core.scribe import REGISTRY

ANN = ActorRef("user", "ann")
KINDS: tuple[Kind, ...] = (MAIL_THREAD, CALENDAR_EVENT, BANK_ACCOUNT)


def event(type_: str, body: Mapping[str, Any]) -> Event:
    """The event as it comes off the log: every default filled in."""
    return Event(type_, REGISTRY.decode(REGISTRY.encode(type_, body)).body, ANN)


def after(kind: Kind, *facts: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    state: dict[str, Any] | None = None
    for type_, body in facts:
        state = kind.evolve(state, event(type_, body))
    assert state is not None
    return state


def data(type_: str, said: Mapping[str, Any]) -> dict[str, Any]:
    return REGISTRY.decode(REGISTRY.encode(type_, said)).body


def received(message: str = "m1", **more: Any) -> tuple[str, dict[str, Any]]:
    return "mail.received", {"message": message, "sender": "bob", **more}


def sent(in_reply_to: str | None = "m1") -> tuple[str, dict[str, Any]]:
    return "mail.sent", {"message": "s1", "sender": "ann", "in_reply_to": in_reply_to}


def meeting(start: int = 10, end: int = 20, **more: Any) -> tuple[str, dict[str, Any]]:
    return "calendar.created", {"calendar": "c", "uid": "u", "occurrences": [{"start": start, "end": end}], **more}


# -- of every kind --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(facts=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=12), last=st.binary(min_size=2))
def test_functions_of_a_kind_leave_their_arguments_alone_and_give_json(
    kind: Kind, facts: list[tuple[int, int]], last: bytes
) -> None:
    """What they give is the same whether the state came from memory or from a table."""
    state: dict[str, Any] | None = None
    for choice, detail in facts:
        fact = event(*happenings.fact(kind.name, choice, detail))
        before = copy.deepcopy((state, fact))
        new = kind.evolve(state, fact)
        assert (state, fact) == before
        stored = json.loads(canonical(state)) if state is not None else None
        assert json.loads(canonical(new)) == new == kind.evolve(stored, fact)
        assert all(touch.container in kind.containers for touch in kind.footprint(new))
        state = new
    proposal, said = happenings.proposal(kind.name, last[0], last[1])
    assert proposal in kind.proposals
    whole = data(proposal, said)
    kept = copy.deepcopy((state, whole))
    rule, foreseen = kind.guard(state, proposal, whole), kind.foresee(state, proposal, whole)
    assert (state, whole) == kept
    assert rule is None or rule.isidentifier()
    assert json.loads(canonical(foreseen)) == foreseen
    assert {column.name for column in kind.columns if not column.content} <= set(foreseen)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_type_that_a_kind_does_not_know_changes_nothing(kind: Kind) -> None:
    state = kind.evolve(None, Event("of.a.time.to.come", {}, ANN))
    assert kind.evolve(state, Event("of.a.time.to.come", {"x": 1}, ANN)) == state
    assert kind.footprint(None) == ()


def test_the_built_in_kinds_come_by_the_door_that_users_have() -> None:
    kinds = installed_kinds()
    assert kinds["mail.thread"] is MAIL_THREAD
    assert kinds["calendar.event"] is CALENDAR_EVENT


def test_every_proposal_of_a_built_in_kind_has_a_schema() -> None:
    proposals = {source["headrace.type"] for source in built_in() if source["headrace.role"] == "proposal"}
    assert proposals == {*MAIL_THREAD.proposals, *CALENDAR_EVENT.proposals}


def test_two_kinds_do_not_share_a_name_or_a_table() -> None:
    with pytest.raises(HaltError, match="uninstall one"):
        require_kinds([MAIL_THREAD, MAIL_THREAD])


# -- mail threads ---------------------------------------------------------------------------------------------------


def test_a_mail_that_arrives_is_unread_and_brings_the_thread_back() -> None:
    state = after(MAIL_THREAD, received(labels=["INBOX"]), ("mail.archived", {}), ("mail.trashed", {}), received("m2"))
    assert (state["messages"], state["last_message"], state["unread"]) == (2, "m2", True)
    assert (state["archived"], state["trashed"], state["last_by_owner"]) == (False, False, False)


def test_an_answer_of_the_owner_is_remembered_by_what_it_answers() -> None:
    state = after(MAIL_THREAD, received("m1"), sent("m1"))
    assert (state["answered"], state["last_by_owner"], state["last_sender"]) == (["m1"], True, "ann")


def test_labels_are_a_sorted_set() -> None:
    state = after(MAIL_THREAD, received(labels=["z", "a"]), ("mail.labelled", {"added": ["m", "a"], "removed": ["z"]}))
    assert state["labels"] == ["a", "m"]


def test_archived_and_back_in_the_inbox() -> None:
    facts = [received(labels=["INBOX"]), ("mail.archived", {})]
    assert (state := after(MAIL_THREAD, *facts))["archived"]
    assert state["labels"] == []
    state = after(MAIL_THREAD, *facts, ("mail.labelled", {"added": ["INBOX"]}))
    assert (state["archived"], state["labels"]) == (False, ["INBOX"])


@pytest.mark.parametrize(
    ("facts", "proposal", "said", "rule"),
    [
        ([("mail.read", {})], "mail.reply", {}, "no_such_thread"),
        ([received(), ("mail.deleted", {})], "mail.label", {}, "thread_deleted"),
        ([received(), ("mail.trashed", {})], "mail.reply", {}, "thread_deleted"),
        ([received(), ("mail.archived", {})], "mail.reply", {}, "thread_archived"),
        ([received(), ("mail.archived", {})], "mail.archive", {}, "already_archived"),
        ([received(), ("mail.archived", {})], "mail.label", {}, None),
        ([received(), sent("m1")], "mail.reply", {"in_reply_to": "m1"}, "already_replied"),
        ([received(), sent(None)], "mail.reply", {}, "already_replied"),
        ([received(), sent("m1"), received("m2")], "mail.reply", {"in_reply_to": "m2"}, None),
        ([received(), sent("m1"), received("m2")], "mail.reply", {}, None),
        ([received()], "mail.reply", {"in_reply_to": "m1"}, None),
        ([received()], "mail.archive", {}, None),
    ],
)
def test_what_is_forbidden_on_a_thread(
    facts: list[tuple[str, Mapping[str, Any]]], proposal: str, said: Mapping[str, Any], rule: str | None
) -> None:
    assert MAIL_THREAD.guard(after(MAIL_THREAD, *facts), proposal, data(proposal, said)) == rule


def test_one_draft_for_one_message() -> None:
    reply = data("mail.reply", {"in_reply_to": "m1"})
    drafted = MAIL_THREAD.foresee(after(MAIL_THREAD, received()), "mail.reply", reply)
    assert MAIL_THREAD.guard(drafted, "mail.reply", reply) == "already_drafted"
    assert MAIL_THREAD.guard(drafted, "mail.reply", data("mail.reply", {})) == "already_drafted"
    assert MAIL_THREAD.guard(drafted, "mail.reply", data("mail.reply", {"in_reply_to": "m0"})) is None
    answered = MAIL_THREAD.evolve(drafted, event(*sent("m1")))
    assert (answered["drafted"], answered["answered"]) == ([], ["m1"])


def test_a_thread_touches_its_labels() -> None:
    touched = MAIL_THREAD.footprint(after(MAIL_THREAD, received(labels=["b", "a"])))
    assert touched == (Touch("mail.label", "a"), Touch("mail.label", "b"))


# -- calendar events ------------------------------------------------------------------------------------------------


def test_a_snapshot_replaces_what_was_known() -> None:
    state = after(CALENDAR_EVENT, meeting(etag="1"), ("calendar.updated", meeting(30, 40)[1]))
    assert (state["starts_at"], state["ends_at"], state["etag"]) == (30, 40, None)


def test_a_cancelled_meeting_takes_up_nothing_and_can_come_back() -> None:
    state = after(CALENDAR_EVENT, meeting(), ("calendar.cancelled", {"removed": True}))
    assert (state["status"], state["removed"], CALENDAR_EVENT.footprint(state)) == ("cancelled", True, ())
    state = CALENDAR_EVENT.evolve(state, event(*meeting()))
    assert (state["removed"], len(CALENDAR_EVENT.footprint(state))) == (False, 1)


def test_answers_are_filed_with_who_was_asked() -> None:
    asked = [{"who": "x", "response": "needs-action"}, {"who": "y", "response": "needs-action"}]
    said = [{"who": "z", "response": "declined"}, {"who": "y", "response": "accepted"}]
    state = after(CALENDAR_EVENT, meeting(attendees=asked), ("calendar.responded", {"responses": said}))
    assert [(one["who"], one["response"]) for one in state["attendees"]] == [
        ("x", "needs-action"),
        ("y", "accepted"),
        ("z", "declined"),
    ]


@pytest.mark.parametrize(
    ("state", "proposal", "said", "rule"),
    [
        (None, "calendar.book", {"start": 1, "end": 2}, None),
        (None, "calendar.book", {"start": 2, "end": 2}, "empty_interval"),
        (None, "calendar.move", {"start": 1, "end": 2}, "no_such_event"),
        (None, "calendar.cancel", {}, "no_such_event"),
        ([meeting()], "calendar.book", {"start": 1, "end": 2}, "already_exists"),
        ([meeting()], "calendar.move", {"start": 3, "end": 2}, "empty_interval"),
        ([meeting()], "calendar.move", {"start": 1, "end": 2}, None),
        ([meeting(unbounded_from=5)], "calendar.move", {"start": 1, "end": 2}, "moves_a_series"),
        ([meeting()], "calendar.cancel", {}, None),
        ([meeting(), ("calendar.cancelled", {})], "calendar.cancel", {}, "already_cancelled"),
        ([meeting(), ("calendar.cancelled", {})], "calendar.move", {"start": 1, "end": 2}, "already_cancelled"),
        ([meeting(), ("calendar.cancelled", {})], "calendar.book", {"start": 1, "end": 2}, None),
    ],
)
def test_what_is_forbidden_on_a_calendar_event(
    state: list[tuple[str, Mapping[str, Any]]] | None, proposal: str, said: dict[str, Any], rule: str | None
) -> None:
    whole = data(proposal, {"calendar": "c", **said} if proposal == "calendar.book" else said)
    now: State | None = after(CALENDAR_EVENT, *state) if state is not None else None
    assert CALENDAR_EVENT.guard(now, proposal, whole) == rule


def test_a_series_without_end_takes_up_everything_from_there_on() -> None:
    state = after(CALENDAR_EVENT, meeting(10, 20, unbounded_from=30))
    assert CALENDAR_EVENT.footprint(state) == (Touch("calendar", "c", 10, 20), Touch("calendar", "c", 30, None))


def test_an_event_without_a_time_takes_up_its_whole_calendar() -> None:
    state = after(CALENDAR_EVENT, ("calendar.created", {"calendar": "c", "uid": "u"}))
    assert CALENDAR_EVENT.footprint(state) == (Touch("calendar", "c"),)


def test_what_was_booked_and_moved_is_foreseen() -> None:
    booked = CALENDAR_EVENT.foresee(
        None, "calendar.book", data("calendar.book", {"calendar": "c", "start": 1, "end": 2, "attendees": ["x"]})
    )
    assert CALENDAR_EVENT.footprint(booked) == (Touch("calendar", "c", 1, 2),)
    assert booked["attendees"] == [{"who": "x", "response": "needs-action"}]
    moved = CALENDAR_EVENT.foresee(booked, "calendar.move", data("calendar.move", {"start": 5, "end": 6}))
    assert (moved["starts_at"], moved["ends_at"]) == (5, 6)
    assert CALENDAR_EVENT.foresee(moved, "calendar.cancel", {})["status"] == "cancelled"


# -- touches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ((1, 2), (2, 3), False),
        ((1, 3), (2, 4), True),
        ((1, 9), (3, 4), True),
        ((None, None), (3, 4), True),
        ((None, 3), (3, 4), False),
        ((4, None), (3, 4), False),
        ((3, None), (3, 4), True),
        ((3, 3), (3, 4), True),
        ((4, 4), (3, 4), False),
        ((3, 3), (3, 3), True),
        ((3, 3), (4, 4), False),
    ],
)
def test_intervals_are_half_open_and_an_empty_one_is_a_point(
    one: tuple[int | None, int | None], other: tuple[int | None, int | None], *, meet: bool
) -> None:
    first, second = Touch("calendar", "c", *one), Touch("calendar", "c", *other)
    assert first.meets(second) is meet
    assert second.meets(first) is meet
    assert not first.meets(second._replace(id="d"))
    assert not first.meets(second._replace(container="mail.label"))


# -- the example ----------------------------------------------------------------------------------------------------


def test_a_bank_account_never_goes_below_zero() -> None:
    state = after(BANK_ACCOUNT, ("account.opened", {"balance": 100}), ("account.adjusted", {"amount": -40}))
    assert (state["balance"], state["adjustments"]) == (60, 1)
    rules = [BANK_ACCOUNT.guard(state, "account.adjust", {"amount": amount}) for amount in (-60, -61, 10)]
    assert rules == [None, "below_zero", None]
    assert BANK_ACCOUNT.guard(None, "account.adjust", {"amount": 1}) == "no_such_account"
    assert BANK_ACCOUNT.foresee(state, "account.adjust", {"amount": -60})["balance"] == 0
