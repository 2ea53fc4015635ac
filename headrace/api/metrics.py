"""Counters for Prometheus, a registry per app. No tenant, account or id is a label."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


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

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. Methods that are not of HTTP count as one, so that nobody can make labels up."""
        known = method if method in {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"} else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)
