"""DESIGN §2 and §7: log time, what decoding refuses, and syncs that a later one has replaced."""

from collections.abc import Mapping
from typing import Any

import pytest

from headrace.errors import KindError, LogMismatchError, SchemaMissingError, UnsupportedFoldError
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import State
from headrace.processors.core.policy import Policy
from headrace.processors.engine import Engine
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import account_key
from tests.core.folding import ListLog, fold
from tests.core.retelling import silent
from tests.core.scribe import (
    AGENT,
    BANK_POLICY,
    ELSEWHERE,
    HOME,
    HOUR,
    KINDS,
    MINUTE,
    PARTITION,
    REGISTRY,
    SYSTEM,
    USER,
)
from tests.core.story import Story


def times(story: Story) -> list[int]:
    return [row["log_time"] for row in story.folded.events]


def test_log_time_is_the_latest_append_so_far() -> None:
    story = Story()
    start = story.now
    story.now += MINUTE
    story.mail()
    story.now -= HOUR
    story.mail("m2")
    assert times(story) == [start, start + MINUTE, start + MINUTE]


def test_a_time_that_the_log_did_not_set_moves_nothing() -> None:
    story = Story()
    start = story.now
    story.now += HOUR
    story.say(HOME, "mail.read", {}, about=story.thread, log_append=False)
    assert times(story) == [start, start]


def test_poison_moves_log_time_like_any_record() -> None:
    story = Story()
    story.now += MINUTE
    story.stored(None, (), b"")
    assert times(story)[-1] == story.now


def test_an_operator_undoes_a_clock_accident() -> None:
    story = Story()
    right = story.now
    story.now += 1000 * HOUR
    read = story.mail()
    expiring = story.propose(story.thread, "mail.label", {}, [story.seen(story.thread)], expires_at=right + MINUTE)
    story.now = right + 1
    story.own("log.time_reset", {"to": right, "reason": "the broker's clock ran ahead"})
    story.now = right + 2
    again = story.propose(story.thread, "mail.label", {}, [story.seen(story.thread, read)], expires_at=right + MINUTE)
    assert (story.verdict(expiring), story.verdict(again)) == ("expired", "accepted")
    assert times(story)[-2:] == [right, right + 2]


def test_a_retried_time_reset_does_not_turn_time_back_again() -> None:
    story = Story()
    to = story.now
    reset = story.own("log.time_reset", {"to": to, "reason": "accident"}, id="reset-1")
    story.now += HOUR
    story.mail()
    assert story.became(story.again(reset)) == "duplicate"
    assert times(story)[-1] == story.now


def test_a_source_synced_under_a_wrong_clock_is_not_fresh_once_it_is_set_right() -> None:
    story = Story()
    story.mail()
    right = story.now
    story.now += 24 * HOUR
    story.started("s1")
    story.synced("s1")
    story.own("log.time_reset", {"to": right, "reason": "the broker's clock ran ahead"})
    story.now = right + HOUR
    assert story.verdict(story.label()) == "held"


# -- syncs --------------------------------------------------------------------------------------------------------


def found(story: Story, sync: str, type_: str, event: str, **body: Any) -> int:
    return story.say(HOME, type_, body, about=story.thread, id=event, source="imap", sync=sync, actor=SYSTEM)


def test_records_of_a_replaced_sync_are_ineffective_and_do_not_use_up_their_id() -> None:
    """A slow old fetch can never set the state back."""
    story = Story()
    story.started("s1")
    story.started("s2")
    story.mail()
    late = found(story, "s1", "mail.archived", "archived-1")
    assert (story.became(late), story.state(story.thread)["archived"]) == ("stale_sync", False)
    current = found(story, "s2", "mail.archived", "archived-1")
    assert (story.became(current), story.state(story.thread)["archived"]) == ("applied", True)


def test_a_record_of_a_sync_that_never_started_is_ineffective() -> None:
    story = Story()
    assert story.became(found(story, "s7", "mail.archived", "archived-1")) == "stale_sync"
    assert story.row(story.thread) is None


def test_the_end_of_a_replaced_sync_sets_no_cursor_and_uses_up_no_id() -> None:
    story = Story()
    story.started("s1")
    story.started("s2")
    body = {"sync": "s1", "cursor": "old"}
    late = story.say(HOME, "source.synced", body, source="imap", id="end", actor=SYSTEM)
    assert story.became(late) == "stale_sync"
    assert story.became(story.synced("s2", cursor="new", id="end")) == "noted"
    (source,) = story.folded.tables["sources"]
    assert (source["cursor"], source["sync"], source["fresh_offset"]) == ("new", "s2", 2)


