"""``headrace worker`` as a process: it starts, answers, shares, ends and comes back."""

import json
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from headrace.processors.verdict_topic import topic_name
from headrace.processors.worker import FAILED, HALTED, UNAVAILABLE
from tests.kafka.topics import Cluster
from tests.worker.process import PROGRAMS, Elsewhere, WorkerProcess, migrated
from tests.worker.site import PARTITIONS, Site, until

ROOT: Final = Path(__file__).resolve().parents[2]


def journal_is_whole(site: Site) -> bool:
    """Whether the journal has every verdict that matters, and nothing else."""
    journal = site.ask('SELECT tenant, account, proposal, "partition", "offset", verdict, text FROM delivery_journal')
    verdicts = site.ask(
        'SELECT tenant, account, proposal, "partition", "offset", verdict, text FROM verdicts'
        " WHERE verdict NOT IN ('duplicate', 'conflicting_id')"
    )
    assert set(journal) <= set(verdicts) or len(journal) < len(verdicts)
    return sorted(journal) == sorted(verdicts)


def test_one_worker_from_start_to_end(site: Site) -> None:
    migrated(site).facts(200)
    with WorkerProcess(site) as worker:
        assert worker.said["pid"] == worker.process.pid
        assert worker.said["verdicts"].endswith(topic_name(site.topic))
        site.proposals(4)
        site.wait_folded()
        until(lambda: journal_is_whole(site))
        worker.wait_ready()
        assert json.loads(worker.get("/health/live")[1]) == {"status": "ok", "reasons": []}
        figures = worker.figures()
        assert figures["headrace_worker_records_total"] == sum(site.ends().values())
        assert figures["headrace_worker_partitions"] == PARTITIONS
        assert figures["headrace_worker_verdicts_published_total"] == 4 * PARTITIONS
        assert figures["headrace_worker_journal_rows_total"] == 4 * PARTITIONS
        assert figures["headrace_worker_lag_records"] == 0
        assert figures["headrace_worker_ready"] == 1
        assert figures["headrace_worker_syncs_sources"] == 0
        assert worker.stop() == 0
    site.check_tables()
    assert site.check_verdicts() == 0


def test_kill_9_under_load_and_again_and_nothing_is_lost_or_done_twice(site: Site) -> None:
    migrated(site)
    with WorkerProcess(site) as worker:
        assert worker.said
        for seed in "ab":
            site.facts(400, seed=seed)
            site.proposals(10, seed=f"p{seed}")
        worker.process.kill()
        assert worker.ended() == -signal.SIGKILL
    site.proposals(10, seed="pc")
    with WorkerProcess(site) as worker:
        site.wait_folded()
        until(lambda: journal_is_whole(site))
        assert worker.stop() == 0
    site.check_tables()
    site.check_verdicts()


def test_sigterm_under_load_finishes_what_is_at_hand(site: Site) -> None:
    migrated(site).facts(8_000, each=500)
    with WorkerProcess(site) as worker:
        until(lambda: sum(site.folded().values()) > 500, pause=0.005)
        assert worker.stop() == 0
        assert "the fold did not end" not in worker.log.read_text()
    places = site.folded()
    until(
        lambda: (
            site.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s", f"%{site.schema}")
            == [(0,)]
        )
    )
    assert site.folded() == places
    with WorkerProcess(site) as worker:
        site.facts(1)
        site.wait_folded()
        assert worker.stop() == 0, "told to stop while Faust's own consumer still joins its group"
    site.check_tables()


def test_a_second_signal_ends_it_at_once(site: Site) -> None:
    migrated(site)
    with WorkerProcess(site) as worker:
        assert worker.said
        worker.signal(signal.SIGSTOP)  # so that both are there before it can obey the first
        worker.signal(signal.SIGINT)
        worker.signal(signal.SIGTERM)
        worker.signal(signal.SIGCONT)
        assert worker.ended(10) in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_plain_faust_runs_it_and_ends_when_the_log_is_another(site: Site) -> None:
    migrated(site).facts(50)
    command = [str(PROGRAMS / "faust"), "-A", "headrace.processors.worker", "worker", "-l", "info"]
    with WorkerProcess(site, command) as worker:
        site.proposals(2)
        site.wait_folded()
        until(lambda: journal_is_whole(site))
        site.check_tables()
        until(lambda: "syncs no sources" in worker.log.read_text())
        before = site.folded()
        another_log(site)
        assert worker.ended() == HALTED
        said = worker.log.read_text()
    assert "metrics and health at http://127.0.0.1:" in said
    assert said.count("this worker folds, and syncs no sources: the master key") == 1
    assert "headrace: " in said.splitlines()[-1]
    assert site.folded() == before
    assert not list(site.directory.glob("*-data"))


def test_tables_of_another_log_are_left_alone(site: Site, tmp_path: Path) -> None:
    migrated(site).facts(20)
    with WorkerProcess(site) as worker:
        site.wait_folded()
        assert worker.stop() == 0
    before = site.folded()
    with Site(site.kafka, site.postgres, tmp_path) as other, WorkerProcess(Elsewhere(site, other.url)) as worker:
        assert worker.ended() == HALTED
        assert worker.log.read_text().splitlines()[-1].startswith("headrace: ")
    assert site.folded() == before


def another_log(site: Site) -> None:
    """The topic is made anew: whoever folds must stop."""
    cluster = Cluster(site.kafka)
    cluster.delete(site.topic)
    cluster.make(site.topic, PARTITIONS)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("deaf", "the last verdicts taken in are not committed"),
        ("never", "stopping took longer than 1 s"),
    ],
)
def test_it_ends_in_bounded_time_whatever_waits_for_what_has_gone(site: Site, end: str, said: str) -> None:
    migrated(site)
    command = [sys.executable, "-m", "tests.worker.badly_ended", end]
    with WorkerProcess(site, command, PYTHONPATH=str(ROOT)) as worker:
        site.proposals(2)
        site.wait_folded()
        until(lambda: journal_is_whole(site))
        assert worker.said
        another_log(site)
        assert worker.ended() == HALTED
        lines = worker.log.read_text().splitlines()
    assert "headrace: " in lines[-1]
    assert any(said in line for line in lines)


def test_a_log_that_is_not_kept_as_it_must_be_does_not_begin(site: Site) -> None:
    migrated(site)
    Cluster(site.kafka).configure(site.topic, {"retention.ms": "60000"})
    with WorkerProcess(site) as worker:
        assert worker.ended() == HALTED
        assert "retention.ms=-1" in worker.log.read_text().splitlines()[-1]


def test_tables_that_are_not_there_are_told_of(site: Site) -> None:
    with WorkerProcess(site) as worker:
        assert worker.ended() == HALTED
        assert "migrate" in worker.log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"HEADRACE_LOG_URL": "file:///log"}, FAILED, "HEADRACE_LOG_URL"),
        ({"HEADRACE_DB_URL": "postgresql://nobody@127.0.0.1:1/none"}, UNAVAILABLE, "127.0.0.1"),
    ],
)
def test_what_it_cannot_start_with_is_told(site: Site, changed: dict[str, str], code: int, said: str) -> None:
    command = [str(PROGRAMS / "headrace"), "worker"]
    with WorkerProcess(site, command, **changed) as worker:
        assert worker.ended() == code
        assert said in worker.log.read_text()


def test_the_module_can_be_looked_at_without_settings() -> None:
    import headrace.processors.worker as module

    assert "app" not in vars(module)
    with pytest.raises(AttributeError):
        _ = module.nothing
    assert "faust" in sys.modules
