"""The one signal behind waiting: how far each partition's tables are.

Waiting for a verdict, reading one's own writes and watching live all hang on it. In one process it is a condition;
with PostgreSQL a listener will feed it.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from headrace.errors import HeadraceError


class Applied:
    """Next offsets by partition, and whoever waits for them. Safe from any thread and any event loop."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._next: dict[int, int] = {}
        self._listeners: set[Callable[[], None]] = set()
        self._failure: HeadraceError | None = None

    def advance(self, partition: int, next_offset: int) -> None:
        """The tables now hold everything before ``next_offset``."""
        with self._condition:
            self._next[partition] = next_offset
            self._condition.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def fail(self, error: HeadraceError) -> None:
        """The processor has stopped: whoever waits is told why instead of waiting in vain."""
        with self._condition:
            self._failure = error
            self._condition.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    @property
    def failure(self) -> HeadraceError | None:
        """Why the processor has stopped, ``None`` while it runs."""
        return self._failure

    def next_offset(self, partition: int) -> int:
        """How far the partition is."""
        return self._next.get(partition, 0)

    def wait(self, partition: int, offset: int, timeout: float) -> bool:
        """Block until the record at ``offset`` is in the tables, ``timeout`` seconds at the most.

        :raises HeadraceError: the processor has stopped; what stopped it.
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            while self._next.get(partition, 0) <= offset:
                if self._failure is not None:
                    raise self._failure
                left = deadline - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    return self._next.get(partition, 0) > offset
        return True

    async def wait_async(self, partition: int, offset: int, timeout: float) -> bool:  # noqa: ASYNC109 - as `wait`
        """:meth:`wait` for an event loop: no thread is held meanwhile."""
        if self.next_offset(partition) > offset:
            return True
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        with self.listening(lambda: loop.call_soon_threadsafe(changed.set)):
            deadline = loop.time() + timeout
            while self.next_offset(partition) <= offset:
                if self._failure is not None:
                    raise self._failure
                changed.clear()
                if self.next_offset(partition) > offset:
                    break
                try:
                    await asyncio.wait_for(changed.wait(), max(0.0, deadline - loop.time()))
                except TimeoutError:
                    return self.next_offset(partition) > offset
        return True

    def listening(self, listener: Callable[[], None]) -> "_Listening":
        """A context in which ``listener`` is called after every advance, from the thread that advanced."""
        return _Listening(self, listener)

    def add(self, listener: Callable[[], None]) -> None:
        """Start calling ``listener``."""
        with self._condition:
            self._listeners.add(listener)

    def remove(self, listener: Callable[[], None]) -> None:
        """Stop calling ``listener``."""
        with self._condition:
            self._listeners.discard(listener)


class _Listening:
    def __init__(self, applied: Applied, listener: Callable[[], None]) -> None:
        self._applied, self._listener = applied, listener

    def __enter__(self) -> None:
        self._applied.add(self._listener)

    def __exit__(self, *_: object) -> None:
        self._applied.remove(self._listener)
