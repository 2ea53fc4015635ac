"""The verdict table: its order is the contract's, and each row applies where DESIGN §2 says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.processors.core.model import ClaimRow, Effect, Known, Proposal, Read, SourceRow
from headrace.processors.core.policy import Policy, PolicyRule
from headrace.processors.core.verdicts import ROWS, TABLE, Case, ReadFinding, canonical, decide, verdict_bytes
from headrace.schemas.refs import ActorRef, EntityRef, Token

LOG = bytes(range(16))
REF = EntityRef("t", "a", "mail.thread", "th1")
BASIS = Token(LOG, 3, 5, b"12345678")
READ = Read("entity", REF.kind, REF.id, None, None, None, BASIS)
KNOWN = Known(BASIS.check, REF, 1_000)
PROPOSAL = Proposal("p1", "mail.reply", REF, ActorRef("agent", "bot"), (READ,), None, {}, (), b"h" * 32, 10)
POLICY = Policy(
    "p",
    [PolicyRule("*", "mail.unread", "*", "review"), PolicyRule("*", "mail.read", "*", "ignore")],
    basis_max_age_ms=60_000,
    source_max_staleness_ms=60_000,
)


def happened(effect: str, offset: int = 7) -> Effect:
    return Effect(offset, b"c" * 8, REF, f"e{offset}", effect, effect, ActorRef("user", "ann"), (), 1_500, None)


def case(**changes: Any) -> Case:
    """A proposal that nothing speaks against, but for the changes."""
    settings: dict[str, Any] = {"reads": (ReadFinding(READ, KNOWN, 5, ()),), **changes}
    return Case(settings.pop("proposal", PROPOSAL), settings.pop("at", 10), 2_000, LOG, 3, POLICY, **settings)


def since(*effects: Effect) -> tuple[ReadFinding, ...]:
    return (ReadFinding(READ, KNOWN, 5, effects),)


CAUSES: dict[str, dict[str, Any]] = {
    "malformed": {"proposal": PROPOSAL._replace(fault="only an agent proposes")},
    "duplicate": {"earlier": PROPOSAL._replace(offset=6)},
    "conflicting_id": {"earlier": PROPOSAL._replace(offset=6, payload_hash=b"other")},
    "unknown_basis": {"reads": (ReadFinding(READ, None, 5, ()),)},
    "expired": {"proposal": PROPOSAL._replace(expires_at=2_000)},
    "superseded": {"reads": since(happened("mail.sent"))},
    "claimed": {"claim": ClaimRow(REF, "c1", "agent/rival", 2_001, 4)},
    "rejected": {"forbidden_by": lambda: "thread_archived"},
    "needs_review": {"reads": since(happened("mail.unread"))},
    "held": {"sources": (SourceRow("t", "a", "imap"),)},
    "accepted": {},
}


def test_the_order_of_precedence_is_the_contracts() -> None:
    assert [row.verdict for row in TABLE] == list(CAUSES)
    assert set(ROWS) == set(CAUSES)


@pytest.mark.parametrize("verdict", CAUSES)
def test_each_cause_by_itself_gives_its_verdict(verdict: str) -> None:
    assert decide(case(**CAUSES[verdict]))[0] == verdict


def test_with_every_cause_at_once_the_first_wins_and_so_on_down_the_table() -> None:
    causes = [name for name in CAUSES if name not in ("unknown_basis", "needs_review", "duplicate")]
    while causes:
        together: dict[str, Any] = {}
        for name in reversed(causes):
            earlier = together.get("proposal")
            together |= CAUSES[name]
            if earlier is not None and name == "malformed":
                together["proposal"] = earlier._replace(fault="broken")
        assert decide(case(**together))[0] == causes.pop(0)


@pytest.mark.parametrize(
    ("status", "verdicts"),
    [
        (201, {"accepted"}),
        (202, {"needs_review", "held"}),
        (409, {"superseded", "claimed", "rejected", "conflicting_id"}),
        (410, {"expired"}),
        (422, {"malformed", "unknown_basis"}),
        (200, {"duplicate"}),
    ],
)
def test_the_answers_of_the_api_stand_in_the_table(status: int, verdicts: set[str]) -> None:
    assert {row.verdict for row in TABLE if row.status == status} == verdicts


def test_only_review_and_held_wait_for_an_answer() -> None:
    assert {row.verdict for row in TABLE if row.waits} == {"needs_review", "held"}


def test_every_row_says_what_it_means() -> None:
    assert all(row.meaning and row.meaning[0].islower() and not row.meaning.endswith(".") for row in TABLE)


# -- the edges of each row ------------------------------------------------------------------------------------------


def of(read: Read, known: Known | None = KNOWN, first: int = 5) -> dict[str, Any]:
    return {"reads": (ReadFinding(read, known, first, ()),)}


OTHER = EntityRef("t", "a", "mail.thread", "th2")
ABSENT = READ._replace(what="absent")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (of(READ._replace(account="b")), "reads span accounts"),
        (of(READ._replace(basis=None)), "the basis is no token"),
        (of(READ._replace(basis=BASIS._replace(log_id=bytes(16)))), "the basis is of another log"),
        (of(READ._replace(basis=BASIS._replace(partition=2))), "the basis is of another partition"),
        (of(READ._replace(basis=BASIS._replace(offset=10))), "the basis is not before the proposal"),
        (of(READ, None), "the basis is not of this log's history"),
        (of(READ, KNOWN._replace(check=b"87654321")), "the basis is not of this log's history"),
        (of(READ, KNOWN._replace(ref=None)), "the basis never was this entity's head"),
        (of(READ, KNOWN._replace(ref=OTHER)), "the basis never was this entity's head"),
        (of(READ, KNOWN._replace(ref=REF._replace(account="b"))), "the basis never was this entity's head"),
        (of(ABSENT, first=5), "the entity existed at the basis"),
        (of(ABSENT, first=0), "the entity existed at the basis"),
    ],
)
def test_why_a_basis_is_unknown(changes: dict[str, Any], reason: str) -> None:
    verdict, finding = decide(case(**changes))
    assert (verdict, finding["reason"]) == ("unknown_basis", reason)


@pytest.mark.parametrize("changes", [of(READ._replace(account="a")), of(ABSENT, first=6), of(ABSENT, first=-1)])
def test_bases_that_are_known(changes: dict[str, Any]) -> None:
    assert decide(case(**changes))[0] == "accepted"


@pytest.mark.parametrize(("expires_at", "verdict"), [(1_999, "expired"), (2_000, "expired"), (2_001, "accepted")])
def test_it_expires_when_the_logs_time_is_there(expires_at: int, verdict: str) -> None:
    assert decide(case(proposal=PROPOSAL._replace(expires_at=expires_at)))[0] == verdict


@pytest.mark.parametrize(("log_time", "verdict"), [(-58_001, "expired"), (-58_000, "accepted"), (5_000, "accepted")])
def test_a_basis_has_an_age_in_the_logs_time(log_time: int, verdict: str) -> None:
    assert decide(case(**of(READ, KNOWN._replace(log_time=log_time))))[0] == verdict


def test_superseded_names_the_first_event_in_log_order_whatever_read_found_it() -> None:
    reads = (*since(happened("mail.sent", 9)), *since(happened("mail.read", 6), happened("mail.archived", 8)))
    verdict, finding = decide(case(reads=reads))
    assert verdict == "superseded"
    assert finding["event"] == {
        "id": "e8",
        "type": "mail.archived",
        "effect": "mail.archived",
        "actor": "user/ann",
        "entity": "mail.thread/th1",
        "offset": 8,
        "time": 1_500,
    }


@pytest.mark.parametrize(("waived_to", "verdict"), [(-1, "needs_review"), (7, "needs_review"), (8, "accepted")])
def test_a_waiver_reaches_as_far_as_was_read(waived_to: int, verdict: str) -> None:
    reads = since(happened("mail.unread", 7), happened("mail.unread", 8))
    assert decide(case(reads=reads, waived_to=waived_to))[0] == verdict


def test_a_waiver_is_only_for_review() -> None:
    assert decide(case(reads=since(happened("mail.sent", 7)), waived_to=9))[0] == "superseded"


@pytest.mark.parametrize(
    ("holder", "until", "verdict"),
    [
        ("agent/rival", 2_001, "claimed"),
        ("agent/rival", 2_000, "accepted"),
        ("agent/bot", 2_001, "accepted"),
        ("user/bot", 2_001, "claimed"),
    ],
)
def test_a_claim_keeps_others_out_until_it_ends(holder: str, until: int, verdict: str) -> None:
    assert decide(case(claim=ClaimRow(REF, "c1", holder, until, 4)))[0] == verdict


@pytest.mark.parametrize(
    ("fresh_offset", "fresh_time", "verdict"),
    [
        (-1, 0, "held"),
        (4, -58_000, "accepted"),
        (4, -58_001, "held"),
        (11, -58_001, "accepted"),
        (10, -58_001, "held"),
        (4, 2_001, "held"),
    ],
)
def test_a_stale_source_holds_up_what_it_started_before(fresh_offset: int, fresh_time: int, verdict: str) -> None:
    source = SourceRow("t", "a", "imap", fresh_offset=fresh_offset, fresh_time=fresh_time)
    assert decide(case(sources=(source,)))[0] == verdict


def test_without_a_bound_no_source_is_stale() -> None:
    lax = case(**CAUSES["held"])
    lax.policy = Policy("lax", ())
    assert decide(lax)[0] == "accepted"


# -- bytes ----------------------------------------------------------------------------------------------------------


def test_a_verdict_has_one_text() -> None:
    text = verdict_bytes("p1", "rejected", {"rule": "ü", "a": [1, None, True]}, 7, 9)
    assert text == (
        '{"finding":{"a":[1,null,true],"rule":"ü"},"log_time":9,"offset":7,"proposal":"p1","verdict":"rejected"}'.encode()
    )


def test_the_order_of_a_mapping_does_not_show() -> None:
    one, other = {"a": {"c": 2, "d": 1}, "b": 1}, {"b": 1, "a": {"d": 1, "c": 2}}
    assert canonical(one) == canonical(other) == b'{"a":{"c":2,"d":1},"b":1}'


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(1 << 65), 1 << 65) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_VALUES)
def test_the_text_is_that_of_pythons_own_writer(value: Any) -> None:
    """What writes it is another library; a log outlives libraries."""
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(value) == plain.encode()
    assert json.loads(canonical(value)) == value
