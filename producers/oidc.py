"""Tokens that Google signs for whoever its services call (OpenID Connect Core 1.0, section 2; RFC 7519, RS256).

Pub/Sub shows one with every push. It may stand for many messages for up to an hour, so it says who calls and never
that a call is new.
"""

import base64
import binascii
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import httpx
from google.auth.crypt import RSAVerifier

from headrace.producers.refusal import RefusedError
from headrace.producers.strict_json import parse_json

GOOGLE_CERTS: Final = "https://www.googleapis.com/oauth2/v1/certs"
"""X.509 certificates in PEM by key id, as google-auth's ``verify_oauth2_token`` fetches them."""
GOOGLE_ISSUERS: Final = ("accounts.google.com", "https://accounts.google.com")
SKEW_SECONDS: Final = 60.0
_MOST_TOKEN_CHARS: Final = 8_192
_MOST_CERTS_BYTES: Final = 256 * 1024
_MOST_CERTS: Final = 64
_FETCH_SECONDS: Final = 2.0
_SHORTEST_SECONDS: Final = 60.0
_LONGEST_SECONDS: Final = 86_400.0
_GRACE_SECONDS: Final = 3_600.0
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:[,\s]|$)", re.IGNORECASE)
_PART: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


class SignedBy(NamedTuple):
    """What a token has to say: ``audience`` exactly, and the verified address of the service account ``email``."""

    audience: str
    email: str


class GoogleKeys:
    """Google's public keys, kept for as long as Google says, for all threads; or those of ``whose`` issuer, which
    ``read`` finds in what ``url`` answers.

    A key id that is not among them has them fetched anew, but at most once in ``between`` seconds whatever comes in: an
    unknown id costs an attacker nothing. While Google does not answer, the last keys serve for one more hour.
    """

    def __init__(
        self,
        url: str = GOOGLE_CERTS,
        *,
        transport: httpx.BaseTransport | None = None,
        between: float = _SHORTEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[bytes], Mapping[str, RSAVerifier]] | None = None,
        whose: str = "Google",
    ) -> None:
        self._url: Final = url
        self._read: Final = read if read is not None else _verifiers
        self._whose: Final = whose
        self._between: Final = between
        self._clock: Final = clock
        self._client: Final = httpx.Client(transport=transport, timeout=_FETCH_SECONDS, follow_redirects=False)
        self._fetching: Final = threading.Lock()
        self._kept: Mapping[str, RSAVerifier] = {}
        self._until = -math.inf
        self._asked = -math.inf

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def key(self, key_id: str) -> RSAVerifier:
        """The key of this id.

        :raises RefusedError: ``forged``, there is none; ``keys_unavailable``, that cannot be said now.
        """
        kept = self._kept
        if key_id in kept and self._clock() < self._until:
            return kept[key_id]
        with self._fetching:
            if key_id not in self._kept or self._clock() >= self._until:
                self._fetch()
            found, fresh = self._kept.get(key_id), self._clock() < self._until
            usable = self._clock() < self._until + _GRACE_SECONDS
        if found is not None and usable:
            return found
        if not fresh:
            raise RefusedError("keys_unavailable", f"{self._whose}'s keys cannot be fetched now: send it again later")
        raise RefusedError(
            "forged", f"the token is signed with none of {self._whose}'s keys: send it from {self._whose}"
        )

    def _fetch(self) -> None:
        """Ask Google, unless it was asked just now. What is no set of certificates changes nothing."""
        now = self._clock()
        if now - self._asked < self._between:
            return
        self._asked = now
        try:
            answer = self._client.get(self._url)
        except httpx.HTTPError:
            return
        if answer.status_code != HTTPStatus.OK or len(answer.content) > _MOST_CERTS_BYTES:
            return
        keys = self._read(answer.content)
        if keys:
            told = _MAX_AGE.search(answer.headers.get("cache-control", ""))
            seconds = float(told.group(1)) if told else _SHORTEST_SECONDS
            self._kept = keys
            self._until = now + min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)


