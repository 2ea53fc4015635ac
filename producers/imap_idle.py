"""Holds a connection to an IMAP server open, and says when something changes: anywhere, where the server has NOTIFY
(RFC 5465); else in the inbox and in the folder of sent mail, by IDLE (RFC 2177) on a connection for each.

What it says is a hint. Polling finds everything that a watcher misses; a watcher only makes it soon.
"""

import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from headrace.errors import UnavailableError
from headrace.processors.kinds.mail_thread import INBOX
from headrace.producers.imap_client import Client, NoError, speaking
from headrace.producers.imap_connection import ImapConnection
from headrace.producers.imap_folders import roles
from headrace.producers.imap_login import ImapSettings, connect, hang_up
from headrace.producers.provider import Hint
from headrace.producers.provider_http import ThrottledError, Tokens

IDLE_SECONDS: Final = 9 * 60.0
"""How long an IDLE lasts before the next. RFC 2177 wants less than 29 minutes; networks forget quiet connections
sooner."""
POLL_SECONDS: Final = 300.0
_CONNECT_SECONDS: Final = 10.0
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 300.0


class _Line(NamedTuple):
    """A connection on which the server speaks unasked: in IDLE, or by NOTIFY."""

    client: Client
    idle: bool


class ImapWatcher:
    """Watches one mailbox from a thread of its own: whoever iterates over :meth:`hints`.

    ``watch`` is what its hints name; ``idle_s`` how long one IDLE lasts; ``poll_s`` how often there is a hint where the
    server has no IDLE. ``random`` gives numbers in [0, 1), to spread what many watchers do after an outage.
    """

    def __init__(
        self,
        settings: ImapSettings,
        tokens: Tokens,
        watch: str,
        *,
        idle_s: float = IDLE_SECONDS,
        poll_s: float = POLL_SECONDS,
        first_retry_s: float = _FIRST_RETRY,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._tokens, self._watch = settings, tokens, watch
        self._idle_s, self._poll_s, self._first_retry_s, self._random = idle_s, poll_s, first_retry_s, random
        self._stopped: Final = threading.Event()
        self._speaking: Final = threading.Lock()
        self._ear: socket.socket | None = None
        self._voice: socket.socket | None = None

    def hints(self) -> Iterator[Hint]:
        """A hint whenever something may have changed, until :meth:`stop`: one after each time that the connection was
        made, for what happened before, and then one for everything that the server says.

        A connection that breaks is made again, later and later.

        :raises GrantError: the server does not believe who we are; a person must act.
        :raises BadInputError: a setting does not fit the server.
        """
        self._ear, voice = socket.socketpair()
        with self._speaking:
            self._voice = voice
        try:
            yield from self._hints()
        finally:
            with self._speaking:
                self._voice = None
            self._ear.close()
            voice.close()

    def stop(self) -> None:
        """End it at once, from any thread."""
        self._stopped.set()
        with self._speaking:
            if self._voice is not None:
                self._voice.send(b"\0")

    def _hints(self) -> Iterator[Hint]:
        failures = 0
        while not self._stopped.is_set():
            pause = 0.0
            try:
                for hint in self._held():
                    failures = 0
                    yield hint
            except ThrottledError as error:
                pause = error.retry_after
            except UnavailableError:
                failures += 1
                pause = min(self._first_retry_s * 2.0 ** (failures - 1), _LONGEST_RETRY)
            if pause:
                self._listen((), pause * (0.5 + self._random()))

    def _held(self) -> Iterator[Hint]:
        with ExitStack() as stack:
            lines = self._lines(stack)
            for line in lines:
                self._said(line)  # what came at once is in the first hint, but for a farewell
            yield self._hint()
            while not self._stopped.is_set():
                if not lines:
                    self._listen((), self._poll_s * (0.75 + self._random() / 2))
                    return
                due = time.monotonic() + self._idle_s
                while (left := due - time.monotonic()) > 0 and not self._stopped.is_set():
                    if sum(self._news(line) for line in self._listen(lines, left)):
                        yield self._hint()
                if not self._stopped.is_set() and sum(self._renewed(line) for line in lines):
                    yield self._hint()

    def _lines(self, stack: ExitStack) -> list[_Line]:
        """Connections on which the server speaks unasked; none where it has no such thing."""
        first = self._client(stack)
        connection = ImapConnection(first, self._settings.host)
        connection.prepare()
        if connection.able("NOTIFY") and self._notified(first):
            return [_Line(first, idle=False)]
        if not connection.able("IDLE"):
            return []
        own = roles(connection.folders(), self._settings.folders)
        sent = [folder.wire for folder, role in own.items() if role == "sent"]
        return [self._idling(first, INBOX.encode()), *(self._idling(self._client(stack), one) for one in sent[:1])]

    def _client(self, stack: ExitStack) -> Client:
        client = connect(self._settings, self._tokens, timeout_s=_CONNECT_SECONDS)
        stack.callback(hang_up, client)  # in IDLE a server does not hear LOGOUT
        client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return client

    def _notified(self, client: Client) -> bool:
        """No folder is open: for that one NOTIFY would not hold (RFC 5465, section 6.1)."""
        try:
            with speaking(self._settings.host):
                client.notify()
        except NoError:
            return False
        return True

    def _idling(self, client: Client, folder: bytes) -> _Line:
        with speaking(self._settings.host):
            client.select_folder(folder, readonly=True)
            client.idle()
        return _Line(client, idle=True)

    def _renewed(self, line: _Line) -> bool:
        """Go on, on a connection that is known to be alive; whether the server said something in between."""
        with speaking(self._settings.host):
            line.client.refresh()
            if line.idle:
                _, said = line.client.idle_done()
                line.client.idle()
            else:
                _, said = line.client.noop()
        return any(one[0] != b"OK" for one in said) | _is_news(self._said(line))

    def _news(self, line: _Line) -> bool:
        said = self._said(line)
        return _is_news(said) if said else self._renewed(line)

    def _said(self, line: _Line) -> list[bytes]:
        """What has been said unasked.

        :raises UnavailableError: a farewell.
        """
        with speaking(self._settings.host):
            said = line.client.heard()
        if any(one.upper().startswith(b"* BYE") for one in said):
            raise UnavailableError(f"{self._settings.host} ends the connection; it is made again")
        return said

    def _listen(self, lines: Sequence[_Line], seconds: float) -> list[_Line]:
        """Those that can be heard within ``seconds``; none, at once, when told to stop."""
        with selectors.DefaultSelector() as selector:
            assert self._ear is not None
            selector.register(self._ear, selectors.EVENT_READ)
            for line in lines:
                selector.register(line.client.socket(), selectors.EVENT_READ, line)
            return [key.data for key, _ in selector.select(seconds) if key.data is not None]

    def _hint(self) -> Hint:
        return Hint(self._watch, None)


def _is_news(said: Sequence[bytes]) -> bool:
    """``* OK Still here`` is none."""
    return any(not one.upper().startswith((b"* OK", b"+")) for one in said)
