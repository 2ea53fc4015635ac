"""A broker of the test's own, which is paused and killed, and whose answers get lost on the way."""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from headrace.errors import AppendUnknownError, NotFoundError, UnavailableError
from headrace.log.kafka import KafkaLog
from headrace.log.port import Record
from headrace.processors.engine import Engine
from headrace.projections.queries import account_events, entity, proposal
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import EntityRef, Position
from infra.stack.kafka import Door, KafkaCluster
from tests.contract.log_conformance import PATIENCE_SECONDS, read_all
from tests.contract.rich_history import TENANT, Author, mail
from tests.contract.tables_recording import KINDS, REGISTRY
from tests.kafka.topics import Cluster, opened, record, retried
from tests.proxy import PRODUCE, FaultProxy, Way, kafka_answers, kafka_messages

RESTART_SECONDS = 4 * PATIENCE_SECONDS


class Broker(NamedTuple):
    """One broker, and the proxy in front of its other door."""

    cluster: KafkaCluster
    proxy: FaultProxy

    def url(self, topic: str | None = None, *, proxied: bool, delivery_ms: int = 30_000) -> str:
        """The address of this log, else of one that nobody has."""
        servers = self.cluster.bootstrap_at("PROXIED") if proxied else self.cluster.bootstrap
        return (
            f"kafka://{servers}/{topic or Cluster.name()}?replication.factor=1&request.timeout.ms=2000"
            f"&delivery.timeout.ms={delivery_ms}"
        )

    def hurried(self, *first: Record, proxied: bool, delivery_ms: int) -> KafkaLog:
        """A log of two partitions with these records, whose client gives up soon from now on: making a topic may take
        a busy machine longer than that. It is connected.
        """
        topic = Cluster.name()
        with opened(KafkaLog.create(self.url(topic, proxied=proxied), 2)) as log:
            log.append(first)
        log = KafkaLog.open(self.url(topic, proxied=proxied, delivery_ms=delivery_ms))
        retried(log, [record(1, b"connected")])
        return log


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker, with a second door that a proxy stands in front of."""
    with ExitStack() as stack:
        proxies: list[FaultProxy] = []

        def way(_node: int, port: int) -> int:
            proxy = FaultProxy("127.0.0.1", port, split=kafka_messages, answers=kafka_answers)
            proxies.append(stack.enter_context(proxy))
            return proxy.port

        cluster = stack.enter_context(
            KafkaCluster(
                tmp_path_factory.mktemp("outages"),
                doors={"PROXIED": Door(way=way)},
                settings={"auto.create.topics.enable": "true"},  # Kafka's default; what is deleted stays deleted
                quick=True,
            )
        )
        yield Broker(cluster, proxies[-1])


@pytest.fixture
def broker(started: Broker) -> Iterator[Broker]:
    """The broker, whole again afterwards."""
    yield started
    started.proxy.heal()


# The broker itself


def test_a_broker_that_stops_answering_leaves_an_append_unknown_and_a_retry_safe(broker: Broker) -> None:
    [process] = broker.cluster.brokers
    with broker.hurried(record(0, b"before"), proxied=False, delivery_ms=2_000) as log:
        log.wait({0: 0}, 0)
        process.pause()
        try:
            with pytest.raises(AppendUnknownError, match="retry the same records"):
                log.append([record(0, b"unknown"), record(1, b"unknown")])
            # Now the client says that it takes too long, now that no leader is known: whichever it finds out first.
            with pytest.raises(UnavailableError, match="check that the brokers run and can be reached, then try again"):
                log.describe()
            assert log.wait({0: 2}, 0.05) == frozenset()
        finally:
            process.resume()
        retried(log, [record(0, b"unknown"), record(1, b"unknown")])
        retried(log, [record(0, b"after")])
        values = [stored.value for stored in read_all(log, 0, 1)]
        assert values[0] == b"before"
        assert values[-1] == b"after"
        # Resending may double a record, and its id tells; it is never lost and never out of order.
        assert list(dict.fromkeys(values)) == [b"before", b"unknown", b"after"]


def test_a_broker_that_is_killed_and_comes_back_has_everything_acknowledged(broker: Broker) -> None:
    [process] = broker.cluster.brokers
    values = [secrets.token_bytes(8) for _ in range(200)]
    with broker.hurried(*(record(0, value) for value in values), proxied=False, delivery_ms=2_000) as log:
        assert log.wait({0: 201}, 0) == frozenset()
        end = log.describe().ends[1]
        process.kill()
        with pytest.raises(AppendUnknownError):
            log.append([record(0, b"lost?")])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.wait, {1: end}, RESTART_SECONDS)
            process.start()
            broker.cluster.wait_ready()
            retried(log, [record(1, b"back")])
            assert waiting.result(RESTART_SECONDS) == {1}
        found = Counter(stored.value for stored in read_all(log, 0, 1))
        assert all(found[value] == 1 for value in values)
        assert found[b"lost?"] <= 1


def test_a_topic_that_was_deleted_is_not_made_again_by_who_appends(broker: Broker) -> None:
    topic, strangers = Cluster.name(), Cluster(broker.cluster.bootstrap)
    with opened(KafkaLog.create(broker.url(topic, proxied=False, delivery_ms=2_000), 2)) as log:
        strangers.delete(topic)
        with pytest.raises((AppendUnknownError, NotFoundError)):
            log.append([record(0, b"after")])
        with pytest.raises((NotFoundError, UnavailableError)):
            log.describe()
        assert topic not in strangers.topics()
        strangers.put(f"{topic}-of-a-stranger", 0, [b"here it would be"])
        assert f"{topic}-of-a-stranger" in strangers.topics()


# The way to it


def test_a_lost_acknowledgement_is_made_good_by_the_client_and_nothing_is_doubled(broker: Broker) -> None:
    with opened(KafkaLog.create(broker.url(proxied=True), 2)) as log:
        before = broker.proxy.seen.lost
        for turn in range(5):
            value = f"once {turn}".encode()
            broker.proxy.lose_reply(PRODUCE)
            [position] = log.append([record(0, value)])
            assert broker.proxy.seen.lost == before + turn + 1
            assert position == (0, turn + 1)
            assert [stored.value for stored in read_all(log, 0, turn + 1)] == [value]


def test_records_that_never_arrive_are_sent_again(broker: Broker) -> None:
    with opened(KafkaLog.create(broker.url(proxied=True), 2)) as log:
        before = broker.proxy.seen.lost
        broker.proxy.lose_request(PRODUCE)
        assert log.append([record(0, b"a"), record(1, b"b")]) == [(0, 1), (1, 1)]
        assert broker.proxy.seen.lost > before
        assert log.describe().ends == (2, 2)


@pytest.mark.parametrize(("lost", "times"), [(Way.ANSWERING, 2), (Way.ASKING, 1)], ids=["answers", "records"])
def test_no_answer_in_time_is_unknown_and_a_retry_with_the_same_records_is_safe(
    broker: Broker, lost: Way, times: int
) -> None:
    with broker.hurried(record(0, b"before"), proxied=True, delivery_ms=1_000) as log:
        broker.proxy.blackhole(lost)
        with pytest.raises(AppendUnknownError, match="retry the same records"):
            log.append([record(0, b"unknown")])
        broker.proxy.heal()
        position = retried(log, [record(0, b"unknown")])[0]
        values = [stored.value for stored in read_all(log, 0, 1)]
        assert values[position.offset - 1] == b"unknown"
        assert list(dict.fromkeys(values)) == [b"before", b"unknown"]
        assert values.count(b"unknown") >= times


class Retrying(KafkaLog):
    """A log whose appends are repeated until their outcome is known, as everybody who appends does. Where ``lose`` is
    set the acknowledgement gets lost first."""

    proxy: FaultProxy
    lose = False
    unknown = 0

    def append(self, records: Sequence[Record]) -> list[Position]:
        """See :class:`headrace.log.port.Log`."""
        if self.lose:
            self.proxy.blackhole(Way.ANSWERING)
            with pytest.raises(AppendUnknownError):
                super().append(records)
            self.unknown += 1
            self.proxy.heal()
        while True:
            try:
                return super().append(records)
            except AppendUnknownError:
                continue


def test_what_was_appended_twice_has_one_effect(broker: Broker) -> None:
    with Retrying.create(broker.url(proxied=True, delivery_ms=1_000), 2) as log:
        log.proxy = broker.proxy
        author = Author(log)
        log.lose = True
        again = author.fact("mail.received", "t-1", "m-1", mail(1))
        answer = {"in_reply_to": "<1@example.com>", "recipients": ["bob@example.com"]}
        head = next(one.offset for one in read_all(log, author.partition, 1))  # the first one is what counts
        assert head < again
        read = author.entity("mail.thread/t-1", head)
        author.propose("p-1", "mail.reply", "mail.thread/t-1", [read], answer)
        log.lose = False
        author.fact("mail.labelled", "t-1", "m-2", {"added": ["work"], "removed": []})
        assert log.unknown == 2
        with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
            engine = Engine(REGISTRY, KINDS, tables)
            offset = engine.resume(log, author.partition)
            engine.apply(author.partition, log.read(author.partition, offset, 100))
            ref = EntityRef(TENANT, author.account, "mail.thread", "t-1")
            with tables.snapshot() as reader:
                thread = entity(reader, KINDS["mail.thread"], ref)
                verdict = proposal(reader, (TENANT, author.account), "p-1")
                every = account_events(reader, (TENANT, author.account), after=-1, limit=100)
        assert thread is not None
        assert thread.state is not None
        assert thread.state["messages"] == 1
        assert verdict is not None
        assert verdict.verdict == "accepted"
        assert [event["type"] for event in every if event["effect"] is not None] == [
            "mail.received",
            "proposal.submitted",
            "mail.labelled",
        ]
        assert len(every) > 3, "they do stand in the log twice"
