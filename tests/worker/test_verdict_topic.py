"""The verdicts' topic: made once, checked always, and never with a verdict that a stale worker reached."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Final

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import FencedError, HaltError, UnavailableError
from headrace.log.kafka_address import KafkaAddress
from headrace.processors import verdict_topic
from headrace.processors.core.memory import Judged, Memory, PartitionRow
from headrace.processors.engine import Engine
from headrace.processors.verdict_topic import PublishedVerdict, VerdictTopic, prepare, read_message, record_of
from tests.kafka.topics import Cluster
from tests.postgres.both import fold_by
from tests.worker.process import WorkerProcess, migrated
from tests.worker.site import KINDS, PARTITIONS, PATIENCE, REGISTRY, Site, until

JUDGED: Final = Judged(17, ("acme", "ann", "p-1"), "accepted", b'{"verdict":"accepted"}', 1_795_000_000_123)
LOG_ID: Final = bytes(range(16))


@pytest.mark.parametrize(
    ("log", "verdicts"),
    [("headrace.events", "headrace.verdicts"), ("mail", "mail.verdicts"), ("a.events.b", "a.events.b.verdicts")],
)
def test_it_is_named_after_the_log(log: str, verdicts: str) -> None:
    assert verdict_topic.topic_name(log) == verdicts


def test_a_message_says_what_was_judged() -> None:
    record = record_of(LOG_ID, 3, JUDGED)
    assert (record.partition, record.key, record.value) == (3, b"acme/ann/p-1", JUDGED.text)
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"3-17",
        "ce_source": b"/headrace/logs/000102030405060708090a0b0c0d0e0f",
        "ce_type": b"verdict.accepted",
        "ce_subject": b"proposal/p-1",
        "ce_time": b"2026-11-18T11:06:40.123Z",
        "ce_tenant": b"acme",
        "ce_account": b"ann",
        "ce_partition": b"3",
        "ce_offset": b"17",
        "content-type": b"application/json",
    }
    assert read_message(record.key, dict(record.headers), record.value) == PublishedVerdict(
        LOG_ID, 3, 17, "acme", "ann", "p-1", "accepted", '{"verdict":"accepted"}'
    )


def test_a_time_that_rfc_3339_cannot_say_is_left_out() -> None:
    beyond = Judged(17, JUDGED.key, "accepted", JUDGED.text, 1 << 60)
    record = record_of(LOG_ID, 3, beyond)
    assert "ce_time" not in dict(record.headers)
    assert read_message(record.key, dict(record.headers), record.value) is not None


@pytest.mark.parametrize(
    ("key", "headers", "value"),
    [
        (None, {}, b""),
        (b"acme/ann", {}, b"{}"),
        (b"acme/ann/p/q", {}, b"{}"),
        (b"\xff/a/b", {}, b"{}"),
        (b"acme/ann/p-1", {"ce_id": b"3"}, b"{}"),
        (b"acme/ann/p-1", {"ce_source": b"/elsewhere"}, b"{}"),
        (b"acme/ann/p-1", {"ce_source": b"/headrace/logs/xyz"}, b"{}"),
        (b"acme/ann/p-1", {"ce_type": b"order.placed"}, b"{}"),
        (b"acme/ann/p-1", {"ce_id": b"3-17"}, b"\xff"),
        (b"acme/ann/p-1", {"ce_id": b"3-17"}, None),
        (b"acme/ann/p-1", {"ce_id": None}, b"{}"),
        (b"acme/ann/p-1", {"ce_id": b"3-9999999999999999999"}, b"{}"),
        (b"acme/ann/p-1", {"ce_id": b"-3-17"}, b"{}"),
        (b"acme/ann/p-1", {"ce_id": b"3-17"}, b"\0"),
        (b"acme/ann/p-1", {"ce_type": b"verdict.\0"}, b"{}"),
        (b"acme/ann/p\0", {"ce_id": b"3-17"}, b"{}"),
        (b"acme/ann/" + b"p" * 3_000, {"ce_id": b"3-17"}, b"{}"),
    ],
)
def test_what_is_no_verdict_is_told_apart(
    key: bytes | None, headers: Mapping[str, bytes | None], value: bytes | None
) -> None:
    own = dict(record_of(LOG_ID, 3, JUDGED).headers)
    assert read_message(key, {**own, **headers} if headers else {}, value) is None
    assert read_message(b"acme/ann/p-1", {k: v for k, v in own.items() if k != "ce_id"}, b"{}") is None


_OWN: Final = dict(record_of(LOG_ID, 3, JUDGED).headers)


@given(
    key=st.none() | st.binary() | st.from_regex(rb"[^/]*/[^/]*/[^/]*", fullmatch=True),
    headers=st.dictionaries(st.sampled_from(sorted(_OWN)), st.none() | st.binary() | st.from_regex(rb"[0-9]+-[0-9]+")),
    value=st.none() | st.binary(),
)
def test_whatever_a_message_says_the_journal_can_hold_what_is_read(
    key: bytes | None, headers: dict[str, bytes | None], value: bytes | None
) -> None:
    found = read_message(key, {**_OWN, **headers}, value)
    if found is not None:
        assert max(found.partition, found.offset) < 1 << 63
        assert "\0" not in "".join(str(one) for one in found)


def test_what_others_put_there_ends_no_worker(site: Site) -> None:
    migrated(site)
    with WorkerProcess(site) as worker:
        site.proposals(1)
        site.wait_folded()
        until(lambda: worker.figures()["headrace_worker_journal_rows_total"] == PARTITIONS)
        topic, log_id = verdict_topic.topic_name(site.topic), site.log.describe().log_id
        assert log_id is not None
        own = record_of(log_id, 0, JUDGED)
        with closing(Producer({"bootstrap.servers": site.kafka})) as producer:
            for value in (None, b"\0"):
                producer.produce(topic, value, own.key, 0, headers=list(own.headers))
            producer.produce(topic, b"noise", partition=0)
            assert producer.flush(PATIENCE) == 0
        until(lambda: worker.figures()["headrace_worker_journal_foreign_total"] == 3)
        site.proposals(1, seed="q")
        until(lambda: worker.figures()["headrace_worker_journal_rows_total"] == 2 * PARTITIONS)
        assert worker.stop() == 0


def test_it_is_made_once_and_checked(site: Site) -> None:
    log, cluster = KafkaAddress.parse(site.url), Cluster(site.kafka)
    address = prepare(log, PARTITIONS)
    assert prepare(log, PARTITIONS) == address
    found = cluster.settings(address.topic)
    assert found["cleanup.policy"] == "delete"
    assert found["retention.ms"] == str(verdict_topic.RETENTION_MS)
    cluster.configure(address.topic, {"retention.ms": "60000"})
    prepare(log, PARTITIONS)
    with pytest.raises(HaltError, match="has 4 partitions, the log has 5"):
        prepare(log, PARTITIONS + 1)
    with pytest.raises(HaltError, match=r"--add-config min\.insync\.replicas=2"):
        prepare(replace(log, replication=3, min_insync=2), PARTITIONS)
    cluster.configure(address.topic, {"cleanup.policy": "compact"})
    with pytest.raises(HaltError, match=r"--add-config cleanup\.policy=delete"):
        prepare(log, PARTITIONS)


def test_everything_judged_is_there_before_the_tables_have_it(site: Site) -> None:
    tables = site.tables()
    with VerdictTopic(prepare(KafkaAddress.parse(site.url), PARTITIONS)) as topic:
        keys = site.proposals(3)
        found = list[int]()

        def publish(memory: Memory) -> Callable[[], None]:
            twice = [topic.publish(memory), topic.publish(memory)]

            def wait() -> None:
                for done in twice:
                    done()
                found.append(len(site.verdict_messages()))

            return wait

        engine = Engine(REGISTRY, KINDS, tables, publish=publish)
        for partition in range(PARTITIONS):
            before = len(site.verdict_messages())
            fold_by(engine, site.log, partition, (1_000,))
            assert found[-1] - before == 6
        assert site.check_verdicts() == len(keys)
        assert topic.published == 2 * len(keys)


def test_a_stale_worker_publishes_nothing(site: Site) -> None:
    """What it has loaded may be ahead of what it folds: its verdicts may be wrong."""
    site.proposals(3)
    tables = site.tables()
    with VerdictTopic(prepare(KafkaAddress.parse(site.url), PARTITIONS)) as topic:
        for partition in range(PARTITIONS):
            stale = Engine(REGISTRY, KINDS, tables, publish=topic.publish)
            assert stale.resume(site.log, partition) == 0
            fold_by(Engine(REGISTRY, KINDS, tables), site.log, partition, (1_000,))
            folded = stale.fold(partition, site.log.read(partition, 0, 1_000))
            assert folded.memory.judged
            with pytest.raises(FencedError, match="this one wrote nothing"):
                stale.commit(folded)
        assert site.verdict_messages() == []
        assert topic.published == 0


def test_what_the_brokers_do_not_take_is_said(site: Site) -> None:
    address = prepare(KafkaAddress.parse(site.url), PARTITIONS)
    Cluster(site.kafka).configure(address.topic, {"max.message.bytes": "1"})
    with VerdictTopic(address) as topic:
        memory = Memory(PartitionRow(1), KINDS)
        memory.judged.append(JUDGED)
        with pytest.raises(UnavailableError, match="1 of 1 verdicts of partition 1 were not published"):
            topic.publish(memory)()


def test_a_fold_goes_on_when_the_brokers_took_longer_than_the_server_waits(site: Site) -> None:
    tables, ended = site.tables(patience=0.05), list[int]()

    def publish(memory: Memory) -> Callable[[], None]:
        def wait() -> None:
            if memory.judged and not ended:
                backend = tables.connection.info.backend_pid
                until(lambda: not site.ask("SELECT pid FROM pg_stat_activity WHERE pid = %s", backend))
                ended.append(backend)

        return wait

    site.proposals(15)
    fold = site.fold(tables, publish=publish)
    fold.start()
    site.wait_folded()
    assert ended
    assert fold.counts.pauses > 0
    assert fold.stop()
    assert (fold.failure, fold.stopped) == (None, {})
    site.check_tables()
