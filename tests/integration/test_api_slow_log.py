"""A log that does not answer keeps nobody from reading the tables, whatever it was asked."""

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import httpx
import pytest

from headrace.log.port import Log, LogDescription, Record, Stored
from headrace.projections.port import Reader, Tables
from headrace.schemas.refs import Position
from tests.integration.api_desk import WAIT, Desk, serving

THREADS: Final = 40
"""For questions to the log at once; so many there are for snapshots too."""

READS: Final = 200
"""More than whoever is asking needs to come as far as the log."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


class Unanswering:
    """A log that answers no question before it may."""

    def __init__(self, log: Log) -> None:
        self._log: Final = log
        self._may: Final = threading.Event()
        self._asked: Final = threading.Semaphore(0)

    def may_answer(self) -> None:
        """It does from now on."""
        self._may.set()

    def wait_until_asked(self, times: int) -> None:
        """By somebody who waits for the answer."""
        for _ in range(times):
            assert self._asked.acquire(timeout=WAIT)

    def _answer(self) -> None:
        self._asked.release()
        assert self._may.wait(WAIT)

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :class:`headrace.log.port.Log`."""
        self._answer()
        return self._log.read(partition, offset, limit)

    def describe(self) -> LogDescription:
        """See :class:`headrace.log.port.Log`."""
        self._answer()
        return self._log.describe()

    def append(self, records: Sequence[Record]) -> list[Position]:
        """See :class:`headrace.log.port.Log`."""
        return self._log.append(records)

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """See :class:`headrace.log.port.Log`."""
        return self._log.wait(after, timeout)


class Viewed:
    """Tables that know how many snapshots are held."""

    def __init__(self, tables: Tables) -> None:
        self._tables: Final = tables
        self._guard: Final = threading.Lock()
        self.held = 0

    @contextmanager
    def snapshot(self) -> Generator[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        self._hold(1)
        try:
            with self._tables.snapshot() as reader:
                yield reader
        finally:
            self._hold(-1)

    def _hold(self, more: int) -> None:
        with self._guard:
            self.held += more


@pytest.mark.parametrize(
    "asked",
    [
        {"/v1/accounts/slow/entities/mail.thread/t1/events": 50, "/v1/accounts/slow/entities/mail.thread/t1?at={}": 10},
        {"/v1/accounts/slow/entities/mail.thread/t1?at={}": 50},
        {"/health/ready": 20, "/metrics": 20, "/v1/log": 20},
    ],
    ids=["events", "at", "operations"],
)
def test_while_the_log_answers_no_question_entities_can_be_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, asked: dict[str, int]
) -> None:
    position = desk.thread("slow")["position"]
    log, tables = Unanswering(desk.store.log), Viewed(desk.store.tables)
    paths = [path.format(position) for path, times in asked.items() for _ in range(times)]
    with monkeypatch.context() as patch, ThreadPoolExecutor(len(paths)) as others:
        patch.setattr(desk.store, "log", log)
        patch.setattr(desk.store, "tables", tables)
        asking = [others.submit(desk.http.get, path) for path in paths]
        try:
            log.wait_until_asked(THREADS)
            shown = httpx.get(f"{desk.http.base_url}/v1/accounts/slow/entities/mail.thread/t1", timeout=WAIT / 2)
            assert shown.json()["position"] == position
            for _ in range(READS):
                if tables.held:  # by those who have not come as far as the log
                    assert desk.entity("slow", "mail.thread", "t1").status_code == 200
            assert tables.held == 0
        finally:
            log.may_answer()
        assert {one.result().status_code for one in asking} == {200}
