"""Group commit: appends that come at the same time share one transaction, and so one sync to disk.

No timer: the one writer thread takes whatever waits as soon as it is free, so a lone caller is served at once, and a
crowd gathers by itself while the disk is busy with the group before.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from headrace.errors import AppendUnknownError, UnavailableError
from headrace.log.port import Record
from headrace.schemas.refs import Position

MAX_RECORDS: Final = 4_096
MAX_BYTES: Final = 16 * 1024 * 1024
"""What one transaction holds at the most, unless a single append is larger: that one goes alone."""


class Waiting(NamedTuple):
    """One caller's append. ``packed`` holds each record's stored headers, ``size`` is in bytes."""

    records: Sequence[Record]
    packed: Sequence[bytes]
    size: int
    answer: Future[list[Position]]


class GroupCommit:
    """The queue before the writer thread, and the thread.

    ``commit`` gets each group and must settle every answer in it. Should it raise, that is a bug: the thread ends,
    everybody waiting is told, and later appends are refused.

    What waits is held by callers that block, so the queue is bounded by their number and never grows by itself.
    """

    def __init__(self, commit: Callable[[Sequence[Waiting]], None]) -> None:
        self._commit = commit
        self._changed = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._refusal: str | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-log-writer", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """How many appends wait for the group after the current one."""
        return len(self._queue)

    def submit(self, waiting: Waiting) -> None:
        """Queue one append; its ``answer`` will be settled.

        :raises UnavailableError: the writer has ended.
        """
        with self._changed:
            if self._refusal is not None:
                raise UnavailableError(self._refusal)
            self._queue.append(waiting)
            self._changed.notify()

    def close(self) -> None:
        """Refuse new appends, finish those that wait, end the thread. Harmless when repeated."""
        with self._changed:
            if self._refusal is None:
                self._refusal = "this log object is closed; open the log again"
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            try:
                self._commit(group)
            except BaseException as error:
                self._fail(group, error)
                raise

    def _next_group(self) -> list[Waiting]:
        """What the next transaction holds; empty when there will be none any more."""
        with self._changed:
            while not self._queue and self._refusal is None:
                self._changed.wait()
            group: list[Waiting] = []
            records = size = 0
            while self._queue:
                records += len(self._queue[0].records)
                size += self._queue[0].size
                if group and (records > MAX_RECORDS or size > MAX_BYTES):
                    break
                group.append(self._queue.popleft())
            return group

    def _fail(self, group: Sequence[Waiting], error: BaseException) -> None:
        with self._changed:
            self._refusal = f"the log's writer ended on a bug ({error!r}); report it, and open the log again"
            stranded = list(self._queue)
            self._queue.clear()
        for waiting in group:
            if not waiting.answer.done():
                waiting.answer.set_exception(AppendUnknownError(f"{self._refusal}; then retry the same records"))
        for waiting in stranded:
            waiting.answer.set_exception(UnavailableError(self._refusal))
