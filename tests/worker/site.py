"""One log, its tables, those who write the one and those who fold it into the other."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg import sql

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.log.port import Headers, Record
from headrace.processors import verdict_topic
from headrace.processors.core.kind import Kind
from headrace.processors.engine import Engine
from headrace.processors.group_fold import GroupFold
from headrace.producers.event import NewEvent
from headrace.projections.port import Publish, Tables
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.registry import Registry
from tests.contract.rich_history import ANN, TENANT, Author, mail
from tests.postgres.both import Contents, contents, fold_by

REGISTRY: Final = installed_schemas()
KINDS: Final = installed_kinds()
PARTITIONS: Final = 4
PATIENCE: Final = 90.0
"""Seconds that something that must happen may take; nothing waits this long when it works."""
_OBSERVED: Final = "2026-11-21T17:15:00.000Z"


class Message:
    """A message of the verdicts' topic."""

    def __init__(self, key: bytes, headers: Headers, value: bytes) -> None:
        self.key, self.headers, self.value = key, headers, value


class Site:
    """``kafka`` and ``postgres`` are those that run; what is made on them here is gone at the end, or nobody else's.
    ``topic`` is a log that is there; without it a new one is made."""

    def __init__(self, kafka: str, postgres: str, directory: Path, topic: str | None = None) -> None:
        self._stack = ExitStack()
        self.directory = directory
        self.kafka, self.postgres = kafka, postgres
        self.schema = f"w_{secrets.token_hex(6)}"
        self.topic = topic or f"{self.schema}.events"
        self.group = f"headrace-fold.{self.schema}"
        self.url = f"kafka://{kafka}/{self.topic}?replication.factor=1"
        self.log = self._stack.enter_context(
            KafkaLog.create(self.url, PARTITIONS) if topic is None else KafkaLog.open(self.url)
        )
        self.authors = [self.author(partition) for partition in range(PARTITIONS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))

    def author(self, partition: int) -> Author:
        """Somebody whose account is on a partition."""
        return next(
            one for one in (Author(self.log, f"a-{number}") for number in range(200)) if one.partition == partition
        )

    # -- the log

    def facts(self, count: int, *, seed: str = "f", each: int = 200) -> None:
        """Append messages to threads, ``count`` on every partition, ``each`` at a time."""
        for start in range(0, count, each):
            self.log.append(
                [
                    message_to(author, f"{seed}-{number}", number)
                    for author in self.authors
                    for number in range(start, min(count, start + each))
                ]
            )

    def proposals(self, count: int, *, seed: str = "p") -> list[tuple[str, str, str]]:
        """Append a thread and a proposal on it, ``count`` on every partition; their keys."""
        keys = []
        for author in self.authors:
            for number in range(count):
                thread = f"{seed}-{number}"
                head = author.fact("mail.received", thread, f"{seed}m-{number}", mail(number))
                subject = f"mail.thread/{thread}"
                author.propose(f"{seed}-{number}", "mail.archive", subject, [author.entity(subject, head)], {})
                keys.append((TENANT, author.account, f"{seed}-{number}"))
        return keys

    def ends(self) -> dict[int, int]:
        """Where the log ends now."""
        return dict(enumerate(self.log.describe().ends))

    # -- the tables

    def tables(
        self, postgres: str | None = None, kinds: Mapping[str, Kind] = KINDS, *, patience: float = 5.0
    ) -> PostgresTables:
        """The tables; made if they are not there."""
        found = PostgresTables(postgres or self.postgres, REGISTRY, kinds, schema=self.schema, patience=patience)
        return self._stack.enter_context(found)

    def ask(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on the site's tables, on a connection of its own."""
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []

    def folded(self) -> dict[int, int]:
        """How far the tables are."""
        return {p: int(offset) for p, offset in self.ask('SELECT "partition", next_offset FROM partitions')}

    def wait_folded(self, ends: Mapping[int, int] | None = None, seconds: float = PATIENCE) -> None:
        """Return once the tables hold everything that is in the log now."""
        wanted = ends or self.ends()
        until(lambda: all(self.folded().get(p, 0) >= end for p, end in wanted.items()), seconds)

    def expected(self) -> Contents:
        """What one embedded fold makes of the same log."""
        with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
            for partition in range(PARTITIONS):
                fold_by(Engine(REGISTRY, KINDS, tables), self.log, partition, (1_000,))
            return contents(tables, KINDS)

    def check_tables(self) -> None:
        """The tables are what one embedded fold makes of the same log: every record was folded once."""
        expected, found = self.expected(), contents(self.tables(), KINDS)
        assert sum(map(len, expected.values())) > PARTITIONS
        for table, rows in expected.items():
            assert found[table] == rows, table

    # -- who folds

    def fold(
        self,
        tables: Tables | None = None,
        *,
        registry: Registry = REGISTRY,
        kinds: Mapping[str, Kind] = KINDS,
        schemas: Callable[[], Registry] | None = None,
        publish: Publish | None = None,
        batch: int = 100,
        group: str | None = None,
    ) -> GroupFold:
        """A worker's fold in this process, stopped at the test's end. Not started."""
        engine = Engine(registry, kinds, tables or self.tables(), schemas=schemas, publish=publish)
        log = self._stack.enter_context(KafkaLog.open(self.url, writer=False))
        fold = GroupFold(self.url, log, engine, group=group or self.group, batch=batch)
        self._stack.callback(fold.stop)
        return fold

    # -- the verdicts' topic

    def verdict_messages(self) -> list[Message]:
        """Everything in the verdicts' topic."""
        topic = verdict_topic.topic_name(self.topic)
        settings: dict[str, Any] = {"bootstrap.servers": self.kafka, "group.id": "nobody", "log_level": 0}
        found: list[Message] = []
        with closing(Consumer(settings)) as consumer:
            for partition in range(PARTITIONS):
                place = TopicPartition(topic, partition)
                first, end = consumer.get_watermark_offsets(place, timeout=10)
                consumer.assign([TopicPartition(topic, partition, first)])
                while first < end:
                    for message in consumer.consume(min(1_000, end - first), timeout=10):
                        assert message.error() is None
                        key, headers, value = message.key(), message.headers(), message.value()
                        assert isinstance(key, bytes)
                        assert isinstance(value, bytes)
                        found.append(Message(key, tuple(headers or ()), value))  # type: ignore[arg-type]
                        first += 1
        return found

    def check_verdicts(self) -> int:
        """Every verdict in the tables is in the topic, none is there that is not, and repetitions are equal to the
        byte. Returns how many repetitions there were."""
        messages = self.verdict_messages()
        expected = {
            (f"{tenant}/{account}/{proposal}".encode(), f"{partition}-{offset}".encode()): text.encode()
            for tenant, account, proposal, partition, offset, text in self.ask(
                'SELECT tenant, account, proposal, "partition", "offset", text FROM verdicts'
            )
        }
        found: dict[tuple[bytes, bytes], tuple[Headers, bytes]] = {}
        for message in messages:
            key = (message.key, dict(message.headers)["ce_id"])
            said = (message.headers, message.value)
            assert found.setdefault(key, said) == said
        assert {key: value for key, (_, value) in found.items()} == expected
        return len(messages) - len(found)


def message_to(author: Author, id_: str, number: int) -> Record:
    """A message to somebody, to be appended."""
    new = NewEvent("mail.received", "mail.thread", f"t-{number % 50}", id_, mail(number), None, _OBSERVED, ())
    return author.intake.event(
        TENANT, author.account, new, source="mailbox/ann", actor=ANN, observed_at=_OBSERVED, sync=None
    )


def until(condition: Callable[[], bool], seconds: float = PATIENCE, pause: float = 0.02) -> None:
    """Ask until it is so: processes and brokers tell nobody here when they are done."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(pause)


def spread(folds: Iterable[GroupFold]) -> list[int]:
    """How many partitions each has."""
    return sorted(len(fold.folded) for fold in folds)
