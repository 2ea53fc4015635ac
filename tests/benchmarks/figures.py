"""How the benchmarks measure and print: medians over several runs, and ratios to a peer of the same run."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

RUNS = 5


class Figure(NamedTuple):
    """One measured thing: its rate or latency, in the unit given, median of the runs."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""


def rate(events: int, work: Callable[[], object], *, runs: int = RUNS) -> float:
    """Events a second, median of ``runs``."""
    return statistics.median(events / seconds(work) for _ in range(runs))


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def percentiles(samples: Iterable[float]) -> tuple[float, float]:
    """p50 and p99 of samples in seconds, in milliseconds."""
    cuts = statistics.quantiles([sample * 1000 for sample in samples], n=100, method="inclusive")
    return cuts[49], cuts[98]


def show(title: str, figures: Iterable[Figure]) -> None:
    """Print one table."""
    print(f"\n{title}")
    for figure in figures:
        ratio = f"{figure.ratio:7.2f} x {figure.against}" if figure.ratio is not None else ""
        print(f"  {figure.name:<52}{figure.value:>12,.1f} {figure.unit:<10}{ratio}")
