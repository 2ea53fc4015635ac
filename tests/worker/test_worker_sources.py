"""Workers sync the sources of the accounts that they fold: one worker an account, whoever dies, sleeps or leaves."""

import re
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from headrace.log.partitioner import partition_of
from headrace.producers.schedule import SourceKey
from headrace.projections.postgres_connection import Address
from headrace.schemas.refs import account_key
from tests.worker.process import PROGRAMS, WorkerProcess, environment
from tests.worker.site import PARTITIONS, until
from tests.worker.sources_site import TENANT, SourcesSite, sources_site

_SOURCES: Final = re.compile(r'headrace_sources\{provider="caldav"\} (\d+)')
_PARTITION: Final = re.compile(r'headrace_worker_lag_records\{partition="(\d+)"\}')


@pytest.fixture
def site(kafka_bootstrap: str, postgres_dsn: str, tmp_path: Path) -> Iterator[SourcesSite]:
    with sources_site(kafka_bootstrap, postgres_dsn, tmp_path, each=1) as found:
        yield found


def partitions(worker: WorkerProcess) -> set[int]:
    return set(map(int, _PARTITION.findall(worker.get("/metrics")[1])))


def sources(worker: WorkerProcess) -> int:
    found = _SOURCES.findall(worker.get("/metrics")[1])
    return int(found[0]) if found else 0


def syncs(worker: WorkerProcess, outcome: str) -> float:
    found = re.findall(
        rf'headrace_syncs_total\{{outcome="{outcome}",provider="caldav"\}} ([\d.]+)', worker.get("/metrics")[1]
    )
    return float(found[0]) if found else 0.0


@contextmanager
def two_workers(site: SourcesSite) -> Generator[tuple[WorkerProcess, WorkerProcess]]:
    """Two that have shared the accounts among themselves and synced them all."""
    with WorkerProcess(site) as one, WorkerProcess(site) as other:
        shared(site, one, other)
        settled(site, one, other)
        yield one, other


def settled(site: SourcesSite, *workers: WorkerProcess) -> None:
    """Return once nothing is to be synced any more, and nothing is."""
    site.wait_synced()
    until(lambda: not site.rows("SELECT FROM sources WHERE hint_offset > sync_offset OR sync_offset > synced_offset"))
    until(lambda: not any(worker.figures()["headrace_syncs_running"] for worker in workers), pause=0.1)


