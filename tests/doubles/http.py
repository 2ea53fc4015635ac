"""An HTTP service in this process: the same double answers a client's transport directly (fast, for hypothesis) or a
real socket. Faults are planned ahead, and slow answers wait for a signal, never for a clock."""

import json
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

import httpx

from headrace.producers.provider_http import GrantError


class Request(NamedTuple):
    """What was asked: ``path`` without the query, header names in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes

    def one(self, name: str, default: str | None = None) -> str | None:
        """A query parameter that comes once; the last where it comes more often."""
        return dict(self.query).get(name, default)

    def all(self, name: str) -> list[str]:
        """A query parameter that may be repeated."""
        return [value for key, value in self.query if key == name]

    def json(self) -> Any:
        """The body as JSON, ``{}`` for none."""
        return json.loads(self.body) if self.body else {}


class Reply(NamedTuple):
    """What is answered."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}

    @classmethod
    def json(cls, status: int, value: Any, headers: Mapping[str, str] | None = None) -> "Reply":
        """An answer in JSON."""
        return cls(status, json.dumps(value).encode(), {"content-type": "application/json", **(headers or {})})


class DropError(Exception):
    """The connection breaks instead of an answer."""


class Service(Protocol):
    """A double. Called by one request at a time."""

    def answer(self, request: Request) -> Reply:
        """The answer; raises :class:`DropError` to break the connection."""
        ...


Fault = Callable[[Request], Reply | None]
"""What happens instead of the answer, or ``None``: the answer after all. Raises :class:`DropError`, or blocks."""


def replies(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Fault:
    """This answer, whatever is asked."""
    return lambda _: Reply.json(status, body if body is not None else {}, headers)


def drops(_: Request) -> Reply | None:
    """No answer: the connection breaks."""
    raise DropError


def held(asked: threading.Event, go_on: threading.Event, timeout: float = 30.0) -> Fault:
    """A slow answer: ``asked`` is set, and the answer comes once ``go_on`` is."""

    def hold(_: Request) -> Reply | None:
        asked.set()
        if not go_on.wait(timeout):
            raise DropError
        return None

    return hold


class Faulty:
    """A double, and what goes wrong with it: each planned fault takes one request (of ``path``, where it is given)."""

    def __init__(self, service: Service) -> None:
        self.asked: Final[list[Request]] = []
        self._service: Final = service
        self._plan: Final[list[tuple[str, Fault | None]]] = []
        self._lock: Final = threading.Lock()

    def plan(self, *faults: Fault | None, path: str = "") -> None:
        """For the next requests whose path ends with ``path``; ``None`` lets one pass."""
        self._plan.extend((path, fault) for fault in faults)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._plan.clear()

    def answer(self, request: Request) -> Reply:
        """See :class:`Service`."""
        with self._lock:
            self.asked.append(request)
            at = next((n for n, (path, _) in enumerate(self._plan) if request.path.endswith(path)), None)
            fault = self._plan.pop(at)[1] if at is not None else None
        reply = fault(request) if fault is not None else None
        if reply is not None:
            return reply
        with self._lock:
            return self._service.answer(request)


def transport(service: Service) -> httpx.MockTransport:
    """A client's way to the double without a socket."""

    def handle(request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, tuple(request.url.params.multi_items())
        asked = Request(request.method, path, query, dict(request.headers), request.read())
        try:
            reply = service.answer(asked)
        except DropError:
            raise httpx.ReadError("the connection broke", request=request) from None
        return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body)

    return httpx.MockTransport(handle)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked may have been killed meanwhile; anything else is a bug of a double."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def served(service: Service) -> Generator[str]:
    """The double on a socket of this machine; its URL, without a slash at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            split = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = tuple(parse_qsl(split.query, keep_blank_values=True))
            try:
                reply = service.answer(Request(self.command, split.path, query, headers, body))
            except DropError:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the names that the server calls
        do_OPTIONS = do_PROPFIND = do_REPORT = _handle  # noqa: N815 - WebDAV's

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the class above has it
            """Says nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Grant:
    """Somebody's OAuth grant, on both sides: access tokens as a client has them, and what the double takes.

    ``expire`` makes the token in use one of yesterday; ``revoke`` ends the grant.
    """

    def __init__(self, scopes: Sequence[str] = ()) -> None:
        self.scopes: Final = tuple(scopes)
        self.refreshed = 0
        self._number = 0
        self._good = True

    @property
    def token(self) -> str:
        """The access token that works now."""
        return f"at-{self._number}"

    def expire(self) -> None:
        """Only a fresh token works from now on."""
        self._number += 1

    def revoke(self) -> None:
        """Nothing works any more."""
        self._good = False
        self._number += 1

    def takes(self, request: Request) -> bool:
        """Whether the request shows a token that works."""
        return self._good and request.headers.get("authorization") == f"Bearer {self.token}"

    def tokens(self) -> "GrantedTokens":
        """For :class:`headrace.producers.provider_http.ProviderHttp`."""
        return GrantedTokens(self)

    def fresh(self) -> str:
        """What the token endpoint gives.

        :raises GrantError: the grant is gone.
        """
        if not self._good:
            raise GrantError("the grant is gone; connect the source again")
        self.refreshed += 1
        return self.token


class GrantedTokens:
    """A client's tokens: the one it has, until it is refused."""

    def __init__(self, grant: Grant) -> None:
        self._grant: Final = grant
        self._token = grant.token

    def access(self, *, refused: str | None = None) -> str:
        """See :class:`headrace.producers.provider_http.Tokens`."""
        if refused == self._token:
            self._token = self._grant.fresh()
        return self._token
