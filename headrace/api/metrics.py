"""Counters for Prometheus, a registry per app. No tenant, account or id is a label."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace.projections.freshness import ProviderFreshness

_FRESHNESS: Final[Mapping[str, str]] = {
    "sources": "Sources that events come from.",
    "never": "Sources that were never synced to the end.",
    "stale": "Sources beyond the policy's bound: what reads or changes what they feed is held.",
    "waiting": "Sources with a hint, and no sync begun since.",
    "lag_seconds": "Seconds since the time up to which the source that is furthest behind is complete.",
}


class Metrics:
    """What the API counts. ``registry`` is open to others in the process."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._requests: Final = Counter(
            "headrace_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds: Final = Histogram(
            "headrace_http_seconds", "Time to answer.", ("method", "route"), registry=self.registry
        )
        self.verdicts: Final = Counter(
            "headrace_verdicts", "Verdicts told to who proposed.", ("verdict",), registry=self.registry
        )
        self.watchers: Final = Gauge("headrace_watchers", "Streams open now.", registry=self.registry)
        self.lag: Final = Gauge("headrace_fold_lag_records", "Records not folded yet.", registry=self.registry)
        self.held: Final = Gauge("headrace_proposals_held", "Proposals held now.", registry=self.registry)
        self._freshness: Final = {
            name: Gauge(f"headrace_freshness_{name}", told, ("provider",), registry=self.registry)
            for name, told in _FRESHNESS.items()
        }

    def fresh(self, found: Iterable[ProviderFreshness], now: int) -> None:
        """How fresh the sources in the tables are at ``now`` (epoch milliseconds). A source's provider is what its name
        begins with."""
        rows = list(found)
        for name, gauge in self._freshness.items():
            gauge.clear()
            for row in rows:
                if name != "lag_seconds":
                    gauge.labels(row.provider).set(getattr(row, name))
                elif row.complete_up_to is not None:
                    gauge.labels(row.provider).set(max(0.0, (now - row.complete_up_to) / 1_000))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. Methods that are not of HTTP count as one, so that nobody can make labels up."""
        known = method if method in {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"} else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)
