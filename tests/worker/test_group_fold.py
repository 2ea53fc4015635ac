"""The fold of a worker, in this process: several share a log, and what goes wrong stays where it belongs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from headrace.errors import KindError, LogMismatchError, SchemaMissingError, UnavailableError
from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.model import Event, State
from headrace.processors.engine import Engine
from headrace.processors.group_fold import GroupFold
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections.port import Publish, Tables
from headrace.schemas.registry import Registry, built_in
from tests.contract.rich_history import write
from tests.kafka.topics import Cluster
from tests.postgres.both import fold_by
from tests.worker.site import KINDS, PARTITIONS, PATIENCE, REGISTRY, Site, spread, until

LACKING: Final = Registry(source for source in built_in() if source["headrace.type"] != "mail.labelled")


class Faulty:
    """Tables that fail on demand, on some partitions, until mended."""

    def __init__(self, tables: Tables, *partitions: int) -> None:
        self._tables = tables
        self._partitions = partitions
        self.broken = threading.Event()
        self.load, self.snapshot = tables.load, tables.snapshot

    def resume(self, partition: int) -> PartitionRow | None:
        """Fail, or look."""
        self._fail(partition)
        return self._tables.resume(partition)

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        """Fail, or write."""
        self._fail(memory.partition.partition)
        self._tables.commit(memory, batch, publish)

    def _fail(self, partition: int) -> None:
        if self.broken.is_set() and partition in self._partitions:
            raise UnavailableError("the database is away; mend it")


def follow(site: Site, fold: GroupFold, partition: int, number: int) -> None:
    """One more record gets into the tables."""
    offset = site.authors[partition].fact("mail.read", "t-1", f"then-{number}", {})
    assert fold.applied.wait(partition, offset, PATIENCE)


# -- the ordinary way -----------------------------------------------------------------------------------------------


def test_it_catches_up_and_then_follows(site: Site) -> None:
    for author in site.authors:
        write(author)
    fold = site.fold(batch=30)
    fold.start()
    site.wait_folded()
    for number in range(5):
        follow(site, fold, 2, number)
    site.check_tables()
    assert fold.joined
    assert sorted(fold.folded) == list(range(PARTITIONS))
    assert fold.counts.records == sum(site.ends().values())
    assert (fold.counts.pauses, fold.failure) == (0, None)
    assert fold.stop()
    assert fold.stop()
    assert not fold.running
    site.facts(10, seed="later")
    again = site.fold()
    again.start()
    site.wait_folded()
    site.check_tables()
    assert again.counts.records == 10 * PARTITIONS


def test_two_and_three_share_the_partitions_under_load(site: Site) -> None:
    folds = [site.fold(site.tables()) for _ in range(3)]
    folds[0].start()
    site.facts(500, seed="a")
    folds[1].start()
    site.facts(500, seed="b")
    until(lambda: spread(folds) == [0, 2, 2])
    folds[2].start()
    site.facts(500, seed="c")
    until(lambda: spread(folds) == [1, 1, 2])
    assert folds[0].stop()
    site.facts(500, seed="d")
    until(lambda: spread(folds[1:]) == [2, 2])
    site.wait_folded()
    assert sum(fold.counts.records for fold in folds) == sum(site.ends().values())
    site.check_tables()


def test_the_group_is_told_how_far_it_is(site: Site) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions
    from confluent_kafka.admin import AdminClient

    site.facts(20)
    fold = site.fold()
    fold.start()
    site.wait_folded()
    assert fold.stop()
    admin = AdminClient({"bootstrap.servers": site.kafka, "log_level": 0})
    asked: Any = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(site.group)])
    found = asked[site.group].result(PATIENCE)
    assert {one.partition: one.offset for one in found.topic_partitions} == site.ends()


# -- what comes back by itself --------------------------------------------------------------------------------------


def test_a_partition_whose_tables_are_away_waits_and_goes_on(site: Site) -> None:
    tables = Faulty(site.tables(), 1)
    fold = site.fold(tables)
    fold.start()
    site.wait_folded()
    tables.broken.set()
    site.facts(50)
    until(lambda: 1 in fold.paused)
    site.wait_folded({p: end for p, end in site.ends().items() if p != 1})
    assert set(fold.paused) == {1} == set(fold.applied.paused)
    follow(site, fold, 0, 1)
    tables.broken.clear()
    site.wait_folded()
    until(lambda: not fold.paused)
    follow(site, fold, 1, 2)
    assert fold.applied.paused == {}
    site.check_tables()


def test_what_is_assigned_while_the_tables_are_away_waits_and_goes_on(site: Site) -> None:
    tables = Faulty(site.tables(), 1, 2, 3)
    site.facts(50)
    tables.broken.set()
    fold = site.fold(tables)
    fold.start()
    site.wait_folded({0: 51})
    until(lambda: set(fold.paused) == {1, 2, 3})
    tables.broken.clear()
    site.wait_folded()
    until(lambda: not fold.paused)
    for partition in range(PARTITIONS):
        follow(site, fold, partition, 1)
    site.check_tables()


def test_what_waited_here_and_was_elsewhere_meanwhile_goes_on_when_it_comes_back(site: Site) -> None:
    tables = Faulty(site.tables(), *range(PARTITIONS))
    fold = site.fold(tables)
    fold.start()
    site.wait_folded()
    tables.broken.set()
    site.facts(20)
    until(lambda: set(fold.paused) == set(range(PARTITIONS)))
    other = site.fold()
    other.start()
    until(lambda: len(other.folded) == len(fold.folded) == PARTITIONS // 2)
    tables.broken.clear()
    site.wait_folded()
    assert other.stop()
    until(lambda: len(fold.folded) == PARTITIONS)
    for partition in range(PARTITIONS):
        follow(site, fold, partition, 1)
    assert fold.paused == {}
    site.check_tables()


def test_a_missing_schema_pauses_its_partition_until_it_is_there(site: Site) -> None:
    there = threading.Event()
    fold = site.fold(registry=LACKING, schemas=lambda: REGISTRY if there.is_set() else LACKING)
    fold.start()
    site.facts(10)
    site.authors[3].fact("mail.labelled", "t-1", "l-1", {"added": ["x"], "removed": []})
    site.facts(10, seed="g")
    until(lambda: isinstance(fold.paused.get(3), SchemaMissingError))
    site.wait_folded({0: 21, 1: 21, 2: 21, 3: 11})
    there.set()
    site.wait_folded()
    site.check_tables()


def test_a_batch_whose_verdicts_are_not_published_is_not_committed(site: Site) -> None:
    away, published = threading.Event(), list[bytes]()
    away.set()

    def publish(memory: Memory) -> Callable[[], None]:
        def wait() -> None:
            if memory.judged and away.is_set():
                raise UnavailableError("nobody takes verdicts; bring the brokers back")
            published.extend(judged.text for judged in memory.judged)

        return wait

    fold = site.fold(publish=publish)
    fold.start()
    keys = site.proposals(3)
    until(lambda: len(fold.paused) == PARTITIONS)
    assert site.ask("SELECT count(*) FROM verdicts") == [(0,)]
    away.clear()
    site.wait_folded()
    found = [text.encode() for (text,) in site.ask("SELECT text FROM verdicts")]
    assert sorted(found) == sorted(published)
    assert len(found) == len(keys)


def test_tables_that_went_back_are_folded_again_though_nothing_new_comes(site: Site) -> None:
    """Met when a database was restored from a backup: a partition that got no more records stayed where that was."""
    fold = site.fold()
    fold.start()
    site.facts(30)
    site.wait_folded()
    names = [name for (name,) in site.ask("SELECT tablename FROM pg_tables WHERE schemaname = %s", site.schema)]
    site.ask(f"TRUNCATE {', '.join(name for name in names if name != 'migrations')}")
    site.wait_folded()
    site.check_tables()
    assert fold.failure is None


def test_a_partition_that_another_moved_on_goes_on_from_there(site: Site) -> None:
    fold = site.fold(batch=10)
    fold.start()
    site.facts(20)
    site.wait_folded()
    moved, release = threading.Event(), threading.Event()

    class Slow(Faulty):
        def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
            if memory.partition.partition == 1 and not release.is_set():
                moved.set()
                assert release.wait(PATIENCE)
            super().commit(memory, batch, publish)

    assert fold.stop()
    fold = site.fold(Slow(site.tables()), batch=10)
    fold.start()
    site.facts(100, seed="g")
    assert moved.wait(PATIENCE)
    fold_by(Engine(REGISTRY, KINDS, site.tables()), site.log, 1, (7,))
    release.set()
    site.wait_folded()
    until(lambda: not fold.paused)
    follow(site, fold, 1, 1)
    assert fold.counts.pauses
    assert fold.failure is None
    site.check_tables()


def test_tables_that_went_back_are_folded_on_from_where_they_are(site: Site) -> None:
    fold = site.fold()
    fold.start()
    site.facts(300)
    site.wait_folded()
    names = [
        name
        for (name,) in site.ask(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname <> 'migrations'"
            " AND relnamespace = current_schema()::regnamespace"
        )
    ]
    site.ask(f"TRUNCATE {', '.join(names)}")
    site.facts(300, seed="g")
    site.wait_folded()
    site.check_tables()
    assert fold.failure is None


# -- what does not --------------------------------------------------------------------------------------------------


class Broken(MailThread):
    """A kind with a bug."""

    def evolve(self, state: State | None, event: Event) -> dict[str, Any]:
        """Fail on a label."""
        if event.type == "mail.labelled":
            raise ZeroDivisionError
        return super().evolve(state, event)


def test_a_kind_with_a_bug_stops_its_partition_and_no_other(site: Site) -> None:
    kinds: Mapping[str, Kind] = {**KINDS, "mail.thread": Broken()}
    fold = site.fold(kinds=kinds)
    fold.start()
    site.facts(10)
    offset = site.authors[3].fact("mail.labelled", "t-1", "l-1", {"added": ["x"], "removed": []})
    until(lambda: 3 in fold.stopped)
    with pytest.raises(KindError):
        fold.applied.wait(3, offset, PATIENCE)
    follow(site, fold, 0, 1)
    assert site.folded()[3] == offset
    assert fold.running


@pytest.fixture
def cluster(site: Site) -> Cluster:
    """Means to disturb the site's log."""
    return Cluster(site.kafka)


