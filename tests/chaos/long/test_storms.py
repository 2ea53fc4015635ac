"""Minutes of everything at random, on one broker and on three, with the checker's word after every round."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins

CLIENTS = 8
ROUND_SECONDS = 90.0
Passed = Callable[[Report], Report]


@pytest.mark.parametrize("brokers", [1, 3])
def test_everything_fails_at_random(
    brokers: int, chaos_directory: Path, seed: int, minutes: float, passed: Passed
) -> None:
    who, end = logins(CLIENTS), time.monotonic() + 60 * minutes
    with Distributed(chaos_directory, who, brokers=brokers) as stage:
        while (left := end - time.monotonic()) > 0:
            run = Run(stage, who, seed, chaos_directory / "history")
            faults = [*stage.faults, *([stage.leader_killed()] * 4 if brokers == 3 else [])]
            run.storm(10_000, faults, min(left, ROUND_SECONDS))
            report = passed(run.end())
            struck = sum(report.faults.values())
            assert struck
            assert struck < len(faults) or set(report.faults) == {fault.name for fault in faults}
