"""What commits make known, heard: the one signal behind waiting and watching, for readers in other processes.

A commit is followed by ``NOTIFY schema_applied, 'partition:next_offset'``. Notifications can be lost (a connection
that breaks, a worker that dies between the two), and whoever may log in to the database can send one. So what they say
is a hint, and the listener also looks for itself: whenever it connects, and every few seconds, however much it hears
meanwhile. What the tables say then is what counts, in either direction.
"""

import contextlib
import logging
import re
import select
import socket
import threading
import time
from typing import Final, Protocol, Self

import psycopg

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.projections.postgres_connection import Address, Session, meaning, translated

_LOOK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.1
_RETRY_AT_MOST_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 10.0
_SAID: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")
_log: Final = logging.getLogger("headrace.listener")


class Applying(Protocol):
    """Who is told: :class:`headrace.processors.applied.Applied`, for one. Being told raises nothing."""

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
        self._look_at = 0.0
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
                self._hear(self._session)
                retry = _RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it was: without this thread nobody hears anything more
                self._lost(self._meant(error))
                self._wait(retry)
                retry = min(_RETRY_AT_MOST_SECONDS, retry * 2)

    def _meant(self, error: Exception) -> HeadraceError:
        if isinstance(error, psycopg.Error):
            return meaning(error, self._address.named, "listened to")
        _log.error("the listener met what it was not made for", exc_info=error)
        return UnavailableError(f"{self._address.named} cannot be listened to now ({error!r}); see the log")

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
        """Pass on what was said, and look where that is due; where neither is, wait for something."""
        said = [notification.payload for notification in session.notifies(timeout=0)]
        understood = [self._hint(payload) for payload in said]
        left = self._look_at - time.monotonic()
        if not all(understood) or left <= 0:
            self._look(session)
        elif not said:
            self._wait(left, session)

    def _hint(self, payload: str) -> bool:
        """Pass on what a notification says, where it is new; false: it is about a partition that is not known yet, so
        that only the tables can tell. A worker that was paused between commit and notification speaks of old times."""
        found = _SAID.fullmatch(payload)
        if found is None:
            return True  # nothing that a worker says
        partition, next_offset = map(int, found.groups())
        known = self._next.get(partition)
        if known is not None and next_offset > known:
            self._tell(partition, next_offset)
        return known is not None

    def _wait(self, seconds: float, session: Session | None = None) -> None:
        """Until the server has something to say, :meth:`stop` is called, or the time is up."""
        sources = select.poll()  # unlike select() it takes any descriptor: a server may have thousands
        sources.register(self._woken, select.POLLIN)
        if session is not None:
            sources.register(session.fileno(), select.POLLIN)
        sources.poll(seconds * 1_000)

    def _look(self, session: Session, *, anew: bool = False) -> None:
        """Tell what the tables say where it is something else than what was told, or with ``anew`` in any case."""
        self._look_at = time.monotonic() + self._look_seconds
        rows = session.execute('SELECT "partition", next_offset FROM partitions').fetchall()
        found: dict[int, int] = dict(rows)
        for partition in self._next.keys() | found.keys():
            next_offset = found.get(partition, 0)
            if anew or next_offset != self._next.get(partition):
                self._tell(partition, next_offset)

    def _tell(self, partition: int, next_offset: int) -> None:
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
