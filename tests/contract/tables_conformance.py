"""What every tables adapter must do. Subclass :class:`TablesConformance` and supply its ``stores`` fixture."""

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import pytest

from headrace.errors import FencedError, HaltError
from headrace.log.port import Stored
from headrace.processors.core.memory import Memory
from headrace.processors.engine import Engine
from headrace.projections import queries, rows
from headrace.projections.known import entities_where
from headrace.projections.port import Publish, Tables, Wants
from headrace.schemas.refs import EntityRef, Touch
from tests.contract.long_texts import long_text, write_long
from tests.contract.rich_history import TENANT, Author, MemoryLog, mail, write
from tests.contract.tables_publishing import TablesPublishing
from tests.contract.tables_recording import (
    ACCOUNTS,
    KINDS,
    PARTITIONS,
    REGISTRY,
    Commits,
    Recording,
    Stores,
    counts,
    fold,
    history,
    loaded,
)


class TablesConformance(TablesPublishing):
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

    def test_a_text_may_be_as_long_as_a_record_lets_it(self, tables: Tables) -> None:
        log = MemoryLog(PARTITIONS)
        author = Author(log)
        write_long(author)
        recording = Recording(tables)
        assert fold(recording, log, author.partition, 3) == len(log.records[author.partition])
        memory = loaded(tables, recording.partition, Wants(touching=dict.fromkeys(recording.touches, -1)))
        assert memory.touching == recording.touches
        with tables.snapshot() as reader:
            for characters in (3_000, 100_000):
                text = long_text(characters)
                near = Touch("mail.label", text[:-1]), Touch("mail.label", f"{text}!")
                found = [
                    [ref[1] for ref in queries.touching(reader, (TENANT, "a-4"), scope, after=("", ""), limit=9)]
                    for scope in (Touch("mail.label", text), *near, Touch("calendar", text))
                ]
                number = int(characters > 3_000)
                assert found == [[f"l-{number}"], [], [f"l-{number}"], [f"l-{number}"]]
                resources = {"resource": {f"/{text}", f"/{text}!", "/"}}
                held = entities_where(reader, KINDS["calendar.event"], TENANT, "a-4", resources)
                assert [one.id for one in held] == [f"l-{number}"]
                attempts = queries.attempts(reader, (TENANT, "a-4"), text, after=-1, until=1_000)
                assert attempts == []

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
            tables.resume(partition)  # what an adapter remembers of entities, it forgets
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

            def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
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

            def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
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