def _verifiers(content: bytes) -> dict[str, RSAVerifier]:
    try:
        said = parse_json(content)
    except RefusedError:
        return {}
    if not isinstance(said, dict) or not 0 < len(said) <= _MOST_CERTS:
        return {}
    found: dict[str, RSAVerifier] = {}
    for key_id, certificate in said.items():
        try:
            found[key_id] = RSAVerifier.from_string(certificate)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, AttributeError):  # no PEM, or no RSA key
            continue
    return found


def bearer(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    """The token of the ``Authorization`` header (RFC 6750, section 2.1).

    :raises RefusedError: ``missing_token`` or ``malformed_token``.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        raise RefusedError("missing_token", "send Authorization: Bearer with the token that Google signed")
    scheme, _, token = found[0].partition(b" ")
    if len(found) > 1 or scheme.lower() != b"bearer" or not token.isascii() or len(token) > _MOST_TOKEN_CHARS:
        raise RefusedError("malformed_token", "send one Authorization header, with one bearer token")
    return token.decode("ascii").strip()


def signed_claims(token: str, keys: GoogleKeys, now: float) -> Mapping[str, Any]:
    """What a token says, once its signature and its time are checked, in this order; ``now`` is in epoch seconds.

    :raises RefusedError: ``malformed_token``, ``forged``, ``stale``, ``future`` or ``keys_unavailable``.
    """
    if len(token) > _MOST_TOKEN_CHARS or not token.isascii():
        raise RefusedError("malformed_token", "send a JSON Web Token: three parts in base64url")
    parts = token.split(".")
    if len(parts) != 3 or not all(map(_PART.match, parts)):
        raise RefusedError("malformed_token", "send a JSON Web Token: three parts in base64url")
    header = _object(parts[0])
    key_id = header.get("kid")
    if header.get("alg") != "RS256" or not isinstance(key_id, str):
        raise RefusedError("malformed_token", "the token must be signed with RS256 and name its key")
    signature = _decoded(parts[2])
    if not keys.key(key_id).verify(f"{parts[0]}.{parts[1]}".encode("ascii"), signature):
        raise RefusedError("forged", "the token's signature does not hold: send it as Google signed it")
    claims = _object(parts[1])
    issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
    if now > expires + SKEW_SECONDS:
        raise RefusedError("stale", "the token has expired: send it again with a fresh one")
    if now < issued - SKEW_SECONDS:
        raise RefusedError("future", "the token is issued in the future: set the clocks")
    return claims


def verify(token: str, keys: GoogleKeys, wanted: SignedBy, now: float) -> None:
    """Check signature, time, issuer, audience and sender, in this order; ``now`` is in epoch seconds.

    :raises RefusedError: ``malformed_token``, ``forged``, ``stale``, ``future``, ``wrong_issuer``, ``wrong_audience``,
        ``wrong_sender`` or ``keys_unavailable``.
    """
    claims = signed_claims(token, keys, now)
    if claims.get("iss") not in GOOGLE_ISSUERS:
        raise RefusedError("wrong_issuer", "the token is not issued by accounts.google.com")
    if claims.get("aud") != wanted.audience:
        raise RefusedError(
            "wrong_audience", "the token is for another audience: give the subscription the one that is configured here"
        )
    if claims.get("email") != wanted.email or claims.get("email_verified") is not True:
        raise RefusedError(
            "wrong_sender", "the token is not of the service account that is configured here: push with that one"
        )


def _decoded(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise RefusedError("malformed_token", "a part of the token is no base64url") from None


def _object(part: str) -> Mapping[str, Any]:
    try:
        said = parse_json(_decoded(part))
    except RefusedError:
        said = None
    if not isinstance(said, dict):
        raise RefusedError("malformed_token", "a part of the token is no JSON object")
    return said


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError("malformed_token", f"the token's {name} is no number of seconds")
    return float(value)
