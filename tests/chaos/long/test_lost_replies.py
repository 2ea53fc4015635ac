"""The one answer that matters gets lost: to a produce request, to a COMMIT. What happened is not known, and must not
count twice."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins
from tests.proxy import PRODUCE, FaultProxy

CLIENTS = 6
TIMES = 8
PATIENCE = 60.0
Passed = Callable[[Report], Report]


def is_commit(message: bytes) -> bool:
    """Whether a client of PostgreSQL says COMMIT, or is told that it is done. (What a client says often it only names,
    after a while: ask this of the first that it says on a connection.)"""
    return b"COMMIT" in message


def lose(run: Run, proxy: FaultProxy, arm: Callable[[], object]) -> None:
    """Have one message lost, and go on until some more were answered."""
    before = proxy.seen.lost
    arm()
    run.until(lambda: proxy.seen.lost > before, PATIENCE)
    run.answered(40)


@pytest.mark.parametrize("keep", [False, True], ids=["connection lost", "connection lives on"])
def test_answers_to_produce_are_lost(keep: bool, chaos_directory: Path, seed: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who, apis=2, workers=1) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        for _ in range(TIMES):
            lose(run, stage.kafka_ways[-1], partial(stage.kafka_ways[-1].lose_reply, PRODUCE, keep=keep))
            run.struck["answer to a produce lost"] += 1
        stage.kafka_ways[-1].heal()
        passed(run.end())


@pytest.mark.parametrize("reply", [True, False], ids=["answer", "request"])
def test_commits_are_lost(reply: bool, chaos_directory: Path, seed: int, passed: Passed) -> None:
    """With the answer lost the batch is in the tables and its worker does not know; with the request it is not."""
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who, apis=1, workers=2) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        proxy = stage.postgres_way
        for _ in range(TIMES):
            if not reply:
                proxy.break_links()
            lose(run, proxy, partial(proxy.lose_reply_saying if reply else proxy.lose_request, is_commit))
            run.struck["answer to a COMMIT lost" if reply else "COMMIT lost"] += 1
        stage.postgres_way.heal()
        report = passed(run.end())
        said = "".join(part.child.log.read_text(errors="replace") for part in stage.workers)
        assert not reply or "is not known" in said
    assert report.revived == []
