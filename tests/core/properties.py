"""What holds for every history, one function each: it raises ``AssertionError`` where it does not.

The invariants of faults.md §3 that live in the fold, and the sentences of DESIGN §2, §7 and §8 that can be said of any
history. ``test_properties`` lets hypothesis look for a counterexample; ``test_planted_bugs`` shows that they bite.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from headrace.errors import UndecodableError
from headrace.log.port import Stored
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import ActorRef, Token, parse_account_key
from tests.core.agreement import differences
from tests.core.components import apart
from tests.core.folding import Folded, fold
from tests.core.retelling import Change, Retelling, silent, told_by
from tests.core.scribe import REGISTRY
from tests.core.testimony import Testimony

Row = dict[str, Any]
ENTITY: Final = ("tenant", "account", "kind", "entity")

INERT: Final = frozenset({"ignored", "duplicate", "conflicting_id", "stale_sync", "quarantined", "malformed"})
REFUSED: Final = frozenset({"unknown_basis", "expired", "superseded", "claimed", "rejected"})


def agrees_with_the_reference(records: Sequence[Stored]) -> None:
    found = differences(records, fold(records))
    assert not found, "\n".join(found[:10])


def the_split_into_batches_is_not_seen(records: Sequence[Stored]) -> None:
    whole = fold(records)
    for sizes in ((1,), (2, 1, 5), (7, 3), (13,)):
        split = fold(records, sizes, restart=True)
        for name, rows in whole.tables.items():
            assert split.tables[name] == rows, f"in batches of {sizes}, {name} differs"


def accepted_proposals_never_share_a_head_unless_they_ignore_each_other(records: Sequence[Stored]) -> None:
    told = Testimony(records, fold(records))
    for judged in told.judgements():
        if judged.verdict != "accepted":
            continue
        own = (judged.proposal["kind"], judged.proposal["entity"])
        on_own = [read for read in judged.reads if (read["kind"], read["id"]) == own and read["what"] != "scope"]
        for row in told.between(judged, on_own):
            if row["effect"].startswith("accepted:"):
                waived = row["offset"] <= judged.proposal["waived_to"]
                said = told.consequence(judged, row)
                assert said == "ignore" or (said == "review" and waived), (judged, row)


def accepted_means_that_nothing_relevant_came_between(records: Sequence[Stored]) -> None:
    told = Testimony(records, fold(records))
    for judged in told.judgements():
        if judged.verdict == "accepted":
            for row in told.between(judged):
                waived = row["offset"] <= judged.proposal["waived_to"] and judged.by != "proposal.submitted"
                said = told.consequence(judged, row)
                assert said == "ignore" or (said == "review" and waived), (judged, row)
            for read in judged.reads:
                assert told.is_right(read, judged.proposal["offset"]), (judged, read)


def superseded_names_the_first_relevant_event(records: Sequence[Stored]) -> None:
    told = Testimony(records, fold(records))
    for judged in told.judgements():
        if judged.verdict == "superseded" and judged.by != "delivery.attempted":
            relevant = [row for row in told.between(judged) if told.consequence(judged, row) == "invalidate"]
            assert relevant, (judged, "nothing relevant came between")
            first, named = relevant[0], judged.finding["event"]
            assert named["offset"] == first["offset"], (judged, first)
            assert (named["id"], named["type"], named["effect"]) == (first["event_id"], first["type"], first["effect"])
            assert named["actor"] == f"{first['actor_kind']}/{first['actor_id']}"
            assert named["time"] == first["log_time"]


def nobody_is_refused_without_cause(records: Sequence[Stored]) -> None:
    """What had read nothing but heads and places of this log, and nothing moved since, is neither stale nor unknown."""
    told = Testimony(records, fold(records))
    for judged in told.judgements():
        account = (judged.proposal["tenant"], judged.proposal["account"])
        current = all(told.is_right(read, judged.proposal["offset"]) for read in judged.reads)
        for read in judged.reads:
            token, heads = Token.unpack(read["basis"]), told.heads(account, read["kind"], read["id"])
            offset = token.offset if token is not None else -1
            existed = any(head <= offset for head in heads)
            fits_what = {"entity": offset in heads, "absent": not existed, "scope": True}[read["what"]]
            current = current and fits_what and read["account"] in (None, account[1])
        if current:
            assert judged.verdict != "unknown_basis", judged
            if not told.between(judged):
                assert judged.verdict not in ("superseded", "needs_review"), judged


def retries_change_nothing(records: Sequence[Stored]) -> None:
    """Whatever took effect or was judged may come again, anywhere, any number of times."""
    before = fold(records)
    became = before.dispositions
    settled = [offset for offset, one in enumerate(became) if one not in ("stale_sync", "quarantined", "malformed")]
    again: dict[int, list[int]] = {}
    for number, offset in enumerate(settled):
        for distance in (number % 3, 5 + 7 * (number % 4)):
            again.setdefault(min(offset + distance, len(records) - 1), []).append(offset)
    retold = Retelling(records, again=again).told()
    after = fold(retold.records)
    assert told_by(after, retold.was) == told_by(before, dict(enumerate(range(len(records)))))
    copies = set(range(len(retold.records))) - retold.was.keys()
    for offset in copies:
        assert after.events[offset]["effect"] is None, (offset, "a retry took effect")


def _without(records: Sequence[Stored], dropped: Collection[int], before: Folded, change: Change = silent) -> None:
    retold = Retelling(records, change=change, where=dropped).told()
    same = {offset: offset for offset in range(len(records))}
    assert told_by(fold(retold.records), same, dropped) == told_by(before, same, dropped)


def what_is_inert_could_as_well_not_be_there(records: Sequence[Stored]) -> None:
    before = fold(records)
    _without(records, [one for one, became in enumerate(before.dispositions) if became in INERT], before)


def refused_proposals_move_nothing(records: Sequence[Stored]) -> None:
    before = fold(records)
    ids = [(row["tenant"], row["account"], row["proposal"]) for row in before.events]
    dropped = [
        row["offset"]
        for row in before.events
        if row["type"] == "proposal.submitted" and row["disposition"] in REFUSED
        if all(before.events[other]["type"] != "proposal.submitted" for other in _others(ids, row["offset"]))
    ]
    retold = Retelling(records, where=dropped).told()
    same = {offset: offset for offset in range(len(records))}
    gone = {f"proposal {ids[offset]}" for offset in dropped}
    after, was = told_by(fold(retold.records), same, dropped), told_by(before, same, dropped)
    assert after == {what: said for what, said in was.items() if what not in gone}


def _others(ids: Sequence[tuple[str, str, str]], offset: int) -> list[int]:
    return [other for other, named in enumerate(ids) if named == ids[offset] and other != offset]


def stale_syncs_change_nothing(records: Sequence[Stored]) -> None:
    before = fold(records)
    _without(records, [one for one, became in enumerate(before.dispositions) if became == "stale_sync"], before)


def accounts_do_not_see_each_other(records: Sequence[Stored]) -> None:
    before = fold(records)
    accounts = {(row["tenant"], row["account"]) for row in before.events if row["account"]}
    for account in sorted(accounts):
        dropped = [record.offset for record in records if record.key is not None and _account(record) != account]
        retold = Retelling(records, where=dropped).told()
        same = {offset: offset for offset in range(len(records))}
        after, was = told_by(fold(retold.records), same, dropped), told_by(before, same, dropped)
        others = tuple(str(other)[1:-1] for other in accounts - {account})
        assert after == {what: said for what, said in was.items() if not any(other in what for other in others)}


def _account(record: Stored) -> tuple[str, str] | None:
    try:
        return parse_account_key(record.key or b"")
    except UndecodableError:
        return None


def what_nobody_read_decides_nothing(records: Sequence[Stored]) -> None:
    """The frame: entities that no chain of reads connects could as well live in logs of their own."""
    before = fold(records)
    same = {offset: offset for offset in range(len(records))}
    for dropped, names in apart(records):
        retold = Retelling(records, where=dropped).told()
        after, was = told_by(fold(retold.records), same, dropped), told_by(before, same, dropped)
        assert after == {what: said for what, said in was.items() if what not in names}


def clocks_of_clients_decide_nothing(records: Sequence[Stored]) -> None:
    """Neither a time that the log did not set, nor any that an envelope carries."""
    before = fold(records)
    dropped = [record.offset for record in records if not record.log_append]

    def elsewhen(record: Stored) -> Stored:
        claimed = (("ce_time", b"1999-12-31T23:59:59.999Z"), ("ce_observedat", b"2199-12-31T23:59:59.999Z"))
        return record._replace(appended_at=record.appended_at * 2, headers=(*record.headers, *claimed))

    retold = Retelling(records, change=elsewhen, where=dropped).told()
    same = {offset: offset for offset in range(len(records))}
    assert told_by(fold(retold.records), same) == told_by(before, same)


def only_what_was_foreseen_is_an_echo(records: Sequence[Stored]) -> None:
    """Of an attempt that was granted, once, with its mark, and not behind an edit."""
    folded = fold(records)
    for row, attempt, reference in _echoes(folded, records):
        body = REGISTRY.decode(records[attempt["offset"]].value).body
        edits = [
            one["offset"]
            for one in folded.events[attempt["offset"] : row["offset"]]
            if one["disposition"] == "applied" and [one[name] for name in ENTITY] == [row[name] for name in ENTITY]
        ]
        assert not edits or (body["echo"] is None and body["mark"] is not None), (row, edits)
        if body["mark"] is not None:
            etag = REGISTRY.decode(records[row["offset"]].value).body.get("etag")
            of_version = body["echo"] is not None and etag is not None and etag == reference
            assert row["causation"] == body["mark"] or of_version, row


def an_echo_is_its_agents(records: Sequence[Stored]) -> None:
    folded = fold(records)
    made = {(one["tenant"], one["account"], one["id"]): one["actor_id"] for one in folded.tables["proposals"]}
    for row, attempt, _ in _echoes(folded, records):
        body = REGISTRY.decode(records[attempt["offset"]].value).body
        brought = from_headers(records[row["offset"]].headers).actor
        agent = ActorRef("agent", made[row["tenant"], row["account"], row["proposal"]])
        of_version_1 = body["echo"] is None and body["mark"] is None
        assert (row["actor_kind"], row["actor_id"]) == (brought if of_version_1 else agent), row


def _echoes(folded: Folded, records: Sequence[Stored]) -> Iterator[tuple[Row, Row, str | None]]:
    """Each echo, the attempt that it is of, and what the success named before it, if that came first."""
    granted, references = dict[tuple[str, ...], Row](), dict[tuple[str, ...], str | None]()
    for row in folded.events:
        key = (row["tenant"], row["account"], row["proposal"])
        if row["disposition"] == "granted":
            granted[key] = row
        elif row["disposition"] == "succeeded":
            references[key] = REGISTRY.decode(records[row["offset"]].value).body["reference"]
        elif row["disposition"] == "echo":
            assert key in granted, (row, "an echo of nothing, or a second one")
            yield row, granted.pop(key), references.get(key)


PROPERTIES: Final[tuple[Callable[[Sequence[Stored]], None], ...]] = (
    agrees_with_the_reference,
    the_split_into_batches_is_not_seen,
    accepted_proposals_never_share_a_head_unless_they_ignore_each_other,
    accepted_means_that_nothing_relevant_came_between,
    superseded_names_the_first_relevant_event,
    nobody_is_refused_without_cause,
    retries_change_nothing,
    what_is_inert_could_as_well_not_be_there,
    refused_proposals_move_nothing,
    stale_syncs_change_nothing,
    accounts_do_not_see_each_other,
    what_nobody_read_decides_nothing,
    clocks_of_clients_decide_nothing,
    only_what_was_foreseen_is_an_echo,
    an_echo_is_its_agents,
)
