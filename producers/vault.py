"""What is kept outside of the log: how sources are connected, and the grants that open them.

None of it can be folded from the log, for no secret stands there; so it is kept apart from the tables, which can be
dropped, and is to be backed up like the master key that seals it. Everything is sealed with AES-256-GCM (NIST SP
800-38D) under a key of its own; the name that a value is kept under is authenticated with it, so that none can be put
in another's place.
"""

import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headrace.errors import HaltError
from headrace.keys import Keys

_NONCE_BYTES: Final = 12


class Vault(Protocol):
    """Keeps sealed values, each under a realm and a name. Any number of threads and processes may use it."""

    def all(self, realm: str) -> Sequence[tuple[str, bytes]]:
        """Everything in a realm, by name.

        :raises UnavailableError: it cannot be read now.
        """
        ...

    def read(self, realm: str, name: str) -> bytes | None:
        """What is kept there, ``None`` for nothing.

        :raises UnavailableError: it cannot be read now.
        """
        ...

    def write(self, realm: str, name: str, value: bytes | None) -> None:
        """Keep a value there, ``None`` for none any more; durable on return.

        :raises UnavailableError: it cannot be written now; whether it was is not known.
        """
        ...

    def alone(self, realm: str, name: str) -> AbstractContextManager[None]:
        """While it lasts nobody else, in no process, is in the same: to read, ask a provider, and write.

        :raises UnavailableError: somebody else does not come to an end, or it cannot be asked for now.
        """
        ...


class Seal:
    """Seals values with a key derived from the master key."""

    def __init__(self, keys: Keys) -> None:
        self._cipher: Final = AESGCM(keys.sealing("vault"))

    def close(self, realm: str, name: str, plain: bytes) -> bytes:
        """The value sealed: the nonce, then what AES-GCM makes of it. Never the same twice."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, _place(realm, name))

    def open(self, realm: str, name: str, sealed: bytes) -> bytes:
        """The value.

        :raises HaltError: it was sealed with another master key, or for another name, or is damaged.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(realm, name))
        except (InvalidTag, ValueError):
            raise HaltError(
                f"what is kept of the {realm} {name} cannot be opened: it was sealed with another master key, or is"
                " damaged. Put the key back (HEADRACE_KEY_FILE), or connect the source again"
            ) from None


def _place(realm: str, name: str) -> bytes:
    return f"{realm}\0{name}".encode()
