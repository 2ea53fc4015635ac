"""What only the SQLite log does: one writer process, group commit, creation. Its faults: ``test_sqlite_log_faults``."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
import pytest

from headrace.errors import (
    AppendUnknownError,
    BadInputError,
    LogClosedError,
    LogMismatchError,
    UnavailableError,
    WriterLockedError,
)
from headrace.log import group_commit
from headrace.log.port import Record
from headrace.log.sqlite import MAX_RECORD_BYTES, SqliteLog
from headrace.schemas.refs import Position
from tests.contract.log_conformance import PATIENCE_SECONDS, closing, event, opening, read_all

ROOT: Final = Path(__file__).parents[2]


def opened(directory: Path, partitions: int = 2) -> SqliteLog:
    """A new log with every partition opened."""
    log = SqliteLog.create(directory, partitions)
    log.append([opening(partition) for partition in range(partitions)])
    return log


@contextmanager
def process(code: str, *arguments: object) -> Generator[subprocess.Popen[str], None, None]:
    """Another Python, talked to by lines; it is gone afterwards."""
    program = (
        f"import sys\nfrom headrace.log.sqlite import SqliteLog\nfrom tests.contract.log_conformance import *\n{code}"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        with child:
            yield child
            child.kill()
    finally:
        child.kill()


def line_from(child: subprocess.Popen[str]) -> str:
    """The child's next line."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


HOLD: Final = """
with SqliteLog.open(sys.argv[1]) as log:
    for n in range(5): log.append([event(0, str(n).encode())])
    print("ready", flush=True)
    sys.stdin.readline()
"""


class TestOneWriter:
    """A second writer is refused; the lock dies with its holder; readers come and go."""

    def test_a_second_process_is_refused_and_told_who_writes(self, tmp_path: Path) -> None:
        opened(tmp_path).close()
        with process(HOLD, tmp_path) as child:
            assert line_from(child) == "ready"
            for attempt in (SqliteLog.open, SqliteLog.create):
                with pytest.raises(WriterLockedError, match=rf"pid {child.pid}\b.*writer=False"):
                    attempt(tmp_path)

    def test_a_second_writer_in_one_process_is_refused(self, tmp_path: Path) -> None:
        with opened(tmp_path) as log:
            with pytest.raises(WriterLockedError, match=f"pid {os.getpid()}"):
                SqliteLog.open(tmp_path)
            assert log.append([event(0, b"still mine")]) == [Position(0, 1)]
        SqliteLog.open(tmp_path).close()

    def test_kill_9_frees_the_lock_at_once_and_keeps_what_was_acknowledged(self, tmp_path: Path) -> None:
        opened(tmp_path).close()
        with process(HOLD, tmp_path) as child:
            assert line_from(child) == "ready"
            child.send_signal(signal.SIGKILL)
            child.wait(PATIENCE_SECONDS)
            with SqliteLog.open(tmp_path, writer=False) as reader:  # before any writer has recovered the file
                assert [s.value for s in read_all(reader, 0, 1)] == [b"0", b"1", b"2", b"3", b"4"]
            with SqliteLog.open(tmp_path) as log:
                assert log.append([event(0, b"on")]) == [Position(0, 6)]

    def test_a_failed_opening_leaves_no_lock(self, tmp_path: Path) -> None:
        (tmp_path / "log.db").write_bytes(b"not a database at all, " * 500)
        for _ in range(2):
            with pytest.raises(LogMismatchError):
                SqliteLog.open(tmp_path)

    def test_a_reader_process_follows_while_the_writer_writes(self, tmp_path: Path) -> None:
        follow = """
with SqliteLog.open(sys.argv[1], writer=False) as log:
    seen = 1
    print("ready", flush=True)
    while seen < 201 and log.wait({1: seen}, PATIENCE_SECONDS):
        seen += len(log.read(1, seen, 50))
    print(seen, b" ".join(s.value for s in read_all(log, 1, 1)) == b" ".join(b"%d" % n for n in range(200)), flush=True)
"""
        with opened(tmp_path) as log, process(follow, tmp_path) as child:
            assert line_from(child) == "ready"
            for n in range(200):
                log.append([event(1, str(n).encode())])
            assert line_from(child) == "201 True"

    def test_readers_work_without_a_writer_and_outlive_writers(self, tmp_path: Path) -> None:
        opened(tmp_path).close()
        with SqliteLog.open(tmp_path, writer=False) as reader:
            for n in range(1, 4):
                with SqliteLog.open(tmp_path) as log:
                    log.append([event(0, b"x")])
                assert reader.wait({0: n}, PATIENCE_SECONDS) == {0}
                assert reader.describe().ends == (n + 1, 1)

    def test_a_reader_cannot_append(self, tmp_path: Path) -> None:
        opened(tmp_path).close()
        with SqliteLog.open(tmp_path, writer=False) as reader, pytest.raises(UnavailableError, match="writer=True"):
            reader.append([event(0, b"x")])

    def test_a_forked_child_neither_writes_nor_holds_the_lock(self, tmp_path: Path) -> None:
        code = """
import os
from headrace.errors import UnavailableError
log = SqliteLog.open(sys.argv[1])
if os.fork() == 0:
    try:
        log.append([event(0, b"from the child")])
    except UnavailableError as error:
        log.close()
        print("forked" in str(error), flush=True)
    sys.stdin.read()  # lives on when its parent is killed, until the test closes that pipe
    os._exit(0)
sys.stdin.readline()
"""
        opened(tmp_path).close()
        with process(code, tmp_path) as child:
            assert line_from(child) == "True"
            with pytest.raises(WriterLockedError):
                SqliteLog.open(tmp_path)
            child.kill()
            child.wait(PATIENCE_SECONDS)
            SqliteLog.open(tmp_path).close()


