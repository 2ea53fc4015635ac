"""A proxy in front of a PostgreSQL server that loses what it is told to lose."""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_BYTES = 65_536


class Proxy:
    """Passes bytes on. With :meth:`lose_answer` or :meth:`lose_question` it breaks a connection at its next ``COMMIT``:
    after the server has done it, or before it hears of it."""

    def __init__(self, address: str) -> None:
        self._server = conninfo_to_dict(address)
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-px-"))  # a socket's path has 107 characters at the most
        self.address = make_conninfo(address, host=str(self._folder), port=5432)
        self.lost = 0
        self._arm: str | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._folder / ".s.PGSQL.5432"))
        self._listening.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def lose_answer(self) -> None:
        """The next commit happens, and nobody hears of it."""
        self._arm = "answer"

    def lose_question(self) -> None:
        """The next commit does not happen, and nobody hears of that either."""
        self._arm = "question"

    def close(self) -> None:
        """Break every connection and take no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for one in self._open:
                _break(one)
        for thread in self._threads:
            thread.join(10)
        for one in self._open:
            one.close()
        shutil.rmtree(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = self._connect()
            with self._lock:
                self._open |= {client, server}
            pair = (client, server)
            for run in (self._ask, self._answer):
                thread = threading.Thread(target=run, args=pair, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket:
        host, port = str(self._server.get("host", "localhost")), int(str(self._server.get("port") or 5432))
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, port))

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        for data in _received(client):
            if self._arm is not None and b"COMMIT\0" in data:
                self.lost += 1
                if self._arm == "question":
                    break
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)  # what the server says from here on finds nobody
            with contextlib.suppress(OSError):
                server.sendall(data)
        _break(server)
        _break(client)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        for data in _received(server):
            try:
                client.sendall(data)
            except OSError:  # the answer to a commit: it is done, and lost
                break
        self._arm = None if self.lost else self._arm
        _break(client)
        _break(server)


def _received(one: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := one.recv(_BYTES):
            yield data


def _break(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
