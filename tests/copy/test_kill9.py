"""``headrace log copy``, killed at named points and at random ones, and repeated until it ends."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import HaltError, NotFoundError
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, Record
from headrace.log.sqlite import SqliteLog
from headrace.schemas.envelope import Envelope, to_headers
from tests.contract.rich_history import ANN, Author
from tests.copy.copies import chains, same
from tests.copy.killed_copy import POINTS
from tests.kafka.topics import Cluster

PARTITIONS = 3
PATIENCE_SECONDS = 120
KILLS = 4


def history(directory: Path, records: int) -> None:
    """A log with so many records."""
    with SqliteLog.create(directory, PARTITIONS) as log:
        Author(log)
        log.append(
            [
                Record(
                    n % PARTITIONS,
                    b"acme/a-1",
                    to_headers(Envelope(f"e-{n}", "mailbox/ann", "mail.read", ANN, "mail.thread", f"t-{n}")),
                    bytes(n % 1_000),
                )
                for n in range(records)
            ]
        )


def to_the_end(from_: str, to: str, *more: str) -> dict[str, Any]:
    """The command, not killed."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "log", "copy", "--from", from_, "--to", to, "--json", *more],
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def moved(origin: Log, copy: Log, told: dict[str, Any]) -> None:
    """What the command said, and what is there."""
    ends = origin.describe().ends
    assert told["compared"] == sum(ends)
    assert [bytes.fromhex(one) for one in told["chains"]] == list(chains(origin, ends)) == list(chains(copy, ends))
    same(origin, copy, ends)
    assert copy.describe().ends == tuple(end + 1 for end in ends)


@pytest.mark.parametrize(
    ("point", "when", "count"),
    [
        ("settings", "before", 1),
        ("writing to Kafka", "before", 1),
        ("writing to Kafka", "after", 1),
        ("sending", "after", 4_000),
        ("sending", "after", 1_700),
        ("comparing", "after", 2),
        ("closing", "before", 1),
        ("closing", "after", 1),
        ("catching up", "after", 2),
        ("finishing", "before", 1),
        ("settings", "after", 1),
        ("log.moved", "before", 1),
        ("log.moved", "after", 1),
        ("log.moved", "after", 2),
        ("finishing", "after", 1),
    ],
)
def test_a_move_to_kafka_killed_anywhere_goes_on(
    cluster: Cluster, tmp_path: Path, point: str, when: str, count: int
) -> None:
    history(tmp_path, 6_000)
    url = cluster.url()
    asked = ("log", "copy", "--from", f"sqlite:{tmp_path}", "--to", url)
    died = subprocess.run(
        [sys.executable, "-m", "tests.copy.killed_copy", point, when, str(count), *asked],
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    finished = (point, when, count) in (("log.moved", "after", 2), ("finishing", "after", 1))
    if not finished:
        with pytest.raises((HaltError, NotFoundError)):
            KafkaLog.open(url)
    told = to_the_end(f"sqlite:{tmp_path}", url)
    with SqliteLog.open(tmp_path, writer=False) as origin, KafkaLog.open(url) as copy:
        moved(origin, copy, told)


@pytest.mark.parametrize(
    ("point", "when", "count"),
    [
        ("writing to a file", "before", 1),
        ("writing to a file", "after", 3),
        ("closing", "after", 1),
        ("finishing a file", "before", 1),
        ("finishing a file", "after", 1),
    ],
)
def test_a_move_into_a_file_killed_anywhere_goes_on(tmp_path: Path, point: str, when: str, count: int) -> None:
    origin, home = tmp_path / "origin", tmp_path / "home"
    history(origin, 6_000)
    asked = ("log", "copy", "--from", f"sqlite:{origin}", "--to", f"sqlite:{home}", "--move")
    died = subprocess.run(
        [sys.executable, "-m", "tests.copy.killed_copy", point, when, str(count), *asked],
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    if (point, when) != ("finishing a file", "after"):
        with pytest.raises(HaltError, match="unfinished copy"):
            SqliteLog.open(home)
    told = to_the_end(f"sqlite:{origin}", f"sqlite:{home}", "--move")
    with SqliteLog.open(origin, writer=False) as old, SqliteLog.open(home) as copy:
        moved(old, copy, told)


@pytest.mark.parametrize("seed", range(1))
def test_a_copy_killed_at_any_time_goes_on(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    """To Kafka and home again, each killed a few times at random."""
    chance = random.Random(seed)
    origin, home = tmp_path / "origin", tmp_path / "home"
    history(origin, 20_000)
    url = cluster.url()
    for from_, to, more in ((f"sqlite:{origin}", url, ()), (url, f"sqlite:{home}", ("--move",))):
        for _ in range(KILLS):
            command = [sys.executable, "-m", "headrace", "log", "copy", "--from", from_, "--to", to, *more]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
                try:
                    process.wait(chance.uniform(0.5, 5.0))
                except subprocess.TimeoutExpired:
                    process.kill()
                _, said = process.communicate()
                assert process.returncode in (0, -signal.SIGKILL), said.decode()
        told = to_the_end(from_, to, *more)
    with SqliteLog.open(origin, writer=False) as old, KafkaLog.open(url) as kafka, SqliteLog.open(home) as last:
        same(old, kafka, old.describe().ends)
        moved(kafka, last, told)


def test_every_point_is_one_that_the_command_comes_to() -> None:
    for owner, name in POINTS.values():
        assert callable(getattr(owner, name))
