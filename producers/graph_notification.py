"""What Graph sends to an endpoint, read and verified: change notifications, lifecycle notifications, and those that
bring the changed resource along, encrypted.

https://learn.microsoft.com/graph/change-notifications-delivery-webhooks, change-notifications-lifecycle-events,
change-notifications-with-resource-data.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicNumbers
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from google.auth.crypt import RSAVerifier

from headrace.producers.oidc import GoogleKeys, signed_claims
from headrace.producers.provider import HintKind
from headrace.producers.refusal import RefusedError
from headrace.producers.strict_json import parse_json

MICROSOFT_KEYS: Final = "https://login.microsoftonline.com/common/discovery/keys"
"""``jwks_uri`` of login.microsoftonline.com/common/.well-known/openid-configuration."""
PUBLISHER: Final = "0bf30f3b-4a52-48df-9a82-234910c4a086"
"""Graph's change tracking: ``appid`` of its tokens of version 1, ``azp`` of version 2."""
_LIFECYCLE: Final[Mapping[str, HintKind]] = {
    "missed": "missed",
    "reauthorizationRequired": "reauthorize",
    "subscriptionRemoved": "removed",
}
_CHANGES: Final = frozenset({"created", "updated", "deleted"})
_NOT_KEPT: Final = frozenset({"clientState", "encryptedContent"})
_MOST_ITEMS: Final = 1_000
_MOST_TOKENS: Final = 20
_MOST_CHARS: Final = 512
_MOST_KEYS: Final = 64
_KEY_BITS: Final = range(2048, 8193)
_AES_BYTES: Final = frozenset({16, 24, 32})
_BLOCK_BITS: Final = 128
_IV_BYTES: Final = 16
_BRITTLE: Final = (ValueError, TypeError, OverflowError)


class Item(NamedTuple):
    """One notification of a delivery. ``encrypted`` is its ``encryptedContent``."""

    subscription: str
    secret: str
    kind: HintKind
    tenant: str
    encrypted: Mapping[str, Any] | None
    digest: str


class Batch(NamedTuple):
    """A delivery: notifications of any of the app's subscriptions, unread, and the tokens that Graph signed."""

    items: tuple[Any, ...]
    tokens: tuple[str, ...]


def microsoft_keys(**settings: Any) -> GoogleKeys:
    """The keys that Microsoft signs tokens with, kept as :class:`headrace.producers.oidc.GoogleKeys` keeps them."""
    return GoogleKeys(MICROSOFT_KEYS, read=_verifiers, whose="Microsoft", **settings)


def _verifiers(content: bytes) -> dict[str, RSAVerifier]:
    """A JSON Web Key Set (RFC 7517, section 5)."""
    try:
        said = parse_json(content)
    except RefusedError:
        return {}
    keys = said.get("keys") if isinstance(said, dict) else None
    found: dict[str, RSAVerifier] = {}
    for one in keys[:_MOST_KEYS] if isinstance(keys, list) else ():
        if not isinstance(one, dict) or one.get("kty") != "RSA" or not isinstance(one.get("kid"), str):
            continue
        try:
            n, e = (int.from_bytes(base64.urlsafe_b64decode(one[name] + "==")) for name in ("n", "e"))
            key = RSAPublicNumbers(e, n).public_key() if n.bit_length() in _KEY_BITS else None
        except (KeyError, *_BRITTLE):
            continue
        if key is not None:
            found[one["kid"]] = RSAVerifier(key)  # type: ignore[no-untyped-call]
    return found


def read_batch(body: bytes) -> Batch:
    """The notifications of a delivery, each to be read on its own: a bad one does not take others with it.

    :raises RefusedError: it is no delivery of Graph's.
    """
    said = parse_json(body)
    value = said.get("value") if isinstance(said, dict) else None
    if not isinstance(value, list) or not value or len(value) > _MOST_ITEMS:
        raise RefusedError("not_notification", f"a Graph delivery has 1 to {_MOST_ITEMS} notifications in its value")
    tokens = said.get("validationTokens") or []
    if not isinstance(tokens, list) or len(tokens) > _MOST_TOKENS or not all(isinstance(one, str) for one in tokens):
        raise RefusedError("not_notification", "a Graph delivery has few validationTokens, all of them text")
    return Batch(tuple(value), tuple(tokens))


