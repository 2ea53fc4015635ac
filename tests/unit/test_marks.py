"""Marks: whoever has the key makes them, whoever reads them is not taken in."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.keys import Keys
from headrace.producers.marks import (
    CalendarMark,
    Pseudonym,
    calendar_mark,
    mark_of,
    message_id,
    message_mark,
    own_transaction,
    own_uid,
    read_calendar_mark,
)
from headrace.schemas.refs import OPAQUE_ID
from tests.core.planting import planted


def account(name: str, master: int = 0) -> Pseudonym:
    keys = Keys(bytes([master]) * 32)
    return lambda text: keys.pseudonym("acme", name, text)


ANN: Final = account("ann")
OTHERS: Final = (account("bob"), account("ann", master=1))
IDS: Final = st.from_regex(OPAQUE_ID, fullmatch=True).filter(lambda text: not text.endswith("\n"))
WORDS: Final = st.fixed_dictionaries(
    {
        name: st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
        for name in ("title", "description", "location")
    }
)
LUNCH: Final[dict[str, Any]] = {"title": "Lunch", "description": "With Bob\nand Carol", "location": "Café Röma"}


def made(pseudonym: Pseudonym = ANN, **more: Any) -> str:
    said: dict[str, Any] = {"proposal": "p1", "entity": "e1", "anchor": "uid-1", "content": LUNCH, **more}
    return calendar_mark(pseudonym, **said)


def read(said: str | None, *anchors: str | None, content: dict[str, Any] = LUNCH) -> CalendarMark | None:
    return read_calendar_mark(ANN, said, anchors or ("uid-1",), content)


@given(IDS, IDS, st.text(st.characters(exclude_categories=["Cs"]), min_size=1), WORDS)
def test_what_is_made_is_read(proposal: str, entity: str, anchor: str, content: dict[str, Any]) -> None:
    said = calendar_mark(ANN, proposal=proposal, entity=entity, anchor=anchor, content=content)
    assert len(said) <= 1_024, "what Google keeps"
    assert said.isascii()
    found = read_calendar_mark(ANN, said, (None, "another", anchor), content)
    assert found == CalendarMark(entity, mark_of(ANN, proposal))
    assert OPAQUE_ID.match(mark_of(ANN, proposal)), "it may stand on the log"


@given(IDS, st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True))
def test_a_message_says_whose_it_is(proposal: str, domain: str) -> None:
    mark = mark_of(ANN, proposal)
    assert message_mark(message_id(ANN, proposal, domain)) == mark
    assert message_mark("<their-own@provider>", mark) == mark
    assert message_mark(f" {message_id(ANN, proposal)}\n") == mark


@given(st.none() | st.text(), st.none() | st.text())
def test_any_other_message_says_nothing(said: str | None, header: str | None) -> None:
    assert message_mark(said, header) is None


@pytest.mark.parametrize(
    "said",
    [
        f"Re: {message_id(ANN, 'p1')}",
        f"{message_id(ANN, 'p1')} {message_id(ANN, 'p2')}",
        message_id(ANN, "p1")[1:-1],
        message_id(ANN, "p1", ""),
        f"<{mark_of(ANN, 'p1').upper()}@x>",
        f"<x{mark_of(ANN, 'p1')}@x>",
    ],
)
def test_a_message_that_quotes_ours_is_not_ours(said: str) -> None:
    assert message_mark(said) is None


def test_a_mark_is_the_same_however_often_it_is_made_and_anothers_is_another() -> None:
    marks = [mark_of(ANN, "p1"), mark_of(ANN, "p2"), *(mark_of(one, "p1") for one in OTHERS)]
    names = [own_uid(ANN, "p1"), own_transaction(ANN, "p1"), *(own_uid(one, "p1") for one in OTHERS)]
    assert len({*marks, *names, ANN("p1")}) == len(marks) + len(names) + 1
    assert mark_of(ANN, "p1") == mark_of(account("ann"), "p1")


def test_a_copy_carries_the_mark_and_is_not_taken_in() -> None:
    assert read(made(), "uid-1") == CalendarMark("e1", mark_of(ANN, "p1"))
    assert read(made(), "uid-2") is None
    assert read(made(), None, "") is None


@pytest.mark.parametrize(
    "forged",
    [
        None,
        "",
        "x",
        "/" * 3,
        "/" * 4,
        "a/" * 600,
        *(made(one) for one in OTHERS),
        made().replace("e1", "e2"),
        made().replace(mark_of(ANN, "p1"), mark_of(ANN, "p2")),
        "/".join([*made().split("/")[:2], *made(anchor="uid-2").split("/")[2:]]),
        "/".join(made().split("/")[:3]),
        made() + "/",
    ],
)
def test_what_nobody_with_the_key_has_made_is_no_mark(forged: str | None) -> None:
    assert read(forged) is None


def test_a_seal_does_not_open_another_act() -> None:
    """The proof is this event's, the seal of an earlier act on it."""
    old, new = made(proposal="p0").split("/"), made().split("/")
    assert read("/".join([*new[:3], old[3]])) == CalendarMark("e1", None)
    assert read("/".join([*old[:3], new[3]])) == CalendarMark("e1", None)


@pytest.mark.parametrize("field", ["title", "description", "location"])
@pytest.mark.parametrize("edit", ["{}!", "{} ", "", None, "Other", "{0}\n{0}"])
def test_changed_words_break_the_seal_and_white_space_does_not(field: str, edit: str | None) -> None:
    changed = edit.format(LUNCH[field]) if edit is not None else None
    found = read(made(), content={**LUNCH, field: changed})
    assert found == CalendarMark("e1", mark_of(ANN, "p1") if edit == "{} " else None)


@pytest.mark.parametrize(
    "rewritten",
    [
        {"description": "<html><body><p>With Bob</p>\r\n<p>and&nbsp;Carol</p></body></html>"},
        {"description": "With Bob and Carol\n", "location": "Cafe\u0301 Ro\u0308ma"},
        {"title": "  Lunch", "people": ["bob@example.com"], "time_zone": "UTC"},
    ],
)
def test_what_providers_make_of_words_does_not_break_it(rewritten: dict[str, Any]) -> None:
    assert read(made(), content={**LUNCH, **rewritten}) == CalendarMark("e1", mark_of(ANN, "p1"))


@given(st.text(), st.lists(st.none() | st.text(), max_size=3), WORDS)
def test_nothing_that_is_read_is_a_crash(said: str, anchors: list[str | None], content: dict[str, Any]) -> None:
    assert read_calendar_mark(ANN, said, anchors, content) is None


@pytest.mark.parametrize(
    ("function", "sound", "bug", "test"),
    [
        (
            "read_calendar_mark",
            "proof == _proof(pseudonym, mark, entity, anchor)",
            "True",
            test_a_copy_carries_the_mark_and_is_not_taken_in,
        ),
        (
            "read_calendar_mark",
            "mark if seal == _seal(pseudonym, mark, entity, content) else None",
            "mark",
            test_a_seal_does_not_open_another_act,
        ),
        ("_seal", "[mark, entity, words]", "[entity, words]", test_a_seal_does_not_open_another_act),
        ("_proof", "[mark, entity, anchor]", "[mark, entity]", test_a_copy_carries_the_mark_and_is_not_taken_in),
    ],
)
def test_a_planted_bug_is_found(function: str, sound: str, bug: str, test: Any) -> None:
    with planted(f"producers.marks:{function}", sound, bug), pytest.raises(AssertionError):
        test()
