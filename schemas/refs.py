"""The small nouns that everything else names: entities, actors, positions, tokens, intervals.

Plain tuples, because the fold makes millions of them; validation happens once, at the doors (``parse_*``).
"""

import base64
import re
import struct
from typing import Final, NamedTuple

from headrace.errors import BadInputError, UndecodableError

OPAQUE_ID: Final = re.compile(r"[A-Za-z0-9._~:+=-]{1,200}\Z")
KIND_NAME: Final = re.compile(r"(?=.{1,100}\Z)[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
ACTOR_KINDS: Final = frozenset({"user", "agent", "system"})
LONGEST_CONTAINER: Final = 500
"""Characters of a container's id, at the doors. What is on the log may have more."""
_TOKEN: Final = struct.Struct(">B16sIQ8s")
_TOKEN_VERSION: Final = 1
_MAX_OFFSET: Final = (1 << 63) - 1
"""What a log or a table can count to. A forged token with more must not get as far as a query."""


class EntityRef(NamedTuple):
    """The thing that changes. All entities of one (tenant, account) share one partition."""

    tenant: str
    account: str
    kind: str
    id: str

    @property
    def subject(self) -> str:
        """``kind/id``, the CloudEvents subject of every record about this entity."""
        return f"{self.kind}/{self.id}"


class ActorRef(NamedTuple):
    """Who did it: ``kind`` is one of ``user``, ``agent``, ``system``."""

    kind: str
    id: str

    @property
    def name(self) -> str:
        """``kind/id``: an agent and a user of the same id are two."""
        return f"{self.kind}/{self.id}"


class Position(NamedTuple):
    """A place in the log."""

    partition: int
    offset: int


class Interval(NamedTuple):
    """Half-open ``[start, end)`` in epoch milliseconds UTC; ``None`` is unbounded on that side."""

    start: int | None
    end: int | None


class Touch(NamedTuple):
    """A container (a calendar, a label) and the part of it that a state takes up."""

    container: str
    id: str
    start: int | None = None
    end: int | None = None

    def meets(self, other: "Touch") -> bool:
        """Whether the two overlap. An empty interval counts as the point at its start."""
        if self.container != other.container or self.id != other.id:
            return False
        return _before(self.start, _end(other)) and _before(other.start, _end(self))


def _end(touch: Touch) -> int | None:
    if touch.end is not None and touch.start is not None and touch.end <= touch.start:
        return touch.start + 1
    return touch.end


def _before(start: int | None, end: int | None) -> bool:
    return start is None or end is None or start < end


class Token(NamedTuple):
    """A position in one particular log, compared for equality only.

    ``check`` is the first 8 bytes of the partition's chain value there, so that the reused offset of a truncated
    log never passes for the old one. Users see :meth:`encode`'s text and treat it as opaque.
    """

    log_id: bytes
    partition: int
    offset: int
    check: bytes

    def pack(self) -> bytes:
        """The 37 bytes that records carry."""
        return _TOKEN.pack(_TOKEN_VERSION, self.log_id, self.partition, self.offset, self.check)

    def encode(self) -> str:
        """URL-safe text of :meth:`pack`, without padding."""
        return base64.urlsafe_b64encode(self.pack()).rstrip(b"=").decode()

    @classmethod
    def unpack(cls, raw: bytes) -> "Token | None":
        """The token in these bytes, or ``None`` when they are none."""
        if len(raw) != _TOKEN.size:
            return None
        version, log_id, partition, offset, check = _TOKEN.unpack(raw)
        if version != _TOKEN_VERSION or offset > _MAX_OFFSET:
            return None
        return cls(log_id, partition, offset, check)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """The token in this text.

        :raises BadInputError: when it is none.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        token = cls.unpack(raw)
        if token is None or token.encode() != text:
            raise BadInputError(f"{text[:60]!r} is not a token; pass back exactly what an earlier answer gave you")
        return token


def parse_id(text: str, what: str) -> str:
    """``text`` if it may stand on the log as an id.

    :raises BadInputError: when it may not; an address, for one, never may.
    """
    if not OPAQUE_ID.match(text):
        raise BadInputError(
            f"{what} {text[:60]!r} is not an opaque id: use 1 to 200 of A-Z a-z 0-9 . _ ~ : + = - (never an address)"
        )
    return text


def parse_subject(text: str) -> tuple[str, str]:
    """``kind/id`` as (kind, id).

    :raises BadInputError: when it is not of that form.
    """
    kind, slash, entity_id = text.partition("/")
    if not slash or not KIND_NAME.match(kind):
        raise BadInputError(f"{text[:60]!r} names no entity: write it kind/id, for example mail.thread/t-17")
    return kind, parse_id(entity_id, "entity id")


def account_key(tenant: str, account: str) -> bytes:
    """The record key of an account: what decides its partition."""
    return f"{tenant}/{account}".encode()


def parse_account_key(key: bytes) -> tuple[str, str]:
    """``tenant/account`` as (tenant, account).

    :raises UndecodableError: when it is not of that form.
    """
    try:
        tenant, slash, account = key.decode().partition("/")
    except UnicodeDecodeError as error:
        raise UndecodableError("the record's key is not UTF-8") from error
    if not slash or not OPAQUE_ID.match(tenant) or not OPAQUE_ID.match(account):
        raise UndecodableError("the record's key is not tenant/account with opaque ids")
    return tenant, account
