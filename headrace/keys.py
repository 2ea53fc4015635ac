"""Keys per account, derived from one master key: pseudonyms and payload hashes.

On the log an address, a Message-ID or an iCalUID stands only as a pseudonym: HMAC-SHA-256 (RFC 2104) under the account's
key, so that equality can be decided and nothing else be learnt, and one account's pseudonyms tell nothing of another's.
"""

import base64
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
_PSEUDONYM: Final = re.compile(r"p-[a-z2-7]{26}\Z")


class Keys:
    """Derives what it is asked for; holds the master key only."""

    def __init__(self, master: bytes) -> None:
        if len(master) != MASTER_BYTES:
            raise BadInputError(f"the master key must be {MASTER_BYTES} bytes")
        self._master: Final = master
        self._account = lru_cache(maxsize=65_536)(self._derive)

    def _derive(self, tenant: str, account: str) -> bytes:
        return hmac.digest(self._master, f"account\0{tenant}\0{account}".encode(), "sha256")

    def pseudonym(self, tenant: str, account: str, text: str) -> str:
        """The pseudonym of a text in an account: ``p-`` and 26 characters. What already is one stays as it is."""
        if _PSEUDONYM.match(text):
            return text
        digest = hmac.digest(self._account(tenant, account), b"pseudonym\0" + text.encode(), "sha256")
        return "p-" + base64.b32encode(digest)[:26].decode().lower()

    def payload_hash(self, tenant: str, account: str, payload: bytes) -> bytes:
        """32 bytes that tell whether two proposals of an account say the same."""
        return hmac.digest(self._account(tenant, account), b"payload\0" + payload, hashlib.sha256)

    @classmethod
    def at(cls, path: Path) -> Self:
        """The key in a file, made now if there is none. Readable by its owner only.

        :raises UnavailableError: the file cannot be read or made.
        """
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                fresh = path.with_suffix(f".{secrets.token_hex(4)}")
                with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(MASTER_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(fresh, path)  # whoever comes first makes it; nobody overwrites it
                except FileExistsError:
                    fresh.unlink()
                else:
                    fresh.unlink()
            return cls(path.read_bytes())
        except OSError as error:
            raise UnavailableError(
                f"the master key {path} cannot be used: {error}; check its owner and mode"
            ) from error
