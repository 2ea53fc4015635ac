"""Somebody with a producer of their own writes into a copy: while it is made, and when it is a log."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Producer

from headrace.errors import BadInputError, HaltError, LogMismatchError
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log import copy_to_kafka
from headrace.log.carrying import CARRIED, carrying
from headrace.log.copy_marks import movings
from headrace.log.copy_to_kafka import KafkaDestination
from headrace.log.copying import Copy
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_reader import Reader
from headrace.log.port import Headers, Record, Stored
from headrace.log.sqlite import SqliteLog
from headrace.processors.engine import Engine, fold_all
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import Author, mail
from tests.copy.copies import NAME, moved_to_kafka, same, topic_of, whole
from tests.kafka.topics import Cluster

TIMEOUT_SECONDS = 20


def put(cluster: Cluster, url: str, partition: int, headers: Headers = (), timestamp: int = 5) -> None:
    """Append as somebody with a producer of their own."""
    landed: list[Any] = []
    with closing(Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 0})) as producer:
        producer.produce(
            topic_of(url),
            b"forged",
            b"acme/x",
            partition,
            timestamp=timestamp,
            headers=list(headers),
            on_delivery=lambda error, message: landed.append(error or message.offset()),
        )
        assert producer.flush(TIMEOUT_SECONDS) == 0
    assert isinstance(landed[0], int), landed


def raw(url: str, partition: int, offset: int) -> Stored:
    """A record as the broker keeps it."""
    with closing(Reader(KafkaAddress.parse(url))) as reader:
        return reader.fetch_kept(partition, offset, 1)[0]


@pytest.mark.parametrize("partition", [0, 2])
def test_a_record_that_slips_in_while_it_is_copied_is_noticed(
    origin: SqliteLog, cluster: Cluster, partition: int
) -> None:
    url = cluster.url()
    with closing(KafkaDestination.open(url, origin.describe())) as destination:
        run = Copy(origin, NAME, destination)
        run.catch_up()
        put(cluster, url, partition)
        Author(origin, "a-7").fact("mail.received", "t-1", "m-1", mail(1))
        with pytest.raises(LogMismatchError, match="--discard"):
            run.catch_up()
    assert origin.describe().successor is None
    with pytest.raises(LogMismatchError, match="--discard"):
        moved_to_kafka(origin, url)
    copy_to_kafka.discard(url)
    outcome = moved_to_kafka(origin, url)
    with KafkaLog.open(url) as moved:
        same(origin, moved, outcome.ends)


@pytest.mark.parametrize("after", ["before it is closed", "after it is closed", "when it is being opened"])
def test_a_record_that_slips_in_at_the_end_is_noticed(
    origin: SqliteLog, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    url = cluster.url()
    with closing(KafkaDestination.open(url, origin.describe())) as destination:
        finish = destination.finish

        def close(records: Sequence[Record]) -> None:
            if after == "before it is closed":
                put(cluster, url, 1)
            origin.append(records)
            if after == "after it is closed":
                put(cluster, url, 1)

        def finishes(records: Sequence[Record], successor: str | None) -> None:
            if after == "when it is being opened":
                put(cluster, url, 1)
            finish(records, successor)

        monkeypatch.setattr(destination, "finish", finishes)
        with pytest.raises(LogMismatchError, match=r"not copied|somebody else writes|was not copied|not that of"):
            Copy(origin, NAME, destination).move(close)
    with pytest.raises(HaltError, match="unfinished copy"):
        KafkaLog.open(url)
    copy_to_kafka.discard(url)
    outcome = moved_to_kafka(origin, url)  # the log is closed by now, for this place: it goes on all the same
    with KafkaLog.open(url) as moved:
        same(origin, moved, outcome.ends)


def test_a_stranger_beside_a_finished_copy_moves_no_time(origin: SqliteLog, cluster: Cluster) -> None:
    """Forged times on records behind ``log.moved``: with the broker's stamp, and with a client's."""
    url = cluster.url()
    outcome = moved_to_kafka(origin, url)
    copy = dict(raw(url, 0, 0).headers)[CARRIED].split()[0].decode()
    far = 4_000_000_000_000
    pretended = Stored(1, 0, far, True, None, (), b"")
    put(cluster, url, 1, carrying(pretended, copy), far)
    cluster.configure(
        topic_of(url), {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(far)}
    )
    put(cluster, url, 1, carrying(pretended, copy), far)
    forged_end = movings((0, outcome.ends[1] + 3), copy, "elsewhere")[1]
    put(cluster, url, 1, forged_end.headers, far)
    cluster.configure(topic_of(url), {"message.timestamp.type": "LogAppendTime"})
    put(cluster, url, 1, carrying(pretended, copy), far)
    with KafkaLog.open(url) as moved:
        same(origin, moved, outcome.ends)
        tail = moved.read(1, outcome.ends[1], 10)
        assert [(one.log_append, one.appended_at < far) for one in tail] == [
            (True, True),  # log.moved
            (True, True),
            (False, False),
            (False, False),
            (True, True),
        ]
        assert dict(tail[1].headers)[CARRIED]
        with SqliteTables.in_memory(installed_schemas(), installed_kinds()) as tables:
            fold_all(Engine(installed_schemas(), installed_kinds(), tables), moved, 1)
            row = tables.resume(1)
            assert row is not None
            assert row.log_time < far
            assert row.next_offset == outcome.ends[1] + 5


def test_a_log_that_was_never_moved_carries_nothing(cluster: Cluster) -> None:
    url = cluster.url()
    far = 4_000_000_000_000
    with KafkaLog.create(url, 1) as log:
        Author(log)
        pretended = carrying(Stored(0, 0, far, True, None, (), b""), "0123456789abcdef")
        put(cluster, url, 0, pretended, far)
        cluster.configure(
            topic_of(url), {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(far)}
        )
        put(cluster, url, 0, pretended, far)
        cluster.configure(topic_of(url), {"message.timestamp.type": "LogAppendTime"})
        forged_end = movings((3,), "0123456789abcdef", "elsewhere")[0]
        log.append([forged_end._replace(partition=0)])
    with KafkaLog.open(url) as log:
        found = whole(log, 0)
        assert [(one.log_append, one.appended_at) for one in found[2:3]] == [(False, far)]
        assert all(one.log_append and one.appended_at < far for n, one in enumerate(found) if n != 2)


def test_a_finished_copy_is_known_even_where_its_end_is_hard_to_find(origin: SqliteLog, cluster: Cluster) -> None:
    """Somebody had the topic stamp by clients' clocks for a while: looking for it by halves leads astray."""
    url = cluster.url()
    outcome = moved_to_kafka(origin, url)
    copy = dict(raw(url, 0, 0).headers)[CARRIED].split()[0].decode()
    cluster.configure(topic_of(url), {"message.timestamp.type": "CreateTime"})
    for _ in range(40):
        put(cluster, url, 0, carrying(Stored(0, 0, 5, True, None, (), b""), copy))
    cluster.configure(topic_of(url), {"message.timestamp.type": "LogAppendTime"})
    with pytest.raises(BadInputError, match="finished copy"):
        copy_to_kafka.discard(url)
    with KafkaLog.open(url) as moved:
        same(origin, moved, outcome.ends)
        assert not any(one.log_append for one in moved.read(0, outcome.ends[0] + 1, 40))
