"""What a process says of its syncs, by provider: figures for Prometheus. No label names anybody's account."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import HeadraceError, UnavailableError
from headrace.producers.schedule import SourceKey
from headrace.producers.sync import OvertakenError, Synced

Ended = Literal["done", "failed", "refused", "overtaken"]
"""``failed``: it is tried again soon. ``refused``: somebody must mend something. ``overtaken``: somebody else syncs."""


class SyncFigures(Collector):
    """Of the sources that one process syncs. ``clock`` gives epoch seconds. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        self._guard: Final = threading.Lock()
        self._providers: dict[SourceKey, str] = {}
        self._complete: dict[SourceKey, float] = {}
        self._running: Final[Counter[str]] = Counter()
        self._ended: Final[Counter[tuple[str, Ended]]] = Counter()

    def keep(self, providers: Mapping[SourceKey, str], fresh: Mapping[SourceKey, int]) -> None:
        """These are the sources, each with its provider. ``fresh`` is up to when some are complete, in epoch
        milliseconds; the others have been behind for as long as they have been here."""
        now = self._clock()
        with self._guard:
            self._providers = dict(providers)
            since = {key: self._complete.get(key, now) for key in providers}
            self._complete = since | {key: fresh[key] / 1_000 for key in providers if key in fresh}

    def begun(self, provider: str) -> None:
        """A sync runs."""
        with self._guard:
            self._running[provider] += 1

    def ended(self, provider: str, how: Synced | HeadraceError) -> None:
        """It is over."""
        with self._guard:
            self._running[provider] -= 1
            self._ended[provider, _ended(how)] += 1

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        now = self._clock()
        with self._guard:
            providers, complete = self._providers, self._complete
            running, ended = dict(self._running), dict(self._ended)
        sources, lags = Counter(providers.values()), dict[str, float]()
        for key, provider in providers.items():
            lags[provider] = max(lags.get(provider, 0.0), now - complete[key])
        yield _gauge("headrace_sources", "Sources that this process syncs.", sources)
        told = "Seconds since the time up to which a source is complete, of the one that is furthest behind."
        yield _gauge("headrace_sources_lag_seconds", told, lags)
        yield _gauge("headrace_syncs_running", "Syncs under way.", running)
        counted = CounterMetricFamily("headrace_syncs", "Syncs that are over.", labels=["provider", "outcome"])
        for (provider, outcome), count in sorted(ended.items()):
            counted.add_metric([provider, outcome], count)
        yield counted


def _ended(how: Synced | HeadraceError) -> Ended:
    if isinstance(how, OvertakenError):
        return "overtaken"
    if isinstance(how, UnavailableError):
        return "failed"
    return "refused" if isinstance(how, HeadraceError) else "done"


def _gauge(name: str, told: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, told, labels=["provider"])
    for provider, value in sorted(values.items()):
        family.add_metric([provider], value)
    return family
