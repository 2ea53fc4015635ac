"""The one signal behind waiting: how far each partition's tables are.

Waiting for a verdict, reading one's own writes and watching live all hang on it. In one process it is a condition;
with PostgreSQL a listener feeds it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from headrace.errors import HeadraceError

_log: Final = logging.getLogger("headrace.applied")


class Applied:
    """Next offsets by partition, and whoever waits for them. Safe from any thread and any event loop."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._next: dict[int, int] = {}
        self._listeners: set[Callable[[], object]] = set()
        self._stopped: HeadraceError | None = None
        self._failed: dict[int, HeadraceError] = {}
        self._paused: dict[int, HeadraceError] = {}

    def advance(self, partition: int, next_offset: int) -> None:
        """The tables now hold everything before ``next_offset``; if the partition was paused, that is over."""
        with self._condition:
            self._next[partition] = next_offset
            self._paused.pop(partition, None)
        self._notify()

    def pause(self, partition: int, error: HeadraceError) -> None:
        """The partition waits for something that may come back. Whoever waits for the partition goes on waiting."""
        with self._condition:
            self._paused[partition] = error
        self._notify()

    def fail(self, error: HeadraceError, partition: int | None = None) -> None:
        """The processor has stopped, altogether or one partition of it: who waits for it is told why instead of waiting
        in vain."""
        with self._condition:
            if partition is None:
                self._stopped = error
            else:
                self._paused.pop(partition, None)
                self._failed[partition] = error
        self._notify()

    def _notify(self) -> None:
        with self._condition:
            self._condition.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener()
            except Exception:  # noqa: BLE001 - who tells is the fold, or this process's one ear: it has others to tell
                _log.exception("somebody who waits for the tables cannot be told: a bug in %r", listener)

    @property
    def failure(self) -> HeadraceError | None:
        """Why the processor has stopped, altogether or some partition of it; ``None`` while all of it runs."""
        with self._condition:
            return self._stopped or next(iter(self._failed.values()), None)

    @property
    def paused(self) -> Mapping[int, HeadraceError]:
        """The partitions that wait for something to come back, and for what."""
        with self._condition:
            return dict(self._paused)

    def failure_of(self, partition: int) -> HeadraceError | None:
        """Why this partition goes no further; ``None`` while it does, or is only paused."""
        return self._stopped or self._failed.get(partition)

    def next_offset(self, partition: int) -> int:
        """How far the partition is."""
        return self._next.get(partition, 0)

    def wait(self, partition: int, offset: int, timeout: float) -> bool:
        """Block until the record at ``offset`` is in the tables, ``timeout`` seconds at the most.

        :raises HeadraceError: the partition goes no further; what stopped it.
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            while self._next.get(partition, 0) <= offset:
                failure = self.failure_of(partition)
                if failure is not None:
                    raise failure
                left = deadline - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    return self._next.get(partition, 0) > offset
        return True

    async def wait_async(self, partition: int, offset: int, timeout: float) -> bool:
        """:meth:`wait` for an event loop: no thread is held meanwhile."""
        if self.next_offset(partition) > offset:
            return True
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(changed.set)

        with self.listening(wake):
            deadline = loop.time() + timeout
            while True:
                changed.clear()
                if self.next_offset(partition) > offset:
                    return True
                failure = self.failure_of(partition)
                if failure is not None:
                    raise failure
                try:
                    await asyncio.wait_for(changed.wait(), max(0.0, deadline - loop.time()))
                except TimeoutError:
                    return self.next_offset(partition) > offset

    def listening(self, listener: Callable[[], object]) -> "_Listening":
        """A context in which ``listener`` is called after every change, from the thread that made it. What it raises is
        logged, and nobody else's business."""
        return _Listening(self, listener)

    def add(self, listener: Callable[[], object]) -> None:
        """Start calling ``listener``."""
        with self._condition:
            self._listeners.add(listener)

    def remove(self, listener: Callable[[], object]) -> None:
        """Stop calling ``listener``."""
        with self._condition:
            self._listeners.discard(listener)


class _Listening:
    def __init__(self, applied: Applied, listener: Callable[[], object]) -> None:
        self._applied, self._listener = applied, listener

    def __enter__(self) -> None:
        self._applied.add(self._listener)

    def __exit__(self, *_: object) -> None:
        self._applied.remove(self._listener)
