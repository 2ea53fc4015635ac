"""An entity as it was, refolded from its own records, equals what the tables said when that position was the last."""

import hashlib
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import event as noted
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import LogMismatchError
from headrace.kinds import installed_kinds, installed_schemas
from headrace.processors.core.model import ClaimRow, EntityRow
from headrace.processors.core.verdicts import canonical
from headrace.processors.engine import Engine
from headrace.processors.history import Past, entity_at, recorded_at, stored_at
from headrace.projections import queries
from headrace.projections.queries import Horizon
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import ActorRef, EntityRef
from tests.contract.rich_history import BOT, OTHER_BOT, START, TENANT, Author, MemoryLog, mail, write

KINDS: Final = installed_kinds()
REGISTRY: Final = installed_schemas()
THREADS: Final = ("one", "two")
DELIVERER: Final = ActorRef("system", "deliverer")

Said = tuple[Horizon | None, dict[EntityRef, EntityRow | None], dict[EntityRef, ClaimRow | None]]


class Folded:
    """A log folded record by record; what the tables said at every offset is kept."""

    def __init__(self, author: Author) -> None:
        self.author = author
        self.tables = SqliteTables.in_memory(REGISTRY, KINDS)
        self._engine = Engine(REGISTRY, KINDS, self.tables)
        self._engine.resume(author.log, author.partition)
        self.said: list[Said] = []

    def catch_up(self) -> None:
        while records := self.author.log.read(self.author.partition, len(self.said), 1):
            self._engine.apply(self.author.partition, records)
            self.said.append(self._say())

    def _say(self) -> Said:
        account = (TENANT, self.author.account)
        with self.tables.snapshot() as reader:
            rows: dict[EntityRef, EntityRow | None] = {}
            for kind in KINDS.values():
                for row in queries.entities(reader, kind, account, after="", limit=1_000):
                    rows[row.ref] = row
            refs = {*rows, *(EntityRef(*account, "mail.thread", name) for name in (*THREADS, "t-1", "t-2"))}
            claims = {ref: queries.claim(reader, ref) for ref in refs}
            return queries.horizon(reader, self.author.partition), rows, claims

    def check(self) -> None:
        """Every entity at every offset."""
        refs = {ref for _, rows, claims in self.said for ref in (*rows, *claims)}
        for offset, (horizon, rows, claims) in enumerate(self.said):
            for ref in refs:
                past = self.at(ref, offset)
                assert past.horizon == horizon
                assert past.row == rows.get(ref), (offset, ref)
                assert past.claim == claims.get(ref), (offset, ref)

    def at(self, ref: EntityRef, offset: int) -> Past:
        """An entity as it was."""
        with self.tables.snapshot() as reader:
            recorded = recorded_at(reader, ref, self.author.token(offset))
        return entity_at(self.author.log, REGISTRY, KINDS[ref.kind], recorded)

    def row(self, name: str) -> EntityRow | None:
        """The thread as it is now."""
        return self.said[-1][1].get(EntityRef(TENANT, self.author.account, "mail.thread", name))


def test_a_history_with_everything_in_it() -> None:
    author = Author(MemoryLog())
    write(author)
    folded = Folded(author)
    folded.catch_up()
    folded.check()
    dispositions = set[str]()
    with folded.tables.snapshot() as reader:
        for row in reader.rows("SELECT disposition FROM events", {}):
            dispositions.add(row["disposition"])
    assert dispositions >= {"applied", "echo", "accepted", "granted", "succeeded", "failed", "unknown", "quarantined"}


@pytest.mark.parametrize("fact_between", [False, True])
def test_a_success_counts_only_while_no_fact_followed_its_attempt(*, fact_between: bool) -> None:
    author = Author(MemoryLog())
    head = author.fact("mail.received", "one", "m-1", mail(1))
    thread, attempt = "mail.thread/one", {"proposal": "p-1", "attempt": "a-1"}
    author.propose("p-1", "mail.label", thread, [author.entity(thread, head)], {"added": ["done"]})
    author.note("delivery.attempted", "a-1", attempt | {"foreseen": None}, actor=DELIVERER)
    if fact_between:
        author.fact("mail.read", "one", "m-2", {})
    author.note("delivery.succeeded", "o-1", attempt | {"reference": "v"}, actor=DELIVERER)
    folded = Folded(author)
    folded.catch_up()
    folded.check()
    row = folded.row("one")
    assert row is not None
    assert row.state is not None
    assert ("done" in row.state["labels"]) is not fact_between


def test_a_log_that_lacks_what_was_folded_is_named() -> None:
    log = MemoryLog()
    author = Author(log)
    head = author.fact("mail.received", "t-1", "m-1", mail(1))
    folded = Folded(author)
    folded.catch_up()
    ref = EntityRef(TENANT, author.account, "mail.thread", "t-1")
    with folded.tables.snapshot() as reader:
        recorded = recorded_at(reader, ref, author.token(head))
    del log.records[author.partition][head]
    with pytest.raises(LogMismatchError, match="restore"):
        entity_at(log, REGISTRY, KINDS["mail.thread"], recorded)


