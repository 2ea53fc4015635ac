"""HMAC signatures over a delivery's raw body, the way most services make them: each with a header and a spelling of its
own, which is configuration. :mod:`headrace.producers.signatures` is the one way that is a standard.

Everything here is bytes: a header that is not ASCII is a wrong signature and never an exception.
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, get_args

from headrace.errors import BadInputError
from headrace.producers.refusal import RefusedError

Encoding = Literal["hex", "base64", "base64url"]
Algorithm = Literal["sha256", "sha384", "sha512"]
SECRET_BYTES: Final = range(16, 1025)
"""How long a secret may be: shorter ones can be guessed from one delivery that somebody has seen."""
_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
"""A header's name (RFC 9110, section 5.6.2), in lower case."""
_PREFIX: Final = re.compile(r"[!-+\--~]{0,32}\Z")
"""Visible ASCII without the comma, which parts several signatures."""
_TIME: Final = re.compile(rb"(?:0|[1-9][0-9]{0,11})\Z")
_MOST_SIGNATURES: Final = 16
_TOLERANCES: Final = range(1, 3_601)
_ENCODE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "hex": lambda digest: digest.hex().encode(),
    "base64": lambda digest: base64.b64encode(digest).rstrip(b"="),
    "base64url": lambda digest: base64.urlsafe_b64encode(digest).rstrip(b"="),
}


class Scheme(NamedTuple):
    """How a service signs. ``header`` (lower case) has the signature: ``prefix``, then the HMAC in ``encoding``;
    several are parted by commas, and one that fits is enough.

    Signed is the body as sent, before decompression; with ``timestamp_header`` (epoch seconds) it is
    ``{timestamp}.{body}``, and the time may be ``tolerance_s`` seconds from ours, either way. A time that is not signed
    proves nothing, so there is no such setting.
    """

    header: str
    encoding: Encoding = "hex"
    algorithm: Algorithm = "sha256"
    prefix: str = ""
    timestamp_header: str | None = None
    tolerance_s: int = 300

    def checked(self) -> "Scheme":
        """Itself, when it can be used.

        :raises BadInputError: it cannot; the message says which part.
        """
        for header in (self.header, *((self.timestamp_header,) if self.timestamp_header is not None else ())):
            if not _NAME.match(header):
                raise BadInputError(f"{header[:60]!r} is no header's name: write it in lower case, as x-signature")
        if self.encoding not in _ENCODE or self.algorithm not in get_args(Algorithm):
            raise BadInputError("a signature is in hex, base64 or base64url, by sha256, sha384 or sha512")
        if not _PREFIX.match(self.prefix):
            raise BadInputError("a signature's prefix is up to 32 visible ASCII characters without a comma")
        if self.timestamp_header == self.header or self.tolerance_s not in _TOLERANCES:
            raise BadInputError("a signed time has a header of its own, and a tolerance of 1 to 3600 seconds")
        return self


def secret_key(secret: str) -> bytes:
    """The key that a secret is: its bytes, as the service shows it.

    :raises BadInputError: it is too short or too long. The message never shows it.
    """
    key = secret.encode()
    if len(key) not in SECRET_BYTES:
        raise BadInputError(
            f"a hook's secret has {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes: put the service's into the file, or"
            " make one with: openssl rand -hex 32"
        )
    return key


def sign(scheme: Scheme, key: bytes, body: bytes, now: int) -> dict[str, str]:
    """The headers for a delivery at ``now`` (epoch seconds), as the service would send them."""
    time = str(now).encode()
    made = {scheme.header: scheme.prefix + _signature(scheme, key, time, body).decode()}
    if scheme.timestamp_header is not None:
        made[scheme.timestamp_header] = time.decode()
    return made


def verify(
    scheme: Scheme, keys: Sequence[bytes], headers: Iterable[tuple[bytes, bytes]], body: bytes, now: float
) -> None:
    """Pass when one of the signatures was made with one of ``keys`` over these very bytes; ``headers`` have their names
    in lower case, ``now`` is in epoch seconds. The time it takes tells nothing about the signature.

    :raises RefusedError: ``missing_headers``, ``malformed_headers``, ``stale``, ``future`` or ``forged``.
    """
    found = list(headers)
    signatures = _one(found, scheme.header)
    time = _one(found, scheme.timestamp_header) if scheme.timestamp_header is not None else b""
    if scheme.timestamp_header is not None:
        _check_time(time, scheme.tolerance_s, now)
    candidates = signatures.split(b",")
    if len(candidates) > _MOST_SIGNATURES:
        raise RefusedError("malformed_headers", f"send at most {_MOST_SIGNATURES} signatures")
    matched = False
    for key in keys:
        expected = scheme.prefix.encode() + _signature(scheme, key, time, body)
        for candidate in candidates:
            matched |= hmac.compare_digest(expected, _as_compared(scheme, candidate.strip()))
    if not matched:
        what = "timestamp.body" if scheme.timestamp_header is not None else "the body as sent"
        raise RefusedError("forged", f"sign {what} with this hook's secret: HMAC, {scheme.algorithm}")


def _as_compared(scheme: Scheme, candidate: bytes) -> bytes:
    """Padding says nothing, nor does the case of hexadecimal digits."""
    if scheme.encoding != "hex":
        return candidate.rstrip(b"=")
    size = len(scheme.prefix)
    return candidate[:size] + candidate[size:].lower()


def _check_time(time: bytes, tolerance_s: int, now: float) -> None:
    if not _TIME.match(time):
        raise RefusedError("malformed_headers", "the signed time must be whole seconds since 1970, in digits")
    if int(time) < now - tolerance_s:
        raise RefusedError("stale", f"signed more than {tolerance_s} s ago: sign again with the time of sending")
    if int(time) > now + tolerance_s:
        raise RefusedError("future", f"signed more than {tolerance_s} s ahead of this clock: set the sender's")


def _one(headers: Sequence[tuple[bytes, bytes]], name: str) -> bytes:
    found = [value for header, value in headers if header == name.encode()]
    if not found or not found[0]:
        raise RefusedError("missing_headers", f"send {name} too")
    if len(found) > 1:
        raise RefusedError("malformed_headers", f"send {name} once")
    return found[0]


def _signature(scheme: Scheme, key: bytes, time: bytes, body: bytes) -> bytes:
    signed = time + b"." + body if scheme.timestamp_header is not None else body
    return _ENCODE[scheme.encoding](hmac.digest(key, signed, scheme.algorithm))
