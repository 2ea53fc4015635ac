"""The topic behind a log: made as it must be, and refused, with what to change, when it is not."""

import re
import time
from contextlib import ExitStack

import pytest

from headrace.errors import BadInputError, HaltError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_topic import Topic, TopicState, topic_settings
from headrace.log.port import Record
from headrace.processors.core.policy import DEFAULT_POLICY
from headrace.producers.opening import open_log
from headrace.schemas.registry import Registry, built_in
from infra.stack.ports import free_ports
from infra.topics import create_command
from tests.contract.log_conformance import LOG_ID, PATIENCE_SECONDS, closing, opening
from tests.kafka.topics import Cluster, opened, record


def test_a_new_log_has_the_settings_its_promises_rest_on(cluster: Cluster) -> None:
    name = cluster.name()
    with KafkaLog.create(cluster.url(name), 3) as log:
        assert log.describe() == (None, 3, (0, 0, 0), None)
    found = cluster.settings(name)
    assert found["cleanup.policy"] == "delete"
    assert found["retention.ms"] == found["retention.bytes"] == "-1"
    assert found["message.timestamp.type"] == "LogAppendTime"
    assert found["unclean.leader.election.enable"] == "false"
    assert found["min.insync.replicas"] == "1"
    assert int(found["max.message.bytes"]) == 8 * 1024 * 1024


def test_creating_again_opens_what_is_there(cluster: Cluster) -> None:
    url = cluster.url()
    with KafkaLog.create(url, 3) as log:
        log.append([opening(0)])
    with KafkaLog.create(url, 3) as log:
        assert log.describe() == (LOG_ID, 3, (1, 0, 0), None)


def test_creating_with_another_number_of_partitions_is_refused(cluster: Cluster) -> None:
    url = cluster.url()
    KafkaLog.create(url, 3).close()
    with pytest.raises(BadInputError, match="3 partitions, not 4"):
        KafkaLog.create(url, 4)


@pytest.mark.parametrize("partitions", [0, -1, 65_537])
def test_a_number_of_partitions_that_makes_no_sense_is_refused(cluster: Cluster, partitions: int) -> None:
    with pytest.raises(BadInputError, match="1 to 65536"):
        KafkaLog.create(cluster.url(), partitions)


def test_more_copies_than_brokers_are_refused_with_what_to_do(cluster: Cluster) -> None:
    url = f"kafka://{cluster.bootstrap}/{cluster.name()}"
    with pytest.raises(BadInputError, match=r"fewer brokers than replication\.factor=3.*\?replication\.factor=1"):
        KafkaLog.create(url, 3)


def test_a_log_that_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(NotFoundError, match="there is no such log: create it"):
        KafkaLog.open(cluster.url())


def test_brokers_that_are_not_there() -> None:
    [port] = free_ports(1)
    url = f"kafka://127.0.0.1:{port}/log?request.timeout.ms=300"
    for attempt in (KafkaLog.open, KafkaLog.create):
        with pytest.raises(UnavailableError, match="check that the brokers"):
            attempt(url)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("cleanup.policy", "compact", "delete"),
        ("cleanup.policy", "compact,delete", "delete"),
        ("retention.ms", "604800000", "-1"),
        ("retention.bytes", "1073741824", "-1"),
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("unclean.leader.election.enable", "true", "false"),
        ("max.message.bytes", "1000", "8388608"),
    ],
)
def test_a_setting_that_breaks_a_promise_is_refused_and_the_message_mends_it(
    cluster: Cluster, name: str, wrong: str, right: str
) -> None:
    topic = cluster.name()
    cluster.make(topic, settings={name: wrong})
    for writer in (True, False):
        with pytest.raises(HaltError, match=re.escape(f"{name} is {wrong}, must be {right}")) as refusal:
            KafkaLog.open(cluster.url(topic), writer=writer)
    change = re.search(r"--add-config (\S+)", str(refusal.value))
    assert change is not None
    cluster.configure(topic, dict(pair.split("=") for pair in change[1].split(",")))
    KafkaLog.open(cluster.url(topic)).close()


def test_a_topic_made_by_the_printed_command_is_accepted(cluster: Cluster) -> None:
    topic = cluster.name()
    words = create_command(cluster.bootstrap, topic, topic_settings(1), partitions=2, replication=1)
    cluster.make(topic, settings=dict(word.split("=", 1) for word in words[words.index("--config") :] if "=" in word))
    with KafkaLog.open(cluster.url(topic)) as log:
        assert log.describe().partitions == 2


def test_every_wrong_setting_is_named_at_once(cluster: Cluster) -> None:
    topic = cluster.name()
    cluster.make(topic, settings={"cleanup.policy": "compact", "retention.ms": "1000"})
    with pytest.raises(HaltError, match=r"cleanup\.policy is compact.*retention\.ms is 1000"):
        KafkaLog.create(cluster.url(topic), 2)


def test_too_few_in_sync_or_too_few_copies_are_refused(cluster: Cluster) -> None:
    topic = cluster.name()
    cluster.make(topic, settings={"min.insync.replicas": "1"})
    with pytest.raises(HaltError, match=r"1 copies.*replication\.factor=3 is wanted"):
        KafkaLog.open(f"kafka://{cluster.bootstrap}/{topic}")
    cluster.configure(topic, {"min.insync.replicas": "2"})  # more than asked for is nobody's harm
    KafkaLog.open(cluster.url(topic)).close()


