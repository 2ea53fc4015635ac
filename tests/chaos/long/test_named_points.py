"""Workers and API processes that die at every named point of their work, among others that go on."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.stand_in import APIS, WORKERS
from tests.chaos.tenants import logins

CLIENTS = 6
Passed = Callable[[Report], Report]


def test_a_worker_dies_at_every_named_point(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who, chance = logins(CLIENTS), random.Random(seed)
    with Distributed(chaos_directory, who, apis=1, workers=1) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        for point in chance.sample(WORKERS, len(WORKERS)):
            # A worker sees where the tables are once when it starts, and once for every partition that it is given.
            nth = chance.randint(1, 3) if point == "resume.after" else chance.randint(1, 12)
            trapped = stage.worker(f"dies-{point}", f"kill@{point}:{nth}")
            trapped.start()
            run.until(trapped.has_ended)
            run.struck[f"worker killed at {point}"] += 1
        report = passed(run.end())
    assert len(report.faults) == len(WORKERS)


def test_an_api_process_dies_at_every_named_point(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who, chance = logins(CLIENTS), random.Random(seed)
    with Distributed(chaos_directory, who, apis=1, workers=1) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        for point in chance.sample(APIS, len(APIS)):
            trapped = stage.api(f"dies-{point}", f"kill@{point}:{chance.randint(5, 40)}")
            trapped.start()
            stage.apis.append(trapped)
            run.until(trapped.has_ended)
            stage.apis.remove(trapped)
            run.struck[f"API killed at {point}"] += 1
        report = passed(run.end())
    assert len(report.faults) == len(APIS)