def test_two_sources_do_not_replace_each_others_syncs() -> None:
    story = Story()
    story.started("s1", source="imap")
    story.started("s2", source="caldav")
    assert story.became(found(story, "s1", "mail.archived", "archived-1")) == "applied"


def test_events_fetched_again_are_duplicates_whoever_fetches_them() -> None:
    story = Story()
    story.started("s1")
    first = found(story, "s1", "mail.archived", "archived-1")
    story.started("s2")
    again = found(story, "s2", "mail.archived", "archived-1")
    other = found(story, "s2", "mail.trashed", "archived-1")
    assert [story.became(one) for one in (first, again, other)] == ["applied", "duplicate", "conflicting_id"]
    assert story.head(story.thread) == first


def test_one_event_id_of_two_sources_or_accounts_is_two_events() -> None:
    story = Story()
    story.say(HOME, "mail.read", {}, about=story.thread, id="e", source="one")
    other = story.say(HOME, "mail.read", {}, about=story.thread, id="e", source="two")
    assert story.became(other) == "applied"


# -- what is refused, and what halts ------------------------------------------------------------------------------


def envelope(story: Story, type_: str = "mail.received") -> Envelope:
    return Envelope(f"x{story.number()}", "test", type_, USER, "mail.thread", "th1")


@pytest.mark.parametrize(
    "poison",
    [
        "cut off",
        "trailing",
        "other type",
        "misrouted",
        "no entity",
        "a claim on no entity",
        "a proposal's data alone",
        "content alone",
        "no key",
        "nonsense",
    ],
)
def test_poison_is_set_aside_and_the_partition_goes_on(poison: str) -> None:
    story = Story()
    value = REGISTRY.encode("mail.received", {"message": "m1", "sender": "x"})
    match poison:
        case "cut off":
            at = story.record(HOME, envelope(story), value[:-3])
        case "trailing":
            at = story.record(HOME, envelope(story), value + b"\0")
        case "other type":
            at = story.record(HOME, envelope(story, "mail.sent"), value)
        case "misrouted":
            at = story.record(ELSEWHERE, envelope(story), value)
        case "no entity":
            at = story.record(HOME, envelope(story)._replace(kind="", entity=""), value)
        case "a claim on no entity":
            claim = envelope(story, "claim.taken")._replace(kind="", entity="")
            at = story.record(HOME, claim, {"claim": "c", "until": 1})
        case "a proposal's data alone":
            at = story.record(HOME, envelope(story, "mail.reply"), {})
        case "content alone":
            at = story.record(HOME, envelope(story, "mail.message_content"), {})
        case "no key":
            at = story.record(None, envelope(story), value)
        case _:
            at = story.stored(account_key(*HOME), (("ce_id", b"\xff"),), b"\0")
    assert story.became(at) == "quarantined"
    (kept,) = story.folded.tables["quarantine"]
    assert (kept["offset"], kept["value"]) == (at, story.records[at].value)
    assert story.became(story.mail()) == "applied"


def test_a_proposal_that_cannot_be_read_is_malformed_and_its_id_stays_free() -> None:
    story = Story()
    story.mail()
    broken = story.record(HOME, envelope(story, "proposal.submitted")._replace(id="p1"), b"\xc3\x01nonsense"[:9])
    mended = story.label(id="p1")
    assert (story.verdict(broken), story.verdict(mended)) == ("malformed", "accepted")
    again = story.record(HOME, envelope(story, "proposal.submitted")._replace(id="p1"), b"")
    assert story.verdict(again) == "malformed"
    assert story.proposal("p1")["verdict"] == "accepted"


@pytest.mark.parametrize("fault", ["not an agent", "not among its reads", "another kind's", "backwards", "hash"])
def test_a_proposal_that_makes_no_sense_is_malformed(fault: str) -> None:
    story = Story()
    story.mail()
    read, data = story.seen(story.thread), dict[str, Any]()
    match fault:
        case "not an agent":
            at = story.propose(story.thread, "mail.label", data, [read], actor=USER)
        case "not among its reads":
            at = story.propose(story.thread, "mail.label", data, [story.scope("mail.label", "INBOX")])
        case "another kind's":
            at = story.propose(story.thread, "calendar.cancel", data, [read])
        case "backwards":
            at = story.propose(story.thread, "mail.label", data, [read, story.scope("calendar", "c1", 2, 1)])
        case _:
            body = {"proposal": "mail.label", "reads": [read], "data": REGISTRY.encode("mail.label", {})}
            at = story.record(
                HOME,
                envelope(story, "proposal.submitted")._replace(actor=AGENT),
                {**body, "payload_hash": b"short"},
            )
    assert story.verdict(at) == "malformed"


