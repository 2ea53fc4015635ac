"""One recorded log, folded in a file and by workers on Kafka into PostgreSQL: verdicts equal to the byte and the same
rows, whatever the batches, the number of workers and what becomes of them."""

import random
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from headrace.log.kafka import KafkaLog
from headrace.log.port import Log
from headrace.log.sqlite import SqliteLog
from headrace.processors.engine import Engine
from headrace.projections import rows
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import Author, mail, write
from tests.copy.copies import moved_to_kafka, replicated
from tests.postgres.both import Contents, contents, fold_by
from tests.worker.process import WorkerProcess, migrated
from tests.worker.site import KINDS, PARTITIONS, REGISTRY, Site, until

ACCOUNTS = 8
RACES = 400


def races(log: Log, chance: random.Random, count: int) -> None:
    """Facts, claims and proposals of many accounts in any order; a proposal's basis may be long overtaken."""
    authors = [Author(log, f"race-{number}") for number in range(ACCOUNTS)]
    seen: dict[tuple[str, str], int] = {}
    for number in range(count):
        author, thread = chance.choice(authors), f"r-{chance.randrange(3)}"
        subject, place = f"mail.thread/{thread}", (author.account, thread)
        if place not in seen or chance.random() < 0.3:
            head = author.fact("mail.received", thread, f"r-{number}", mail(number))
            if place not in seen or chance.random() < 0.6:
                seen[place] = head
        elif chance.random() < 0.15:
            author.note("claim.taken", f"rc-{number}", {"claim": f"rc-{number}", "until": 10**13}, entity=subject)
        else:
            read = author.entity(subject, seen[place])
            type_ = chance.choice(("mail.archive", "mail.label"))
            data = {"added": [f"x{number % 3}"], "removed": []} if type_ == "mail.label" else {}
            author.propose(f"rp-{chance.randrange(count)}", type_, subject, [read], data)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLog]:
    """A log in a file."""
    with SqliteLog.create(tmp_path_factory.mktemp("origin"), PARTITIONS) as log:
        for number in range(ACCOUNTS):
            write(Author(log, f"a-{number}"))
        races(log, random.Random(20261121), RACES)
        yield log


@pytest.fixture(scope="module")
def topic(origin: SqliteLog, kafka_bootstrap: str) -> str:
    """Where it was moved to."""
    name = f"same-{secrets.token_hex(6)}.events"
    moved_to_kafka(origin, f"kafka://{kafka_bootstrap}/{name}?replication.factor=1")
    return name


@pytest.fixture
def site(topic: str, kafka_bootstrap: str, postgres_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """That log, and an empty schema of the test's own."""
    with Site(kafka_bootstrap, postgres_dsn, tmp_path, topic) as found:
        yield migrated(found)


def folded(log: Log, sizes: tuple[int, ...]) -> Contents:
    """What an embedded fold makes of it."""
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        for partition in range(PARTITIONS):
            fold_by(Engine(REGISTRY, KINDS, tables), log, partition, sizes)
        return contents(tables, KINDS)


@pytest.fixture(scope="module")
def expected(origin: SqliteLog, topic: str, kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """The rows that the moved log leads to, folded in a file from a replica of it; and they begin with those of the
    log it was."""
    home = tmp_path_factory.mktemp("home")
    with KafkaLog.open(f"kafka://{kafka_bootstrap}/{topic}?replication.factor=1", writer=False) as log:
        replicated(log, home)
    with SqliteLog.open(home, writer=False) as replica:
        whole = folded(replica, (1_000,))
    before = folded(origin, (1_000,))
    for table in before.keys() - {"partitions"}:
        assert set(map(repr, before[table])) <= set(map(repr, whole[table])), table
    assert before["verdicts"] == whole["verdicts"]
    judged = Counter(row[rows.VERDICT_COLUMNS.index("verdict")] for row in whole["verdicts"])
    assert len(judged) > 6, judged
    assert min(judged["accepted"], judged["superseded"]) > 30, judged
    return whole


def check_tables(site: Site, expected: Contents) -> None:
    """Every row is as it should be."""
    found = contents(site.tables(), KINDS)
    for table, wanted in expected.items():
        assert found[table] == wanted, table


def check(site: Site, expected: Contents) -> None:
    """So is every message of the verdicts' topic, whoever published it."""
    check_tables(site, expected)
    site.check_verdicts()


def goes_on(site: Site, before: int) -> bool:
    """Whether more is folded than was before."""
    return sum(site.folded().values()) > before


@pytest.mark.parametrize("sizes", [(1,), (2, 3, 1), (7,), (64, 1)], ids=str)
def test_in_a_file_in_batches_of_any_size(origin: SqliteLog, sizes: tuple[int, ...]) -> None:
    assert folded(origin, sizes) == folded(origin, (1_000,))


@pytest.mark.parametrize(("folds", "batch"), [(1, 1), (1, 1_000), (2, 7), (3, 50)])
def test_on_kafka_by_folds_with_any_batch(site: Site, expected: Contents, folds: int, batch: int) -> None:
    engines = [site.fold(batch=batch) for _ in range(folds)]
    for engine in engines:
        engine.start()
    site.wait_folded()
    for engine in engines:
        assert engine.stop()
    check_tables(site, expected)


def test_on_kafka_by_workers(site: Site, expected: Contents) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(WorkerProcess(site)) for _ in range(3)]
        site.wait_folded()
        for worker in running:
            assert worker.said
            assert worker.stop() == 0
    check(site, expected)


def test_on_kafka_by_workers_that_are_killed(site: Site, expected: Contents) -> None:
    """What they had folded and not committed is folded again by the next."""
    ends, killed = site.ends(), 0
    while sum(site.folded().values()) < sum(ends.values()) and killed < 2:
        with WorkerProcess(site) as worker:
            before = sum(site.folded().values())
            until(partial(goes_on, site, before), pause=0.002)
            worker.signal(signal.SIGKILL)
            assert worker.ended() == -signal.SIGKILL
            killed += 1
    assert killed
    with WorkerProcess(site) as worker:
        assert worker.said
        site.wait_folded()
        assert worker.stop() == 0
    check(site, expected)
