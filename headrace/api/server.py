"""The API on a socket: in the main thread until a signal, or in a thread of its own for as long as a context lasts."""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import uvicorn

from headrace.api.app import create_app
from headrace.api.context import Context
from headrace.errors import UnavailableError
from headrace.settings import Settings, refuse_unsafe
from headrace.store import Store

SERVER_FILE: Final = "server.json"
GRACE_SECONDS: Final = 5
_LATE_SECONDS: Final = 0.1
_START_SECONDS: Final = 30.0
_SWITCH_SECONDS: Final = 0.001
"""A proposal passes through three threads (event loop, log, fold). By default each may wait 5 ms for the interpreter,
which is longer than all the work on it together."""
_BACKLOG: Final = 1_024


def serve(store: Store, settings: Settings, *, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM; open requests get 5 seconds to end. ``ready`` is called with the URL once it
    answers. Port 0 takes a free one. The store stays the caller's to close.

    :raises BadInputError: the address is not safe without API keys.
    :raises UnavailableError: the address cannot be listened on.
    """
    with _listening(store, settings) as (listener, server, url):
        server.ready = lambda: ready(url)
        sys.setswitchinterval(_SWITCH_SECONDS)
        server.run([listener])


class BackgroundServer:
    """The same in a thread of its own, while the context lasts. ``url`` is where it answers.

    :raises BadInputError: the address is not safe without API keys.
    :raises UnavailableError: the address cannot be listened on, or the server did not start.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._opened: Final = _listening(store, settings)
        self._started: Final = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        listener, self._server, self.url = self._opened.__enter__()
        self._server.ready = self._started.set
        self._thread = threading.Thread(target=self._run, args=(listener,), name="headrace-api", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or not self._server.started:
            self.__exit__()
            raise UnavailableError("the API did not start; its log says why")
        return self

    def _run(self, listener: socket.socket) -> None:
        try:
            self._server.run([listener])
        finally:
            self._started.set()

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._opened.__exit__(None, None, None)


class _Server(uvicorn.Server):
    """Tells when it answers, and ends open streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self.ready: Callable[[], None] = lambda: None
        self._context = context

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """SIGINT and SIGTERM end the server, and nothing more: uvicorn would raise them again, and SIGTERM then ends
        the process before the store is closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._context.closing.close()
        ending = asyncio.create_task(self._end_latecomers())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_latecomers(self) -> None:
        """uvicorn tells the connections it knows that they end; one that was being accepted just then would be served
        on and on, until the time of grace is over and its last request ends in a 500."""
        while True:
            await asyncio.sleep(_LATE_SECONDS)
            for connection in list(self.server_state.connections):
                connection.shutdown()


@contextmanager
def _listening(store: Store, settings: Settings) -> Generator[tuple[socket.socket, _Server, str]]:
    refuse_unsafe(settings)
    app = create_app(store, settings)
    listener = _bind(settings.host, settings.port)
    try:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="off",
            http="h11",  # takes any method, so that what is refused is refused in our words, whatever else is installed
            ws="none",
        )
        url = _url(settings.host, listener.getsockname()[1])
        path = store.directory / SERVER_FILE
        _write(path, {"url": url, "pid": os.getpid()})
        try:
            yield listener, _Server(config, app.state.context), url
        finally:
            path.unlink(missing_ok=True)
    finally:
        listener.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}: {error}; give another host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error}; give another port (--port or HEADRACE_PORT; 0 takes a free one)"
        ) from error
    return listener


def _url(host: str, port: int) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host).strip("[]")  # noqa: S104 - as shown to this machine
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _write(path: Path, content: dict[str, object]) -> None:
    """Whole or not at all: whoever reads it meanwhile finds the old one or none."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fresh.write_text(json.dumps(content) + "\n", encoding="utf-8")
    fresh.replace(path)
