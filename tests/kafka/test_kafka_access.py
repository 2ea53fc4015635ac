"""A broker of the test's own with guarded doors: TLS, passwords, certificates, and rights for what one is for."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from headrace.errors import HeadraceError, NotFoundError, UnavailableError
from headrace.log.kafka import KafkaLog
from headrace.processors import verdict_topic
from headrace.processors.worker import UNAVAILABLE
from infra.stack.kafka import Door, KafkaCluster
from infra.topics import RIGHTS, create_command, rights_command, worker_rights_command
from tests.contract.log_conformance import PATIENCE_SECONDS, closing
from tests.kafka.certificates import Certificates, make_certificates
from tests.kafka.topics import Cluster, opened, record
from tests.stack.parts import postgres_dsn
from tests.worker.process import Elsewhere, WorkerProcess, migrated
from tests.worker.site import PARTITIONS, Site, until

__all__ = ("postgres_dsn",)

_PASSWORD = "pass word,=;&"
_MODULE = "org.apache.kafka.common.security.{}LoginModule required{};"
_USERS = "".join(f' user_{name}="{_PASSWORD}"' for name in ("headrace", *RIGHTS, "worker", "nobody"))
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")


class Guarded(NamedTuple):
    """A cluster with guarded doors, and what it takes to get in."""

    cluster: KafkaCluster
    certificates: Certificates
    password: Path

    def url(self, topic: str, door: str, **options: object) -> str:
        """The address of a log behind a door; without a topic, of one that nobody has. ``__`` in an option's name is
        a dot."""
        asked: Mapping[str, object] = {
            "replication.factor": 1,
            "request.timeout.ms": 3_000,
            "ssl.ca.location": self.certificates.trust,
            **{name.replace("__", "."): value for name, value in options.items()},
        }
        told = "&".join(f"{name}={value}" for name, value in asked.items())
        return f"kafka://{self.cluster.bootstrap_at(door)}/{topic or Cluster.name()}?{told}"

    def asked(self, who: str, mechanism: str) -> dict[str, object]:
        """What somebody signs in with."""
        return {
            "security__protocol": "sasl_ssl",
            "sasl__mechanism": mechanism,
            "sasl__username": who,
            "sasl__password__file": self.password,
        }

    def signed_in(self, topic: str = "", *, who: str = "headrace", mechanism: str = "PLAIN", **options: object) -> str:
        """The same for who has a password."""
        return self.url(topic, "PASSWORDS", **{**self.asked(who, mechanism), **options})

    def certified(self, held: Certificates, topic: str = "") -> str:
        """The same for who has a certificate."""
        return self.url(
            topic,
            "CERTIFICATES",
            security__protocol="ssl",
            ssl__certificate__location=held.client,
            ssl__key__location=held.client_key,
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One broker with a plain door and guarded ones."""
    directory = tmp_path_factory.mktemp("guarded")
    certificates = make_certificates(directory)
    password = directory / "password"
    password.write_text(_PASSWORD, encoding="utf-8")
    keys = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(certificates.server)}
    passwords = {
        "sasl.enabled.mechanisms": ",".join(("PLAIN", *_SCRAM)),
        "plain.sasl.jaas.config": _MODULE.format("plain.Plain", _USERS),
        **{f"{one.lower()}.sasl.jaas.config": _MODULE.format("scram.Scram", "") for one in _SCRAM},
    }
    trusted = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(certificates.trust)}
    doors = {
        "PASSWORDS": Door("SASL_SSL", {**keys, **passwords}),
        "CERTIFICATES": Door("SSL", {**keys, **trusted, "ssl.client.auth": "required"}),
        "VEILED": Door("SSL", keys),
        "UNVEILED": Door("SASL_PLAINTEXT", passwords),
    }
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:headrace;User:scram;User:CN=headrace",
    }
    with KafkaCluster(directory / "kafka", doors=doors, settings=settings, quick=True) as cluster:
        for mechanism in _SCRAM:
            Cluster(cluster.bootstrap).give_password("scram", mechanism, _PASSWORD)
        yield Guarded(cluster, certificates, password)


@pytest.fixture
def plain(guarded: Guarded) -> Cluster:
    """The same broker by its plain door."""
    return Cluster(guarded.cluster.bootstrap)


def check_use(url: str) -> None:
    """A log can be made there, written, followed, read and described."""
    with opened(KafkaLog.create(url, 2)) as log, KafkaLog.open(url, writer=False) as reader:
        assert reader.wait({1: 1}, 0) == frozenset()
        assert log.append([record(1, b"in")]) == [(1, 1)]
        assert reader.wait({1: 1}, PATIENCE_SECONDS) == {1}
        assert reader.read(1, 1, 9)[0].value == b"in"
        assert log.describe().ends == (1, 2)


def test_a_log_behind_tls_and_a_password(guarded: Guarded) -> None:
    check_use(guarded.signed_in())


@pytest.mark.parametrize("mechanism", _SCRAM)
def test_a_log_behind_tls_and_a_password_that_never_travels(guarded: Guarded, mechanism: str) -> None:
    check_use(guarded.signed_in(who="scram", mechanism=mechanism))


def test_a_log_behind_mutual_tls(guarded: Guarded) -> None:
    check_use(guarded.certified(guarded.certificates))


def test_a_log_behind_tls_for_everybody(guarded: Guarded) -> None:
    check_use(guarded.url("", "VEILED", security__protocol="ssl"))


