"""What commits make known, heard: the one signal behind waiting and watching, for readers in other processes.

A commit is followed by ``NOTIFY schema_applied, 'partition:next_offset'``. Notifications can be lost (a connection
that breaks, a worker that dies between the two), so the listener also looks for itself: whenever it connects, and when
it has heard nothing for a while.
"""

import contextlib
import logging
import select
import socket
import threading
from typing import Final, Protocol, Self

import psycopg

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.projections.postgres_connection import Address, Session, meaning, translated

_LOOK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.1
_RETRY_AT_MOST_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 10.0
_log: Final = logging.getLogger("headrace.listener")


class Applying(Protocol):
    """Who is told: :class:`headrace.processors.applied.Applied`, for one."""

    def advance(self, partition: int, next_offset: int) -> None:
        """The tables now hold everything before ``next_offset``."""
        ...

    def pause(self, partition: int, error: HeadraceError) -> None:
        """Nobody knows how far the partition is, for the time being."""
        ...


class PostgresApplied:
    """Listens in a thread of its own, on one connection, and tells ``applied`` how far the tables are.

    While the database cannot be reached every partition counts as not folded at all: whoever waits for a position goes
    on waiting, because a database that crashed may come back with a little less (``synchronous_commit=off``).
    """

    def __init__(
        self, conninfo: str, applied: Applying, *, schema: str = "headrace", look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._address: Final = Address(conninfo, schema)
        self._applied: Final = applied
        self._look_seconds: Final = look_seconds
        self._next: Final[dict[int, int]] = {}
        self._waking, self._woken = socket.socketpair()
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-listener", daemon=True)
        self._session: Session | None = None

    def start(self) -> None:
        """Connect, tell how far the tables are, and go on in a thread.

        :raises UnavailableError: the database does not answer; nothing was started.
        :raises HaltError: the tables are not there, or this role may not read them; nothing was started.
        """
        with translated(self._address.named, "listened to"):
            self._session = self._connected()
        self._thread.start()

    def stop(self, timeout: float = _STOP_SECONDS) -> bool:
        """End the thread and close the connection; whether it ended within ``timeout`` seconds."""
        self._stopping.set()
        self._waking.send(b"!")
        if self._thread.is_alive():
            self._thread.join(timeout)
        ended = not self._thread.is_alive()
        if ended:
            self._disconnect()
            self._waking.close()
            self._woken.close()
        return ended

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        retry = _RETRY_SECONDS
        while not self._stopping.is_set():
            try:
                if self._session is None:
                    self._session = self._connected()
                    _log.warning("listening to %s again", self._address.named)
                retry = _RETRY_SECONDS
                self._hear(self._session)
            except psycopg.Error as error:
                self._lost(meaning(error, self._address.named, "listened to"))
                self._wait(retry)
                retry = min(_RETRY_AT_MOST_SECONDS, retry * 2)

    def _connected(self) -> Session:
        session = self._address.connect("listener")
        try:
            # In this order: what is committed in between is heard, what was committed before is seen.
            session.execute(f'LISTEN "{self._address.channel}"'.encode())
            self._look(session, anew=True)
        except BaseException:
            session.close()
            raise
        return session

    def _hear(self, session: Session) -> None:
        """Pass on what was said; where nothing was, wait for something, and look where nothing comes."""
        heard = False
        for notification in session.notifies(timeout=0):
            heard = True
            partition, _, next_offset = notification.payload.partition(":")
            self._advance(int(partition), int(next_offset))
        if not heard and not self._wait(self._look_seconds, session) and not self._stopping.is_set():
            self._look(session)

    def _wait(self, seconds: float, session: Session | None = None) -> bool:
        """Until the server has something to say, :meth:`stop` is called, or the time is up; whether it has."""
        sources: list[socket.socket | int] = [self._woken]
        if session is not None:
            sources.append(session.fileno())
        ready, _, _ = select.select(sources, [], [], seconds)
        return bool(ready) and ready != [self._woken]

    def _look(self, session: Session, *, anew: bool = False) -> None:
        for partition, next_offset in session.execute('SELECT "partition", next_offset FROM partitions').fetchall():
            if anew:
                self._next.pop(partition, None)
            self._advance(partition, next_offset)

    def _advance(self, partition: int, next_offset: int) -> None:
        """Pass on what is new. A worker that was paused between commit and notification speaks of old times."""
        if next_offset > self._next.get(partition, -1):
            self._next[partition] = next_offset
            self._applied.advance(partition, next_offset)

    def _lost(self, error: HeadraceError) -> None:
        _log.error("the listener has lost its connection: %s", error)
        self._disconnect()
        unknown = UnavailableError(f"it is not known how far the tables are ({error})")
        for partition in self._next:
            self._next[partition] = 0
            self._applied.advance(partition, 0)
            self._applied.pause(partition, error if isinstance(error, HaltError) else unknown)

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(psycopg.Error):
                session.close()