def read_item(said: Any) -> Item:
    """One notification.

    :raises RefusedError: ``not_notification``.
    """
    said = said if isinstance(said, dict) else {}
    lifecycle, change, encrypted = (said.get(name) for name in ("lifecycleEvent", "changeType", "encryptedContent"))
    kind: HintKind | None = "changed" if isinstance(change, str) and change in _CHANGES else None
    if lifecycle is not None:
        kind = _LIFECYCLE.get(lifecycle) if isinstance(lifecycle, str) else None
    if kind is None or not (encrypted is None or isinstance(encrypted, dict)):
        raise RefusedError("not_notification", "a Graph notification has a known changeType or lifecycleEvent")
    # Graph numbers no deliveries (``id`` is optional): the same one again is what says the same.
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
    return Item(
        _text(said, "subscriptionId"),
        _text(said, "clientState", absent=""),
        kind,
        _text(said, "tenantId", absent=""),
        encrypted,
        digest,
    )


def kept_part(said: Any) -> bytes:
    """A notification as a delivery of its own, to be kept: without what is others', who may be of another tenant, and
    without the secrets that let it in."""
    kept = {name: value for name, value in said.items() if name not in _NOT_KEPT}
    return json.dumps({"value": [kept]}, separators=(",", ":")).encode()


def _text(said: Mapping[str, Any], field: str, *, absent: str | None = None) -> str:
    value = said.get(field)
    if value is None and absent is not None:
        return absent
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARS:
        raise RefusedError("not_notification", f"a Graph notification has a {field} of up to {_MOST_CHARS} characters")
    return value


def is_secret(said: str, wanted: str) -> bool:
    """Whether a ``clientState`` is the subscription's, in constant time."""
    return hmac.compare_digest(said.encode("utf-8", "replace"), wanted.encode("utf-8", "replace")) and bool(wanted)


class Proof:
    """The tokens of a delivery, one for each tenant of the app that it brings notifications of. They are checked when
    they are first needed; ``now`` is in epoch seconds."""

    def __init__(self, tokens: tuple[str, ...], keys: GoogleKeys, audience: str, now: float) -> None:
        self._tokens, self._keys, self._audience, self._now = tokens, keys, audience, now
        self._tenants: set[str] | None = None
        self._why = RefusedError(
            "missing_token", "no token speaks for the notification's tenant: send validationTokens"
        )

    def check(self, tenant: str) -> None:
        """Whether Graph vouches for what it brings along of this tenant.

        :raises RefusedError: no token that holds says so; why the last one does not hold, where there is one.
        """
        if self._tenants is None:
            self._tenants = set(self._vouched())
        if tenant not in self._tenants:
            raise self._why

    def _vouched(self) -> Iterator[str]:
        for token in self._tokens:
            try:
                yield _tenant(signed_claims(token, self._keys, self._now), self._audience)
            except RefusedError as refused:
                self._why = refused


def _tenant(claims: Mapping[str, Any], audience: str) -> str:
    tenant = claims.get("tid")
    if not isinstance(tenant, str) or not tenant:
        raise RefusedError("malformed_token", "a token of Microsoft's names its tenant")
    issuers = (f"https://sts.windows.net/{tenant}/", f"https://login.microsoftonline.com/{tenant}/v2.0")
    if claims.get("iss") not in issuers:
        raise RefusedError("wrong_issuer", "the token is not issued by Microsoft for its tenant")
    if claims.get("aud") != audience:
        raise RefusedError("wrong_audience", "the token is for another app than the one that is configured here")
    publisher = claims.get("azp") if claims.get("iss") == issuers[1] else claims.get("appid")
    if publisher != PUBLISHER:
        raise RefusedError("wrong_sender", "the token is not of Graph's change tracking")
    return tenant


def decrypted(content: Mapping[str, Any], key: RSAPrivateKey) -> Mapping[str, Any]:
    """The resource that a notification brings along: its signature first, then what it says.

    :raises RefusedError: ``forged``; which step failed is not told, for that would help whoever guesses.
    """
    forged = RefusedError("forged", "what the notification brings along was not encrypted for this app")
    try:
        data, data_key, signature = (
            base64.b64decode(content[name], validate=True) for name in ("data", "dataKey", "dataSignature")
        )
        # OAEP with SHA-1, as Graph encrypts; its security does not rest on collisions.
        algorithm = hashes.SHA1()  # noqa: S303
        secret = key.decrypt(data_key, OAEP(MGF1(algorithm), algorithm, None))
    except (KeyError, binascii.Error, *_BRITTLE):
        raise forged from None
    if not hmac.compare_digest(hmac.digest(secret, data, hashlib.sha256), signature) or len(secret) not in _AES_BYTES:
        raise forged
    try:
        decryptor = Cipher(AES(secret), CBC(secret[:_IV_BYTES])).decryptor()
        unpadder = padding.PKCS7(_BLOCK_BITS).unpadder()
        plain = unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()
    except _BRITTLE:
        raise forged from None
    said = parse_json(plain)
    if not isinstance(said, dict):
        raise forged
    return said
