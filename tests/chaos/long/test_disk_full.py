"""The disk is full: of the embedded store, of PostgreSQL, of a broker. Nothing that was acknowledged is lost, nothing
that was not stored is acknowledged, and with room again all of it goes on."""

import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.stages import Embedded, patiently
from tests.chaos.tenants import logins

CLIENTS = 6
PATIENCE = 60.0
BALLAST = "ballast"
Passed = Callable[[Report], Report]


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Generator[Path]:
    """A file system in memory, of so many megabytes (root may mount one; elsewhere these tests have nothing to say)."""
    directory.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "headrace-chaos", str(directory)]
    subprocess.run(line, check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


def fill(disk: Path) -> None:
    """Take what is left of it, to the last byte."""
    with (disk / BALLAST).open("ab", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                continue


def test_an_embedded_store(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with small_disk(chaos_directory / "disk", 64) as disk, Embedded(disk / "store", who) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        run.answered(200)
        for _ in range(3):
            fill(disk)
            run.struck["disk full"] += 1
            wait_refused(run, 20)
            (disk / BALLAST).unlink()
            run.answered(100)
        report = passed(run.end())
    assert report.revived == []


def wait_refused(run: Run, count: int) -> None:
    """Return once so many more writes were not taken."""
    before = refused(run)
    run.until(lambda: refused(run) > before + count, PATIENCE)


def refused(run: Run) -> int:
    """How many writes were told that there was no room, or that nobody knows."""
    return sum(one.kind == "event" and one.outcome != "ok" for one in run.recorder.history())


def test_postgresql(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with (
        small_disk(chaos_directory / "postgres", 400) as disk,
        Distributed(chaos_directory, who, apis=1, workers=1) as stage,
    ):
        run = Run(stage, who, seed, chaos_directory / "history")
        run.answered(150)
        fill(disk)
        run.struck["disk of PostgreSQL full"] += 1
        run.rest(10.0)
        (disk / BALLAST).unlink()
        assert stage.postgres.server is not None
        if not stage.postgres.server.running:
            patiently(stage.postgres.restart)
        run.answered(100)
        passed(run.end())


@pytest.mark.parametrize("brokers", [1, 3])
def test_a_broker(brokers: int, chaos_directory: Path, seed: int, passed: Passed) -> None:
    """It ends when it cannot write. Of three, two go on."""
    who = logins(CLIENTS)
    (chaos_directory / "kafka").mkdir()
    with (
        small_disk(chaos_directory / "kafka" / "data-1", 200) as disk,
        Distributed(chaos_directory, who, brokers=brokers, apis=1, workers=1) as stage,
    ):
        run = Run(stage, who, seed, chaos_directory / "history")
        run.answered(150)
        fill(disk)
        run.struck["disk of a broker full"] += 1
        run.until(lambda: not stage.kafka.brokers[0].running, PATIENCE)
        if brokers == 3:
            run.answered(100)
        (disk / BALLAST).unlink()
        stage.kafka.brokers[0].start()
        stage.kafka.wait_ready()
        run.answered(100)
        passed(run.end())