@pytest.mark.parametrize("mechanism", ["PLAIN", *_SCRAM])
def test_a_log_behind_a_password_on_a_network_that_one_trusts(guarded: Guarded, mechanism: str) -> None:
    asked = guarded.asked("headrace" if mechanism == "PLAIN" else "scram", mechanism)
    check_use(guarded.url("", "UNVEILED", **{**asked, "security__protocol": "sasl_plaintext"}))


def test_who_lacks_what_it_takes_stays_outside_and_is_told_why(guarded: Guarded, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess-4711", encoding="utf-8")
    other = make_certificates(tmp_path / "other")
    attempts = {
        guarded.signed_in(sasl__password__file=wrong): "uthentication failed",
        guarded.signed_in(who="scram", mechanism="SCRAM-SHA-512", sasl__password__file=wrong): "uthentication failed",
        guarded.signed_in(who="stranger", mechanism="SCRAM-SHA-256"): "uthentication failed",
        guarded.signed_in(ssl__ca__location=other.trust): "certificate verify failed",
        guarded.signed_in(security__protocol="sasl_plaintext"): "check that the brokers",
        guarded.url("", "CERTIFICATES", security__protocol="ssl"): "check that the brokers",
        guarded.certified(other._replace(trust=guarded.certificates.trust)): "check that the brokers",
    }
    with ThreadPoolExecutor(len(attempts)) as pool:
        said = list(pool.map(_said_to, attempts))
    for refusal, reason in zip(said, attempts.values(), strict=True):
        assert isinstance(refusal, UnavailableError)
        assert reason in str(refusal)
        assert "guess" not in str(refusal)


def _said_to(url: str) -> HeadraceError:
    with pytest.raises(HeadraceError) as refusal:
        KafkaLog.open(url)
    return refusal.value


def test_everybody_may_do_what_they_are_for_and_no_more(guarded: Guarded, plain: Cluster) -> None:
    topic = plain.name()
    for who in RIGHTS:
        for command in rights_command(plain.bootstrap, topic, who, f"User:{who}"):
            plain.obey(command)
    with KafkaLog.create(guarded.signed_in(topic, who="creator"), 2) as log:
        opened(log)
    with KafkaLog.open(guarded.signed_in(topic, who="writer")) as log:
        assert log.append([record(1, b"written")]) == [(1, 1)]
        with pytest.raises(UnavailableError, match="check its credentials and ACLs"):
            log.append([closing(0), closing(1)])
        assert log.describe().ends == (1, 2)
    with KafkaLog.open(guarded.signed_in(topic, who="reader")) as log:
        assert log.wait({1: 1}, PATIENCE_SECONDS) == {1}
        assert log.read(1, 1, 9)[0].value == b"written"
        with pytest.raises(UnavailableError, match="check its credentials and ACLs"):
            log.append([record(1, b"not mine to write")])
    with pytest.raises((UnavailableError, NotFoundError), match=r"ACLs|no such log"):
        KafkaLog.open(guarded.signed_in(topic, who="nobody"))
    with KafkaLog.open(guarded.signed_in(topic, who="creator")) as log:
        log.append([closing(0), closing(1)])
        assert log.describe().ends == (2, 3)


@pytest.fixture
def site(plain: Cluster, postgres_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """A log on that broker, which the test itself reaches by the plain door."""
    with Site(plain.bootstrap, postgres_dsn, tmp_path) as found:
        yield migrated(found)


def check_worker(behind: Elsewhere) -> None:
    """A worker folds, publishes, keeps its journal, and ends."""
    keys = behind.site.proposals(2)
    with WorkerProcess(behind) as worker:
        behind.site.wait_folded()
        until(lambda: len(behind.site.ask("SELECT FROM delivery_journal")) == len(keys))
        worker.wait_ready()
        assert worker.stop() == 0
    assert behind.site.check_verdicts() == 0


def test_a_worker_has_the_rights_that_are_printed_and_needs_no_more(
    guarded: Guarded, plain: Cluster, site: Site
) -> None:
    verdicts = verdict_topic.topic_name(site.topic)
    words = create_command(
        plain.bootstrap, verdicts, verdict_topic.topic_settings(1), partitions=PARTITIONS, replication=1
    )
    settings = dict(word.split("=", 1) for word in words[words.index("--config") :] if "=" in word)
    plain.make(verdicts, PARTITIONS, settings)
    for command in (
        *rights_command(plain.bootstrap, site.topic, "reader", "User:worker"),
        *worker_rights_command(plain.bootstrap, verdicts, "User:worker"),
    ):
        plain.obey(command)
    check_worker(Elsewhere(site, guarded.signed_in(site.topic, who="worker")))


def test_a_worker_without_rights_on_the_verdicts_says_so(guarded: Guarded, plain: Cluster, site: Site) -> None:
    for command in rights_command(plain.bootstrap, site.topic, "reader", "User:worker"):
        plain.obey(command)
    with WorkerProcess(Elsewhere(site, guarded.signed_in(site.topic, who="worker"))) as worker:
        assert worker.ended() == UNAVAILABLE
    said = worker.log.read_text()
    assert verdict_topic.topic_name(site.topic) in said
    assert "check its credentials and ACLs" in said


@pytest.mark.parametrize("mechanism", _SCRAM)
def test_a_worker_with_a_password_that_never_travels(guarded: Guarded, site: Site, mechanism: str) -> None:
    check_worker(Elsewhere(site, guarded.signed_in(site.topic, who="scram", mechanism=mechanism)))


def test_a_worker_with_a_certificate(guarded: Guarded, site: Site) -> None:
    check_worker(Elsewhere(site, guarded.certified(guarded.certificates, site.topic)))