def _halts(site: Site, fold: GroupFold) -> None:
    until(lambda: not fold.running)
    assert isinstance(fold.failure, LogMismatchError), fold.failure
    assert fold.applied.failure is fold.failure


def test_a_log_that_is_deleted_and_made_again_halts_everything(site: Site, cluster: Cluster) -> None:
    fold = site.fold()
    fold.start()
    site.facts(20)
    site.wait_folded()
    before = site.folded()
    cluster.delete(site.topic)
    cluster.make(site.topic, PARTITIONS)
    _halts(site, fold)
    assert site.folded() == before


def test_a_log_whose_records_were_deleted_halts_everything(site: Site, cluster: Cluster) -> None:
    tables = Faulty(site.tables(), 2)
    fold = site.fold(tables)
    fold.start()
    site.facts(20)
    site.wait_folded()
    tables.broken.set()
    site.facts(20, seed="g")
    until(lambda: 2 in fold.paused)
    cluster.cut_front(site.topic, 2, 30)
    tables.broken.clear()
    _halts(site, fold)
    assert site.folded()[2] == 21


def test_a_log_with_a_hole_halts_everything(site: Site, cluster: Cluster) -> None:
    fold = site.fold()
    fold.start()
    site.facts(20)
    site.wait_folded()
    cluster.put(site.topic, 1, [b"stranger"], transaction=True)
    until(lambda: site.ends()[1] == 23)  # its mark is there a moment after it was told to be committed
    site.facts(5, seed="g")
    _halts(site, fold)
    assert site.folded()[1] == 22


def test_a_log_that_was_replaced_is_not_begun_with(site: Site, cluster: Cluster) -> None:
    fold = site.fold()
    fold.start()
    site.facts(5)
    site.wait_folded()
    assert fold.stop()
    site.ask("UPDATE partitions SET log_id = %s", bytes(16))
    with pytest.raises(LogMismatchError):
        site.fold().start()


def test_two_that_are_forced_onto_the_same_partitions_fence_one_another(site: Site) -> None:
    """As if the group had given both everything: what one has folded the other does not fold again."""
    folds = [site.fold(site.tables(), batch=20, group=f"{site.group}.{number}") for number in range(2)]
    for fold in folds:
        fold.start()
    for seed in "abc":
        site.facts(200, seed=seed)
    site.wait_folded()
    until(lambda: not any(fold.paused for fold in folds))
    follow(site, folds[0], 1, 1)
    follow(site, folds[1], 2, 2)
    assert [sorted(fold.folded) for fold in folds] == [list(range(PARTITIONS))] * 2
    assert sum(fold.counts.records for fold in folds) == sum(site.ends().values())
    assert [fold.failure for fold in folds] == [None, None]
    site.check_tables()