def test_a_kind_that_is_not_in_force_is_set_aside_until_it_is() -> None:
    story = Story()
    story.activate(BANK_POLICY, ["mail.thread", "calendar.event"])
    early = story.fact(story.bank, "account.opened", balance=1)
    story.activate(BANK_POLICY)
    late = story.again(early)
    assert (story.became(early), story.became(late)) == ("quarantined", "applied")


def test_a_missing_schema_halts_instead_of_skipping() -> None:
    story = Story()
    story.record(HOME, envelope(story), b"\xc3\x01unknown!and more")
    with pytest.raises(SchemaMissingError, match="upgrade headrace or install"):
        fold(story.records)


def without_bank() -> dict[str, Kind]:
    return {name: kind for name, kind in KINDS.items() if name != "bank.account"}


def test_a_processor_without_a_kind_in_force_halts() -> None:
    with pytest.raises(UnsupportedFoldError, match=r"bank\.account"):
        fold(Story().records, kinds=without_bank())


def test_so_does_one_that_takes_over_from_one_that_has_it() -> None:
    """It would judge proposals on that kind to be malformed, which they are not."""
    story = Story()
    story.mail()
    log = ListLog(story.records)
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        first = Engine(REGISTRY, KINDS, tables)
        assert first.resume(log, PARTITION) == 0
        first.apply(PARTITION, story.records[:1])
        second = Engine(REGISTRY, without_bank(), tables)
        assert second.resume(log, PARTITION) == 1
        with pytest.raises(UnsupportedFoldError, match="install the packages that bring them"):
            second.apply(PARTITION, story.records[1:])
        assert first.resume(log, PARTITION) == 1, "nothing was written"


def test_a_kind_that_is_installed_but_not_in_force_decides_nothing() -> None:
    """Which sources bear on a scope must not depend on what else this machine has."""

    class Guest(MailThread):
        name = "guest.book"
        table = "guest_books"
        containers = ("calendar",)

    story = Story()
    story.mail()
    story.started("s1", feeds=("guest.book",))
    reads = [story.seen(story.thread), story.scope("calendar", "c1")]
    story.propose(story.thread, "mail.label", {}, reads)
    guest = Guest()
    assert fold(story.records, kinds={**KINDS, guest.name: guest}).verdicts == story.folded.verdicts


def test_another_fold_version_halts() -> None:
    story = Story()
    body = {"policy": BANK_POLICY.to_body(), "kinds": sorted(KINDS), "fold_version": 2}
    story.own("policy.activated", body)
    with pytest.raises(UnsupportedFoldError, match="fold version 2"):
        fold(story.records)


def test_an_exception_in_a_kind_halts() -> None:
    class Broken(MailThread):
        def guard(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> str | None:
            raise ZeroDivisionError

    story = Story()
    story.mail()
    story.label()
    with pytest.raises(KindError, match="offset 2 of partition 1 raised ZeroDivisionError"):
        fold(story.records, kinds={**KINDS, "mail.thread": Broken()})


def test_a_log_without_its_opening_halts() -> None:
    story = Story()
    mail = story.mail()
    for first in (silent(story.records[0]), story.records[mail]._replace(offset=0)):
        with pytest.raises(LogMismatchError, match=r"record 0 is no log\.opened"):
            fold([first])


def test_a_hole_in_the_log_halts() -> None:
    story = Story()
    story.mail()
    story.mail("m2")
    with pytest.raises(LogMismatchError, match="expected offset 1, got 2"):
        fold([story.records[0], story.records[2]])


def test_a_second_opening_opens_nothing() -> None:
    """Not even the decoder's count of partitions changes for the rest of its batch."""
    story = Story()
    settings = {"policy": Policy("other", ()).to_body(), "kinds": [], "fold_version": 1}
    stray = story.own("log.opened", {"log_id": bytes(16).hex(), "partitions": 3, **settings})
    assert (story.became(stray), story.became(story.mail())) == ("ignored", "applied")


def test_headers_that_headrace_does_not_know_are_no_matter() -> None:
    story = Story()
    value = REGISTRY.encode("mail.read", {})
    headers = (*to_headers(envelope(story, "mail.read")), ("headrace-transport-hop", b"\xff"))
    assert story.became(story.stored(account_key(*HOME), headers, value)) == "applied"
