"""One log, two databases, the same rows: whatever is in the log, however it is cut into batches, whoever asks."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.log.port import Stored
from headrace.processors.audit import verify
from headrace.processors.engine import Engine
from headrace.projections import known, queries
from headrace.projections.port import Reader
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import EntityRef, Touch
from tests.contract.long_texts import write_long
from tests.contract.rich_history import TENANT, Author, MemoryLog, mail, write
from tests.contract.tables_recording import ACCOUNTS, KINDS, PARTITIONS, REGISTRY
from tests.core import scribe
from tests.core.folding import ListLog
from tests.core.histories import histories
from tests.postgres.both import contents, fold_by

STRANGE = (
    "a\0b",
    "\0",
    "\0\0x",
    "\x01",
    "\x01\x01",
    "\x01\x02\0",
    'q"uo\\te',
    "\\u0000",
    "tab\tline\nend\\N",
    "é📬\U0010ffff",
)
"""Texts that PostgreSQL has to be told of: what it cannot keep, and what its formats give a meaning."""


@pytest.fixture
def postgres(database: str, schema: str) -> Iterator[PostgresTables]:
    """Empty tables."""
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        yield tables


@pytest.fixture
def sqlite() -> Iterator[SqliteTables]:
    """Empty tables."""
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        yield tables


def strange() -> MemoryLog:
    """A history whose texts are strange wherever a record may hold any text."""
    log = MemoryLog(PARTITIONS)
    author = Author(log)
    for number, text in enumerate(STRANGE):
        thread = f"s-{number % 3}"
        author.fact("mail.received", thread, f"sm-{number}", mail(number), content={"subject": text, "text": text})
        author.fact("mail.labelled", thread, f"sl-{number}", {"added": [text, f"{text}-{number}"], "removed": []})
        last = author.fact("mail.labelled", thread, f"sr-{number}", {"added": [], "removed": [text]})
        author.note("source.sync_started", f"ss-{number}", {"sync": f"ss-{number}", "feeds": ["mail.thread"]})
        author.note("source.synced", f"se-{number}", {"sync": f"ss-{number}", "cursor": text}, sync=f"ss-{number}")
        author.note("proposal.withdrawn", f"w-{number}", {"proposal": text})
        taken = {"claim": text, "until": 2**50}
        author.note("claim.taken", f"c-{number}", taken, entity=f"mail.thread/{thread}")
        subject = f"mail.thread/{thread}"
        reads = [author.entity(subject, last), author.scope("mail.label", text, last)]
        author.propose(f"sp-{number}", "mail.label", subject, reads, {"added": [text], "removed": []})
        if number % 2:
            author.note("claim.released", f"cr-{number}", {"claim": text}, entity=f"mail.thread/{thread}")
    return log


def long() -> MemoryLog:
    """A history whose texts are longer than a key in an index."""
    log = MemoryLog(PARTITIONS)
    write_long(Author(log))
    return log


def whole() -> MemoryLog:
    """Everything, on two partitions."""
    log = MemoryLog(PARTITIONS)
    for account in ACCOUNTS:
        write(Author(log, account))
    return log


@pytest.mark.parametrize("history", [whole, strange, long])
@pytest.mark.parametrize("sizes", [(1,), (7, 3), (1_000,)])
def test_the_same_rows(
    postgres: PostgresTables, sqlite: SqliteTables, history: Callable[[], MemoryLog], sizes: tuple[int, ...]
) -> None:
    log = history()
    for partition in range(PARTITIONS):
        fold_by(Engine(REGISTRY, KINDS, postgres), log, partition, sizes)
        fold_by(Engine(REGISTRY, KINDS, sqlite), log, partition, (1_000,))
    there, expected = contents(postgres, KINDS), contents(sqlite, KINDS)
    assert sum(map(len, expected.values())) > 40
    for table, found in expected.items():
        assert there[table] == found, table


def test_strange_texts_are_there_and_are_found(postgres: PostgresTables, sqlite: SqliteTables) -> None:
    log = strange()
    for tables in (postgres, sqlite):
        fold_by(Engine(REGISTRY, KINDS, tables), log, 1, (1_000,))
        with tables.snapshot() as reader:
            labels = reader.rows("SELECT DISTINCT container_id FROM touches ORDER BY container_id", {})
            in_order = [row["container_id"] for row in labels]
            assert in_order == sorted(in_order)
            assert set(STRANGE) < set(in_order)
            cursors = {row["cursor"] for row in reader.rows("SELECT cursor FROM sources", {})}
            assert cursors == {STRANGE[-1]}
            for text in STRANGE:
                found = reader.rows("SELECT type FROM events WHERE proposal = :p ORDER BY offset", {"p": text})
                assert found == [{"type": "proposal.withdrawn"}], text
                assert queries.touching(reader, (TENANT, "a-4"), Touch("mail.label", text), after=("", ""), limit=9)
        with tables.snapshot() as reader:
            thread = queries.entity(reader, KINDS["mail.thread"], EntityRef(TENANT, "a-4", "mail.thread", "s-0"))
            assert thread is not None
            assert thread.state is not None
            assert "\0\0x-2" not in thread.state["labels"]
            assert "a\0b-0" in thread.state["labels"]


def test_sql_can_look_into_json_whatever_is_in_it(
    postgres: PostgresTables, ask: Callable[..., list[tuple[Any, ...]]]
) -> None:
    fold_by(Engine(REGISTRY, KINDS, postgres), strange(), 1, (1_000,))
    found = ask("SELECT jsonb_array_elements_text(labels), state -> 'labels' ->> 0 FROM threads ORDER BY 1")
    assert "a\x01\x01b-0" in {text for text, _ in found}


def test_the_audit_finds_nothing(postgres: PostgresTables) -> None:
    for log in (whole(), strange()):
        schema = f"t_{secrets.token_hex(6)}"
        with PostgresTables(postgres.address.conninfo, REGISTRY, KINDS, schema=schema) as tables:
            for partition in range(PARTITIONS):
                fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (50,))
            report = verify(log, tables, REGISTRY, KINDS)
            assert report.verified, report.findings
            assert report.rows > 100


def test_the_audit_sees_a_changed_row(postgres: PostgresTables, ask: Callable[..., list[tuple[Any, ...]]]) -> None:
    log = whole()
    fold_by(Engine(REGISTRY, KINDS, postgres), log, 1, (50,))
    ask("UPDATE threads SET labels = '[\"forged\"]' WHERE id = 't-1'")
    report = verify(log, postgres, REGISTRY, KINDS)
    assert [(finding.table, finding.column) for finding in report.findings] == [("threads", "labels")]


def answers(reader: Reader) -> list[Any]:
    """What every question of ours finds."""
    account, thread = (TENANT, "a-4"), EntityRef(TENANT, "a-4", "mail.thread", "t-1")
    found: list[Any] = [queries.horizons(reader), queries.horizon(reader, 1), queries.horizon(reader, 9)]
    found.append(queries.event_at(reader, 1, 3))
    horizon = queries.horizon(reader, 1)
    assert horizon is not None
    found += [queries.is_history(reader, token) for token in (horizon.token, horizon.token._replace(check=bytes(8)))]
    for kind, entity in (("", ""), ("mail.thread", ""), ("mail.thread", "t-1")):
        found.append(queries.account_events(reader, account, after=3, limit=20, kind=kind, entity=entity))
        found.append(queries.latest_account_events(reader, account, before=60, limit=20, kind=kind, entity=entity))
    found.append(queries.effective_events(reader, thread, 50))
    found.append(queries.attempts(reader, account, "dp-0", after=0, until=10_000))
    found.append(queries.last_claim_record(reader, thread, 10_000))
    found += [queries.quarantine(reader, tenant, (-1, -1), 10) for tenant in (None, TENANT, "nobody")]
    for kind_ in KINDS.values():
        found.append(queries.entities(reader, kind_, account, after="", limit=50))
        found.append(queries.entities(reader, kind_, account, after="", limit=50, content=False))
    found += [queries.entity(reader, KINDS["mail.thread"], ref) for ref in (thread, thread._replace(id="none"))]
    found += [queries.claim(reader, thread), queries.claim_named(reader, account, "c-1")]
    for start, end in ((None, None), (0, 2**50), (1_795_000_000_000, None), (None, 1_795_000_000_000)):
        for container, id_ in (("mail.label", "INBOX"), ("calendar", "none")):
            scope = Touch(container, id_, start, end)
            found.append(queries.touching(reader, account, scope, after=("", ""), limit=50))
    found += [queries.proposal(reader, account, name) for name in ("p-1", "v-1", "none")]
    found += [queries.proposals(reader, account, after="", limit=50, verdict=v) for v in (None, "accepted", "held")]
    found += [queries.submitted(reader, 1, account, "p-1", offset) for offset in range(30)]
    found += [queries.verdicts(reader, account, "p-1"), queries.sources(reader, account)]
    found.append(list(queries.accounts(reader, TENANT, "", 10)))
    found.append(queries.counted(reader, list(KINDS.values()), account))
    found.append(known.source(reader, *account, "mailbox/ann"))
    held = known.entities_where(reader, KINDS["calendar.event"], *account, {"status": "confirmed"})
    resources = {str(one.state["resource"]) for one in held}
    found += [held, known.entities_where(reader, KINDS["calendar.event"], *account, {}, after=held[0].id)]
    found += [
        known.entities_where(reader, KINDS["calendar.event"], *account, {**columns, "status": "confirmed"})
        for columns in ({"resource": resources}, {"resource": {*resources, "none"}}, {"id": {held[-1].id, "\0"}})
    ]
    return found


def test_every_question_has_the_same_answer(postgres: PostgresTables, sqlite: SqliteTables) -> None:
    log, found = whole(), list[list[Any]]()
    for tables in (postgres, sqlite):
        for partition in range(PARTITIONS):
            fold_by(Engine(REGISTRY, KINDS, tables), log, partition, (1_000,))
        with tables.snapshot() as reader:
            found.append(answers(reader))
    assert found[0] == found[1]
    assert sum(map(bool, found[0])) > 45


@pytest.fixture(scope="module")
def refolded(database: str) -> Iterator[Callable[[list[Stored], list[int]], Any]]:
    """Folds any history into PostgreSQL, anew each time, and lays it bare."""
    schema = f"t_{secrets.token_hex(6)}"
    with PostgresTables(database, scribe.REGISTRY, scribe.KINDS, schema=schema) as tables:
        names = ", ".join(contents(tables, scribe.KINDS))

        def run(records: list[Stored], sizes: list[int]) -> Any:
            tables.connection.execute(f"TRUNCATE {names}".encode())
            fold_by(Engine(scribe.REGISTRY, scribe.KINDS, tables), ListLog(records), scribe.PARTITION, sizes)
            return contents(tables, scribe.KINDS)

        yield run


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(records=histories(), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_batches_may_be_cut_anywhere(
    refolded: Callable[[list[Stored], list[int]], Any], records: list[Stored], sizes: list[int]
) -> None:
    with SqliteTables.in_memory(scribe.REGISTRY, scribe.KINDS) as tables:
        log: Any = ListLog(records)
        fold_by(Engine(scribe.REGISTRY, scribe.KINDS, tables), log, scribe.PARTITION, (1_000_000,))
        expected = contents(tables, scribe.KINDS)
    assert refolded(records, sizes) == expected


def test_plans_look_up_keys(postgres: PostgresTables, ask: Callable[..., list[tuple[Any, ...]]]) -> None:
    def scans() -> list[tuple[Any, ...]]:
        postgres.connection.execute("SELECT pg_stat_force_next_flush()")
        return ask("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = current_schema() ORDER BY 1")

    before = scans()
    fold_by(Engine(REGISTRY, KINDS, postgres), whole(), 1, (5,))
    assert scans() == before
    assert len(before) > 8
