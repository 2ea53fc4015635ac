"""Microsoft Graph's notifications, as its documents say: subscriptions, the handshake, tokens, encryption.

[sub]     https://learn.microsoft.com/graph/api/subscription-post-subscriptions: HTTPS; 409 where the app has one of the
          same resource and changes; clientState of 128 characters at the most
[life]    https://learn.microsoft.com/graph/api/resources/subscription: Outlook's live 10,080 minutes at the most, 1,440
          with resource data
[hand]    https://learn.microsoft.com/graph/change-notifications-delivery-webhooks: a POST with validationToken; 200,
          text/plain, the token decoded and nothing else
[patch]   https://learn.microsoft.com/graph/api/subscription-update: expirationDateTime; it authorizes again, too
[rich]    https://learn.microsoft.com/graph/change-notifications-with-resource-data: Outlook needs $select, a
          certificate and its id; RSA-OAEP with SHA-1, AES-256-CBC with PKCS7 and the first 16 bytes of the key as IV,
          HMAC-SHA256 over the encrypted bytes; tokens with aud, appid or azp, tid
[outlook] https://learn.microsoft.com/graph/outlook-change-notifications-overview
[again]   https://learn.microsoft.com/graph/change-notifications-delivery-webhooks: without a 2xx it is sent again, for
          four hours; microsoft-graph-docs-contrib issues 3072 and 7644: one act, several notifications
"""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives import padding as symmetric_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.x509.oid import NameOID

from tests.doubles.graph import IMMUTABLE, GraphDouble, error
from tests.doubles.http import Reply, Request

TENANT_ID: Final = "9f4ebab6-520d-49c0-85cc-7b25c78d4a93"
CLIENT_ID: Final = "8e460676-ae3f-4b1e-8790-ee0fb5d6148f"
PUBLISHER: Final = "0bf30f3b-4a52-48df-9a82-234910c4a086"
_MINUTE: Final = 60_000
_PATCHED: Final = {"expirationDateTime"}
_POSTED: Final = frozenset(
    {
        "changeType", "notificationUrl", "lifecycleNotificationUrl", "resource", "expirationDateTime", "clientState",
        "includeResourceData", "encryptionCertificate", "encryptionCertificateId",
    }
)  # fmt: skip


class SubscriptionsDouble:
    """The app's subscriptions. ``endpoint`` is asked at the handshake: (decoded token) → status, type, body. Their ids
    begin with ``name``: no two of Graph's are the same."""

    def __init__(
        self, graph: GraphDouble, endpoint: Callable[[str], tuple[int, str | None, bytes]], name: str = "sub"
    ) -> None:
        self._name: Final = name
        self.graph: Final = graph
        self.endpoint = endpoint
        self.kept: Final[dict[str, dict[str, Any]]] = {}
        self.authorized = 0
        self.waiting: Final[list[dict[str, Any]]] = []
        self.delivered: Final[list[dict[str, Any]]] = []
        self._number = 0
        graph.parts.append(self.answer)

    def answer(self, path: str, request: Request) -> Reply | None:
        """One of the parts of :class:`tests.doubles.graph.GraphDouble`."""
        what, _, named = path.partition("/")
        if what != "subscriptions":
            return None
        if request.method == "POST" and not named:
            return self._made(request)
        if request.method == "GET" and not named:
            shown = [{**one, "clientState": None} for one in self.kept.values()]
            return Reply.json(200, {"value": shown})
        one = self.kept.get(named)
        if one is None:
            return error(404, "ResourceNotFound")
        if request.method == "DELETE":
            del self.kept[named]
            return Reply(204)
        said = request.json()
        if request.method != "PATCH" or said.keys() != _PATCHED or not self._may_live(one, said):
            return error(400, "InvalidRequest")
        one |= said
        self.authorized += 1  # [patch]
        return Reply.json(200, one)

    def _may_live(self, one: dict[str, Any], said: dict[str, Any]) -> bool:
        """[life]"""
        until = round(datetime.fromisoformat(said["expirationDateTime"]).timestamp() * 1000)
        most = 1_440 if one.get("includeResourceData") else 10_080
        return self.graph.now < until < self.graph.now + most * _MINUTE

    def _made(self, request: Request) -> Reply:
        said = request.json()
        url = said.get("notificationUrl", "")
        resource, _, query = said.get("resource", "").partition("?")
        rich = said.get("includeResourceData", False)
        certified = {"encryptionCertificate", "encryptionCertificateId"} <= said.keys() and query.startswith("$select=")
        if (
            said.keys() - _POSTED
            or not url.startswith("https://")
            or resource not in {"me/messages", "me/events"}
            or not set(said.get("changeType", "").split(",")) <= {"created", "updated", "deleted"}
            or len(said.get("clientState", "")) > 128
            or IMMUTABLE not in request.headers.get("prefer", "")  # not Graph's: these tests want lasting ids
            or (rich and not certified)
            or not self._may_live(said, said)
        ):
            return error(400, "InvalidRequest")
        if any(one["resource"] == said["resource"] for one in self.kept.values()):
            return error(409, "Conflict")  # [sub]
        for token in (f"Validation: Testing client application reachability {self._number}", "lifecycle+ok"):
            status, kind, body = self.endpoint(quote(token))  # [hand] twice: for changes, and for the lifecycle
            if status != 200 or kind is None or not kind.startswith("text/plain") or body != token.encode():
                return error(400, "InvalidRequest")
        self._number += 1
        made = f"{self._name}-{self._number}"
        self.kept[made] = {"id": made, **said}
        return Reply.json(201, self.kept[made])

    # What is sent.

    def changed(self) -> None:
        """Something changed: [again] one act may be told several times, and as updated what was created."""
        self.waiting.extend(
            self.notify(name, changeType=kind, id=f"n-{len(self.graph.changes)}-{len(self.waiting)}-{kind}")
            for name, one in self.kept.items()
            if datetime.fromisoformat(one["expirationDateTime"]).timestamp() * 1000 > self.graph.now
            for kind in ("created", "updated")
        )

    def deliver(self, endpoint: Callable[[bytes], int], which: int = 0, most: int = 3) -> None:
        """Some of what waits goes out in one request; [again] without a 2xx all of it comes again, in any order; and
        what was taken may, too."""
        there = self.waiting or self.delivered
        batch = [there[(which + at) % len(there)] for at in range(min(most, len(there)))]
        if batch and 200 <= endpoint(json.dumps({"value": batch}).encode()) < 300 and there is self.waiting:
            self.delivered.extend(batch)
            self.waiting[:] = [one for one in self.waiting if one not in batch]

    def notify(self, subscription: str, **more: Any) -> dict[str, Any]:
        """A change, as it stands in ``value``."""
        one = self.kept[subscription]
        return {
            "subscriptionId": subscription,
            "subscriptionExpirationDateTime": one["expirationDateTime"],
            "clientState": one["clientState"],
            "changeType": "updated",
            "resource": "Users/u-1/Messages/AAkALg1_-=",
            "tenantId": TENANT_ID,
            "resourceData": {"@odata.type": "#Microsoft.Graph.Message", "id": "AAkALg1_-=", "@odata.etag": 'W/"CQ"'},
            **more,
        }

    def lifecycle(self, subscription: str, event: str) -> dict[str, Any]:
        """What became of a subscription."""
        one = self.notify(subscription, lifecycleEvent=event)
        return {name: value for name, value in one.items() if name not in {"changeType", "resource", "resourceData"}}