class TestGroupCommit:
    """Appends that come together share a transaction, and each gets its own answer."""

    def crowd(self, tmp_path: Path, appends: Sequence[Sequence[Record]]) -> tuple[int, list[Future[list[Position]]]]:
        """Let ``appends`` queue up while the writer is inside a transaction: (commits they took, their answers)."""
        inside, go_on = threading.Event(), threading.Event()

        def clock() -> int:
            inside.set()
            assert go_on.wait(PATIENCE_SECONDS)
            return 1_000

        opened(tmp_path).close()
        with SqliteLog.open(tmp_path, clock=clock) as log, ThreadPoolExecutor(len(appends) + 1) as pool:
            first = pool.submit(log.append, [event(0, b"first")])
            assert inside.wait(PATIENCE_SECONDS)
            answers: list[Future[list[Position]]] = []
            for n, records in enumerate(appends):
                answers.append(pool.submit(log.append, records))
                deadline = time.monotonic() + PATIENCE_SECONDS
                while log.backlog <= n:  # the next one only when this one is queued: their order is then known
                    assert time.monotonic() < deadline
                    os.sched_yield()
            go_on.set()
            assert first.result(PATIENCE_SECONDS) == [Position(0, 1)]
            for answer in answers:
                answer.exception(PATIENCE_SECONDS)
            return log.commits - 1, answers

    def test_what_waits_goes_in_one_transaction(self, tmp_path: Path) -> None:
        commits, answers = self.crowd(tmp_path, [[event(1, str(n).encode())] for n in range(31)])
        assert commits == 1
        assert [answer.result() for answer in answers] == [[Position(1, n)] for n in range(1, 32)]

    def test_a_refusal_goes_to_its_caller_alone(self, tmp_path: Path) -> None:
        appends = [[event(0, b"a")], [event(1, b"b"), opening(1)], [event(0, b"c")], [opening(0)], [event(1, b"d")]]
        commits, answers = self.crowd(tmp_path, appends)
        assert commits == 1
        assert [answers[n].result() for n in (0, 2, 4)] == [[Position(0, 2)], [Position(0, 3)], [Position(1, 1)]]
        for n in (1, 3):
            assert isinstance(answers[n].exception(), BadInputError)

    def test_what_waits_behind_a_closing_is_refused(self, tmp_path: Path) -> None:
        commits, answers = self.crowd(tmp_path, [[event(0, b"a")], [closing(0), closing(1)], [event(0, b"late")]])
        assert commits == 1
        assert answers[1].result() == [Position(0, 3), Position(1, 1)]
        assert isinstance(answers[2].exception(), LogClosedError)

    @pytest.mark.parametrize(("records", "size"), [(10, 1 << 20), (1 << 20, 500)])
    def test_a_transaction_is_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, size: int
    ) -> None:
        monkeypatch.setattr(group_commit, "MAX_RECORDS", records)
        monkeypatch.setattr(group_commit, "MAX_BYTES", size)
        appends = [[event(1, bytes(30)), event(0, bytes(30))] for _ in range(12)]
        appends.insert(6, [event(1, bytes(200)) for _ in range(12)])  # over both bounds by itself: goes alone
        commits, answers = self.crowd(tmp_path, appends)
        assert commits == 5
        assert sum(len(answer.result()) for answer in answers) == 36

    def test_append_times_are_the_clocks_and_one_per_transaction(self, tmp_path: Path) -> None:
        times = iter([5_000, 7_000, 6_000])
        with SqliteLog.create(tmp_path, 1, clock=lambda: next(times)) as log:
            log.append([opening(0), event(0, b"a")])
            log.append([event(0, b"b")])
            log.append([event(0, b"a clock that went back is told as it is")])
            assert [s.appended_at for s in read_all(log, 0)] == [5_000, 5_000, 7_000, 6_000]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_bug_in_the_writer_is_told_to_everybody_and_ends_it(self, tmp_path: Path) -> None:
        def clock() -> int:
            raise ZeroDivisionError

        opened(tmp_path).close()
        with SqliteLog.open(tmp_path, clock=clock) as log:
            with pytest.raises(AppendUnknownError, match="ZeroDivisionError"):
                log.append([event(0, b"a")])
            with pytest.raises(UnavailableError, match="open the log again"):
                log.append([event(0, b"b")])
        with SqliteLog.open(tmp_path) as log:
            assert log.append([event(0, b"c")]) == [Position(0, 1)]

    def test_a_record_too_large_is_refused(self, tmp_path: Path) -> None:
        with opened(tmp_path) as log:
            with pytest.raises(BadInputError, match="too large"):
                log.append([event(0, b"small"), event(0, bytes(MAX_RECORD_BYTES))])
            assert log.describe().ends == (1, 1)

    def test_closing_finishes_what_waits_and_refuses_what_comes(self, tmp_path: Path) -> None:
        _, answers = self.crowd(tmp_path, [[event(1, b"x")] for _ in range(5)])
        assert len([answer.result() for answer in answers]) == 5
        log = SqliteLog.open(tmp_path)
        waiting: Future[frozenset[int]]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.wait, {0: 99}, PATIENCE_SECONDS)
            log.close()
            log.close()
            assert isinstance(waiting.exception(PATIENCE_SECONDS), UnavailableError)
        for call in (lambda: log.append([event(0, b"x")]), lambda: log.read(0, 0, 1), log.describe):
            with pytest.raises(UnavailableError, match="open the log again"):
                call()


