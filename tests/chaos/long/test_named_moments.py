"""What a worker stands on dies while it is in the middle of a batch, and an API process stands still in the middle of
an append: at every named point."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.stand_in import APIS
from tests.chaos.tenants import logins

CLIENTS = 6
POINTS = ("load.after", "publish.after", "commit.before", "end.before", "announce.before")
Passed = Callable[[Report], Report]


@pytest.mark.parametrize("part", ["PostgreSQL", "a broker"])
def test_what_a_worker_stands_on_dies_at_every_named_point(
    part: str, chaos_directory: Path, seed: int, passed: Passed
) -> None:
    who, chance = logins(CLIENTS), random.Random(seed)
    with Distributed(chaos_directory, who, apis=1, workers=0) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        [death] = [
            fault for fault in (*stage.postgres_faults(), *stage.broker_faults()) if fault.name == f"kill -9 of {part}"
        ]
        for point in chance.sample(POINTS, len(POINTS)):
            worker = stage.worker(f"at-{point}", f"stop@{point}:{chance.randint(3, 9)}")
            worker.start()
            run.until(worker.is_asleep)
            death.strike()
            worker.resume()
            run.rest(1.0)
            death.mend()
            run.struck[f"{part} killed, a worker at {point}"] += 1
            run.answered(60)
            assert worker.child.running, worker.child.last_words()
            worker.child.stop(20.0)
        last = stage.worker("last")
        last.start()
        stage.workers.append(last)
        report = passed(run.end())
    assert len(report.faults) == len(POINTS)
    assert report.revived == []


def test_an_api_process_stands_still_at_every_named_point(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who, chance = logins(CLIENTS), random.Random(seed)
    with Distributed(chaos_directory, who, apis=1, workers=1) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        for point in chance.sample(APIS, len(APIS)):
            trapped = stage.api(f"sleeps-{point}", f"stop@{point}:{chance.randint(5, 40)}")
            trapped.start()
            stage.apis.append(trapped)
            run.until(trapped.is_asleep)
            run.struck[f"API stopped at {point}"] += 1
            run.rest(3.0)
            trapped.resume()
            run.answered(60)
        report = passed(run.end())
    assert len(report.faults) == len(APIS)
    assert report.revived == []
