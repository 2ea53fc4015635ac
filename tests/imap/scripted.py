"""A server that says what a test tells it to, where no real one would."""

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

Said = bytes | Callable[[bytes], bytes | None] | None
"""What it answers to a command, the tagged OK apart; ``None``: nothing, ever."""
_HELLO: Final = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hello\r\n"
_USUAL: Final[Mapping[str, Said]] = {
    "CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n",
    "AUTHENTICATE": b"",
    "LOGIN": b"",
    "LIST": b'* LIST (\\HasNoChildren) "/" INBOX\r\n',
    "STATUS": b'* STATUS "INBOX" (MESSAGES 1 UIDNEXT 8 UIDVALIDITY 3)\r\n',
    "EXAMINE": b"* 1 EXISTS\r\n* OK [UIDVALIDITY 3] good\r\n* OK [UIDNEXT 8] good\r\n",
    "CLOSE": b"",
    "NOOP": b"",
    "LOGOUT": b"* BYE bye\r\n",
}
HEADER: Final = b"Message-ID: <m1@example.com>\r\nFrom: bob@example.com\r\nTo: ann@example.com\r\n\r\n"


def shown(uid: int = 7, header: bytes = HEADER, flags: bytes = b"\\Seen", number: int = 1) -> bytes:
    """An answer to the FETCH of headers."""
    items = b'UID %d FLAGS (%s) INTERNALDATE "18-Nov-2026 11:06:41 +0000" RFC822.SIZE 99 ' % (uid, flags)
    field = b"BODY[HEADER.FIELDS (MESSAGE-ID)]<0> {%d}\r\n%s" % (len(header), header)
    return b"* %d FETCH (%s%s)\r\n" % (number, items, field)


class Scripted:
    """It listens on a free port of 127.0.0.1. ``says`` by command: ``FETCH`` is asking for flags, ``UID FETCH`` for
    headers.

    An answer with a tagged line of its own (``TAG NO …``), or that begins with ``RAW``, is all that it says."""

    def __init__(self, says: Mapping[str, Said], hello: bytes = _HELLO) -> None:
        usual: dict[str, Said] = {"FETCH": b"* 1 FETCH (UID 7 FLAGS (\\Seen))\r\n", "UID FETCH": shown()}
        self._says: Final = {**_USUAL, **usual, **says}
        self._hello: Final = hello
        self._listening: Final = socket.create_server(("127.0.0.1", 0))
        self.port: Final[int] = self._listening.getsockname()[1]
        self._links: Final[list[socket.socket]] = []
        self.asked: Final[list[bytes]] = []
        self._thread: Final = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listening.accept()
            except OSError:
                return
            self._links.append(link)
            threading.Thread(target=self._talk, args=(link,), daemon=True).start()

    def _talk(self, link: socket.socket) -> None:
        with suppress(OSError), link.makefile("rb") as lines:
            link.sendall(self._hello)
            for line in lines:
                self.asked.append(line.strip())
                if not self._answer(link, line.strip()):
                    link.shutdown(socket.SHUT_RDWR)
                    return

    def _answer(self, link: socket.socket, line: bytes) -> bool:
        """Whether the connection goes on."""
        tag, _, command = line.partition(b" ")
        words = command.upper().split(b" ")
        verb = b" ".join(words[:2] if words[0] == b"UID" else words[:1]).decode("latin-1")
        said = self._says.get(verb, b"TAG BAD unknown\r\n")
        if callable(said):
            said = said(command)
        if said is None:
            return True
        if said.startswith(b"RAW"):
            link.sendall(said.removeprefix(b"RAW"))
            return True
        if b"TAG " in said:
            link.sendall(said.replace(b"TAG ", tag + b" "))
            return True
        link.sendall(said if said.startswith(b"* BYE") and verb != "LOGOUT" else said + tag + b" OK done\r\n")
        return not said.startswith(b"* BYE")
