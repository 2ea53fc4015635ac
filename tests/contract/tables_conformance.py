"""What every tables adapter must do. Subclass :class:`TablesConformance` and supply its ``stores`` fixture."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, Protocol

import pytest

from headrace.errors import FencedError, HaltError
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Stored
from headrace.processors.core.memory import ContainerKey, Memory, PartitionRow, ProposalKey
from headrace.processors.core.model import ClaimRow, Effect, EntityRow, Known, ProposalRow, SourceRow
from headrace.processors.engine import Engine
from headrace.projections import rows
from headrace.projections.port import Tables, Wants
from headrace.schemas.refs import EntityRef, Touch
from tests.contract.rich_history import TENANT, Author, MemoryLog, mail, write

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
PARTITIONS: Final = 2
ACCOUNTS: Final = ("a-1", "a-4")
"""One on each partition."""


class Stores(Protocol):
    """What an adapter's tests supply."""

    def fresh(self) -> Tables:
        """New, empty tables."""
        ...

    def second(self) -> Tables:
        """Another handle on the same tables, for writing, while the first stays open."""
        ...

    def statements(self) -> int:
        """How many statements the handle of :meth:`fresh` has sent so far."""
        ...


class Recording:
    """The tables, and everything that was ever written to them."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.resume, self.load, self.snapshot = tables.resume, tables.load, tables.snapshot
        self.partition = PartitionRow(0)
        self.entities: dict[EntityRef, EntityRow] = {}
        self.proposals: dict[ProposalKey, ProposalRow] = {}
        self.sources: dict[tuple[str, str, str], SourceRow] = {}
        self.claims: dict[EntityRef, ClaimRow | None] = {}
        self.identities: dict[bytes, tuple[int, bytes]] = {}
        self.known: dict[int, Known] = {}
        self.effects: dict[EntityRef, list[Effect]] = {}
        self.touches: dict[ContainerKey, list[tuple[Touch, Effect]]] = {}

    def commit(self, memory: Memory, batch: Sequence[Stored]) -> None:
        """Write, and write down."""
        self._tables.commit(memory, batch)
        self.partition = memory.partition
        self.entities |= memory.changed_entities
        self.proposals |= memory.changed_proposals
        self.sources |= memory.changed_sources
        self.claims |= memory.changed_claims
        by_offset: dict[int, Effect] = {}
        for entry, _, effect, log_time, uses_identity in memory.marks:
            ref = effect.ref if effect is not None else None
            self.known[entry.offset] = Known(entry.chain[:8], ref, log_time)
            if (
                uses_identity
                and (identity := getattr(entry, "identity", None))
                and getattr(entry, "proposal", 1) is None
            ):
                self.identities[identity] = (entry.offset, getattr(entry, "body_hash"))  # noqa: B009 - of an Entry only
            if effect is not None:
                by_offset[effect.offset] = effect
                self.effects.setdefault(effect.ref, []).append(effect)
        for tenant, account, touch, offset in memory.touches:
            key = (tenant, account, touch.container, touch.id)
            self.touches.setdefault(key, []).append((touch, by_offset[offset]))


def history(account: str = "a-4") -> tuple[MemoryLog, int]:
    """A log with everything in it, and the account's partition."""
    log = MemoryLog(PARTITIONS)
    author = Author(log, account)
    write(author)
    return log, author.partition


def fold(tables: Tables, log: MemoryLog, partition: int, batch: int = 1_000) -> int:
    """Fold what the tables have not seen yet; the next offset."""
    engine = Engine(REGISTRY, KINDS, tables)
    offset = engine.resume(log, partition)
    while records := log.read(partition, offset, batch):
        engine.apply(partition, records)
        offset += len(records)
    return offset


def loaded(tables: Tables, partition: PartitionRow, wants: Wants) -> Memory:
    """A memory with what was wanted, as the engine prepares it."""
    memory = Memory(replace(partition), KINDS)
    memory.since = {ref: [] for ref in wants.since}
    memory.touching = {key: [] for key in wants.touching}
    tables.load(memory, wants)
    return memory


def counts(tables: Tables) -> dict[str, int]:
    """How many rows each table has."""
    names = ["partitions", "events", "touches", "proposals", "verdicts", "sources", "claims", "quarantine"]
    with tables.snapshot() as reader:
        return {
            name: reader.rows(f"SELECT count(*) AS n FROM {name}", {})[0]["n"]
            for name in (*names, *(kind.table for kind in KINDS.values()))
        }


