"""What a worker says of itself: whether it lives, whether it is ready, and figures for Prometheus.

*Live*: its threads and tasks do what they are for; one that is not should be restarted. *Ready*: what it was given it
folds or has folded; one that is not is waiting for something, or being outrun by nobody.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import HeadraceError
from headrace.processors.companion import Companion
from headrace.processors.group_fold import FoldCounts, GroupFold

LOOK_SECONDS: Final = 2.0
"""How often somebody looks how far the log and the fold are."""
STALE_SECONDS: Final = 10 * LOOK_SECONDS
"""After so long without a look nothing is known any more."""


class WorkerHealth:
    """``counted`` gives what others count: name without ``headrace_worker_`` and meaning, to the number. What runs
    ``beside`` the fold adds its figures, and is asked nothing else: its troubles are no reason to restart a worker."""

    def __init__(
        self,
        fold: GroupFold,
        counted: Mapping[tuple[str, str], Callable[[], int]],
        clock: Callable[[], float] = time.monotonic,
        *,
        beside: Companion | None = None,
    ) -> None:
        self._fold: Final = fold
        self._counted: Final = counted
        self._clock: Final = clock
        self._ends: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._standing: frozenset[int] = frozenset()
        self._looked: float | None = None
        self._check: HeadraceError | None = None
        self._registry: Final = CollectorRegistry()
        self._registry.register(_Figures(self._figures))
        if beside is not None:
            self._registry.register(_Figures(beside.collect))
        ProcessCollector(registry=self._registry)

    def look(self, ends: Sequence[int]) -> None:
        """Take note of where the log's partitions end now: which of ours have moved since the last time?"""
        now = self._fold.folded
        self._standing = frozenset(
            partition
            for partition, place in now.items()
            if place < ends[partition] and place == self._seen.get(partition)
        )
        self._ends, self._seen, self._looked = dict(enumerate(ends)), dict(now), self._clock()

    def checked(self, error: HeadraceError | None) -> None:
        """What the last check of the log came to; ``None``: it is as it must be."""
        self._check = error

    @property
    def lag(self) -> dict[int, int]:
        """Records not folded yet, by partition of ours, as of the last look."""
        return {
            partition: max(0, self._ends.get(partition, place) - place)
            for partition, place in self._fold.folded.items()
        }

    def ailing(self) -> list[str]:
        """Why it should be restarted; empty: it lives."""
        failure = self._fold.failure
        if failure is not None:
            return [f"the fold has stopped: {failure}"]
        return [] if self._fold.running else ["the fold does not run"]

    def unready(self) -> list[str]:
        """Why it is not ready; empty: it is."""
        fold, found = self._fold, self.ailing()
        if not fold.joined:
            found.append("the group has not given it its partitions yet")
        paused = fold.paused
        found += [f"partition {one} is paused: {error}" for one, error in sorted(paused.items())]
        found += [f"partition {one} has stopped: {error}" for one, error in sorted(fold.stopped.items())]
        if self._check is not None:
            found.append(f"the log cannot be checked: {self._check}")
        if self._looked is None or self._clock() - self._looked > STALE_SECONDS:
            found.append("it is not known how far the log is")
        else:
            found += [
                f"partition {one} stands at offset {self._seen[one]}, the log is at {self._ends[one]}"
                for one in sorted(self._standing - paused.keys())
                if fold.folded.get(one) == self._seen[one]
            ]
        return found

    def figures(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _figures(self) -> Iterator[Metric]:
        fold = self._fold
        for name, told in _OF_COUNTS.items():
            yield _counter(name, told, getattr(fold.counts, name))
        for (name, told), count in self._counted.items():
            yield _counter(name, told, count())
        lag = GaugeMetricFamily("headrace_worker_lag_records", "Records not folded yet.", labels=["partition"])
        for partition, records in sorted(self.lag.items()):
            lag.add_metric([str(partition)], records)
        yield lag
        yield _gauge("partitions", "Partitions that this worker was given.", len(fold.folded) + len(fold.stopped))
        yield _gauge("partitions_paused", "Those that wait for something.", len(fold.paused))
        yield _gauge("partitions_stopped", "Those that go no further.", len(fold.stopped))
        yield _gauge("ready", "1 if it is ready.", int(not self.unready()))


_OF_COUNTS: Final[Mapping[str, str]] = {
    "records": "Records folded.",
    "batches": "Transactions that they took.",
    "pauses": "Times that a partition had to wait.",
    "rebalances": "Times that partitions were given or taken.",
}
assert set(_OF_COUNTS) == set(FoldCounts._fields)


def _counter(name: str, told: str, count: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"headrace_worker_{name}", told, value=count)


def _gauge(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"headrace_worker_{name}", told, value=value)


class _Figures(Collector):
    def __init__(self, figures: Callable[[], Iterable[Metric]]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        return self._figures()
