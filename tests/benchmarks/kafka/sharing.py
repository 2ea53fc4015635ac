"""Growing by adding workers: one, then two folds of theirs, over the same log into the same tables."""

import json
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.benchmarks.kafka.place import ROOT, Place, show
from tests.benchmarks.kafka.product import folded, reached
from tests.benchmarks.kafka.throughput import PARTITIONS, Size, filled

_MODULE: Final = "tests.benchmarks.kafka.fold"


@contextmanager
def _worker(place: Place, topic: str, schema: str, size: Size) -> Generator[subprocess.Popen[str]]:
    arguments = ["share", place.log_url(topic), place.dsn, schema, str(size.total), "0", str(size.batch)]
    command = [sys.executable, "-W", "ignore", "-m", _MODULE, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.communicate()  # the end of its input is the end of its work
    if process.returncode:
        raise RuntimeError(f"a worker ended with {process.returncode}")


def _shared(workers: Sequence[subprocess.Popen[str]]) -> None:
    """Until each says that it has no more than its part."""
    for worker in workers:
        assert worker.stdout is not None
        for line in worker.stdout:
            if len(json.loads(line)["partitions"]) * len(workers) == PARTITIONS:
                break


def _rate(place: Place, topic: str, size: Size, workers: int) -> float:
    """Events a second, from when each has its part to when nothing is left."""
    with place.schema() as schema, folded(place, schema) as seen, ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            return stack.enter_context(_worker(place, topic, schema, size))

        started = [start()]
        _shared(started)  # it has made the tables
        if workers > 1:
            started += [start() for _ in range(workers - 1)]
            _shared(started)
        begun, at = time.perf_counter(), seen()
        return (reached(seen, size.total) - at) / (time.perf_counter() - begun)


def sharing(place: Place, size: Size) -> None:
    """Measure and print."""
    with filled(place, size) as topic:
        one, two = (_rate(place, topic, size, workers) for workers in (1, 2))
    lines = [("the fold of one worker", one, "events/s", None), ("of two workers", two, "events/s", None)]
    show(f"Sharing: {size.total:,} events, {PARTITIONS} partitions; two are {two / one:.2f} x one", lines)