def test_fewer_in_sync_than_wanted_are_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one broker is taken for three that have a copy each."""
    topic, state = cluster.name(), Topic.state

    def three(self: Topic) -> TopicState:
        return state(self)._replace(least_replicas=3)

    cluster.make(topic, settings={"min.insync.replicas": "1"})
    monkeypatch.setattr(Topic, "state", three)
    wanted = r"min\.insync\.replicas is 1, must be 2.*--add-config min\.insync\.replicas=2"
    with pytest.raises(HaltError, match=wanted):
        KafkaLog.open(f"kafka://{cluster.bootstrap}/{topic}")
    cluster.configure(topic, {"min.insync.replicas": "2"})
    KafkaLog.open(f"kafka://{cluster.bootstrap}/{topic}", writer=False).close()


def test_partitions_that_were_added_are_noticed(cluster: Cluster) -> None:
    topic = cluster.name()
    with ExitStack() as stack:
        log = stack.enter_context(KafkaLog.create(cluster.url(topic), 2))
        open_log(log, Registry(built_in()), ("mail.thread",), DEFAULT_POLICY)
        cluster.grow(topic, 3)
        with pytest.raises(LogMismatchError, match="has 3 partitions and was made with 2"):
            _describe_until_refused(log)  # asked for once a second
    with pytest.raises(LogMismatchError, match="has 3 partitions and was made with 2"):
        KafkaLog.open(cluster.url(topic))
    with pytest.raises(LogMismatchError, match="has 3 partitions and was made with 2"):
        KafkaLog.create(cluster.url(topic), 3)


def test_somebody_elses_topic_is_refused(cluster: Cluster) -> None:
    topic = cluster.name()
    cluster.make(topic)
    cluster.put(topic, 0, [b"hello"])
    with pytest.raises(LogMismatchError, match=r"does not begin with log\.opened"):
        KafkaLog.open(cluster.url(topic))


def test_a_handle_for_reading_appends_nothing(cluster: Cluster) -> None:
    url = cluster.url()
    with opened(KafkaLog.create(url, 2)), KafkaLog.open(url, writer=False) as reader:
        with pytest.raises(UnavailableError, match="writer=True"):
            reader.append([record(0, b"x")])
        assert reader.describe().ends == (1, 1)


def test_a_closed_handle_says_so(cluster: Cluster) -> None:
    log = opened(KafkaLog.create(cluster.url(), 2))
    log.wait({0: 0}, 0)
    log.close()
    log.close()
    for use in (
        lambda: log.append([record(0, b"x")]),
        lambda: log.read(0, 0, 1),
        log.describe,
        lambda: log.wait({}, 0),
    ):
        with pytest.raises(UnavailableError, match="open the log again"):
            use()


def test_a_record_that_is_too_large_is_refused_and_nothing_else_is_lost(cluster: Cluster) -> None:
    topic = cluster.name()
    cluster.make(topic, settings={"max.message.bytes": "1048588"})
    with KafkaLog.open(cluster.url(topic)) as log:
        opened(log)
        with pytest.raises(BadInputError, match="too large"):
            log.append([record(0, b"first"), record(0, bytes(1_048_588))])
        assert log.describe().ends == (1, 1)
        assert log.append([record(0, bytes(1_000_000))]) == [(0, 1)]
        # The topic takes less than when it was opened: the broker refuses, and the log goes on.
        cluster.configure(topic, {"max.message.bytes": "10000"})
        with pytest.raises(BadInputError, match="too large"):
            _append_until_refused(log, record(1, bytes(100_000)))  # a setting takes a moment to arrive
        assert log.append([record(1, b"small")]) == [(1, log.describe().ends[1] - 1)]


def _describe_until_refused(log: KafkaLog) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        log.describe()


def _append_until_refused(log: KafkaLog, large: Record) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        log.append([large])


@pytest.mark.parametrize("left", ["0", "1"])
def test_a_closing_that_was_interrupted_is_gone_on_with(cluster: Cluster, left: str) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        cluster.configure(topic, {"max.message.bytes": left})  # it died, and a record had come behind its closings
        positions = log.append([closing(0), closing(1)])
        described = log.describe()
        assert described.successor == "kafka://elsewhere"
        assert tuple(position.offset + 1 for position in positions) == described.ends
    assert cluster.settings(topic)["max.message.bytes"] == "0"


def test_a_closed_log_is_shut_and_one_half_closed_is_shut_on_opening(cluster: Cluster) -> None:
    topic = cluster.name()
    with opened(KafkaLog.create(cluster.url(topic), 2)) as log:
        log.append([closing(0), closing(1)])
    assert cluster.settings(topic)["max.message.bytes"] == "0"
    cluster.configure(topic, {"max.message.bytes": "8388608"})  # as if the closing process had died before the end
    KafkaLog.open(cluster.url(topic), writer=False).close()
    assert cluster.settings(topic)["max.message.bytes"] == "8388608"
    with KafkaLog.open(cluster.url(topic)) as log:
        assert log.describe().successor == "kafka://elsewhere"
    assert cluster.settings(topic)["max.message.bytes"] == "1", "shut; that nobody slipped in, nobody has looked"