class Signer:
    """A key of Microsoft's."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def jwk(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        n, e = (encoded(number.to_bytes((number.bit_length() + 7) // 8)) for number in (numbers.n, numbers.e))
        return {"kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid, "n": n, "e": e}

    def token(self, now: float, *, version: int = 1, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """[rich] As Graph has it made, of either version; ``...`` leaves a claim out."""
        issuers = {1: f"https://sts.windows.net/{TENANT_ID}/", 2: f"https://login.microsoftonline.com/{TENANT_ID}/v2.0"}
        said = {
            "aud": CLIENT_ID,
            "iss": issuers[version],
            "iat": int(now) - 60,
            "nbf": int(now) - 60,
            "exp": int(now) + 3_600,
            "appid" if version == 1 else "azp": PUBLISHER,
            "tid": TENANT_ID,
            "ver": f"{version}.0",
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not ...}
        parts = [{"typ": "JWT", "alg": "RS256", "kid": self.kid, **(header or {})}, said]
        text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{encoded(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Certificate:
    """An app's certificate, and what Graph encrypts for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        day = datetime(2026, 1, 1, tzinfo=UTC)
        made = x509.CertificateBuilder(subject, subject, self.key.public_key(), x509.random_serial_number())
        signed = made.not_valid_before(day).not_valid_after(day + timedelta(days=400)).sign(self.key, hashes.SHA256())
        self.text = base64.b64encode(signed.public_bytes(serialization.Encoding.DER)).decode()

    def encrypted(self, resource: Any, *, data_key: bytes | None = None) -> dict[str, Any]:
        """[rich] ``encryptedContent``."""
        return encrypted(self.name, self.text, resource, data_key=data_key)


def encrypted(name: str, certificate: str, resource: Any, *, data_key: bytes | None = None) -> dict[str, Any]:
    """[rich] ``encryptedContent`` for a certificate as a subscription has it: its id, and base64 of its DER."""
    der = base64.b64decode(certificate)
    public = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    assert 2048 <= public.key_size <= 4096
    secret = data_key if data_key is not None else os.urandom(32)
    padder = symmetric_padding.PKCS7(128).padder()
    plain = padder.update(json.dumps(resource).encode()) + padder.finalize()
    encryptor = Cipher(AES(secret), CBC(secret[:16])).encryptor()
    data = encryptor.update(plain) + encryptor.finalize()
    wrapped = public.encrypt(secret, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
    return {
        "data": base64.b64encode(data).decode(),
        "dataKey": base64.b64encode(wrapped).decode(),
        "dataSignature": base64.b64encode(hmac.digest(secret, data, hashlib.sha256)).decode(),
        "encryptionCertificateId": name,
        "encryptionCertificateThumbprint": hashlib.sha1(der).hexdigest().upper(),
    }
