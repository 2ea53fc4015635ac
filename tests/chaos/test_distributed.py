"""The distributed product under a little of everything, on one broker: the short form of ``make chaos``."""

from collections.abc import Callable
from pathlib import Path

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins

CLIENTS = 6
Passed = Callable[[Report], Report]


def test_everything_fails_at_random(chaos_directory: Path, seed: int, faults: int, passed: Passed) -> None:
    """A process of each kind is killed, then whatever the seed says, as far as ``faults`` go."""
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        kills = {fault.name: fault for fault in stage.faults if fault.name.startswith("kill -9")}
        run.storm(len(kills), list(kills.values()))
        run.storm(faults - len(kills))
        report = passed(run.end())
    assert set(kills) == {f"kill -9 of {what}" for what in ("API", "worker", "a broker", "PostgreSQL")}
    assert set(kills) <= set(report.faults)
    assert sum(report.faults.values()) == max(faults, len(kills))
