"""Catching up: events come in while no worker runs, and go on coming in when one does."""

import threading
import time
from typing import Final

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.processors.engine import Engine
from headrace.processors.group_fold import GroupFold
from headrace.projections.postgres import PostgresTables
from tests.benchmarks.kafka import events
from tests.benchmarks.kafka.place import Place, show
from tests.benchmarks.kafka.throughput import PARTITIONS

_SLICE_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 1_800.0


class _Load:
    """So many facts a second, from a thread."""

    def __init__(self, log: KafkaLog, rate: int, entities: int, first: int) -> None:
        self._log, self._rate, self._entities, self._number = log, rate, entities, first
        self._maker = events.intake(PARTITIONS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        begun, sent = time.monotonic(), 0
        while not self._ended.wait(_SLICE_SECONDS):
            due = int((time.monotonic() - begun) * self._rate) - sent
            numbers = range(self._number + sent, self._number + sent + due)
            self._log.append([events.fact(self._maker, number, self._entities) for number in numbers])
            sent += due


def run(place: Place, seconds: float, rate: int, entities: int) -> None:
    """Measure and print: how long after a downtime of so many seconds nothing is behind any more."""
    backlog = int(seconds * rate)
    topic = f"bench-downtime-{time.time_ns()}"
    log = events.create(place.log_url(topic), PARTITIONS)
    events.fill(log, backlog, entities)
    registry, kinds = installed_schemas(), installed_kinds()
    with place.schema() as schema, PostgresTables(place.dsn, registry, kinds, schema=schema) as tables:
        fold = GroupFold(place.log_url(topic), log, Engine(registry, kinds, tables), group=f"bench-{schema}")
        with _Load(log, rate, entities, backlog):
            begun = time.perf_counter()
            fold.start()
            behind = True
            while behind:
                ends = log.describe().ends
                for partition, end in enumerate(ends):
                    fold.applied.wait(partition, end - 1, _PATIENCE_SECONDS)
                behind = sum(log.describe().ends) - sum(ends) > rate
            spent = time.perf_counter() - begun
        fold.stop()
    log.close()
    lines = [(f"{backlog:,} events behind, {rate:,} more a second: caught up after", spent, "s", None)]
    show(f"Downtime of {seconds:.0f} s under load (the producer runs in the same process)", lines)