class Commits:
    """Folded batches that wait to be committed, for tests of the commit itself."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def prepared(self, log: MemoryLog, partition: int, count: int) -> Callable[[], None]:
        """Fold ``count`` records after what the tables hold; what is returned commits them."""
        waiting: list[Callable[[], None]] = []
        tables = self._tables

        class Held:
            resume, load, snapshot = tables.resume, tables.load, tables.snapshot

            def commit(self, memory: Memory, batch: Sequence[Stored]) -> None:
                waiting.append(lambda: tables.commit(memory, batch))

        engine = Engine(REGISTRY, KINDS, Held())
        offset = engine.resume(log, partition)
        engine.apply(partition, log.read(partition, offset, count))
        return waiting[0]


class TablesConformance:
    """The suite."""

    @pytest.fixture
    def stores(self) -> Stores:
        """Supplied by the adapter's subclass."""
        raise NotImplementedError("override the fixture stores")

    @pytest.fixture
    def tables(self, stores: Stores) -> Tables:
        """Empty tables."""
        return stores.fresh()

    # Where a partition is

    def test_a_partition_that_was_never_folded_is_not_there(self, tables: Tables) -> None:
        assert tables.resume(0) is None

    def test_resume_gives_back_the_partition_as_committed(self, stores: Stores, tables: Tables) -> None:
        log, partition = history()
        recording = Recording(tables)
        fold(recording, log, partition)
        for handle in (tables, stores.second()):
            found = handle.resume(partition)
            assert found is not None
            assert rows.partition_values(found) == rows.partition_values(recording.partition)
            assert found.next_offset == len(log.records[partition])
            assert found.policy.name == "stricter"
            assert handle.resume(1 - partition) is None

    def test_partitions_are_folded_apart(self, tables: Tables) -> None:
        log = MemoryLog(PARTITIONS)
        for account in ACCOUNTS:
            write(Author(log, account))
        assert [fold(tables, log, partition) for partition in range(PARTITIONS)] == [len(run) for run in log.records]
        whole = counts(tables)
        assert whole["partitions"] == PARTITIONS
        assert whole["events"] == sum(map(len, log.records))

    # What is written is what is read

    @pytest.mark.parametrize("batch", [1, 7, 1_000])
    def test_rows_come_back_as_they_were_written(self, stores: Stores, tables: Tables, batch: int) -> None:
        log, partition = history()
        recording = Recording(tables)
        fold(recording, log, partition, batch)
        accounts = {(row.tenant, row.account) for row in recording.sources.values()}
        wants = Wants(
            proposals=set(recording.proposals),
            entities=set(recording.entities),
            identities=set(recording.identities),
            accounts=set(accounts),
            claims=set(recording.claims),
            known=set(recording.known),
        )
        for handle in (tables, stores.second()):
            memory = loaded(handle, recording.partition, wants)
            assert memory.entities == recording.entities
            assert memory.proposals == recording.proposals
            found = {(*account, name): row for account, named in memory.sources.items() for name, row in named.items()}
            assert found == recording.sources
            assert memory.claims == {ref: claim for ref, claim in recording.claims.items() if claim is not None}
            assert None in recording.claims.values()
            assert memory.identities == recording.identities
            assert memory.known == recording.known
        attempted = [
            intent for row in recording.entities.values() for intent in row.intents if intent.attempt is not None
        ]
        assert attempted
        assert any(intent.unknown and not intent.clean for intent in attempted)

    def test_what_lies_between_comes_back_in_log_order(self, tables: Tables) -> None:
        log, partition = history()
        recording = Recording(tables)
        fold(recording, log, partition)
        wants = Wants(since=dict.fromkeys(recording.effects, -1), touching=dict.fromkeys(recording.touches, -1))
        memory = loaded(tables, recording.partition, wants)
        assert memory.since == recording.effects
        assert {key: [effect.offset for _, effect in found] for key, found in memory.touching.items()} == {
            key: [effect.offset for _, effect in found] for key, found in recording.touches.items()
        }
        assert memory.touching == recording.touches
        touches = [touch for found in memory.touching.values() for touch, _ in found]
        assert any(touch.start is not None and touch.end is None for touch in touches)
        assert any(touch.start is None and touch.end is None for touch in touches)

    def test_what_lies_between_begins_after_the_basis(self, tables: Tables) -> None:
        log, partition = history()
        recording = Recording(tables)
        fold(recording, log, partition)
        for ref, effects in recording.effects.items():
            for index, effect in enumerate(effects):
                memory = loaded(tables, recording.partition, Wants(since={ref: effect.offset}))
                assert memory.since[ref] == effects[index + 1 :]
        for key, found in recording.touches.items():
            for _, effect in found:
                memory = loaded(tables, recording.partition, Wants(touching={key: effect.offset}))
                assert memory.touching[key] == [pair for pair in found if pair[1].offset > effect.offset]

    def test_what_is_not_there_is_not_loaded(self, tables: Tables) -> None:
        log, partition = history()
        recording = Recording(tables)
        fold(recording, log, partition)
        near = EntityRef(TENANT, "a-4", "mail.thread", "t-1")
        strangers = [
            near._replace(id="T-1"),
            near._replace(account="a-1"),
            near._replace(tenant="other"),
            near._replace(kind="calendar.event"),
            near._replace(kind="no.such.kind"),
        ]
        wants = Wants(
            proposals={(TENANT, "a-4", "P-1"), ("other", "a-4", "p-1"), (TENANT, "a-1", "p-1")},
            entities=set(strangers),
            identities={bytes(16)},
            accounts={(TENANT, "a-1")},
            claims=set(strangers),
            known={10_000, 2**62},
            since=dict.fromkeys(strangers, -1),
            touching={(TENANT, "a-1", "mail.label", "INBOX"): -1},
        )
        memory = loaded(tables, recording.partition, wants)
        assert not any(
            (memory.proposals, memory.entities, memory.identities, memory.sources, memory.claims, memory.known)
        )
        assert not any(memory.since.values())
        assert not any(memory.touching.values())

    def test_loading_takes_the_same_number_of_queries_whatever_the_batch(self, stores: Stores, tables: Tables) -> None:
        log, partition = history()
        author = Author(log)
        for number in range(400):
            head = author.fact("mail.received", f"q-{number}", f"qm-{number}", mail(1_000 + number))
            thread = f"mail.thread/q-{number}"
            author.propose(f"qp-{number}", "mail.archive", thread, [author.entity(thread, head)], {})
        recording = Recording(tables)
        fold(recording, log, partition)

        def statements(wants: Wants) -> int:
            before = stores.statements()
            loaded(tables, recording.partition, wants)
            return stores.statements() - before

        def wanted(share: int) -> Wants:
            return Wants(
                proposals=set(islice(recording.proposals, share)),
                entities=set(islice(recording.entities, share)) | _of_each_kind(recording.entities),
                identities=set(islice(recording.identities, share)),
                accounts={(TENANT, "a-4"), (TENANT, "a-1")},
                claims=set(islice(recording.entities, share)),
                known=set(islice(recording.known, share)),
                since=dict.fromkeys(islice(recording.effects, share), -1),
                touching=dict.fromkeys(islice(recording.touches, share), -1),
            )

        few = statements(wanted(1))
        assert 0 < few <= 10
        assert statements(wanted(400)) == few
        assert statements(Wants()) == 0

    # One transaction, fenced

    def test_a_second_writer_is_fenced_and_writes_nothing(self, stores: Stores, tables: Tables) -> None:
        log, partition = history()
        zombie = stores.second()
        Commits(tables).prepared(log, partition, 10)()
        late = Commits(zombie).prepared(log, partition, 20)
        Commits(tables).prepared(log, partition, 5)()
        before = counts(tables)
        with pytest.raises(FencedError, match="another"):
            late()
        assert counts(tables) == before
        found = tables.resume(partition)
        assert found is not None
        assert found.next_offset == 15
        assert fold(zombie, log, partition) == len(log.records[partition])

    def test_the_first_commit_of_a_partition_is_fenced_too(self, stores: Stores, tables: Tables) -> None:
        log, partition = history()
        first = Commits(tables).prepared(log, partition, 3)
        other = Commits(stores.second()).prepared(log, partition, 30)
        other()
        before = counts(tables)
        with pytest.raises(FencedError):
            first()
        assert counts(tables) == before

    def test_tables_of_another_log_are_fenced(self, tables: Tables) -> None:
        log, partition = history()
        other, _ = history()
        Commits(tables).prepared(log, partition, 10)()
        held: list[Memory] = []

        class Capture:
            resume, load, snapshot = tables.resume, tables.load, tables.snapshot

            def commit(self, memory: Memory, batch: Sequence[Stored]) -> None:
                held.append(memory)

        engine = Engine(REGISTRY, KINDS, Capture())
        engine.resume(log, partition)
        engine.apply(partition, log.read(partition, 10, 1))
        assert other.log_id is not None
        held[0].partition.log_id = other.log_id
        with pytest.raises(FencedError):
            tables.commit(held[0], log.read(partition, 10, 1))

    def test_many_writers_of_one_offset_leave_one(self, stores: Stores, tables: Tables) -> None:
        log, partition = history()
        commits = [Commits(stores.second()).prepared(log, partition, count) for count in (9, 11, 13, 15)]
        together = threading.Barrier(len(commits))
        outcomes: list[bool] = []

        def write_late(commit: Callable[[], None]) -> None:
            together.wait()
            try:
                commit()
            except FencedError:
                outcomes.append(False)
            else:
                outcomes.append(True)

        threads = [threading.Thread(target=write_late, args=(commit,)) for commit in commits]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [False, False, False, True]
        found = tables.resume(partition)
        assert found is not None
        assert counts(tables)["events"] == found.next_offset

    def test_a_commit_that_fails_leaves_nothing(self, tables: Tables) -> None:
        log, partition = history()
        Commits(tables).prepared(log, partition, 20)()
        before, at = counts(tables), tables.resume(partition)
        held: list[tuple[Memory, Sequence[Stored]]] = []

        class Capture:
            resume, load, snapshot = tables.resume, tables.load, tables.snapshot

            def commit(self, memory: Memory, batch: Sequence[Stored]) -> None:
                held.append((memory, batch))

        engine = Engine(REGISTRY, KINDS, Capture())
        offset = engine.resume(log, partition)
        engine.apply(partition, log.read(partition, offset, 30))
        memory, batch = held[0]
        memory.judged.append(memory.judged[-1])  # the same verdict twice: the last rows break a key
        with pytest.raises(HaltError):
            tables.commit(memory, batch)
        assert counts(tables) == before
        now = tables.resume(partition)
        assert at is not None
        assert now is not None
        assert rows.partition_values(now) == rows.partition_values(at)
        memory.judged.pop()
        tables.commit(memory, batch)
        assert fold(tables, log, partition) == len(log.records[partition])

    # Snapshots

    def test_a_snapshot_stays_as_it_is(self, tables: Tables) -> None:
        log, partition = history()
        Commits(tables).prepared(log, partition, 10)()
        with tables.snapshot() as early:
            Commits(tables).prepared(log, partition, 10)()
            sql = "SELECT next_offset, (SELECT count(*) FROM events) AS n FROM partitions"
            assert early.rows(sql, {}) == [{"next_offset": 10, "n": 10}]
            with tables.snapshot() as late:
                assert late.rows(sql, {}) == [{"next_offset": 20, "n": 20}]
            assert list(early.values(sql, {})) == [(10, 10)]

    def test_every_snapshot_is_of_one_commit(self, tables: Tables) -> None:
        log, partition = history()
        done = threading.Event()
        torn: list[Any] = []
        seen: set[int] = set()

        def look() -> None:
            while not done.is_set():
                with tables.snapshot() as reader:
                    found = reader.rows("SELECT next_offset FROM partitions", {})
                    events = reader.rows("SELECT count(*) AS n FROM events", {})[0]["n"]
                    next_offset = found[0]["next_offset"] if found else 0
                    seen.add(next_offset)
                    if events != next_offset:
                        torn.append((events, next_offset))

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            fold(tables, log, partition, 1)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not torn
        assert len(seen) > 1

    def test_queries_take_named_parameters_and_give_names(self, tables: Tables) -> None:
        log, partition = history()
        fold(tables, log, partition)
        sql = "SELECT id, verdict AS decided FROM proposals WHERE account = :account AND id IN (:one, :two) ORDER BY id"
        with tables.snapshot() as reader:
            bound = {"account": "a-4", "one": "p-1", "two": "p-2"}
            assert reader.rows(sql, bound) == [
                {"id": "p-1", "decided": "accepted"},
                {"id": "p-2", "decided": "superseded"},
            ]
            assert list(reader.values(sql, bound)) == [("p-1", "accepted"), ("p-2", "superseded")]
            assert reader.rows(sql, bound | {"account": "a-1"}) == []


def _of_each_kind(found: Iterable[EntityRef]) -> set[EntityRef]:
    return set({ref.kind: ref for ref in found}.values())
