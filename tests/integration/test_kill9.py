"""A hundred real ``kill -9`` of a process under load: nothing acknowledged is lost, nothing has two effects."""

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from headrace.log.port import Stored
from headrace.processors.audit import verify
from headrace.store import Store
from tests.integration.kill9_worker import PARTITIONS, THREADS
from tests.integration.stores import open_store

pytestmark = pytest.mark.embedded("kills the one process that has everything; tests/chaos kills each part")

KILLS: Final = 100
SEED: Final = 20_261_121
ROOT: Final = Path(__file__).parents[2]


@dataclass
class Told:
    """What the clients were told over all lives of the process."""

    invoked: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    verdicts: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    lives: int = 0
    ready: int = 0

    def hear(self, line: str) -> bool:
        """Take in a line; whether it was an acknowledgement."""
        match line.split():
            case ["I", id_]:
                self.invoked[id_] += 1
            case ["A", id_, partition, offset]:
                self.acknowledged.setdefault(id_, []).append((int(partition), int(offset)))
                return True
            case ["V", id_, verdict, offset]:
                self.verdicts.setdefault(id_, set()).add((verdict, int(offset)))
                return True
            case ["ready"]:
                self.ready += 1
            case other:
                raise AssertionError(f"the worker said {other}")
        return False

    def again(self) -> list[str]:
        """Facts that were sent and never acknowledged: a client sends them again."""
        return [id_ for id_ in self.invoked if id_.startswith("f-") and id_ not in self.acknowledged]


def live_and_die(directory: Path, told: Told, cycle: int, chance: random.Random) -> None:
    """One life: killed after some acknowledgements, or at a random moment of its start."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.kill9_worker", str(directory), str(cycle)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    with worker, worker.stdout as heard, worker.stderr as wrong:
        worker.stdin.write(json.dumps(told.again()).encode() + b"\n")
        worker.stdin.close()
        rest = b""
        if chance.random() < 0.1:
            select.select([heard], [], [], chance.random() * 0.5)
        else:
            wanted = chance.randint(1, 60)
            while wanted > 0 and (chunk := os.read(heard.fileno(), 65_536)):
                *lines, rest = (rest + chunk).split(b"\n")
                wanted -= sum(told.hear(line.decode()) for line in lines)
        worker.send_signal(signal.SIGKILL)
        for line in (rest + heard.read()).split(b"\n")[:-1]:
            told.hear(line.decode())
        assert worker.wait() == -signal.SIGKILL, wrong.read().decode()
    told.lives += 1


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """A store that was killed a hundred times, and what its clients were told."""
    directory = tmp_path_factory.mktemp("kill9") / "store"
    told, chance = Told(), random.Random(SEED)
    for cycle in range(KILLS):
        live_and_die(directory, told, cycle, chance)
    return directory, told


def records(store: Store) -> dict[str, list[Stored]]:
    """Everything on the log, by event or proposal id."""
    found: dict[str, list[Stored]] = {}
    for partition, end in enumerate(store.log.describe().ends):
        for stored in store.log.read(partition, 0, end):
            found.setdefault(dict(stored.headers)["ce_id"].decode(), []).append(stored)
    return found


def test_nothing_acknowledged_is_lost_and_nothing_has_two_effects(survived: tuple[Path, Told]) -> None:
    directory, told = survived
    assert told.lives == KILLS
    assert told.ready > KILLS * 0.8
    assert len(told.acknowledged) > KILLS * 10
    with open_store(directory, writer=True) as store:
        on_log = records(store)
        for id_, positions in told.acknowledged.items():
            there = {(stored.partition, stored.offset) for stored in on_log[id_]}
            assert there >= set(positions)
            assert len(there) <= told.invoked[id_]
        assert {id_ for id_ in on_log if not id_.startswith("open-")} <= set(told.invoked)
        with store.tables.snapshot() as reader:
            effects = reader.rows("SELECT event_id, count(*) AS n FROM events WHERE effect IS NOT NULL GROUP BY 1", {})
            applied = {row["event_id"]: row["n"] for row in effects}
            ends = {row["partition"]: row["next_offset"] for row in reader.rows("SELECT * FROM partitions", {})}
            counted = reader.rows("SELECT sum(messages) AS n FROM threads", {})[0]["n"]
        assert set(applied.values()) == {1}
        facts = {id_ for id_ in on_log if id_.startswith("f-")}
        assert facts <= set(applied)
        assert counted == len(facts)
        assert ends == dict(enumerate(store.log.describe().ends))


def test_the_verdicts_told_are_those_in_the_tables(survived: tuple[Path, Told]) -> None:
    directory, told = survived
    assert len(told.verdicts) > KILLS
    with open_store(directory, writer=True) as store, store.tables.snapshot() as reader:
        rows = {row["id"]: row for row in reader.rows("SELECT * FROM proposals", {})}
        every = {(row["proposal"], row["verdict"], row["offset"]) for row in reader.rows("SELECT * FROM verdicts", {})}
    for id_, said in told.verdicts.items():
        assert said == {(rows[id_]["verdict"], rows[id_]["judged_at"])}
        assert {(id_, *one) for one in said} <= every
    accepted = [
        (row["account"], json.loads(row["reads"])[0][-1]) for row in rows.values() if row["verdict"] == "accepted"
    ]
    assert len(accepted) == len(set(accepted)), "two accepted proposals share a basis"
    assert {row["verdict"] for row in rows.values()} >= {"accepted", "superseded"}


def test_the_store_verifies(survived: tuple[Path, Told]) -> None:
    directory, _ = survived
    with open_store(directory, writer=True) as store:
        report = verify(store.log, store.tables, store.registry, store.kinds)
        assert report.findings == ()
        assert report.records == sum(store.log.describe().ends)
        assert len(store.log.describe().ends) == PARTITIONS
        assert store.applied.failure is None
    assert THREADS > 1
