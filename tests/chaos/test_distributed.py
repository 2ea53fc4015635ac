"""The distributed product under a little of everything, on one broker: the short form of ``make chaos``."""

from collections.abc import Callable
from pathlib import Path

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins

CLIENTS = 6
Passed = Callable[[Report], Report]


def test_everything_fails_at_random(chaos_directory: Path, seed: int, faults: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        run.storm(faults)
        report = passed(run.end())
    assert sum(report.faults.values()) == faults
