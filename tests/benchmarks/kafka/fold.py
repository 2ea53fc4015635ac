"""headrace's own way from the topic to the tables, as far as its first argument says; a process of its own.

``consume``   records, as the fold takes them
``decode``    … and decoded: chain, envelope, body, identities
``fold``      … and folded, the entities kept in a dictionary: no database
``write``     … and written to PostgreSQL: a batch after the other, nothing overlaps
``group``     the worker's own fold (:class:`headrace.processors.group_fold.GroupFold`), with the group it joins: a
              batch is folded while another is committed
``share``     the same, as one of several until its input ends; says which partitions it has whenever that changes

Arguments: mode, address of the log, address of the database, schema, events, events to warm up with, batch size.
"""

import copy
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble
from headrace.log.kafka_reader import consumer_settings, stored
from headrace.log.port import Stored
from headrace.processors import interpreter
from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.model import EntityRow
from headrace.processors.decode import Decoder
from headrace.processors.engine import Engine
from headrace.processors.group_fold import GroupFold
from headrace.projections.port import Publish, Wants
from headrace.projections.postgres import PostgresTables
from headrace.schemas.refs import EntityRef

_PATIENCE_SECONDS = 3_600.0


class _Nowhere:
    """Tables that keep entities and proposals in memory and nothing else."""

    def __init__(self) -> None:
        self._entities: dict[EntityRef, EntityRow] = {}
        self._proposals: dict[Any, Any] = {}
        self._known: dict[tuple[int, int], Any] = {}

    def resume(self, partition: int) -> PartitionRow | None:
        return None

    def load(self, memory: Memory, wants: Wants) -> None:
        for ref in wants.entities & self._entities.keys():
            memory.entities[ref] = copy.copy(self._entities[ref])
        for key in wants.proposals & self._proposals.keys():
            memory.proposals[key] = copy.copy(self._proposals[key])
        for offset in wants.known:
            memory.known[offset] = self._known[memory.partition.partition, offset]

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        self._entities |= memory.changed_entities
        self._proposals |= memory.changed_proposals
        for offset in range(memory.first_offset, memory.partition.next_offset):
            self._known[memory.partition.partition, offset] = memory.known_at(offset)

    def snapshot(self) -> Any:
        raise NotImplementedError("nobody asks")


class Run:
    """One run over one log."""

    def __init__(self, url: str, dsn: str, schema: str, *, count: int, warm: int, batch: int) -> None:
        self.address = KafkaAddress.parse(url)
        self.dsn, self.schema, self.batch = dsn, schema, batch
        self.log = KafkaLog.open(url, writer=False)
        self.ends = self.log.describe().ends
        self.count, self.warm, self.seen, self.begun = min(count, sum(self.ends)), warm, 0, 0.0
        self.registry, self.kinds = installed_schemas(), installed_kinds()

    def tick(self, events: int) -> None:
        """So many more are done."""
        if self.seen < self.warm <= self.seen + events:
            self.warm, self.begun = self.seen + events, time.perf_counter()
        self.seen += events

    def tell(self) -> None:
        """Say how it went."""
        spent = time.perf_counter() - self.begun
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"events": self.seen - self.warm, "seconds": spent, "megabytes": megabytes}), flush=True)

    def batches(self) -> Iterator[tuple[int, list[Stored]]]:
        """Batches of one partition each, until there were enough records."""
        consumer = Consumer(consumer_settings(self.address, Trouble()))
        consumer.assign([TopicPartition(self.address.topic, one, 0) for one in range(len(self.ends))])
        left = self.count
        while left > 0:
            arrived: dict[int, list[Stored]] = {}
            for message in consumer.consume(min(left, 4 * self.batch), 0.5):
                assert message.error() is None, message.error()
                record = stored(message)
                arrived.setdefault(record.partition, []).append(record)
            for partition, records in arrived.items():
                left -= len(records)
                for start in range(0, len(records), self.batch):
                    yield partition, records[start : start + self.batch]
        consumer.close()

    def consume(self) -> None:
        for _, records in self.batches():
            self.tick(len(records))

    def decode(self) -> None:
        decoders = [Decoder(self.registry, one, len(self.ends), bytes(32)) for one in range(len(self.ends))]
        for partition, records in self.batches():
            for record in records:
                decoders[partition].decode(record)
            self.tick(len(records))

    def fold(self) -> None:
        self._write(Engine(self.registry, self.kinds, _Nowhere()))

    def write(self) -> None:
        with PostgresTables(self.dsn, self.registry, self.kinds, schema=self.schema) as tables:
            self._write(Engine(self.registry, self.kinds, tables))

    def _write(self, engine: Engine) -> None:
        for partition in range(len(self.ends)):
            engine.resume(self.log, partition)
        for partition, records in self.batches():
            engine.apply(partition, records)
            self.tick(len(records))

    def group(self) -> None:
        with PostgresTables(self.dsn, self.registry, self.kinds, schema=self.schema) as tables:
            engine = Engine(self.registry, self.kinds, tables, publish=self._told)
            fold = GroupFold(self.address, self.log, engine, group=f"bench-{self.schema}", batch=self.batch)
            fold.start()
            for partition, end in enumerate(self.ends):
                fold.applied.wait(partition, end - 1, _PATIENCE_SECONDS)
            self.tell()
            fold.stop()

    def share(self) -> None:
        with PostgresTables(self.dsn, self.registry, self.kinds, schema=self.schema) as tables:
            engine = Engine(self.registry, self.kinds, tables)
            fold = GroupFold(self.address, self.log, engine, group=f"bench-{self.schema}", batch=self.batch)
            with fold.listening(lambda: print(json.dumps({"partitions": sorted(fold.folded)}), flush=True)):
                fold.start()
                sys.stdin.read()
                fold.stop()

    def _told(self, memory: Memory) -> Callable[[], None]:
        return lambda: self.tick(len(memory.marks))


def main() -> None:
    """Run and tell."""
    mode, url, dsn, schema = sys.argv[1:5]
    count, warm, batch = map(int, sys.argv[5:8])
    run = Run(url, dsn, schema, count=count, warm=warm, batch=batch)
    interpreter.prepare()
    getattr(run, mode)()
    if mode not in ("group", "share"):
        run.tell()
    run.log.close()


if __name__ == "__main__":
    main()
