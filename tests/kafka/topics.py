"""Topics for tests of the Kafka log, and what a stranger does to them."""

import argparse
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from confluent_kafka.cimpl import NewPartitions, NewTopic

from headrace.errors import AppendUnknownError
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, Record
from headrace.schemas.refs import Position
from tests.contract.log_conformance import opening

_SECONDS = 20


class Cluster:
    """A cluster and one's means to disturb it. ``options`` are those of the logs' addresses."""

    def __init__(self, bootstrap: str, options: str = "replication.factor=1") -> None:
        self.bootstrap = bootstrap
        self._options = options
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def url(self, topic: str | None = None, more: str = "") -> str:
        """The address of a log; without a name, of one that nobody has."""
        return f"kafka://{self.bootstrap}/{topic or self.name()}?{self._options}{more}"

    @staticmethod
    def name() -> str:
        """A name that nobody has."""
        return f"log-{secrets.token_hex(6)}"

    def make(self, topic: str, partitions: int = 2, settings: Mapping[str, str] | None = None) -> None:
        """A topic with settings of its own; those a log wants where none are named."""
        wanted = {
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "message.timestamp.type": "LogAppendTime",
            "unclean.leader.election.enable": "false",
            **(settings or {}),
        }
        new = NewTopic(topic, partitions, replication_factor=1, config=wanted)
        self._admin.create_topics([new])[topic].result(_SECONDS)
        until(lambda: self._partitions(topic) == partitions)

    def configure(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource])[resource].result(_SECONDS)
        until(lambda: settings.items() <= self.settings(topic).items())

    def settings(self, topic: str) -> dict[str, str]:
        """A topic's settings."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        found: Any = self._admin.describe_configs([resource])[resource].result(_SECONDS)
        return {name: entry.value for name, entry in found.items()}

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        self._admin.delete_topics([topic])[topic].result(_SECONDS)
        until(lambda: self._partitions(topic) == 0)

    def topics(self) -> set[str]:
        """Every topic that there is."""
        return set(self._admin.list_topics(timeout=_SECONDS).topics)

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""
        self._admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(_SECONDS)
        until(lambda: self._partitions(topic) == partitions)

    def cut_front(self, topic: str, partition: int, before: int) -> None:
        """Delete a partition's records before an offset."""
        place = TopicPartition(topic, partition, before)
        self._admin.delete_records([place])[place].result(_SECONDS)

    def obey(self, command: Sequence[str]) -> None:
        """Do what a ``kafka-acls.sh --add`` says."""
        words = argparse.ArgumentParser()
        words.add_argument("program", choices=["kafka-acls.sh"])
        words.add_argument("--bootstrap-server")
        words.add_argument("--add", action="store_true", required=True)
        words.add_argument("--allow-principal", required=True)
        words.add_argument("--operation", action="append", required=True)
        words.add_argument("--topic")
        words.add_argument("--group")
        words.add_argument("--resource-pattern-type", default="literal")
        said = words.parse_args(command)
        kind = ResourceType.TOPIC if said.topic else ResourceType.GROUP
        pattern = ResourcePatternType[said.resource_pattern_type.upper()]
        for operation in said.operation:
            may = AclOperation[snake(operation)], AclPermissionType.ALLOW
            rule = AclBinding(kind, said.topic or said.group, pattern, said.allow_principal, "*", *may)
            self._admin.create_acls([rule])[rule].result(_SECONDS)

    def give_password(self, user: str, mechanism: str, password: str) -> None:
        """Let somebody sign in with ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``."""
        info = ScramCredentialInfo(ScramMechanism[mechanism.replace("-", "_")], 4096)
        wanted = UserScramCredentialUpsertion(user, info, password.encode())
        self._admin.alter_user_scram_credentials([wanted])[user].result(_SECONDS)

    def _partitions(self, topic: str) -> int:
        """How many partitions of a topic a broker knows, and leads."""
        try:
            found = self._admin.describe_topics(TopicCollection([topic]))[topic].result(_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            return 0
        return sum(one.leader is not None for one in found.partitions)

    def put(self, topic: str, partition: int, values: Sequence[bytes | None], *, transaction: bool = False) -> None:
        """Append as somebody who knows nothing of logs."""
        more = {"transactional.id": secrets.token_hex(4)} if transaction else {}
        with closing(Producer({"bootstrap.servers": self.bootstrap, "log_level": 0, **more})) as producer:
            if transaction:
                producer.init_transactions(_SECONDS)
                producer.begin_transaction()
            for value in values:
                producer.produce(topic, value, partition=partition)
            assert producer.flush(_SECONDS) == 0
            if transaction:
                producer.commit_transaction(_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    """Ask until it is so: brokers learn of a change a moment after it was answered."""
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the brokers do not learn of it"


def snake(operation: str) -> str:
    """``AlterConfigs`` as ``ALTER_CONFIGS``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).upper()


def opened(log: KafkaLog) -> KafkaLog:
    """The log with every partition opened."""
    log.append([opening(partition) for partition in range(log.describe().partitions)])
    return log


def value_at(log: Log, partition: int, offset: int) -> bytes:
    """What a record holds."""
    return log.read(partition, offset, 1)[0].value


def record(partition: int, value: bytes) -> Record:
    """An ordinary record."""
    return Record(partition, b"tenant/account", (("ce_type", b"mail.received"),), value)


def retried(log: KafkaLog, records: Sequence[Record]) -> list[Position]:
    """Append, the same records again until it is known that they are there."""
    while True:
        try:
            return log.append(records)
        except AppendUnknownError:
            continue
