"""A person's consent, asked for on the command line: the answer comes back to a port of this machine (RFC 8252, section
7.3), or is pasted where the browser is on another one.
"""

import getpass
import secrets
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from headrace.cli import output
from headrace.errors import BadInputError
from headrace.producers.connections import Grant
from headrace.producers.oauth import Consent
from headrace.producers.source_syncs import Access

CONSENT_SECONDS: Final = 600.0
_CONNECTION_SECONDS: Final = 10.0
_MOST_CHARS: Final = 16_384
_LINE_CHARS: Final = 4_095
"""What Linux keeps of a line that is typed (N_TTY's buffer of 4,096)."""
_DYNAMIC_PORTS: Final = range(49_152, 65_536)
"""RFC 6335, section 6: nobody's. A browser that is sent to one finds nobody there, and shows the address."""
_PAGE: Final = "<!doctype html><meta charset=utf-8><title>headrace</title><p>{}</p>"
_TAKEN: Final = _PAGE.format("headrace has its answer; the terminal says what came of it. This page can be closed.")
_NOT_IT: Final = _PAGE.format(
    "This is no answer to what headrace asked for. Open the address that it printed once more."
)
_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the code is in the address
    "Content-Security-Policy": "default-src 'none'",
    "Connection": "close",
}


def consented(access: Access, *, paste: bool = False, seconds: float | None = None) -> Grant:
    """What a person's browser brings back: to a port of this machine within ``seconds`` (ten minutes, where nobody says
    otherwise) or, with ``paste``, as the address that it was sent to, read from standard input.

    :raises BadInputError: nobody answers, the answer is no, or none to what was asked.
    :raises UnavailableError: the provider does not answer.
    """
    if not access.scope:
        raise BadInputError("these settings ask for nothing that the provider gives; see its page in docs/providers")
    return _by_pasting(access) if paste else _by_browser(access, CONSENT_SECONDS if seconds is None else seconds)


def _by_browser(access: Access, seconds: float) -> Grant:
    server = _Redirected(access.app.redirect)
    try:
        consent = Consent(access.app, access.scope, server.address)
        server.begin(consent.is_answered_by)
        output.note(
            "headrace: open this in a browser of this machine, and allow what it asks for (on another machine: the same"
            f" command with --paste):\n  {consent.url}"
        )
        return consent.grant(server.wait(seconds))
    finally:
        server.close()


def _by_pasting(access: Access) -> Grant:
    port = secrets.choice(_DYNAMIC_PORTS)
    consent = Consent(access.app, access.scope, f"{access.app.redirect}:{port}")
    output.note(
        "headrace: open this in a browser on any machine, and allow what it asks for:\n"
        f"  {consent.url}\n"
        f"It ends at an address that begins with {access.app.redirect}:{port}, where the browser finds nobody: that is"
        " as it should be. Paste that whole address here (it is not shown), and press Enter."
    )
    return consent.grant(_pasted())


def _pasted() -> str:
    """One line of standard input; a terminal does not show it.

    :raises BadInputError: there is none, or it is too long to be an address.
    """
    typed = sys.stdin.isatty()
    try:
        said = getpass.getpass("The address: ", sys.stderr) if typed else sys.stdin.readline(_MOST_CHARS + 1)
    except EOFError:
        said = ""
    if typed and len(said) >= _LINE_CHARS:
        raise BadInputError(
            f"the terminal takes no more than {_LINE_CHARS} characters of a line, so the end of the address is missing:"
            " begin again, and give the address by a pipe"
        )
    if not said.strip():
        raise BadInputError("nothing was pasted: begin again, and paste the address that the browser was sent to")
    if len(said) > _MOST_CHARS:
        raise BadInputError(
            f"what was pasted has more than {_MOST_CHARS} characters: paste the address, and nothing else"
        )
    return said.strip().strip("'\"<>")


class _Redirected:
    """Waits for the browser at ``redirect``, on a port of its own.

    Browsers ask for more than they are sent to (an icon), and open connections on which they say nothing: each request
    has a thread, and whatever does not answer the question that was asked is turned away and changes nothing.
    """

    def __init__(self, redirect: str) -> None:
        self._came: Final = threading.Event()
        self._path = ""
        self._is_answer: Callable[[str], bool] = lambda _: False
        waiting = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _CONNECTION_SECONDS

            def do_GET(self) -> None:
                taken = waiting._take(self.path)
                self.send_response(HTTPStatus.OK if taken else HTTPStatus.NOT_FOUND)
                for name, value in _HEADERS.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write((_TAKEN if taken else _NOT_IT).encode())
                self.wfile.flush()
                if taken:
                    waiting._came.set()  # not before: whoever waits ends the process, and with it this answer

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the class above has it
                """Say nothing: the code is in the path."""

        self._server: Final = _Server(("127.0.0.1", 0), Handler)
        self._thread: Final = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="headrace-consent", daemon=True
        )
        self.address: Final = f"{redirect}:{self._server.server_port}"
        """Where the browser is to be sent. Without a slash at its end: so it is what Microsoft compares with
        ``http://localhost``, as it is registered there, and what Google's documents have."""

    def begin(self, is_answer: Callable[[str], bool]) -> None:
        """From now on an address that is an answer is taken."""
        self._is_answer = is_answer
        self._thread.start()

    def _take(self, path: str) -> bool:
        """Whether this is the answer, now or once more."""
        if not self._is_answer(path):
            return False
        self._path = self._path or path
        return True

    def wait(self, seconds: float) -> str:
        """The address that the browser was sent to."""
        if not self._came.wait(seconds):
            raise BadInputError(
                f"nobody answered within {seconds:g} seconds: begin again; where the browser is on another machine,"
                " with --paste"
            )
        return self.address + self._path

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that breaks off is nothing to tell of."""
