"""Keys per account, derived from one master key: pseudonyms and payload hashes.

On the log an address, a Message-ID or an iCalUID stands only as a pseudonym: HMAC-SHA-256 (RFC 2104) under the
account's key, so that equality can be decided and nothing else be learnt, and one account's pseudonyms tell nothing of
another's.
"""

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from headrace.errors import BadInputError, UnavailableError

MASTER_BYTES: Final = 32
_REMEMBERED: Final = 4_096
"""Pseudonyms: of one event the same few texts are asked for again and again."""
_PSEUDONYM: Final = re.compile(r"p-[a-z2-7]{26}\Z")


class Keys:
    """Derives what it is asked for; holds the master key only."""

    def __init__(self, master: bytes) -> None:
        if len(master) != MASTER_BYTES:
            raise BadInputError(f"the master key must be {MASTER_BYTES} bytes")
        self._master: Final = master
        self._account = lru_cache(maxsize=65_536)(self._derive)
        self._pseudonym = lru_cache(maxsize=_REMEMBERED)(self._hide)

    def _derive(self, tenant: str, account: str) -> bytes:
        return hmac.digest(self._master, f"account\0{tenant}\0{account}".encode(), "sha256")

    @property
    def id(self) -> str:
        """16 hexadecimal digits that tell this key from others and nothing more: a log's opening names its key."""
        return hmac.digest(self._master, b"key id", "sha256")[:8].hex()

    def pseudonym(self, tenant: str, account: str, text: str) -> str:
        """The pseudonym of a text in an account: ``p-`` and 26 characters. What already is one stays as it is.

        :raises BadInputError: the text is not Unicode (half a surrogate pair).
        """
        return text if _PSEUDONYM.match(text) else self._pseudonym(tenant, account, text)

    def _hide(self, tenant: str, account: str, text: str) -> str:
        try:
            said = b"pseudonym\0" + text.encode()
        except UnicodeEncodeError as error:
            raise BadInputError(f"{text[:60]!r} holds half a surrogate pair: send Unicode text") from error
        digest = hmac.digest(self._account(tenant, account), said, "sha256")
        return "p-" + base64.b32encode(digest[:20])[:26].decode().lower()

    def sealing(self, purpose: str) -> bytes:
        """32 bytes to seal with what is kept for ``purpose``, which tell nothing of any other key."""
        return hmac.digest(self._master, b"sealing\0" + purpose.encode(), "sha256")

    def payload_hash(self, tenant: str, account: str, payload: bytes) -> bytes:
        """32 bytes that tell whether two proposals of an account say the same."""
        return hmac.digest(self._account(tenant, account), b"payload\0" + payload, hashlib.sha256)

    @classmethod
    def at(cls, path: Path, *, create: bool = True) -> Self:
        """The key in a file; with ``create`` made now if there is none, readable by its owner only. Of several that
        make it at once, all get the same.

        :raises UnavailableError: the file cannot be read or made, or is not there and ``create`` is false.
        :raises BadInputError: it holds no master key.
        """
        try:
            if create and not path.exists():
                _make(path)
            master = path.read_bytes()
        except OSError as error:
            raise UnavailableError(
                f"the master key {path} cannot be used: {error}; put it back from where it was backed up, or mend its"
                " owner and mode. Without it what is on the log cannot be matched with what will come"
            ) from error
        if len(master) != MASTER_BYTES:
            raise BadInputError(
                f"{path} holds {len(master)} bytes, a master key has {MASTER_BYTES}: it is damaged; put it back from"
                " where it was backed up"
            )
        return cls(master)


def _make(path: Path) -> None:
    """Written aside, synced and linked into place: no crash leaves half a key, and the first to link decides."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(MASTER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    for directory in (path.parent, path.parent.parent):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
