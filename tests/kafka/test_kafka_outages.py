"""A broker of the test's own, which asks for TLS and a password, and is paused and killed."""

import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from headrace.errors import AppendUnknownError, NotFoundError, UnavailableError
from headrace.log.kafka import KafkaLog
from infra.stack.kafka import KafkaCluster
from infra.topics import RIGHTS
from tests.contract.log_conformance import PATIENCE_SECONDS, closing, read_all
from tests.kafka.certificates import make_certificates
from tests.kafka.topics import Cluster, opened, record

_PASSWORD = "pass word,=;&"
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
    f'user_{name}="{_PASSWORD}"' for name in ("headrace", *RIGHTS, "nobody")
)


class Guarded(NamedTuple):
    """A cluster with a guarded listener, and what it takes to get in."""

    cluster: KafkaCluster
    trust: Path
    password: Path

    def url(
        self,
        topic: str = "",
        *,
        who: str = "headrace",
        protocol: str = "sasl_ssl",
        password: Path | None = None,
        trust: Path | None = None,
    ) -> str:
        """The address of a log behind the guard; without a topic, of one that nobody has."""
        return (
            f"kafka://{self.cluster.client_bootstrap}/{topic or Cluster.name()}?replication.factor=1"
            f"&request.timeout.ms=3000&security.protocol={protocol}&sasl.mechanism=PLAIN&sasl.username={who}"
            f"&sasl.password.file={password or self.password}&ssl.ca.location={trust or self.trust}"
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One broker with a plain listener and a guarded one."""
    directory = tmp_path_factory.mktemp("guarded")
    trust, keystore = make_certificates(directory)
    password = directory / "password"
    password.write_text(_PASSWORD, encoding="utf-8")
    listener = {
        "listener.name.client.ssl.keystore.type": "PEM",
        "listener.name.client.ssl.keystore.location": str(keystore),
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f"{_LOGIN};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:headrace",
    }
    with KafkaCluster(directory / "kafka", protocol="SASL_SSL", listener=listener) as cluster:
        yield Guarded(cluster, trust, password)


@pytest.fixture
def plain(guarded: Guarded) -> Cluster:
    """The same broker by its plain door, and no patience with it."""
    more = "&delivery.timeout.ms=2000&request.timeout.ms=2000"
    return Cluster(guarded.cluster.bootstrap, f"replication.factor=1{more}")


def test_a_log_behind_tls_and_a_password(guarded: Guarded) -> None:
    url = guarded.url()
    with opened(KafkaLog.create(url, 2)) as log, KafkaLog.open(url, writer=False) as reader:
        assert reader.wait({1: 1}, 0) == frozenset()
        assert log.append([record(1, b"in")]) == [(1, 1)]
        assert reader.wait({1: 1}, PATIENCE_SECONDS) == {1}
        assert reader.read(1, 1, 9)[0].value == b"in"
        assert log.describe().ends == (1, 2)


def test_a_wrong_password_is_said_and_never_shown(guarded: Guarded, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess-4711", encoding="utf-8")
    with pytest.raises(UnavailableError) as refusal:
        KafkaLog.open(guarded.url(password=wrong))
    assert "uthentication failed" in str(refusal.value)
    assert "guess" not in str(refusal.value)


def test_a_broker_that_is_not_trusted_is_not_spoken_to(guarded: Guarded, tmp_path: Path) -> None:
    other, _ = make_certificates(tmp_path)
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        KafkaLog.open(guarded.url(trust=other))


def test_no_tls_where_tls_is_asked_for(guarded: Guarded) -> None:
    with pytest.raises(UnavailableError, match="check that the brokers"):
        KafkaLog.open(guarded.url(protocol="sasl_plaintext"))


def test_everybody_may_do_what_they_are_for_and_no_more(guarded: Guarded, plain: Cluster) -> None:
    topic = plain.name()
    for who, operations in RIGHTS.items():
        plain.allow(f"User:{who}", topic, operations)
    with KafkaLog.create(guarded.url(topic, who="creator"), 2) as log:
        opened(log)
    with KafkaLog.open(guarded.url(topic, who="writer")) as log:
        assert log.append([record(1, b"written")]) == [(1, 1)]
        with pytest.raises(UnavailableError, match="check its credentials and ACLs"):
            log.append([closing(0), closing(1)])
        assert log.describe().ends == (1, 2)
    with KafkaLog.open(guarded.url(topic, who="reader")) as log:
        assert log.wait({1: 1}, PATIENCE_SECONDS) == {1}
        assert log.read(1, 1, 9)[0].value == b"written"
        with pytest.raises(UnavailableError, match="check its credentials and ACLs"):
            log.append([record(1, b"not mine to write")])
    with pytest.raises((UnavailableError, NotFoundError), match=r"ACLs|no such log"):
        KafkaLog.open(guarded.url(topic, who="nobody"))
    with KafkaLog.open(guarded.url(topic, who="creator")) as log:
        log.append([closing(0), closing(1)])
        assert log.describe().ends == (2, 3)


def test_a_broker_that_stops_answering_leaves_an_append_unknown_and_a_retry_safe(
    guarded: Guarded, plain: Cluster
) -> None:
    [broker] = guarded.cluster.brokers
    with opened(KafkaLog.create(plain.url(), 2)) as log:
        log.wait({0: 0}, 0)
        log.append([record(0, b"before")])
        broker.pause()
        try:
            with pytest.raises(AppendUnknownError, match="retry the same records"):
                log.append([record(0, b"unknown"), record(1, b"unknown")])
            with pytest.raises(UnavailableError, match="takes longer than 2 s"):
                log.describe()
            assert log.wait({0: 2}, 0.05) == frozenset()
        finally:
            broker.resume()
        log.append([record(0, b"unknown"), record(1, b"unknown")])
        log.append([record(0, b"after")])
        values = [stored.value for stored in read_all(log, 0, 1)]
        assert values[0] == b"before"
        assert values[-1] == b"after"
        # Resending may double a record, and its id tells; it is never lost and never out of order.
        assert set(values[1:-1]) == {b"unknown"}
        assert 1 <= len(values[1:-1]) <= 2


def test_a_broker_that_is_killed_and_comes_back_has_everything_acknowledged(guarded: Guarded, plain: Cluster) -> None:
    [broker] = guarded.cluster.brokers
    with opened(KafkaLog.create(plain.url(), 2)) as log:
        assert log.wait({0: 1}, 0) == frozenset()
        values = [secrets.token_bytes(8) for _ in range(200)]
        log.append([record(0, value) for value in values])
        broker.kill()
        with pytest.raises(AppendUnknownError):
            log.append([record(0, b"lost?")])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.wait, {1: 1}, PATIENCE_SECONDS)
            broker.start()
            guarded.cluster.wait_ready()
            log.append([record(1, b"back")])
            assert waiting.result(PATIENCE_SECONDS) == {1}
        found = Counter(stored.value for stored in read_all(log, 0, 1))
        assert all(found[value] == 1 for value in values)
        assert found[b"lost?"] <= 1
