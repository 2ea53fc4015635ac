"""A Kafka log's address: what it may say, and that it never carries or shows a password."""

from pathlib import Path

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.log.kafka_address import KafkaAddress


def test_servers_and_topic() -> None:
    address = KafkaAddress.parse("kafka://a.example:9092,[::1]:9093,10.0.0.1:1/headrace.events")
    assert address.servers == "a.example:9092,[::1]:9093,10.0.0.1:1"
    assert address.topic == "headrace.events"
    assert str(address) == "kafka://a.example:9092,[::1]:9093,10.0.0.1:1/headrace.events"
    assert address.settings() == {"bootstrap.servers": address.servers, "client.id": "headrace"}


def test_what_is_not_said_is_safe() -> None:
    address = KafkaAddress.parse("kafka://a:1/t")
    assert (address.replication, address.min_insync) == (3, 2)
    assert address.delivery_timeout_ms == 30_000


@pytest.mark.parametrize(("copies", "in_sync"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_one_copy_may_be_missing_where_there_are_several(copies: int, in_sync: int) -> None:
    assert KafkaAddress.parse(f"kafka://a:1/t?replication.factor={copies}").min_insync == in_sync


def test_options_reach_the_client_and_the_password_only_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret word\n", encoding="utf-8")
    address = KafkaAddress.parse(
        "kafka://a:1/t?security.protocol=sasl_ssl&sasl.mechanism=SCRAM-SHA-512&sasl.username=h"
        f"&sasl.password.file={secret}&ssl.ca.location=/ca.pem&min.insync.replicas=3&client.id=w-1"
    )
    assert address.min_insync == 3
    settings = address.settings()
    assert settings.pop("sasl.password") == "s3cret word"
    assert settings == {
        "bootstrap.servers": "a:1",
        "client.id": "w-1",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "h",
        "ssl.ca.location": "/ca.pem",
    }
    assert "s3cret" not in f"{address!r} {address}"


def test_a_password_file_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    address = KafkaAddress.parse(
        f"kafka://a:1/t?security.protocol=sasl_ssl&sasl.mechanism=PLAIN&sasl.username=h&sasl.password.file={gone}"
    )
    with pytest.raises(UnavailableError, match=r"sasl\.password\.file .*gone"):
        address.settings()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://a:1/t", "no address of a Kafka log"),
        ("kafka://a:1/t#x", "no address of a Kafka log"),
        ("kafka:///t", "names no brokers"),
        ("kafka://a/t", "names no brokers"),
        ("kafka://a:1,/t", "names no brokers"),
        ("kafka://me:word@a:1/t", "sasl.username"),
        ("kafkas://me:word@a:1/t", "sasl.username"),
        ("kafka://[::1/t", "no address of a Kafka log"),
        ("kafka://a:1", "no name of a topic"),
        ("kafka://a:1/", "no name of a topic"),
        ("kafka://a:1/t/u", "no name of a topic"),
        ("kafka://a:1/..", "no name of a topic"),
        ("kafka://a:1/" + "t" * 250, "no name of a topic"),
        ("kafka://a:1/t?acks=1", "no such option: 'acks'"),
        ("kafka://a:1/t?sasl.password=word", "sasl.password.file"),
        ("kafka://a:1/t?client.id", "name=value"),
        ("kafka://a:1/t?client.id=", "is empty"),
        ("kafka://a:1/t?client.id=a&client.id=b", "there twice"),
        ("kafka://a:1/t?replication.factor=0", "whole number"),
        ("kafka://a:1/t?replication.factor=two", "whole number"),
        ("kafka://a:1/t?replication.factor=²", "whole number"),
        ("kafka://a:1/t?delivery.timeout.ms=99999999", "whole number"),
        ("kafka://a:1/t?replication.factor=1&min.insync.replicas=2", "cannot be met"),
        ("kafka://a:1/t?security.protocol=tls", "must be one of"),
        ("kafka://a:1/t?security.protocol=sasl_ssl&sasl.username=h", "also needs sasl.mechanism, sasl.password.file"),
    ],
)
def test_what_it_may_not_say(url: str, says: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        KafkaAddress.parse(url)
    assert says in str(refusal.value)
    assert "word" not in str(refusal.value).replace("password", "")
