"""The embedded store under kill -9 and SIGSTOP, at random and at every named point of a write."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.chaos.processes import headrace
from tests.chaos.run import Report, Run
from tests.chaos.stages import Embedded, patiently
from tests.chaos.stand_in import EMBEDDED, command
from tests.chaos.tenants import logins

CLIENTS = 6
Passed = Callable[[Report], Report]


def test_killed_and_stopped_at_random(tmp_path: Path, seed: int, faults: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with Embedded(tmp_path / "store", who) as stage:
        run = Run(stage, who, seed, tmp_path / "history")
        run.storm(faults)
        report = passed(run.end())
    assert sum(report.faults.values()) == faults


def test_killed_at_every_named_point(tmp_path: Path, seed: int, passed: Passed) -> None:
    who, chance = logins(CLIENTS), random.Random(seed)
    with Embedded(tmp_path / "store", who) as stage:
        run = Run(stage, who, seed, tmp_path / "history")
        for point in chance.sample(EMBEDDED, len(EMBEDDED)):
            stage.becomes(command(f"kill@{point}:{chance.randint(15, 40)}", *stage.words))
            run.until(lambda: not stage.api.child.running)
            run.struck[f"killed at {point}"] += 1
        patiently(lambda: stage.becomes(headrace(*stage.words)))
        report = passed(run.end())
    assert len(report.faults) == len(EMBEDDED)
