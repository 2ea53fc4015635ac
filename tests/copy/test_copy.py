"""A log moved to Kafka and home again, and replicas: offsets, times, chains, verdicts, tokens stay."""

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from headrace.errors import BadInputError, LogClosedError
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.copy_to_kafka import KafkaDestination
from headrace.log.copy_to_sqlite import SqliteDestination
from headrace.log.copying import Copy
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, Record
from headrace.log.sqlite import SqliteLog
from headrace.processors import audit
from headrace.processors.engine import Engine, fold_all
from headrace.projections.port import Tables
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import Author, mail
from tests.copy.copies import NAME, chains, moved_to_file, moved_to_kafka, replicated, same
from tests.kafka.topics import Cluster
from tests.postgres.both import Contents, contents

REGISTRY = installed_schemas()
INSTALLED = installed_kinds()


def folded(log: Log, tables: Tables) -> Tables:
    """The tables, with the log folded into them."""
    engine = Engine(REGISTRY, INSTALLED, tables)
    for partition in range(log.describe().partitions):
        fold_all(engine, log, partition, batch=17)
    return tables


def in_memory(log: Log) -> Contents:
    """What a log folds to."""
    with SqliteTables.in_memory(REGISTRY, INSTALLED) as tables:
        return contents(folded(log, tables), INSTALLED)


def without_moving(found: Contents) -> Contents:
    """The same but for ``log.moved``, and the row that says how far a partition is."""
    events = [row for row in found["events"] if "log.moved" not in row]
    return found | {"events": events, "partitions": []}


def test_a_log_moves_to_kafka_as_it_is(origin: SqliteLog, cluster: Cluster) -> None:
    before = origin.describe()
    url = cluster.url()
    outcome = moved_to_kafka(origin, url)
    closed = origin.describe()
    assert closed.ends == tuple(end + 1 for end in before.ends)
    assert outcome.ends == closed.ends
    assert outcome.log_id == before.log_id
    assert outcome.records == sum(closed.ends)
    assert closed.successor == url.partition("?")[0]
    with KafkaLog.open(url) as moved:
        found = moved.describe()
        assert (found.log_id, found.partitions, found.successor) == (before.log_id, before.partitions, None)
        assert found.ends == tuple(end + 1 for end in closed.ends)
        same(origin, moved, closed.ends)
        assert outcome.chains == chains(origin, closed.ends) == chains(moved, closed.ends)
        for partition, end in enumerate(closed.ends):
            [last] = moved.read(partition, end, 10)
            assert ("ce_type", b"log.moved") in last.headers
            assert last.log_append


def test_every_verdict_and_row_is_what_it_was(origin: SqliteLog, cluster: Cluster) -> None:
    url = cluster.url()
    moved_to_kafka(origin, url)
    with KafkaLog.open(url) as moved:
        before, after = in_memory(origin), in_memory(moved)
    assert without_moving(after) == without_moving(before)
    assert before["verdicts"]
    assert before["quarantine"]
    for row, old in zip(after["partitions"], before["partitions"], strict=True):
        partition, log_id, _, next_offset, _, log_time, *_, successor = row
        assert (partition, log_id, next_offset) == (old[0], old[1], old[3] + 1)
        assert log_time >= old[5], "log time jumped back where the copied part ends"
        assert (old[-1], successor) == (url.partition("?")[0], None)


def test_the_history_goes_on_and_old_tokens_are_accepted(origin: SqliteLog, cluster: Cluster) -> None:
    author = Author(origin, "a-9")
    head = author.fact("mail.received", "t-1", "m-1", mail(1))
    read = author.entity("mail.thread/t-1", head)
    stale = author.entity("mail.thread/t-2", author.fact("mail.received", "t-2", "m-2", mail(2)))
    url = cluster.url()
    moved_to_kafka(origin, url)
    with pytest.raises(LogClosedError, match=url.partition("?")[0]):
        author.fact("mail.received", "t-1", "m-3", mail(3))
    with KafkaLog.open(url) as moved:
        author.log = moved
        author.fact("mail.received", "t-2", "m-4", mail(4))
        author.propose("p-good", "mail.archive", "mail.thread/t-1", [read], {})
        author.propose("p-late", "mail.archive", "mail.thread/t-2", [stale], {})
        with SqliteTables.in_memory(REGISTRY, INSTALLED) as tables, folded(moved, tables).snapshot() as reader:
            sql = "SELECT id, verdict FROM proposals WHERE account = 'a-9'"
            assert {row["id"]: row["verdict"] for row in reader.rows(sql, {})} == {
                "p-good": "accepted",
                "p-late": "superseded",
            }


def test_tables_folded_to_the_old_logs_end_go_on_with_the_new(origin: SqliteLog, cluster: Cluster) -> None:
    with SqliteTables.in_memory(REGISTRY, INSTALLED) as tables:
        url = cluster.url()
        moved_to_kafka(origin, url)
        folded(origin, tables)
        with KafkaLog.open(url) as moved:
            assert contents(folded(moved, tables), INSTALLED) == in_memory(moved)


