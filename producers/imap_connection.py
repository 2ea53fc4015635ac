"""One logged-in IMAP connection, and the few things that following a mailbox asks of it."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from imapclient.datetime_util import parse_to_datetime
from imapclient.imap_utf7 import decode as decode_utf7
from imapclient.util import to_bytes

from headrace.errors import UnavailableError
from headrace.producers.imap_client import Client, NoError, speaking
from headrace.producers.imap_login import ImapSettings, connect, let_go
from headrace.producers.provider_http import Tokens

LISTED_AT_ONCE: Final = 5_000
"""Messages whose flags are asked for together; a line of the answer is about 100 bytes."""
HEADERS_AT_ONCE: Final = 200
MOST_HEADER_BYTES: Final = 32 * 1024
MOST_TEXT_BYTES: Final = 256 * 1024
_FIELDS: Final = "MESSAGE-ID IN-REPLY-TO REFERENCES DATE FROM TO CC BCC SUBJECT"
_HEADER: Final = f"BODY.PEEK[HEADER.FIELDS ({_FIELDS})]<0.{MOST_HEADER_BYTES}>"
_LAST_UID: Final = 2**32 - 1
_MOST_FOLDERS: Final = 10_000
_T = TypeVar("_T")


class ListedFolder(NamedTuple):
    """A folder that can be opened. ``wire`` is its name as commands take it, ``flags`` its attributes in lower case."""

    wire: bytes
    name: str
    delimiter: str
    flags: frozenset[str]


class Standing(NamedTuple):
    """Where a folder is (RFC 3501, section 2.3.1.1; RFC 7162): nothing in it has changed while this is the same.
    ``modseq`` 0: the server does not keep it."""

    uidvalidity: int
    uidnext: int
    modseq: int
    messages: int


class Flagged(NamedTuple):
    """A message and its flags; system flags with their backslash."""

    uid: int
    flags: frozenset[str]


class Header(NamedTuple):
    """What is known of a message without its body. ``text`` are the header's lines that matter, as they came; ``date``
    when the server took it in, epoch milliseconds UTC, ``None`` where it says nothing of use."""

    uid: int
    flags: frozenset[str]
    date: int | None
    size: int
    text: bytes


class ImapConnection:
    """Not for several threads at once. At most one folder is open, and only for reading."""

    def __init__(self, client: Client, host: str) -> None:
        self._client: Final = client
        self._host: Final = host
        self._open: bytes | None = None
        self._able: frozenset[str] = frozenset()
        self._standings: dict[bytes, Standing] = {}
        self.condstore = False
        self.qresync = False

    def prepare(self) -> None:
        """Find out what the server can, and have it do so."""
        with speaking(self._host):
            self._able = frozenset(one.decode("latin-1") for one in self._client.capabilities())
        self.condstore = "CONDSTORE" in self._able or "QRESYNC" in self._able
        if "ENABLE" in self._able and self.condstore:
            wanted = "QRESYNC" if "QRESYNC" in self._able else "CONDSTORE"
            with speaking(self._host):
                enabled = {one.upper() for one in self._client.enable(wanted)}
            self.qresync = b"QRESYNC" in enabled

    def able(self, capability: str) -> bool:
        """Whether the server says that it can."""
        return capability in self._able

    def folders(self) -> list[ListedFolder]:
        """The user's own folders, but those that cannot be opened.

        :raises UnavailableError: the answer is no list of folders.
        """
        # Some servers say what folders are for only when asked to (RFC 6154, section 2).
        returning = ["SPECIAL-USE"] if "SPECIAL-USE" in self._able else []
        returning += [f"STATUS ({' '.join(self._status)})"] if "LIST-STATUS" in self._able else []
        with self._command():
            listed, standings = self._client.listed(" ".join(returning) if "LIST-EXTENDED" in self._able else "")
            pairs = [(_wire(name), dict(zip(items[::2], items[1::2], strict=True))) for name, items in standings]
        self._standings = {name: self._standing(items, b"MESSAGES") for name, items in pairs}
        foreign = self._foreign()
        found: dict[bytes, ListedFolder] = {}
        for attributes, delimiter, name in listed[:_MOST_FOLDERS]:
            if not isinstance(attributes, tuple) or name is None:
                raise UnavailableError(f"{self._host} lists its folders in another form than LIST's")
            flags = frozenset(_text(one).lower() for one in attributes)
            wire = _wire(name)
            if flags & {"\\noselect", "\\nonexistent"} or any(wire.startswith(one) for one in foreign):
                continue
            found[wire] = ListedFolder(wire, _folder_name(wire), _text(delimiter or b""), flags)
        return list(found.values())

    def standing(self, folder: ListedFolder) -> Standing | None:
        """Where a folder is that is not open, or was when it was listed; ``None`` where the server will not say."""
        listed = self._standings.get(folder.wire)
        if listed is not None:
            return listed
        try:
            with self._command():
                said: dict[Any, Any] = self._client.folder_status(folder.wire, self._status)
        except NoError:
            return None
        return self._standing(said, b"MESSAGES")

    @property
    def _status(self) -> list[str]:
        return ["MESSAGES", "UIDNEXT", "UIDVALIDITY", *(["HIGHESTMODSEQ"] if self.condstore else [])]

    def open(self, folder: ListedFolder) -> Standing:
        """Open a folder for reading (EXAMINE). The folder open before is closed.

        :raises NoError: the server will not.
        """
        self.close_folder()
        with self._command():
            said = self._client.select_folder(folder.wire, readonly=True)
        self._open = folder.wire
        return self._standing({**said, b"HIGHESTMODSEQ": 0} if b"NOMODSEQ" in said else said, b"EXISTS")

    def close_folder(self) -> None:
        """Close what is open. After EXAMINE that deletes nothing (RFC 3501, section 6.4.2)."""
        if self._open is None:
            return
        self._open = None
        with self._command():
            self._client.close_folder()

    def all_flags(self, messages: int) -> Iterator[list[Flagged]]:
        """UID and flags of all messages of the open folder, UIDs ascending, part by part.

        By sequence number: the numbers stand still, for no EXPUNGE may come during or between FETCH commands (RFC 3501,
        section 7.4.1).
        """
        for first in range(1, messages + 1, LISTED_AT_ONCE):
            last = min(first + LISTED_AT_ONCE - 1, messages)
            with self._command():
                answers = self._client.fetched("FETCH", f"{first}:{last}", "(UID FLAGS)")
            yield sorted(self._flagged(answers))

    def changed(self, since: int, first: int, last: int | None) -> tuple[list[Flagged], list[tuple[int, int]]]:
        """The messages with UIDs from ``first`` to ``last`` (``None``: and all beyond) that changed after mod-sequence
        ``since``; and, from a server with QRESYNC, ranges of UIDs that are gone (RFC 7162, sections 3.1.4, 3.2.6)."""
        modifier = f"(CHANGEDSINCE {since} VANISHED)" if self.qresync else f"(CHANGEDSINCE {since})"
        with self._command():
            answers = self._client.fetched("UID", "FETCH", f"{first}:{last or '*'}", "(UID FLAGS)", modifier)
            gone = [one for said in self._client.vanished() for one in _ranges(said)]
        return sorted(self._flagged(answers)), gone

    def headers(self, uids: Sequence[int]) -> tuple[list[Header], list[int]]:
        """The headers of messages of the open folder, and the UIDs of those that the server cannot show. What is gone
        meanwhile is in neither."""
        items = f"(UID FLAGS INTERNALDATE RFC822.SIZE {_HEADER})"
        return self._each(uids, items, self._header)

    def texts(self, uids: Sequence[int]) -> dict[int, bytes]:
        """The first part of messages of the open folder, header included."""
        items = f"(UID BODY.PEEK[]<0.{MOST_TEXT_BYTES}>)"
        found, _ = self._each(uids, items, _uid_and_literal)
        return dict(found)

    def _each(self, uids: Sequence[int], items: str, read: Any) -> tuple[list[Any], list[int]]:
        """One message that the server, or the library, stumbles over must not keep the others away: halve until it is
        found."""
        try:
            with self._command():
                answers = self._client.fetched("UID", "FETCH", _uid_set(uids), items)
                return [read(one) for _, one in answers if b"UID" in one and _has_literal(one)], []
        except NoError:
            pass
        except UnavailableError:
            if not self._alive():
                raise
        if len(uids) == 1:
            return [], list(uids)
        half = len(uids) // 2
        first, second = self._each(uids[:half], items, read), self._each(uids[half:], items, read)
        return first[0] + second[0], first[1] + second[1]

    def _alive(self) -> bool:
        try:
            with self._command():
                self._client.noop()
        except UnavailableError:
            return False
        return True

    def _foreign(self) -> list[bytes]:
        """Prefixes of other people's and shared folders (RFC 2342)."""
        if not self.able("NAMESPACE"):
            return []
        with self._command():
            said = self._client.namespace()
        prefixes = [prefix for kind in (said.other, said.shared) for prefix, _ in kind or ()]
        return [to_bytes(prefix) for prefix in prefixes if prefix]

    def _standing(self, said: dict[bytes, Any], count: bytes) -> Standing:
        with speaking(self._host):
            return Standing(
                int(said[b"UIDVALIDITY"]),
                int(said.get(b"UIDNEXT", 0)),
                int(said.get(b"HIGHESTMODSEQ", 0)) if self.condstore else 0,
                int(said[count]),
            )

    def _flagged(self, answers: Iterable[tuple[int, dict[bytes, Any]]]) -> Iterator[Flagged]:
        with speaking(self._host):
            for _, items in answers:
                if b"UID" in items and b"FLAGS" in items:
                    yield Flagged(_number(items, b"UID"), _flags(items))

    def _header(self, items: dict[bytes, Any]) -> Header:
        return Header(
            _number(items, b"UID"),
            _flags(items) if b"FLAGS" in items else frozenset(),
            _moment(items.get(b"INTERNALDATE")),
            int(items.get(b"RFC822.SIZE", 0)),
            _literal(items),
        )

    @contextmanager
    def _command(self) -> Generator[None]:
        with speaking(self._host):
            self._client.refresh()
            yield


