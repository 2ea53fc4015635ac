"""The same verdicts and rows in every process, whatever its hash seed; and the very bytes that others wrote before."""

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.core.folding import fold
from tests.core.histories import MOVE_BYTES, POLICIES, written
from tests.core.scribe import ROOT
from tests.core.story import Story

HISTORIES: Final = 25
FOLD: Final = """
import hashlib, pickle, sys
from tests.core.folding import fold
digests = [fold(one, sizes).digest() for one in pickle.load(sys.stdin.buffer) for sizes in ((7, 1), (1000,))]
print(hashlib.sha256("".join(digests).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def recorded() -> bytes:
    """Histories as they stand on the log."""
    chance = random.Random(7)
    return pickle.dumps(
        [
            written(number % len(POLICIES), [chance.randbytes(MOVE_BYTES) for _ in range(80)])
            for number in range(HISTORIES)
        ]
    )


def digest(recorded: bytes, seed: str, folder: Path) -> str:
    """What a process of its own makes of them."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", FOLD], input=recorded, capture_output=True, cwd=folder, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    return ran.stdout.decode().strip()


def test_processes_with_different_hash_seeds_fold_alike(recorded: bytes, tmp_path: Path) -> None:
    digests = {seed: digest(recorded, seed, tmp_path) for seed in ("0", "1", "4242")}
    assert len(set(digests.values())) == 1, digests


def test_a_verdict_is_these_very_bytes() -> None:
    """A golden one: a release that wrote it otherwise would disagree with every log there is."""
    story = Story()
    read = story.mail()
    story.fact(story.thread, "mail.archived")
    late = story.label(id="p-late", basis=read)
    assert fold(story.records).verdicts[late] == (
        '{"finding":{"event":{"actor":"user/ann","effect":"mail.archived","entity":"mail.thread/th1","id":"e2","offset":2,'
        '"time":1795280400000,"type":"mail.archived"}},"log_time":1795280400000,"offset":3,"proposal":"p-late",'
        '"verdict":"superseded"}'
    )