def shared(site: SourcesSite, *workers: WorkerProcess) -> None:
    """Return once each has half of the partitions, and so of the sources."""
    until(lambda: {len(partitions(worker)) for worker in workers} == {PARTITIONS // 2}, pause=0.1)
    until(lambda: {sources(worker) for worker in workers} == {len(site.accounts) // 2}, pause=0.1)


def owned(site: SourcesSite, worker: WorkerProcess) -> str:
    """An account of a worker's."""
    mine = partitions(worker)
    return next(one for one in site.accounts if partition_of(account_key(TENANT, one), PARTITIONS) in mine)


def syncs_of_each(site: SourcesSite) -> dict[str, tuple[int, int]]:
    """Of each account how many syncs there were, and how many of them began while another was under way."""
    return {account: (len(site.starts(account)), site.overlapping(account)) for account in site.accounts}


def caught_at_it(site: SourcesSite, worker: WorkerProcess, hour: int) -> str:
    """An account whose sync this worker is at: it has begun, and the provider does not answer."""
    account = owned(site, worker)
    site.put(account, "second", hour)
    site.relay.hold(account)
    site.ask(account)
    site.relay.until(lambda: site.relay.waiting[account] == 1)
    return account


def test_two_share_the_accounts_and_one_that_ends_leaves_its_own(
    kafka_bootstrap: str, postgres_dsn: str, tmp_path: Path
) -> None:
    with sources_site(kafka_bootstrap, postgres_dsn, tmp_path, each=2) as site, two_workers(site) as (one, other):
        # While they were sharing, some syncs may have been given away.
        counted, left = syncs_of_each(site), sum(syncs(worker, "done") for worker in (one, other))
        site.relay.most.clear()
        site.ask_all("second", 10)
        site.wait_synced()
        until(lambda: sum(syncs(worker, "done") for worker in (one, other)) == left + len(site.accounts), pause=0.1)
        assert syncs_of_each(site) == {
            account: (starts + 1, overlapping) for account, (starts, overlapping) in counted.items()
        }
        assert set(site.relay.most.values()) == {1}
        for worker in (one, other):
            assert worker.figures()["headrace_worker_syncs_sources"] == 1
            assert 0 <= worker.figures()["headrace_sources_lag_seconds"] < 120
            assert not any(account in worker.get("/metrics")[1] for account in site.accounts)
        by_hand(site, owned(site, one))
        settled(site, one, other)
        unfinished = sum(map(site.unfinished, site.accounts))
        hangs = caught_at_it(site, other, 11)
        assert other.get("/health/ready")[0] == 200
        others_do_not_wait(site, hangs)
        told = time.monotonic()
        assert other.stop() == 0
        assert time.monotonic() - told < 20
        site.relay.release()
        site.wait_synced()
        until(lambda: sources(one) == len(site.accounts), pause=0.1)
        assert sum(map(site.unfinished, site.accounts)) == unfinished + 1
        site.check_every_change_once()
        assert one.stop() == 0
        nothing_is_said(site, one, other)


def others_do_not_wait(site: SourcesSite, hangs: str) -> None:
    """While a provider does not answer for one account, all the others are synced: those on its partition, on others of
    the same worker, and the other worker's."""
    others = [account for account in site.accounts if account != hangs]
    for account in others:
        site.put(account, "third", 12)
        site.ask(account)
    until(lambda: all(site.in_tables()[account] == site.hours[account] for account in others), pause=0.1)
    assert site.relay.waiting[hangs] == 1
    assert site.in_tables()[hangs] != site.hours[hangs]


def nothing_is_said(site: SourcesSite, *workers: WorkerProcess) -> None:
    """Neither who they are nor what opens their calendars is in what workers log."""
    for worker in workers:
        logged = worker.log.read_text(errors="replace")
        assert site.server.password not in logged
        assert f"/{site.server.username}/" not in logged
        assert "HTTP Request" not in logged


def by_hand(site: SourcesSite, account: str) -> None:
    """Somebody asks for a sync by a command: it is the worker's, and nobody else's."""
    count = len(site.starts(account))
    site.put(account, "second", 8)
    words = ["source", "sync", f"caldav/{account}", "--account", account, "--tenant", TENANT, "--full"]
    said = subprocess.run(
        [PROGRAMS / "headrace", *words], env=environment(site), capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == f"caldav/{account} of {account}: the process that syncs it was asked\n"
    site.wait_synced()
    assert 1 <= len(site.starts(account)) - count <= 2  # what is due may have been seen before the hint was
    until(lambda: not any(site.store.connections.due(SourceKey(TENANT, account, f"caldav/{account}"))))


def test_one_sleeps_and_wakes_and_then_the_other_dies(site: SourcesSite) -> None:
    with two_workers(site) as (one, other):
        sleeps_through_a_sync(site, one, other)
        dies_in_a_sync(site, other, one)
        site.check_every_change_once()
        assert one.stop() == 0


def sleeps_through_a_sync(site: SourcesSite, one: WorkerProcess, other: WorkerProcess) -> None:
    """``one`` stands still while a provider answers it, and goes on when ``other`` has long taken its accounts."""
    account, overtaken = caught_at_it(site, one, 10), syncs(one, "overtaken")
    one.signal(signal.SIGSTOP)
    site.relay.release()  # what it reads when it wakes is what was so before it slept
    until(lambda: sources(other) == len(site.accounts), pause=0.1)
    site.wait_synced()
    site.put(account, "second", 14)
    site.ask(account)
    site.wait_synced()
    one.signal(signal.SIGCONT)
    until(lambda: syncs(one, "overtaken") > overtaken, pause=0.1)
    shared(site, one, other)
    site.ask_all("third", 15)
    site.wait_synced()
    site.check_every_change_once()


def dies_in_a_sync(site: SourcesSite, one: WorkerProcess, other: WorkerProcess) -> None:
    """What ``one`` found is on the log and not yet in the tables when it is killed."""
    account = caught_at_it(site, one, 16)
    partition = partition_of(account_key(TENANT, account), PARTITIONS)
    end, unfinished = site.store.log.describe().ends[partition], site.unfinished(account)
    with Address(site.postgres, site.schema).connect("stall") as stalled:
        stalled.execute("BEGIN; LOCK TABLE partitions IN EXCLUSIVE MODE")
        site.relay.release()
        until(lambda: site.store.log.describe().ends[partition] > end)
        one.process.kill()
        assert one.ended() == -signal.SIGKILL
    site.wait_synced()
    until(lambda: sources(other) == len(site.accounts), pause=0.1)
    until(lambda: site.starts(account)[-1].end is not None)
    assert site.unfinished(account) == unfinished
    site.ask_all("fourth", 17)
    site.wait_synced()