@contextmanager
def connection(settings: ImapSettings, tokens: Tokens, timeout_s: float) -> Generator[ImapConnection]:
    """A connection for a while. ``timeout_s`` is for connecting and for each wait for an answer.

    :raises HeadraceError: as :func:`headrace.producers.imap_login.connect`.
    """
    client = connect(settings, tokens, timeout_s=timeout_s)
    try:
        made = ImapConnection(client, settings.host)
        made.prepare()
        yield made
    finally:
        let_go(client)


def _uid_set(uids: Sequence[int]) -> str:
    """Ascending UIDs as a sequence set (RFC 3501, section 9), neighbours joined."""
    parts: list[list[int]] = []
    for uid in uids:
        if parts and parts[-1][1] + 1 == uid:
            parts[-1][1] = uid
        else:
            parts.append([uid, uid])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in parts)


def _ranges(said: bytes) -> Iterator[tuple[int, int]]:
    for part in said.split(b","):
        first, _, last = part.partition(b":")
        ends = int(first), int(last or first)
        if not all(0 < end <= _LAST_UID for end in ends):
            raise ValueError("no UID")
        yield min(ends), max(ends)


def _number(items: dict[bytes, Any], name: bytes) -> int:
    value = items[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LAST_UID:
        raise ValueError("no number")
    return value


def _flags(items: dict[bytes, Any]) -> frozenset[str]:
    return frozenset(_text(one) for one in items[b"FLAGS"] or ())


def _has_literal(items: dict[bytes, Any]) -> bool:
    return any(name.startswith(b"BODY[") for name in items)


def _uid_and_literal(items: dict[bytes, Any]) -> tuple[int, bytes]:
    return _number(items, b"UID"), _literal(items)


def _literal(items: dict[bytes, Any]) -> bytes:
    value = next(value for name, value in items.items() if name.startswith(b"BODY["))
    return value if isinstance(value, bytes) else str(value or "").encode()


def _moment(said: object) -> int | None:
    if not isinstance(said, bytes):
        return None
    try:
        moment: datetime = parse_to_datetime(said, normalise=False)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _text(said: object) -> str:
    """An atom of the library's: bytes, or a number where it looks like one."""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _wire(name: object) -> bytes:
    """A folder's name as the server has it, which the library makes a number of where it looks like one."""
    return bytes(name) if isinstance(name, bytes) else str(name).encode()


def _folder_name(wire: bytes) -> str:
    """As people read it (RFC 3501, section 5.1.3); as it is, where it is not what that says."""
    try:
        name: str = decode_utf7(wire)
        name.encode()
    except (ValueError, IndexError, LookupError, TypeError):
        return wire.decode("utf-8", "replace")
    return name
