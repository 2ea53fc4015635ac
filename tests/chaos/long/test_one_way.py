"""What is sent gets through and what is answered does not: nobody is told that something was stored, and it may be."""

from collections.abc import Callable
from pathlib import Path

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins
from tests.proxy import FaultProxy, Way

CLIENTS = 6
SECONDS = 8.0
"""Longer than a delivery may take and than a worker may be silent: outcomes are unknown, partitions are given away."""
Passed = Callable[[Report], Report]


def test_brokers_and_database_hear_and_are_not_heard(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who, apis=2, workers=2) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        proxies: list[FaultProxy] = [stage.kafka_ways[-1], stage.postgres_way]
        for way in (Way.ANSWERING, Way.ASKING):
            for proxy in proxies:
                run.answered(60)
                proxy.blackhole(way)
                run.rest(SECONDS)
                proxy.heal()
                run.struck[f"one way only: nothing {way.value}"] += 1
        passed(run.end())
