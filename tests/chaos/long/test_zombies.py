"""Workers that are thought dead and are not, and two that each believe to have every partition."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.distributed import Distributed
from tests.chaos.processes import Part
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins
from tests.worker.site import until

CLIENTS = 6
PATIENCE = 60.0
FENCED = "another processor owns it"
Passed = Callable[[Report], Report]


@pytest.mark.parametrize("point", ["load.after", "publish.after", "commit.before", "end.before", "announce.before"])
def test_a_worker_asleep_in_the_middle_of_a_batch_is_replaced_and_writes_nothing_when_it_wakes(
    point: str, chaos_directory: Path, seed: int, passed: Passed
) -> None:
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who, apis=1, workers=1) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        sleeper = stage.worker("sleeper", f"stop@{point}:{random.Random(seed).randint(3, 9)}")
        sleeper.start()
        stage.workers.append(sleeper)
        run.until(sleeper.is_asleep)
        run.struck[f"worker stopped at {point}"] += 1
        before = stage.folded()
        # Every partition goes on, the sleeper's too: the group gives them away, and the tables let go of it.
        run.until(lambda: all(stage.folded().get(p, 0) > offset for p, offset in before.items()), PATIENCE)
        sleeper.resume()
        run.answered(150)
        report = passed(run.end())
        assert sleeper.child.running
        if point != "announce.before":
            assert _thrown_out(sleeper), sleeper.child.last_words()
    assert report.revived == []


def _thrown_out(worker: Part) -> bool:
    said = worker.child.log.read_text(errors="replace")
    return FENCED in said or "is paused" in said or "lost partitions" in said


def test_a_worker_that_joins_in_the_middle_of_a_batch(chaos_directory: Path, seed: int, passed: Passed) -> None:
    """The one with the batch wakes before it is given up: it hands its partitions over only when the batch is done."""
    who, chance = logins(CLIENTS), random.Random(seed)
    with Distributed(chaos_directory, who, apis=1, workers=0) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        for number, point in enumerate(("load.after", "commit.before", "end.before")):
            slow = stage.worker(f"slow-{number}", f"stop@{point}:{chance.randint(3, 9)}")
            slow.start()
            run.until(slow.is_asleep)
            other = stage.worker(f"joins-{number}")
            other.start()
            run.rest(4.0)  # less than the six seconds after which it would be given up; its group is rebalancing
            slow.resume()
            run.answered(60)
            slow.child.stop(20.0)
            run.answered(60)
            other.child.stop(20.0)
            run.struck[f"rebalance at {point}"] += 1
        last = stage.worker("last")
        last.start()
        stage.workers.append(last)
        passed(run.end())


def test_two_workers_that_each_have_every_partition_fence_one_another(
    chaos_directory: Path, seed: int, passed: Passed
) -> None:
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who, apis=1, workers=0) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        stage.workers += [stage.worker(f"alone-{number}", f"alone@{number}") for number in range(2)]
        for worker in stage.workers:
            worker.start()
        until(lambda: all(FENCED in one.child.log.read_text(errors="replace") for one in stage.workers), PATIENCE)
        run.answered(300)
        run.struck["two workers forced onto every partition"] += 1
        run.suffer(random.Random(seed), *stage.faults_of(stage.workers, "worker")[::3])
        report = passed(run.end())
    assert report.revived == []
