"""Notifications acknowledged while the provider's API takes its time, and what a burst of them brings about."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.benchmarks.figures import Figure, percentiles, show
from tests.benchmarks.producers.load import Load, deliver
from tests.benchmarks.producers.mailboxes import push

_ROOT: Final = Path(__file__).resolve().parents[3]


class Size(NamedTuple):
    """How much: mailboxes, seconds that every answer of the provider takes, deliveries over all of them, and to one."""

    accounts: int
    seconds: float
    deliveries: int
    burst: int


class _Server:
    """A process of :mod:`tests.benchmarks.producers.server`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process: Final = process
        self.begun: Final = self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self._process.wait()}: what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found

    def done(self) -> dict[str, Any]:
        """What it has done, once nothing waits."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._heard()

    def deliver(self, bodies: list[bytes], path: str | None = None) -> Load:
        """Send these, to the endpoint of notifications unless another is named."""
        return deliver(self.begun["port"], path or self.begun["path"], self.begun["token"], bodies)


@contextmanager
def _serving(directory: Path, size: Size) -> Generator[_Server, None, None]:
    module = "tests.benchmarks.producers.server"
    command = [sys.executable, "-m", module, str(directory), str(size.accounts), str(size.seconds)]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ) as process:
        try:
            yield _Server(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def run(directory: Path, size: Size) -> None:
    """Measure and print."""
    with _serving(directory, size) as server:
        people = [f"person-{number % size.accounts}" for number in range(size.deliveries)]
        bodies = [push(account, 2_000 + number) for number, account in enumerate(people)]
        server.deliver(bodies[: size.deliveries // 10], "/bare")
        plain = server.deliver(bodies, "/bare")
        spread, then = server.deliver(bodies), server.done()
        one = server.deliver([push("person-0", 9_000_000 + number) for number in range(size.burst)])
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
