"""IMAP (RFC 3501, RFC 9051) as the library IMAPClient speaks it: with bounds on what a server may make us hold in
memory, raw enough for RFC 7162, and what its errors mean, in one place.

What a server says in words never gets into a message of ours: it may name people. Its response codes (RFC 5530) do.
"""

import logging
import re
import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, ProtocolError
from imapclient.response_parser import parse_response

from headrace.errors import BadInputError, HeadraceError, UnavailableError
from headrace.producers.provider_http import ThrottledError

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of the answers to one command."""
_MOST_LINES: Final = 10_000
_THROTTLED_SECONDS: Final = 60.0
_CODE: Final = re.compile(r"\[([A-Z][A-Z0-9-]*)")
_BUSY: Final = frozenset({"LIMIT", "THROTTLED", "OVERQUOTA"})
_TROUBLE: Final = frozenset({"UNAVAILABLE", "INUSE", "SERVERBUG"})
_STALE: Final = ("FETCH", "VANISHED", "EXPUNGE", "EXISTS", "RECENT")

# The library writes whole commands, folders and headers to its loggers: none of that is for a log.
for _name in ("imapclient", "imapclient.imapclient", "imapclient.imaplib"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class NoError(UnavailableError):
    """The server says NO or BAD, and may say otherwise another time; ``code`` is its response code (RFC 5530), empty
    where it gives none."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: Final = code


class Client(IMAPClient):  # type: ignore[misc]
    """The library's client, bounded. ``timeout_s`` is for connecting and for each wait for an answer."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> None:
        self._left = _MOST_BYTES
        timeout: Any = SocketTimeout(timeout_s, timeout_s)
        super().__init__(host, port, ssl=context is not None, ssl_context=context, timeout=timeout)
        self.folder_encode = False
        # The library sends some commands in pieces, and the kernel would wait 40 ms between them.
        self.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _create_IMAP4(self) -> Any:  # noqa: N802 - the library's name
        """The connection, with its reads counted."""
        made: Any = super()._create_IMAP4()
        made.read, made.readline = self._counted(made.read), self._counted_line(made.readline)
        return made

    def _counted(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        def counted(size: int) -> bytes:
            self._spend(size)
            return read(size)

        return counted

    def _counted_line(self, readline: Callable[[], bytes]) -> Callable[[], bytes]:
        def counted() -> bytes:
            line = readline()
            self._spend(len(line))
            return line

        return counted

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise IMAPClientAbortError(f"an answer of more than {_MOST_BYTES} bytes")

    def refresh(self) -> None:
        """A new command begins: what was said unasked is forgotten, and its answers may be long again."""
        self._left = _MOST_BYTES
        for name in _STALE:
            self._imap.untagged_responses.pop(name, None)

    def fetched(self, *words: str) -> list[tuple[int, dict[bytes, Any]]]:
        """``words`` is a FETCH or UID FETCH; its answers one by one, by sequence number.

        The library's own ``fetch`` files an answer without UID, which another session's change brings, under its
        sequence number, where it passes for a message of that UID.
        """
        tag = self._imap._command(*words)
        kind, data = self._imap._command_complete("FETCH", tag)
        self._checkok("FETCH", kind, data)
        kind, data = self._imap._untagged_response(kind, data, "FETCH")
        parsed = parse_response([one for one in data if one is not None])
        found: list[tuple[int, dict[bytes, Any]]] = []
        for at in range(0, len(parsed) - 1, 2):
            number, items = parsed[at], parsed[at + 1]
            if not isinstance(number, int) or not isinstance(items, tuple) or len(items) % 2:
                raise IMAPClientError("a FETCH answer of another shape")
            names = [name.upper() if isinstance(name, bytes) else b"" for name in items[::2]]
            found.append((number, dict(zip(names, items[1::2], strict=True))))
        return found

    def vanished(self) -> list[bytes]:
        """The sets of UIDs that VANISHED answers (RFC 7162, section 3.2.10) of the last command named."""
        said: list[Any] = self._imap.untagged_responses.pop("VANISHED", [])
        return [one.rsplit(b" ", 1)[-1] for one in said if one]

    def listed(self, returning: str) -> tuple[list[tuple[Any, Any, Any]], list[tuple[Any, Any]]]:
        """All folders (attributes, delimiter, name), with what is to be returned beside (RFC 5258); and of those that
        come with their status (RFC 5819), name and items."""
        words = [b'""', b'"*"', *([f"RETURN ({returning})".encode()] if returning else [])]
        self._imap.untagged_responses.pop("STATUS", None)
        data = self._raw_command_untagged(b"LIST", words, uid=False)
        stated: list[Any] = self._imap.untagged_responses.pop("STATUS", [])
        said = parse_response(stated)
        return self._proc_folder_list(data), list(zip(said[::2], said[1::2], strict=True))

    def notify(self) -> None:
        """Have the server tell of changes in all of the user's folders (RFC 5465), not of the open one alone."""
        events = b"(personal (MessageNew MessageExpunge FlagChange))"
        kind, data = self._raw_command(b"NOTIFY", [b"SET", events], uid=False)
        self._checkok("NOTIFY", kind, data)

    def heard(self) -> list[bytes]:
        """The lines that have come unasked, without waiting for more. None at all where there was something to read
        means that the connection may be at its end.

        Unlike the library's ``idle_check`` it finds what came together with the answer to a command, too.
        """
        self._left = _MOST_BYTES
        connection = self.socket()
        connection.settimeout(0)
        lines: list[bytes] = []
        try:
            while len(lines) < _MOST_LINES:
                lines.append(self._imap._get_line())
        except IMAPClientAbortError as error:
            if "EOF" not in str(error):
                raise
        except (BlockingIOError, ssl.SSLWantReadError):
            return lines
        finally:
            self._set_read_timeout()
        return lines


def response_code(error: BaseException) -> str:
    """The first response code (RFC 3501, section 7.1) in what a server said, empty for none."""
    found = _CODE.search(str(error))
    return found.group(1) if found else ""


@contextmanager
def speaking(host: str) -> Generator[None]:
    """What goes wrong inside, in headrace's terms.

    :raises NoError: the server refuses the command.
    :raises ThrottledError: it wants to be left alone.
    :raises UnavailableError: it does not answer, breaks off, or says what is not IMAP.
    :raises BadInputError: its certificate cannot be trusted.
    """
    try:
        yield
    except HeadraceError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise BadInputError(
            f"the certificate of {host} cannot be trusted ({error.verify_message}): give the name that it is made out"
            " to as host, or its authority's certificate as ca_file"
        ) from None
    except IMAPClientAbortError:
        raise UnavailableError(f"{host} broke the connection off; it is asked again later") from None
    except ProtocolError:
        raise _no_imap(host, "ProtocolError") from None
    except IMAPClientError as error:
        code = response_code(error)
        if code in _BUSY:
            raise ThrottledError(f"{host} wants to be left alone ({code})", _THROTTLED_SECONDS) from None
        if code in _TROUBLE:
            raise UnavailableError(f"{host} cannot do it now ({code}); it is asked again later") from None
        raise NoError(code, f"{host} refuses{f' ({code})' if code else ''}; it is asked again later") from None
    except OSError as error:
        raise UnavailableError(f"{host} does not answer ({type(error).__name__}); it is asked again later") from None
    except Exception as error:  # noqa: BLE001 - the library's parsers raise whatever strange answers lead to
        raise _no_imap(host, type(error).__name__) from None


def _no_imap(host: str, why: str) -> UnavailableError:
    return UnavailableError(f"{host} answers with something else than IMAP ({why}); it is asked again later")
