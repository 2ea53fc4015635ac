"""Catching up: events come in while no worker runs, and go on coming in when one does."""

import threading
import time
from typing import Final

from headrace.log.kafka import KafkaLog
from tests.benchmarks.kafka import events
from tests.benchmarks.kafka.place import Place, show
from tests.benchmarks.kafka.product import command, environment, folded, started
from tests.benchmarks.kafka.throughput import PARTITIONS

_SLICE_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 0.05
_BEHIND_SECONDS: Final = 0.25
"""Nothing counts as behind when less is left than came in so long."""


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
    """Measure and print: how long after a downtime of so many seconds nothing is behind any more, from the moment that
    ``headrace worker`` is started."""
    backlog = int(seconds * rate)
    topic = f"bench-downtime-{time.time_ns()}"
    log = events.create(place.log_url(topic), PARTITIONS)
    events.fill(log, backlog, entities)
    with place.schema() as schema:
        settings = environment(place, topic, schema)
        command(settings, "migrate")
        with folded(place, schema) as look, _Load(log, rate, entities, backlog):
            begun = time.perf_counter()
            with started(settings, "worker"):
                while sum(log.describe().ends) - look() > rate * _BEHIND_SECONDS:
                    time.sleep(_LOOK_SECONDS)
                spent = time.perf_counter() - begun
    log.close()
    lines = [(f"{backlog:,} events behind, {rate:,} more a second: caught up after", spent, "s", None)]
    show(f"Downtime of {seconds:.0f} s under load, the start of the worker included", lines)
