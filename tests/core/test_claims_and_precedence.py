"""DESIGN §2: claims, and which verdict wins where several apply."""

from typing import Any

from headrace.processors.core.policy import Policy, PolicyRule
from headrace.schemas.refs import ActorRef, Token
from tests.core.scribe import AGENT, BANK_POLICY, HOME, MINUTE, RIVAL, SYSTEM, USER
from tests.core.story import Story


def test_the_first_claim_wins_until_it_is_released() -> None:
    story = Story()
    story.mail()
    until = story.now + MINUTE
    story.say(HOME, "claim.taken", {"claim": "c1", "until": until}, about=story.thread, actor=RIVAL)
    second = story.say(HOME, "claim.taken", {"claim": "c2", "until": until}, about=story.thread, actor=AGENT)
    refused = story.label("a")
    assert story.became(second) == "ignored"
    assert (story.verdict(refused), story.finding(refused)["holder"]) == ("claimed", "agent/rival")
    story.say(HOME, "claim.released", {"claim": "c1"}, about=story.thread, actor=RIVAL)
    assert story.verdict(story.label("b")) == "accepted"


def test_a_claim_ends_in_the_logs_time() -> None:
    story = Story()
    story.mail()
    body = {"claim": "c1", "until": story.now + MINUTE}
    story.say(HOME, "claim.taken", body, about=story.thread, actor=RIVAL)
    story.now += MINUTE - 1
    assert story.verdict(story.label("a")) == "claimed"
    story.now += 1
    assert story.verdict(story.label("b")) == "accepted"


def test_a_claim_may_be_taken_the_moment_the_last_one_ends() -> None:
    story = Story()
    story.mail()
    until = story.now + MINUTE
    story.say(HOME, "claim.taken", {"claim": "c1", "until": until}, about=story.thread, actor=RIVAL)
    story.now = until
    taken = story.say(HOME, "claim.taken", {"claim": "c2", "until": until + 1}, about=story.thread, actor=AGENT)
    assert story.became(taken) == "noted"
    assert story.verdict(story.label()) == "accepted"


def test_nothing_is_released_where_nothing_is_held() -> None:
    story = Story()
    story.mail()
    for claim in ("c1", "c2"):
        released = story.say(HOME, "claim.released", {"claim": claim}, about=story.thread, actor=AGENT)
        assert story.became(released) == "ignored"
        story.say(HOME, "claim.taken", {"claim": "c0", "until": story.now + 1}, about=story.thread, actor=AGENT)


def test_the_holder_of_a_claim_is_not_kept_out_by_it() -> None:
    story = Story()
    story.mail()
    body = {"claim": "c1", "until": story.now + MINUTE}
    story.say(HOME, "claim.taken", body, about=story.thread, actor=AGENT)
    assert story.verdict(story.label()) == "accepted"


def test_an_agent_does_not_pass_for_the_user_of_its_name() -> None:
    story = Story()
    story.mail()
    body = {"claim": "c1", "until": story.now + MINUTE}
    story.say(HOME, "claim.taken", body, about=story.thread, actor=ActorRef("user", AGENT.id))
    refused = story.label()
    assert (story.verdict(refused), story.finding(refused)["holder"]) == ("claimed", f"user/{AGENT.id}")


def test_only_its_holder_or_a_person_releases_a_claim() -> None:
    story = Story()
    story.mail()
    story.say(HOME, "claim.taken", {"claim": "c1", "until": story.now + MINUTE}, about=story.thread, actor=RIVAL)
    stolen = story.say(HOME, "claim.released", {"claim": "c1"}, about=story.thread, actor=AGENT)
    assert (story.became(stolen), story.verdict(story.label("a"))) == ("ignored", "claimed")
    story.say(HOME, "claim.released", {"claim": "c1"}, about=story.thread, actor=USER)
    assert story.verdict(story.label("b")) == "accepted"


# -- precedence ---------------------------------------------------------------------------------------------------


def test_the_first_verdict_that_applies_wins() -> None:
    """One after another, the causes fall away, and the next in the table shows."""
    rules = (PolicyRule("mail.label", "mail.unread", "*", "review"), *BANK_POLICY.rules)
    bound = BANK_POLICY.source_max_staleness_ms
    story = Story(Policy("careful", rules, source_max_staleness_ms=bound))
    read = story.mail()
    story.fact(story.thread, "mail.unread")
    story.say(HOME, "source.notified", {}, source="imap", actor=SYSTEM)
    claim = {"claim": "c1", "until": story.now + MINUTE}
    story.say(HOME, "claim.taken", claim, about=story.thread, actor=RIVAL)
    for_review = story.seen(story.thread, read)
    gone = {**for_review, "basis": b"?"}
    trashed = story.fact(story.thread, "mail.trashed")
    now = story.seen(story.thread)
    seen: list[str] = []

    def judged(*reads: dict[str, Any], expires_at: int | None = None) -> None:
        seen.append(story.verdict(story.propose(story.thread, "mail.label", {}, list(reads), expires_at=expires_at)))

    judged(expires_at=story.now)
    judged(gone, expires_at=story.now)
    judged(for_review, expires_at=story.now)
    judged(for_review)
    judged(now)
    story.say(HOME, "claim.released", {"claim": "c1"}, about=story.thread, actor=RIVAL)
    judged(now)
    story.mail("m2")
    before = story.seen(story.thread)
    story.fact(story.thread, "mail.unread")
    judged(before)
    judged(story.seen(story.thread))
    assert trashed == place_of(now)
    assert seen == [
        "malformed",
        "unknown_basis",
        "expired",
        "superseded",
        "claimed",
        "rejected",
        "needs_review",
        "held",
    ]


def place_of(read: dict[str, Any]) -> int:
    """Where a read was made."""
    token = Token.unpack(read["basis"])
    assert token is not None
    return token.offset
