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
from headrace.processors import group_fold, verdict_topic
from headrace.producers.opening import DEFAULT_PARTITIONS

EVENTS: Final = "headrace.events"
"""The log."""
VERDICTS: Final = verdict_topic.topic_name(EVENTS)
"""What it comes to, as a stream (:mod:`headrace.processors.verdict_topic`). A worker makes it where it may."""
RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    "reader": ("Read", "Describe", "DescribeConfigs"),
    "writer": ("Read", "Write", "Describe", "DescribeConfigs"),
    "creator": ("Read", "Write", "Describe", "DescribeConfigs", "Create", "AlterConfigs"),
}
"""What each needs on the topic: who folds or answers queries, who appends, and who makes, closes or moves a log."""


WORKER_RIGHTS: Final = ("Read", "Write", "Describe", "DescribeConfigs")
"""What a worker needs on the verdicts' topic. To make the topic it needs Create too. On the log a worker that syncs
sources is a writer; one that only folds, which takes no master key, need only be a reader."""
WORKER_GROUPS: Final = (group_fold.GROUP, verdict_topic.GROUP)
"""What the names of the groups begin with that a worker joins."""


def create_command(
    server: str, topic: str, settings: Mapping[str, str], *, partitions: int, replication: int
) -> list[str]:
    """What makes a topic."""
    command = ["kafka-topics.sh", "--bootstrap-server", server, "--create", "--topic", topic]
    command += ["--partitions", str(partitions), "--replication-factor", str(replication)]
    for name, value in settings.items():
        command += ["--config", f"{name}={value}"]
    return command


def rights_command(server: str, topic: str, who: str, principal: str) -> list[list[str]]:
    """What lets a principal (``User:name``) be a ``reader``, ``writer`` or ``creator`` of the log, and no more."""
    allow = ["kafka-acls.sh", "--bootstrap-server", server, "--add", "--allow-principal", principal]
    operations = [word for operation in RIGHTS[who] for word in ("--operation", operation)]
    return [[*allow, *operations, "--topic", topic], [*allow, "--operation", "Describe", "--group", GROUP]]


def worker_rights_command(server: str, topic: str, principal: str) -> list[list[str]]:
    """What a principal needs to be a worker, besides its rights on the log: on the verdicts' topic and in groups."""
    allow = ["kafka-acls.sh", "--bootstrap-server", server, "--add", "--allow-principal", principal]
    operations = [word for operation in WORKER_RIGHTS for word in ("--operation", operation)]
    joins = [
        [*allow, "--operation", "Read", "--group", group, "--resource-pattern-type", "prefixed"]
        for group in WORKER_GROUPS
    ]
    return [[*allow, *operations, "--topic", topic], *joins]


def main() -> None:
    """Print the commands."""
    parser = argparse.ArgumentParser(prog="python -m infra.topics", description=__doc__)
    parser.add_argument("--bootstrap-server", default="127.0.0.1:9092")
    parser.add_argument("--topic", default=EVENTS, help="the log's (%(default)s)")
    parser.add_argument("--partitions", type=int, default=DEFAULT_PARTITIONS, help="fixed for ever (%(default)s)")
    parser.add_argument("--replication-factor", type=int, default=3, help="(%(default)s)")
    options = parser.parse_args()
    server, copies, topic = options.bootstrap_server, options.replication_factor, options.topic
    verdicts, in_sync = verdict_topic.topic_name(topic), max(1, copies - 1)
    commands = [
        create_command(server, name, settings, partitions=options.partitions, replication=copies)
        for name, settings in (
            (topic, topic_settings(in_sync)),
            (verdicts, verdict_topic.topic_settings(in_sync)),
        )
    ]
    for who in RIGHTS:
        commands += rights_command(server, topic, who, f"User:headrace-{who}")
    commands += rights_command(server, topic, "writer", "User:headrace-worker")
    commands += worker_rights_command(server, verdicts, "User:headrace-worker")
    print("\n".join(shlex.join(command) for command in commands))


if __name__ == "__main__":
    main()