def test_an_audit_of_the_moved_log_finds_nothing(
    origin: SqliteLog, cluster: Cluster, postgres_dsn: str, tmp_path: Path
) -> None:
    url = cluster.url()
    moved_to_kafka(origin, url)
    schema = f"moved_{Cluster.name()[4:]}"
    try:
        with (
            KafkaLog.open(url, writer=False) as moved,
            PostgresTables(postgres_dsn, REGISTRY, INSTALLED, schema=schema) as tables,
        ):
            report = audit.verify(moved, folded(moved, tables), REGISTRY, INSTALLED, scratch=tmp_path)
            assert report.verified, report.findings
            assert report.records == sum(moved.describe().ends)
            live = contents(tables, INSTALLED)
            assert live == in_memory(moved)
    finally:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def test_a_log_comes_home_as_a_replica_and_is_kept_up_to_date(
    origin: SqliteLog, cluster: Cluster, tmp_path: Path
) -> None:
    url, home = cluster.url(), tmp_path / "replica"
    moved_to_kafka(origin, url)
    with KafkaLog.open(url) as log:
        for round_ in range(2):
            outcome = replicated(log, home, "kafka://live")
            described = log.describe()
            assert described.successor is None
            assert outcome.ends == described.ends
            with SqliteLog.open(home) as replica:
                found = replica.describe()
                assert found == described._replace(successor="kafka://live")
                same(log, replica, described.ends)
                assert in_memory(replica) == in_memory(log)
                with pytest.raises(LogClosedError, match="kafka://live"):
                    Author(replica, "a-5").fact("mail.received", "t-1", "m-1", mail(1))
            Author(log, "a-6").fact("mail.received", "t-1", f"m-{round_}", mail(round_))


def test_a_log_comes_home_for_good(origin: SqliteLog, cluster: Cluster, tmp_path: Path) -> None:
    """There and back: two moves, and what was carried the first time is nobody's business the second time."""
    url, home = cluster.url(), tmp_path / "home"
    there = moved_to_kafka(origin, url)
    with KafkaLog.open(url) as log:
        Author(log, "a-6").fact("mail.received", "t-1", "m-1", mail(1))
        replicated(log, home)  # a replica becomes the log
        back = moved_to_file(log, home, url)
        assert log.describe().successor == f"sqlite:{home}"
        with SqliteLog.open(home) as moved:
            assert moved.describe().successor is None
            same(log, moved, back.ends)
            same(origin, moved, there.ends)
            author = Author(moved, "a-7")
            position = author.fact("mail.received", "t-1", "m-1", mail(1))
            assert position == moved.describe().ends[author.partition] - 1
        again = cluster.url()
        with SqliteLog.open(home) as moved:
            third = moved_to_kafka(moved, again, f"sqlite:{home}")
            with KafkaLog.open(again) as last:
                same(moved, last, third.ends)
                assert without_moving(in_memory(last)) == without_moving(in_memory(moved))


def test_a_log_moves_from_one_topic_to_another(origin: SqliteLog, cluster: Cluster) -> None:
    one, other = cluster.url(), cluster.url()
    moved_to_kafka(origin, one)
    with KafkaLog.open(one) as log:
        Author(log, "a-6").fact("mail.received", "t-1", "m-1", mail(1))
        outcome = moved_to_kafka(log, other, one)
        with pytest.raises(LogClosedError):
            Author(log, "a-6").fact("mail.received", "t-1", "m-2", mail(2))
        with KafkaLog.open(other) as moved:
            same(log, moved, outcome.ends)


def test_strange_records_are_copied_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    strange = [
        Record(0, b"", (), b""),
        Record(0, None, (("a", b""), ("a", b"\x00\xff"), ("é", b"x")), b"\x00"),
        Record(0, b"t/a", (("headrace-transport-appended", b"0123456789abcdef 1 1"), ("headrace-copy", b"x")), b"v"),
        Record(0, b"t/a", (("ce_type", b"log.moved"),), b"no body"),
        Record(0, b"t/a", (("ce_id", b"big"),), bytes(1_000_000)),
    ]
    with SqliteLog.create(tmp_path / "strange", 1, clock=iter([0, -5, 2**53, 7, 0, 0, 0]).__next__) as log:
        Author(log)
        for record in strange:
            log.append([record])
        url = cluster.url()
        outcome = moved_to_kafka(log, url)
        with KafkaLog.open(url) as moved, closing(moved):
            same(log, moved, outcome.ends)
            assert [one.appended_at for one in moved.read(0, 0, 4)] == [0, -5, 2**53, 7]
        replicated(log, tmp_path / "replica")
        with SqliteLog.open(tmp_path / "replica") as replica:
            same(log, replica, outcome.ends)


def test_a_record_too_large_for_a_topic_is_named_before_anything_is_closed(cluster: Cluster, tmp_path: Path) -> None:
    with SqliteLog.create(tmp_path / "large", 1) as log:
        author = Author(log)
        author.raw(bytes(9 * 1024 * 1024), (("ce_id", b"large"),))
        with pytest.raises(BadInputError, match="too large"):
            moved_to_kafka(log, cluster.url())
        assert log.describe().successor is None


def test_a_replica_is_a_file(origin: SqliteLog, cluster: Cluster) -> None:
    with (
        closing(KafkaDestination.open(cluster.url(), origin.describe())) as destination,
        pytest.raises(BadInputError, match="for reading"),
    ):
        Copy(origin, NAME, destination).replicate()


def test_what_is_not_opened_whole_cannot_be_copied(tmp_path: Path) -> None:
    with SqliteLog.create(tmp_path / "origin", 2) as log:
        described = log.describe()
        with (
            closing(SqliteDestination.open(tmp_path / "copy", described, NAME, moving=False)) as destination,
            pytest.raises(BadInputError, match="not opened whole"),
        ):
            Copy(log, NAME, destination)


def test_progress_counts_every_record_twice(origin: SqliteLog, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    with closing(SqliteDestination.open(tmp_path / "c", origin.describe(), NAME, moving=False)) as destination:
        Copy(origin, NAME, destination, lambda done, total: said.append((done, total))).replicate()
    assert said[-1] == (2 * sum(origin.describe().ends),) * 2
    assert said == sorted(said)