@given(st.sets(st.integers(1, 300)))
def test_records_are_read_in_runs_and_none_is_lost(wanted: set[int]) -> None:
    log = MemoryLog()
    author = Author(log)
    for number in range(300):
        author.fact("mail.read", "t-1", f"m-{number}", {})
    offsets = sorted(wanted)
    assert [stored.offset for stored in stored_at(log, author.partition, offsets)] == offsets


DELIVERIES: Final = frozenset({"attempt", "outcome", "withdraw", "echo"})


class Step(NamedTuple):
    """One thing that happens: what, to which thread or proposal, and a choice."""

    what: str
    thread: str
    choice: int


STEPS: Final = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            ("fact", "propose", "attempt", "attempt", "outcome", "outcome", "withdraw", "echo", "echo", "claim", "free")
        ),
        st.sampled_from(THREADS),
        st.integers(0, 9),
    ),
    min_size=5,
    max_size=40,
)


@given(STEPS)
def test_every_entity_at_every_offset(steps: list[Step]) -> None:
    folded = Folded(Author(MemoryLog()))
    folded.catch_up()
    for number, step in enumerate(steps):
        _take(folded, number, step)
        folded.catch_up()
    folded.check()
    with folded.tables.snapshot() as reader:
        for row in reader.rows("SELECT DISTINCT disposition FROM events", {}):
            noted(row["disposition"])


def _take(folded: Folded, number: int, step: Step) -> None:
    author, row = folded.author, folded.row(step.thread)
    subject = f"mail.thread/{step.thread}"
    intents = row.intents if row is not None else []
    what = step.what
    if what in DELIVERIES and not intents:
        what = "propose"  # so that much happens: what is not possible yet is prepared
    if what == "propose" and (row is None or row.state is None):
        what = "fact"
    match what:
        case "fact":
            facts: list[tuple[str, dict[str, Any]]] = [
                ("mail.received", mail(number)),
                ("mail.sent", mail(number)),
                ("mail.archived", {}),
                ("mail.labelled", {"added": [f"l{step.choice}"]}),
                ("mail.read", {}),
            ]
            event_type, body = facts[step.choice % len(facts)]
            content = {"subject": f"s{number}", "text": "?"} if event_type == "mail.received" else None
            author.fact(event_type, step.thread, f"m-{number}", body, content=content)
        case "propose" if row is not None:
            proposals: list[tuple[str, dict[str, Any]]] = [
                ("mail.label", {"added": ["l1"]}),
                ("mail.archive", {}),
                ("mail.label", {"added": [f"l{step.choice}"]}),
                ("mail.reply", {}),
            ]
            kind, data = proposals[step.choice % len(proposals)]
            reads = [author.entity(subject, row.head_offset)]
            author.propose(f"p-{number}", kind, subject, reads, data)
        case _ if what in DELIVERIES and row is not None:
            _deliver(author, number, step, row)
        case "claim":
            body = {"claim": f"c-{number}", "until": START + (10**9 if step.choice == 9 else 200)}
            author.note("claim.taken", f"c-{number}", body, entity=subject, actor=BOT if step.choice % 2 else OTHER_BOT)
        case "free":
            held = folded.said[-1][2].get(EntityRef(TENANT, author.account, "mail.thread", step.thread))
            if held is not None:
                author.note("claim.released", f"f-{number}", {"claim": held.claim}, entity=subject, actor=BOT)
        case _:
            pass


def _deliver(author: Author, number: int, step: Step, row: EntityRow) -> None:
    intent = row.intents[step.choice % len(row.intents)]
    named: dict[str, Any] = {"proposal": intent.proposal}
    match step.what:
        case "attempt":
            after = KINDS["mail.thread"].foresee(row.state, intent.type, intent.data)
            foreseen = hashlib.sha256(canonical(after)).digest() if step.choice % 2 else None
            body = named | {"attempt": f"a-{number}", "foreseen": foreseen}
            author.note("delivery.attempted", f"a-{number}", body, actor=DELIVERER)
        case "outcome":
            ends: list[tuple[str, dict[str, Any]]] = [
                ("delivery.succeeded", {"reference": "v"}),
                ("delivery.failed", {"reason": "gone"}),
                ("delivery.refused", {"reason": "412"}),
                ("delivery.unknown", {"reason": "crash"}),
            ]
            record_type, more = ends[step.choice % len(ends)]
            author.note(
                record_type, f"o-{number}", named | {"attempt": intent.attempt or "none"} | more, actor=DELIVERER
            )
        case "withdraw":
            author.note("proposal.withdrawn", f"w-{number}", named)
        case _:
            archived = intent.type == "mail.archive"
            body = {} if archived else {"added": intent.data.get("added", [])}
            author.fact("mail.archived" if archived else "mail.labelled", step.thread, f"e-{number}", body)
