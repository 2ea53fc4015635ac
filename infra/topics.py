"""The topics of a headrace and who may do what with them, for those who make such things with tools of their own.

``python -m infra.topics --bootstrap-server HOST:PORT`` prints the commands of Apache Kafka's own tools. headrace makes
its topics by itself where it may (``KafkaLog.create``), and checks them on every start either way.
"""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from headrace.log.kafka_reader import GROUP
from headrace.log.kafka_topic import topic_settings
from headrace.producers.opening import DEFAULT_PARTITIONS

EVENTS: Final = "headrace.events"
"""The log."""
RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    "reader": ("Read", "Describe", "DescribeConfigs"),
    "writer": ("Read", "Write", "Describe", "DescribeConfigs"),
    "creator": ("Read", "Write", "Describe", "DescribeConfigs", "Create", "AlterConfigs"),
}
"""What each needs on the topic: who folds or answers queries, who appends, and who makes, closes or moves a log."""


def create_command(server: str, topic: str, *, partitions: int, replication: int, min_insync: int) -> list[str]:
    """What makes the log's topic."""
    command = ["kafka-topics.sh", "--bootstrap-server", server, "--create", "--topic", topic]
    command += ["--partitions", str(partitions), "--replication-factor", str(replication)]
    for name, value in topic_settings(min_insync).items():
        command += ["--config", f"{name}={value}"]
    return command


def rights_command(server: str, topic: str, who: str, principal: str) -> list[list[str]]:
    """What lets a principal (``User:name``) be a ``reader``, ``writer`` or ``creator`` of the log, and no more."""
    allow = ["kafka-acls.sh", "--bootstrap-server", server, "--add", "--allow-principal", principal]
    operations = [word for operation in RIGHTS[who] for word in ("--operation", operation)]
    return [[*allow, *operations, "--topic", topic], [*allow, "--operation", "Describe", "--group", GROUP]]


def main() -> None:
    """Print the commands."""
    parser = argparse.ArgumentParser(prog="python -m infra.topics", description=__doc__)
    parser.add_argument("--bootstrap-server", default="127.0.0.1:9092")
    parser.add_argument("--topic", default=EVENTS)
    parser.add_argument("--partitions", type=int, default=DEFAULT_PARTITIONS, help="fixed for ever (%(default)s)")
    parser.add_argument("--replication-factor", type=int, default=3, help="(%(default)s)")
    options = parser.parse_args()
    server, copies = options.bootstrap_server, options.replication_factor
    commands = [
        create_command(
            server, options.topic, partitions=options.partitions, replication=copies, min_insync=max(1, copies - 1)
        )
    ]
    for who in RIGHTS:
        commands += rights_command(server, options.topic, who, f"User:headrace-{who}")
    print("\n".join(shlex.join(command) for command in commands))


if __name__ == "__main__":
    main()
