"""Notifications acknowledged while the provider's API takes its time, and what a burst of them brings about."""

from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.figures import Figure, percentiles, show
from tests.benchmarks.producers.load import Load, deliver
from tests.benchmarks.producers.mailboxes import push
from tests.benchmarks.producers.process import Part, running


class Size(NamedTuple):
    """How much: mailboxes, seconds that every answer of the provider takes, deliveries over all of them, and to one."""

    accounts: int
    seconds: float
    deliveries: int
    burst: int


def _deliver(server: Part, bodies: list[bytes], path: str | None = None) -> Load:
    """Send these, to the endpoint of notifications unless another is named."""
    return deliver(server.begun["port"], path or server.begun["path"], server.begun["token"], bodies)


def run(directory: Path, size: Size) -> None:
    """Measure and print."""
    with running("tests.benchmarks.producers.server", directory, size.accounts, size.seconds) as server:
        people = [f"person-{number % size.accounts}" for number in range(size.deliveries)]
        bodies = [push(account, 2_000 + number) for number, account in enumerate(people)]
        _deliver(server, bodies[: size.deliveries // 10], "/bare")
        plain = _deliver(server, bodies, "/bare")
        spread, then = _deliver(server, bodies), server.done()
        one = _deliver(server, [push("person-0", 9_000_000 + number) for number in range(size.burst)])
        now = server.done()
    figures: list[Figure] = []
    for name, load in (
        ("the same framework doing nothing", plain),
        ("headrace", spread),
        ("headrace, one account", one),
    ):
        middle, late = percentiles(load.samples)
        figures.append(Figure(f"{name}: acknowledged", load.rate, "a second", load.rate / plain.rate, "that"))
        for label, value, peer in zip(("p50", "p99"), (middle, late), percentiles(plain.samples), strict=True):
            figures.append(Figure(f"{name}: {label}", value, "ms", value / peer, "that"))
    show(
        f"{size.deliveries:,} deliveries for {size.accounts} mailboxes, 32 at once, then {size.burst:,} for one; every"
        f" answer of the provider takes {size.seconds:g} s",
        figures,
    )
    for name, before, after, many in (
        ("all mailboxes", server.begun, then, size.deliveries),
        ("one mailbox", then, now, size.burst),
    ):
        syncs, hints = (after[what] - before[what] for what in ("source.synced", "source.notified"))
        asked = after["asked"] - before["asked"]
        print(f"  {name}: {many:,} deliveries → {hints:,} hints on the log → {syncs:,} syncs → {asked:,} requests")
