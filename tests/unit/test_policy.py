"""What an event that came between does to a proposal: patterns, precedence, actors, concerns, and the default."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.processors.core.policy import DEFAULT_POLICY, Policy, PolicyRule

NAMES = st.sampled_from(
    ("mail.reply", "mail.label", "mail.received", "calendar.move", "echo", "accepted:mail.reply", "x")
)
PATTERNS = NAMES | st.sampled_from(("*", "mail.*", "calendar.*", "accepted:*", "mail.re*"))
RULES = st.builds(
    PolicyRule,
    PATTERNS,
    PATTERNS,
    st.sampled_from(("*", "user", "agent", "system")),
    st.sampled_from(("invalidate", "review", "ignore")),
    st.booleans(),
)
POLICIES = st.builds(
    Policy, st.just("p"), st.lists(RULES, max_size=6), st.none() | st.integers(0), st.none() | st.integers(0)
)


def said(policy: Policy, event: str, *, proposal: str = "mail.reply", actor: str = "user") -> str:
    return policy.consequence(proposal, (), event, actor, ())


def test_where_no_rule_fits_the_event_invalidates() -> None:
    assert said(Policy("empty", ()), "anything.at.all") == "invalidate"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mail.read", "mail.read", True),
        ("mail.read", "mail.reader", False),
        ("mail.*", "mail.read", True),
        ("mail.*", "mail", False),
        ("mail.re*", "mail.read", True),
        ("*", "anything", True),
        ("accepted:*", "accepted:mail.reply", True),
        ("m*l", "mail", False),
    ],
)
def test_patterns_are_exact_names_or_prefixes(pattern: str, name: str, *, fits: bool) -> None:
    policy = Policy("p", [PolicyRule("*", pattern, "*", "ignore")])
    assert said(policy, name) == ("ignore" if fits else "invalidate")


def test_the_first_rule_that_fits_counts() -> None:
    rules = [PolicyRule("*", "mail.read", "*", "review"), PolicyRule("*", "*", "*", "ignore")]
    assert said(Policy("p", rules), "mail.read") == "review"
    assert said(Policy("p", rules[::-1]), "mail.read") == "ignore"


def test_a_rule_may_be_for_one_kind_of_actor() -> None:
    policy = Policy("p", [PolicyRule("*", "*", "agent", "ignore")])
    assert [said(policy, "x", actor=actor) for actor in ("agent", "user", "system")] == [
        "ignore",
        "invalidate",
        "invalidate",
    ]


@pytest.mark.parametrize(
    ("mine", "theirs", "consequence"),
    [
        (("a",), ("a", "b"), "invalidate"),
        (("a",), ("b",), "ignore"),
        ((), ("b",), "invalidate"),
        (("a",), (), "invalidate"),
        ((), (), "invalidate"),
    ],
)
def test_concerns_that_are_told_must_meet(mine: tuple[str, ...], theirs: tuple[str, ...], consequence: str) -> None:
    policy = Policy("p", [PolicyRule("*", "*", "*", "invalidate", concerns=True)])
    assert policy.consequence("mail.reply", mine, "mail.received", "user", theirs) == consequence


@given(policy=POLICIES, proposal=NAMES, event=NAMES)
def test_a_policy_comes_back_from_the_log_as_it_was(policy: Policy, proposal: str, event: str) -> None:
    again = Policy.from_body(policy.to_body())
    assert again.to_body() == policy.to_body()
    for actor in ("user", "agent", "system"):
        assert said(again, event, proposal=proposal, actor=actor) == said(policy, event, proposal=proposal, actor=actor)


def test_an_effect_that_nobody_knows_is_refused() -> None:
    body = Policy("p", [PolicyRule("*", "*", "*", "ignore")]).to_body()
    body["rules"][0]["effect"] = "maybe"
    with pytest.raises(ValueError, match="no such effect: 'maybe'"):
        Policy.from_body(body)


@pytest.mark.parametrize("proposal", ["mail.reply", "mail.label", "mail.archive", "calendar.move", "account.adjust"])
@pytest.mark.parametrize("event", ["mail.read", "mail.unread", "echo", "delivery.succeeded"])
def test_by_default_nobody_is_disturbed_by_read_flags_and_their_own_acts(proposal: str, event: str) -> None:
    assert said(DEFAULT_POLICY, event, proposal=proposal) == "ignore"


@pytest.mark.parametrize(
    ("proposal", "event", "consequence"),
    [
        ("mail.reply", "mail.sent", "invalidate"),
        ("mail.reply", "mail.received", "invalidate"),
        ("mail.reply", "mail.archived", "invalidate"),
        ("mail.reply", "mail.labelled", "ignore"),
        ("mail.label", "mail.labelled", "invalidate"),
        ("calendar.move", "calendar.updated", "invalidate"),
        ("calendar.move", "calendar.responded", "review"),
        ("calendar.cancel", "calendar.responded", "review"),
        ("calendar.book", "calendar.responded", "ignore"),
        ("calendar.book", "calendar.created", "invalidate"),
        ("mail.reply", "accepted:mail.reply", "invalidate"),
        ("mail.reply", "delivery.refused", "invalidate"),
        ("mail.reply", "intent.ended", "invalidate"),
        ("mail.reply", "of.a.type.to.come", "invalidate"),
    ],
)
def test_the_default_policy(proposal: str, event: str, consequence: str) -> None:
    assert said(DEFAULT_POLICY, event, proposal=proposal) == consequence


def test_by_default_a_source_may_be_a_quarter_of_an_hour_stale() -> None:
    assert (DEFAULT_POLICY.source_max_staleness_ms, DEFAULT_POLICY.basis_max_age_ms) == (900_000, None)