class TestCreating:
    """Creating is resumable and careful."""

    def test_creating_again_is_harmless(self, tmp_path: Path) -> None:
        opened(tmp_path / "a" / "b", 3).close()
        with SqliteLog.create(tmp_path / "a" / "b", 3) as log:
            assert log.describe().ends == (1, 1, 1)

    def test_the_default_is_64_partitions(self, tmp_path: Path) -> None:
        with SqliteLog.create(tmp_path) as log:
            assert log.describe().partitions == 64

    def test_another_partition_count_is_refused(self, tmp_path: Path) -> None:
        opened(tmp_path, 3).close()
        with pytest.raises(BadInputError, match="has 3 partitions, not 4"):
            SqliteLog.create(tmp_path, 4)
        for count in (0, -1, 65_537):
            with pytest.raises(BadInputError, match="1 to 65536"):
                SqliteLog.create(tmp_path / "new", count)

    def test_creation_resumes_on_the_empty_file_a_crash_left(self, tmp_path: Path) -> None:
        (tmp_path / "log.db").touch()
        for writer in (True, False):
            with pytest.raises(LogMismatchError, match="create the log again"):
                SqliteLog.open(tmp_path, writer=writer)
        opened(tmp_path).close()

    def test_the_file_is_as_durable_as_promised(self, tmp_path: Path) -> None:
        settings: list[object] = []

        def hook(connection: apsw.Connection) -> None:
            settings.append(connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apsw, "connection_hooks", [hook])
            log = opened(tmp_path)
        with log:
            [writer] = settings
            assert isinstance(writer, apsw.Connection)
            assert (writer.pragma("journal_mode"), writer.pragma("synchronous")) == ("wal", 2)
            assert writer.pragma("page_size") == 8_192
