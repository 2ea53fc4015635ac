"""Between workers and a calendar server: it passes requests on, takes note of them, and keeps some waiting."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from tests.doubles.http import DropError, Reply, Request

_PATIENCE: Final = 90.0
_OWN: Final = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})


class Relay:
    """A :class:`tests.doubles.http.Service`; many requests at once. ``names`` tell whose a request is by a part of its
    path."""

    def __init__(self, url: str, names: Iterable[str]) -> None:
        split = urlsplit(url)
        self._host: Final = split.hostname or ""
        self._port: Final = split.port
        self._names: Final = tuple(names)
        self._changed: Final = threading.Condition()
        self._held: Final[set[str]] = set()
        self._running: Final[Counter[str]] = Counter()
        self.waiting: Final[Counter[str]] = Counter()
        """Requests that are kept waiting now."""
        self.asked: Final[Counter[str]] = Counter()
        """How many there were."""
        self.most: Final[Counter[str]] = Counter()
        """How many there were at the same time, at the most."""

    def hold(self, *names: str) -> None:
        """Requests for these wait from now on."""
        with self._changed:
            self._held.update(names)

    def release(self) -> None:
        """All go on, and none waits any more."""
        with self._changed:
            self._held.clear()
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once it is so."""
        with self._changed:
            assert self._changed.wait_for(condition, _PATIENCE), (self.waiting, self.asked)

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        name = next((one for one in self._names if f"/{one}/" in request.path), "")
        with self._changed:
            self.asked[name] += 1
            self._running[name] += 1
            self.most[name] = max(self.most[name], self._running[name])
            self.waiting[name] += 1
            self._changed.notify_all()
            passed = self._changed.wait_for(lambda: name not in self._held, _PATIENCE)
            self.waiting[name] -= 1
        try:
            if not passed:
                raise DropError
            return self._passed_on(request)
        finally:
            with self._changed:
                self._running[name] -= 1
                self._changed.notify_all()

    def _passed_on(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _OWN}
            connection.request(request.method, request.path, request.body, headers)
            answer = connection.getresponse()
            said = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in _OWN}
            return Reply(answer.status, answer.read(), said)
        finally:
            connection.close()
