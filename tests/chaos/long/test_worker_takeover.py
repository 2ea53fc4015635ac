"""Workers that come, go, die, fall asleep and lose their database under load: every record is folded once, each verdict
is published, and nothing that a worker does after it was given up does harm."""

import random
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.proxy import FaultProxy
from tests.stack.parts import kafka_bootstrap, postgres_dsn
from tests.worker.process import WorkerProcess, migrated
from tests.worker.site import PARTITIONS, Site, until

__all__ = ("kafka_bootstrap", "postgres_dsn")

ROUNDS = 8
PATIENCE = 180.0


@pytest.fixture
def site(kafka_bootstrap: str, postgres_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """A log of the test's own, and empty tables."""
    with Site(kafka_bootstrap, postgres_dsn, tmp_path) as found:
        yield migrated(found)


@contextmanager
def load(site: Site) -> Generator[Callable[[int], None]]:
    """Facts and proposals without end, while the context lasts; gives a wait for so many more rounds of them."""
    ending, grown = threading.Event(), threading.Condition()
    rounds, failures = [0], list[BaseException]()

    def run() -> None:
        try:
            while not ending.is_set():
                site.facts(40, seed=f"load-{rounds[0]}")
                site.proposals(2, seed=f"pl-{rounds[0]}")
                with grown:
                    rounds[0] += 1
                    grown.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised where it is noticed
            with grown:
                failures.append(error)
                grown.notify_all()

    def more(count: int) -> None:
        with grown:
            wanted = rounds[0] + count
            assert grown.wait_for(lambda: rounds[0] >= wanted or bool(failures), PATIENCE)
        assert not failures

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield more
    finally:
        ending.set()
        thread.join()
    assert not failures


def check(site: Site) -> None:
    """Everything is folded, once; every verdict is in the stream and in the journal."""
    site.wait_folded(seconds=PATIENCE)
    site.check_tables()
    site.check_verdicts()
    wanted = site.ask("SELECT count(*) FROM verdicts WHERE verdict NOT IN ('duplicate', 'conflicting_id')")
    until(lambda: site.ask("SELECT count(*) FROM delivery_journal") == wanted, PATIENCE)


def assigned(*workers: WorkerProcess) -> float:
    """How many partitions they have together."""
    return sum(worker.figures()["headrace_worker_partitions"] for worker in workers)


def test_a_worker_that_fell_asleep_is_replaced_and_does_no_harm_when_it_wakes(site: Site) -> None:
    with WorkerProcess(site) as sleeper, WorkerProcess(site) as other:
        with load(site) as more:
            until(lambda: (assigned(sleeper), assigned(other)) == (2, 2), PATIENCE)
            more(2)
            sleeper.signal(signal.SIGSTOP)
            until(lambda: assigned(other) == PARTITIONS, PATIENCE)
            more(3)
            sleeper.signal(signal.SIGCONT)
            until(lambda: (assigned(sleeper), assigned(other)) == (2, 2), PATIENCE)
            more(2)
        check(site)
        assert sleeper.process.poll() is None
        assert (sleeper.stop(), other.stop()) == (0, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_workers_come_and_go_and_die_at_random(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(site))]
        with load(site) as more:
            for _ in range(ROUNDS):
                more(1)
                what = dice.choice(("join", "leave", "kill", "kill"))
                if what == "join" or not workers:
                    workers.append(stack.enter_context(WorkerProcess(site)))
                    continue
                gone = workers.pop(dice.randrange(len(workers)))
                if what == "leave":
                    assert gone.said
                    assert gone.stop() == 0
                else:
                    gone.process.kill()
            workers.append(stack.enter_context(WorkerProcess(site)))
        check(site)
        assert [worker.stop() for worker in workers] == [0] * len(workers)


def test_without_its_database_it_waits_and_goes_on_by_itself(site: Site) -> None:
    parts = urlsplit(site.postgres)
    assert parts.hostname is not None
    with FaultProxy(parts.hostname, parts.port or 5432) as proxy:
        through = urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{proxy.address}"))
        with WorkerProcess(site, HEADRACE_DB_URL=through) as worker:
            with load(site) as more:
                worker.wait_ready(PATIENCE)
                for fault in (proxy.cut, proxy.break_links, proxy.blackhole):
                    fault()
                    if fault != proxy.break_links:
                        until(lambda: worker.get("/health/ready")[0] == 503, PATIENCE)
                        assert worker.get("/health/live")[0] == 200
                        assert assigned(worker) == PARTITIONS
                    proxy.heal()
                    more(1)
                    until(lambda: worker.get("/health/ready")[0] == 200, PATIENCE)
            check(site)
            assert worker.stop() == 0
