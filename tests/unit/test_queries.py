"""Questions to the tables, over a history with everything in it."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.kinds import installed_kinds, installed_schemas
from headrace.processors.core.judge import overlaid
from headrace.processors.core.verdicts import ROWS
from headrace.processors.engine import Engine
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.models import CalendarEventState, StateModel, ThreadState, VerdictName
from headrace.schemas.readable import readable, readable_content
from headrace.schemas.refs import EntityRef, Touch
from tests.contract.rich_history import HOUR, START, TENANT, Author, MemoryLog, write

KINDS: Final = installed_kinds()
REGISTRY: Final = installed_schemas()
CALENDAR: Final = KINDS["calendar.event"]


@pytest.fixture(scope="module")
def author() -> Author:
    made = Author(MemoryLog(partitions=2), account="a-4")
    write(made)
    return made


@pytest.fixture(scope="module")
def reader(author: Author) -> Iterator[Reader]:
    tables = SqliteTables.in_memory(REGISTRY, KINDS)
    engine = Engine(REGISTRY, KINDS, tables)
    for partition in range(2):
        engine.resume(author.log, partition)
        engine.apply(partition, author.log.read(partition, 0, 10_000))
    with tables.snapshot() as snapshot:
        yield snapshot
    tables.close()


@pytest.fixture
def account(author: Author) -> tuple[str, str]:
    return TENANT, author.account


def test_a_horizon_is_how_far_the_tables_are(author: Author, reader: Reader) -> None:
    end = author.log.describe().ends[author.partition]
    horizon = queries.horizon(reader, author.partition)
    assert horizon is not None
    assert horizon.token == author.token(end - 1)
    assert horizon.next_offset == end
    assert queries.horizons(reader) == [queries.horizon(reader, 0), queries.horizon(reader, 1)]
    assert queries.horizon(reader, 2) is None


def test_history_knows_its_own_tokens_only(author: Author, reader: Reader) -> None:
    for offset in range(author.log.describe().ends[author.partition]):
        token = author.token(offset)
        assert queries.is_history(reader, token)
        assert not queries.is_history(reader, token._replace(check=bytes(8)))
        assert not queries.is_history(reader, token._replace(log_id=bytes(range(1, 17))))
        assert not queries.is_history(reader, token._replace(partition=1 - token.partition))
    last = author.token(author.log.describe().ends[author.partition] - 1)
    assert not queries.is_history(reader, last._replace(offset=last.offset + 1))


@pytest.mark.parametrize("page", [1, 7, 1_000])
def test_pages_of_events_leave_nothing_out(reader: Reader, account: tuple[str, str], page: int) -> None:
    everything = reader.rows(
        "SELECT * FROM events WHERE tenant = :t AND account = :a", {"t": account[0], "a": account[1]}
    )
    offsets = sorted(row["offset"] for row in everything)
    up, down, after, before = [], [], -1, 10**9
    while rows := queries.account_events(reader, account, after=after, limit=page):
        up += [row["offset"] for row in rows]
        after = up[-1]
    while rows := queries.latest_account_events(reader, account, before=before, limit=page):
        down += [row["offset"] for row in rows]
        before = down[-1]
    assert up == offsets
    assert down == offsets[::-1]


def test_events_of_one_kind_or_entity(reader: Reader, account: tuple[str, str]) -> None:
    of_kind = queries.account_events(reader, account, after=-1, limit=1_000, kind="calendar.event")
    assert {row["kind"] for row in of_kind} == {"calendar.event"}
    of_one = queries.account_events(reader, account, after=-1, limit=1_000, kind="calendar.event", entity="e-1")
    assert {row["entity"] for row in of_one} == {"e-1"}
    assert len(of_kind) > len(of_one) > 3
    effective = queries.effective_events(reader, EntityRef(*account, "calendar.event", "e-1"), 10**9)
    assert [row["offset"] for row in effective] == [row["offset"] for row in of_one if row["effect"] is not None]


def test_entities_are_paged_by_id(reader: Reader, account: tuple[str, str]) -> None:
    everything = queries.entities(reader, KINDS["mail.thread"], account, after="", limit=1_000)
    ids, after = list[str](), ""
    while found := queries.entities(reader, KINDS["mail.thread"], account, after=after, limit=2):
        ids += [row.ref.id for row in found]
        after = ids[-1]
    assert ids == sorted(row.ref.id for row in everything)
    for row in everything:
        assert queries.entity(reader, KINDS["mail.thread"], row.ref) == row
    assert queries.entity(reader, KINDS["mail.thread"], EntityRef(*account, "mail.thread", "never")) is None
    assert queries.entities(reader, KINDS["mail.thread"], ("other", account[1]), after="", limit=9) == []


@given(st.none() | st.integers(-2, 40), st.none() | st.integers(-2, 40))
def test_what_meets_a_scope_is_among_what_ever_touched_it(
    reader: Reader, author: Author, start: int | None, end: int | None
) -> None:
    calendar = author.intake.pseudonyms(TENANT, author.account)("team")
    scope = Touch(
        "calendar",
        calendar,
        START + start * HOUR // 2 if start is not None else None,
        START + end * HOUR // 2 if end is not None else None,
    )
    account = (TENANT, author.account)
    found, after = list[tuple[str, str]](), ("", "")
    while page := queries.touching(reader, account, scope, after=after, limit=2):
        found += page
        after = page[-1]
    assert found == sorted(set(found))
    for row in queries.entities(reader, CALENDAR, account, after="", limit=1_000):
        if any(touch.meets(scope) for touch in CALENDAR.footprint(overlaid(row, CALENDAR))):
            assert ("calendar.event", row.ref.id) in found


def test_claims_are_found_by_entity_and_by_name(reader: Reader, account: tuple[str, str]) -> None:
    held = queries.claim(reader, EntityRef(*account, "mail.thread", "t-1"))
    assert held is not None
    assert held.holder == "agent/other"
    assert queries.claim_named(reader, account, "c-1") == held
    assert queries.claim_named(reader, account, "c-2") is None
    assert queries.claim_named(reader, ("other", account[1]), "c-1") is None


def test_proposals_and_their_verdicts(reader: Reader, account: tuple[str, str]) -> None:
    everything = queries.proposals(reader, account, after="", limit=1_000)
    assert [row.proposal.id for row in everything] == sorted(row.proposal.id for row in everything)
    seen = set[str]()
    for row in everything:
        history = queries.verdicts(reader, account, row.proposal.id)
        seen |= {one.verdict for one in history}
        current = [one for one in history if one.offset == row.judged_at]
        assert [(one.verdict, one.finding) for one in current] == [(row.verdict, row.finding)]
        (at,) = reader.rows("SELECT partition FROM proposals WHERE id = :id", {"id": row.proposal.id})
        horizon = queries.horizon(reader, at["partition"])
        for offset, judgement in ((row.judged_at, current[0]), (row.judged_at + 10_000, None)):
            told = queries.submitted(reader, at["partition"], account, row.proposal.id, offset)
            assert told == (horizon, row, judgement)
        assert queries.submitted(reader, at["partition"], account, "never", row.judged_at) == (
            horizon,
            None,
            current[0],
        )
        assert queries.submitted(reader, 9_999, account, row.proposal.id, row.judged_at) is None
        assert queries.proposal(reader, account, row.proposal.id) == row
    assert seen >= {"malformed", "duplicate", "conflicting_id", "unknown_basis", "superseded", "held", "accepted"}
    for verdict in ROWS:
        chosen = queries.proposals(reader, account, after="", limit=1_000, verdict=verdict)
        assert chosen == [row for row in everything if row.verdict == verdict]
    assert queries.proposal(reader, account, "never") is None


def test_quarantine_is_told_to_its_tenant(reader: Reader) -> None:
    everything = queries.quarantine(reader, None, (0, -1), 100)
    own = queries.quarantine(reader, TENANT, (0, -1), 100)
    assert len(everything) > len(own) > 1
    assert own == [row for row in everything if row["tenant"] == TENANT]
    assert queries.quarantine(reader, "other", (0, -1), 100) == []
    paged, after = list[dict[str, Any]](), (0, -1)
    while page := queries.quarantine(reader, None, after, 1):
        paged += page
        after = (page[0]["partition"], page[0]["offset"])
    assert paged == everything


def test_accounts_are_a_tenants_own(reader: Reader, account: tuple[str, str]) -> None:
    assert list(queries.accounts(reader, TENANT, "", 10)) == [account[1]]
    assert list(queries.accounts(reader, TENANT, account[1], 10)) == []
    assert list(queries.accounts(reader, "other", "", 10)) == []
    count = queries.counted(reader, list(KINDS.values()), account)
    assert count.events == len(queries.account_events(reader, account, after=-1, limit=10_000))
    assert count.entities["mail.thread"] == len(
        queries.entities(reader, KINDS["mail.thread"], account, after="", limit=1_000)
    )
    assert count.waiting == len(queries.proposals(reader, account, after="", limit=99, verdict="held")) + len(
        queries.proposals(reader, account, after="", limit=99, verdict="needs_review")
    )
    assert count.last_log_time > START - 1
    nothing = queries.counted(reader, [], (TENANT, "nobody"))
    assert (nothing.events, nothing.waiting, nothing.last_log_time) == (0, 0, 0)


def test_sources_are_found(reader: Reader, account: tuple[str, str]) -> None:
    assert [row.source for row in queries.sources(reader, account)] == ["imap", "mailbox/ann"]


@pytest.mark.parametrize(("model", "name"), [(ThreadState, "mail.thread"), (CalendarEventState, "calendar.event")])
def test_the_doors_know_the_states(reader: Reader, account: tuple[str, str], model: Any, name: str) -> None:
    rows = queries.entities(reader, KINDS[name], account, after="", limit=1_000)
    states = [row.state for row in rows if row.state is not None]
    assert states
    for state in states:
        assert model.model_validate(state).model_dump() == state


def test_the_doors_know_the_verdicts() -> None:
    assert VerdictName.__args__ == tuple(ROWS)  # type: ignore[attr-defined]
    assert StateModel is not None


def test_every_body_is_fit_for_json(author: Author, reader: Reader, account: tuple[str, str]) -> None:
    shown = 0
    for row in queries.account_events(reader, account, after=-1, limit=1_000):
        if row["type"]:
            (stored,) = author.log.read(author.partition, row["offset"], 1)
            body = REGISTRY.decode(stored.value).body
            plain = readable(REGISTRY, body)
            assert json.loads(json.dumps(plain)) == plain
            assert "content" not in plain
            content = readable_content(REGISTRY, body.get("content"), body.get("content_key"))
            json.dumps(content)
            shown += content is not None
    assert shown > 3
    assert readable_content(REGISTRY, b"sealed", "key-1") is None
    assert readable_content(REGISTRY, b"\xff", None) is None
