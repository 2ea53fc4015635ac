"""Standard Webhooks 1.0.0 signatures, symmetric (``v1``, HMAC-SHA-256): making them and checking them.

What is signed is ``{webhook-id}.{webhook-timestamp}.{body}``, the body being the bytes as they came, before any
decompression. Everything here is bytes: a header that is not ASCII is a wrong signature and never an exception.

The ``standardwebhooks`` package is not used to verify: it decodes the body as UTF-8 (a compressed one cannot be
verified), reads the system's clock, takes times such as ``1e9`` or ``nan``, and lets ValueError, binascii.Error and
UnicodeDecodeError escape on hostile input. The tests hold both implementations against each other.
"""

import base64
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from headrace.errors import BadInputError
from headrace.producers.refusal import RefusedError
from headrace.schemas.refs import ActorRef

TOLERANCE_SECONDS: Final = 300
"""How far the signed time may be from ours, either way; the reference implementations' five minutes."""
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - of secrets, none itself
SECRET_BYTES: Final = range(24, 65)
"""How long a secret may be (specification, "Signature scheme")."""
ID_HEADER: Final = "webhook-id"
TIME_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
_HEADERS: Final = tuple(name.encode() for name in (ID_HEADER, TIME_HEADER, SIGNATURE_HEADER))
_VERSION: Final = b"v1,"
_ID: Final = re.compile(rb"[!-\-/-~]{1,256}\Z")
"""Visible ASCII without the full stop: it parts the signed fields, so neither the id nor the time may hold one."""
_TIME: Final = re.compile(rb"(?:0|[1-9][0-9]{0,11})\Z")


class Endpoint(NamedTuple):
    """A configured webhook endpoint: whose events come in there, and which secrets sign them.

    ``tenant``, ``source`` and ``actor`` are bound to the endpoint, whatever a body says. ``secrets`` are ``whsec_…``
    texts; while one is being replaced there are two.
    """

    name: str
    tenant: str
    source: str
    actor: ActorRef
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        """Without the secrets, so that no log or traceback shows them."""
        return f"Endpoint({self.name!r}, {self.tenant!r}, {self.source!r}, {self.actor!r}, {len(self.secrets)} secrets)"


class Signed(NamedTuple):
    """The three headers of a delivery, of the right form and inside the replay window, but not verified yet."""

    id: bytes
    timestamp: bytes
    signatures: tuple[bytes, ...]


def secret_key(secret: str) -> bytes:
    """The 24 to 64 bytes in a secret: base64, with or without ``whsec_`` and padding.

    :raises BadInputError: it is none. The message never shows it.
    """
    text = secret.removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) not in SECRET_BYTES:
        raise BadInputError(
            f"a webhook secret must be {SECRET_PREFIX} and the base64 of {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} random"
            " bytes; make one with: openssl rand -base64 32"
        )
    return key


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers for a delivery. ``timestamp`` is the attempt's, in epoch seconds; the id stays the same on
    every retry. ``body`` is exactly what will be sent, compressed if it will be.

    :raises BadInputError: the secret, the id or the time cannot be used.
    """
    key = secret_key(secret)
    id_, time = _ascii(webhook_id), str(timestamp).encode()
    if not _ID.match(id_) or not _TIME.match(time):
        raise BadInputError(
            "a webhook id is 1 to 256 visible ASCII characters without a full stop, its time whole epoch seconds"
        )
    signature = _VERSION + _signature(key, id_, time, body)
    return {ID_HEADER: webhook_id, TIME_HEADER: time.decode(), SIGNATURE_HEADER: signature.decode()}


def read_signed(headers: Iterable[tuple[bytes, bytes]], now: float) -> Signed:
    """The signature headers among ``headers`` (names in lower case), ``now`` being epoch seconds.

    :raises RefusedError: ``missing_headers``, ``malformed_headers``, ``stale`` or ``future``.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _HEADERS:
            if name in found:
                raise RefusedError("malformed_headers", f"send {name.decode()} once")
            found[name] = value
    missing = [name.decode() for name in _HEADERS if not found.get(name)]
    if missing:
        raise RefusedError("missing_headers", f"send {', '.join(missing)} too (Standard Webhooks 1.0.0)")
    id_, time, signatures = (found[name] for name in _HEADERS)
    if not _ID.match(id_):
        raise RefusedError("malformed_headers", "webhook-id must be 1 to 256 visible ASCII characters, no full stop")
    if not _TIME.match(time):
        raise RefusedError("malformed_headers", "webhook-timestamp must be whole seconds since 1970, in digits")
    if int(time) < now - TOLERANCE_SECONDS:
        raise RefusedError("stale", f"signed more than {TOLERANCE_SECONDS} s ago: sign again with the time of sending")
    if int(time) > now + TOLERANCE_SECONDS:
        raise RefusedError("future", f"signed more than {TOLERANCE_SECONDS} s ahead of this clock: set the sender's")
    return Signed(id_, time, tuple(signatures.split(b" ")))


def verify(signed: Signed, keys: Sequence[bytes], body: bytes) -> None:
    """Pass when one of the signatures was made with one of ``keys`` over these very bytes. Versions other than ``v1``
    are passed over. The time it takes tells nothing about the signature.

    :raises RefusedError: ``forged``.
    """
    matched = False
    for key in keys:
        expected = _VERSION + _signature(key, signed.id, signed.timestamp, body)
        for candidate in signed.signatures:
            matched |= hmac.compare_digest(expected, candidate)
    if not matched:
        raise RefusedError("forged", "sign id.timestamp.body with this endpoint's secret, over the bytes as sent (v1)")


def _signature(key: bytes, id_: bytes, timestamp: bytes, body: bytes) -> bytes:
    digest = hmac.digest(key, b"%b.%b.%b" % (id_, timestamp, body), "sha256")
    return base64.b64encode(digest)


def _ascii(text: str) -> bytes:
    return text.encode() if text.isascii() else b""
