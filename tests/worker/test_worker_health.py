"""What a worker says of itself while something is wrong."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.processors.group_fold import FoldCounts
from headrace.processors.worker import NOT_FOUND
from headrace.processors.worker_health import STALE_SECONDS, WorkerHealth
from tests.worker.process import Elsewhere, WorkerProcess, migrated
from tests.worker.site import PARTITIONS, Site, message_to, until


class Fold(SimpleNamespace):
    """A fold that has joined, and is where the test says."""

    def __init__(self, **more: object) -> None:
        nothing: dict[int, HeadraceError] = {}
        usual = {"failure": None, "running": True, "joined": True, "paused": nothing, "stopped": nothing}
        super().__init__(**{**usual, "folded": {0: 5, 1: 7}, "counts": FoldCounts(1, 2, 3, 4), **more})


def health(fold: Any, clock: Callable[[], float] = lambda: 0.0) -> WorkerHealth:
    found = WorkerHealth(fold, {}, clock)
    found.look((5, 7))
    return found


def test_one_that_has_nothing_to_complain_of_is_ready() -> None:
    found = health(Fold())
    assert (found.ailing(), found.unready(), found.lag) == ([], [], {0: 0, 1: 0})


@pytest.mark.parametrize(
    ("fold", "said"),
    [
        (Fold(failure=HaltError("another log"), running=False), "the fold has stopped: another log"),
        (Fold(running=False), "the fold does not run"),
    ],
)
def test_one_that_should_be_restarted_says_so(fold: Any, said: str) -> None:
    found = health(fold)
    assert found.ailing() == [said]
    assert said in found.unready()
    assert b"headrace_worker_ready 0.0" in found.figures()


@pytest.mark.parametrize(
    ("fold", "said"),
    [
        (Fold(joined=False), "the group has not given it its partitions yet"),
        (Fold(paused={1: UnavailableError("no database")}), "partition 1 is paused: no database"),
        (Fold(stopped={0: HaltError("a bug")}), "partition 0 has stopped: a bug"),
    ],
)
def test_one_that_waits_says_for_what(fold: Any, said: str) -> None:
    found = health(fold)
    assert (found.ailing(), found.unready()) == ([], [said])


def test_one_that_does_not_move_says_where_it_stands() -> None:
    fold = Fold()
    found = health(fold)
    found.look((9, 7))
    assert (found.unready(), found.lag) == (["partition 0 stands at offset 5, the log is at 9"], {0: 4, 1: 0})
    fold.folded[0] = 6
    found.look((9, 7))
    assert (found.unready(), found.lag) == ([], {0: 3, 1: 0})
    found.checked(UnavailableError("no brokers"))
    assert found.unready() == ["the log cannot be checked: no brokers"]


def test_what_was_seen_long_ago_is_not_known() -> None:
    now = 0.0
    found = health(Fold(), lambda: now)
    now = STALE_SECONDS + 1
    assert found.unready() == ["it is not known how far the log is"]


def test_a_worker_that_cannot_write_is_behind_and_comes_back(site: Site) -> None:
    migrated(site).facts(5)
    with WorkerProcess(site) as worker, psycopg.connect(site.postgres) as other:
        site.wait_folded()
        worker.wait_ready()
        other.execute(sql.SQL("LOCK {} IN EXCLUSIVE MODE").format(sql.Identifier(site.schema, "events")))
        site.facts(5, seed="g")
        until(lambda: worker.figures()["headrace_worker_lag_records"] == 5 * PARTITIONS)
        until(lambda: worker.figures()["headrace_worker_partitions_paused"] > 0)
        status, said = worker.get("/health/ready")
        assert status == 503
        assert "is paused" in said
        assert worker.get("/health/live")[0] == 200
        other.rollback()
        worker.wait_ready()
        assert worker.figures()["headrace_worker_lag_records"] == 0
        assert worker.stop() == 0
    site.check_tables()


def test_a_log_that_is_not_there_is_told(site: Site) -> None:
    migrated(site)
    with WorkerProcess(Elsewhere(site, site.url.replace(site.topic, "no-such-topic"))) as worker:
        assert worker.ended() == NOT_FOUND
        assert "no-such-topic" in worker.log.read_text().splitlines()[-1]


def test_a_record_on_a_partition_that_is_not_its_accounts_is_set_aside(site: Site) -> None:
    migrated(site)
    strayed = message_to(site.authors[1], "strayed", 0)._replace(partition=2)
    [position] = site.log.append([strayed])
    site.facts(3)
    with WorkerProcess(site) as worker:
        site.wait_folded()
        assert worker.stop() == 0
    [(partition, offset, reason)] = site.ask('SELECT "partition", "offset", reason FROM quarantine')
    assert (partition, offset) == position
    assert "partition 1" in reason
    site.check_tables()
