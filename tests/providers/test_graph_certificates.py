"""The certificates of Graph's rich notifications: from ``headrace.toml`` to a hint, and while one replaces another."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.connections import key_of
from headrace.producers.graph_certificates import encryption_of
from headrace.producers.notifications import PATH, notification_router
from headrace.producers.provider import Connected
from headrace.producers.source_syncs import SourceSyncs
from headrace.settings import load_settings
from headrace.sourcing import notifications_of, setups_of
from headrace.store import Store
from tests.doubles.graph import BASE, GraphDouble
from tests.doubles.graph_people import ADDRESS
from tests.doubles.graph_push import CLIENT_ID, SubscriptionsDouble, encrypted
from tests.doubles.http import Faulty, transport
from tests.providers.graph_parts import NOW, ONE, Published

SOURCE: Final = Connected("acme", "ann", "graph/1", "graph", {"address": ADDRESS})
KEY: Final = key_of(SOURCE)
HOUR: Final = 3_600.0
AnyKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey
ANY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: AnyKey, name: str = "headrace") -> bytes:
    """Self-signed, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    day = datetime(2026, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(day).not_valid_after(day + timedelta(days=400)).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def pem(key: AnyKey, *, passphrase: bytes | None = None, old: bool = False) -> bytes:
    """The private key in PEM: PKCS #8, or the ``old`` form."""
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    hidden = (
        serialization.BestAvailableEncryption(passphrase) if passphrase is not None else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, form, hidden)


class Site:
    """A store whose settings name certificates, a mailbox at the double, and the door for what Graph sends."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.now, self.published = store, NOW, Published(ONE)
        self.double = GraphDouble()
        self.double.now = int(NOW * 1_000)
        self.subscriptions = SubscriptionsDouble(self.double, self._shake)
        self.faulty = Faulty(self.double)
        monkeypatch.setattr("headrace.producers.graph_notification.microsoft_keys", lambda: self.published.keys)
        monkeypatch.setattr("headrace.producers.graph_api.BASE_URL", BASE)
        (store.directory / "keys").mkdir(exist_ok=True)
        (store.directory / "keys" / "app").write_text("s3cret")
        store.connections.add(SOURCE, {"access_token": self.double.grant.token, "expires_at": NOW + 1_000 * HOUR})

    def make(self, name: str) -> str:
        """A certificate with its key in a file; the certificate's id."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        text = certificate(key, name)
        (self.store.directory / "keys" / f"{name}.pem").write_bytes(pem(key) + text)
        return x509.load_pem_x509_certificate(text).fingerprint(hashes.SHA256()).hex()

    def start(self, *names: str) -> None:
        """A process that is started with these certificates."""
        files = ", ".join(f'"keys/{name}.pem"' for name in names)
        (self.store.directory / "headrace.toml").write_text(
            f'public_url = "https://headrace.example"\n[microsoft]\nclient_id = "{CLIENT_ID}"\n'
            f'client_secret_file = "keys/app"\ncertificate_files = [{files}]\n'
        )
        settings = load_settings(self.store.directory)
        app = FastAPI()
        with patch("headrace.sourcing.notification_router", partial(notification_router, clock=lambda: self.now)):
            app.include_router(notifications_of(self.store, settings, CollectorRegistry()).router)
        self.http = TestClient(app, base_url="https://headrace.example")
        self.syncs = SourceSyncs(
            self.store,
            self.store.connections,
            setups_of(settings),
            settings.public_url,
            transport=transport(self.faulty),
            clock=lambda: self.now,
        )

    def sync(self, *, after: float = 0.0) -> None:
        self.now += after
        self.double.now = int(self.now * 1_000)
        self.syncs.sync(KEY)

    def _shake(self, token: str) -> tuple[int, str | None, bytes]:
        answer = self.http.post(f"{PATH}/graph?validationToken={token}")
        return answer.status_code, answer.headers["content-type"], answer.content

    @property
    def one(self) -> dict[str, Any]:
        """The only subscription."""
        [found] = self.subscriptions.kept.values()
        return found

    def notify(self, made: dict[str, Any]) -> int:
        """What Graph sends of a subscription, encrypted for the certificate that it was made with, is answered this."""
        brought = encrypted(made["encryptionCertificateId"], made["encryptionCertificate"], {"id": "1"})
        self.subscriptions.kept.setdefault(made["id"], made)
        item = self.subscriptions.notify(made["id"], encryptedContent=brought)
        body = {"value": [item], "validationTokens": [ONE.token(self.now)]}
        return self.http.post(f"{PATH}/graph", content=json.dumps(body)).status_code

    def hints(self) -> int:
        partition = self.store.intake.partition(KEY.tenant, KEY.account)
        found = self.store.log.read(partition, 0, self.store.log.describe().ends[partition])
        return sum(dict(record.headers)["ce_type"] == b"source.notified" for record in found)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with Store(tmp_path / "store", writer=True, partitions=2) as store:
        yield Site(store, monkeypatch)


def test_from_the_settings_to_a_hint_while_one_certificate_replaces_another(site: Site) -> None:
    first, second = site.make("first"), site.make("second")
    site.start("first")
    site.sync()
    before = dict(site.one)
    assert (before["encryptionCertificateId"], before["includeResourceData"]) == (first, True)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert site.notify(before) == 202
    assert site.hints() == 1

    site.start("second", "first")
    site.sync()
    assert dict(site.one) == before, "it goes on until it is renewed"
    assert site.notify(before) == 202
    assert site.hints() == 2
    site.sync(after=12 * HOUR)
    after = dict(site.one)
    assert after["id"] != before["id"]
    assert after["encryptionCertificateId"] == second
    assert site.notify(after) == 202
    assert site.hints() == 3
    site.sync()
    assert site.notify(before) == 202, "what was under way for the earlier one can still be read"
    assert site.hints() == 4

    site.start("second")
    assert site.notify(before) == 401
    site.sync()
    assert site.notify(after) == 202


def test_without_a_certificate_nothing_is_brought_along(site: Site) -> None:
    site.start()
    site.sync()
    assert "includeResourceData" not in site.one
    site.make("first")
    site.start("first")
    site.sync(after=4 * 24 * HOUR)
    made = dict(site.one)
    assert made["includeResourceData"] is True
    site.sync(after=HOUR)
    assert site.one == made, "one that lives for a week and was replaced counts no more"
    site.start()
    site.sync(after=12 * HOUR)
    assert "includeResourceData" not in site.one


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_command_in_the_docs_makes_such_a_file(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "providers" / "graph.md"
    [line] = re.findall(r"^ *(openssl req (?:.+\\\n)*.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    (tmp_path / "keys").mkdir()
    subprocess.run(line, shell=True, check=True, cwd=tmp_path, capture_output=True)
    [file] = (tmp_path / "keys").iterdir()
    found = encryption_of([file])
    assert found is not None
    assert found.keys[found.id].key_size in range(2048, 4097)
    assert file.stat().st_mode & 0o077 == 0, "nobody else may read it"


@pytest.mark.parametrize("old", [False, True])
def test_either_may_come_first_in_either_form(tmp_path: Path, old: bool) -> None:
    whole, other = certificate(ANY), certificate(ec.generate_private_key(ec.SECP256R1()), "authority")
    for text in (
        pem(ANY, old=old) + whole,
        whole + pem(ANY, old=old),
        whole + other + pem(ANY, old=old),
        b"Bag\n" + whole + pem(ANY),
    ):
        file = tmp_path / "graph.pem"
        file.write_bytes(text)
        found = encryption_of([file, file])
        assert found is not None
        assert list(found.keys) == [found.id]
    assert encryption_of([]) is None


def with_bits(bits: int) -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return pem(key) + certificate(key)


CURVE: Final = ec.generate_private_key(ec.SECP256R1())
_DAMAGED: Final = re.compile(rb"(-----BEGIN PRIVATE KEY-----\n.{20})....")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: pem(ANY), "holds no certificate in PEM: put it into the file, beside its key"),
        (lambda: certificate(ANY), "holds no private key in PEM: put it into the file, beside its certificate"),
        (lambda: b"", "holds no certificate in PEM"),
        (lambda: bytes(range(256)), "holds no certificate in PEM"),
        (
            lambda: pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)) + certificate(ANY),
            "is not that of the certificate in it: put the two that belong together into it",
        ),
        (lambda: pem(ANY) + certificate(CURVE), "is not that of the certificate in it"),
        (lambda: pem(CURVE) + certificate(CURVE), "is not RSA's, and Graph takes no other: make another"),
        (lambda: with_bits(1024), "has 1024 bits, and Graph takes 2048 to 4096: make another"),
        (lambda: with_bits(4104), "has 4104 bits, and Graph takes 2048 to 4096: make another"),
        (lambda: pem(ANY, passphrase=b"sesame") + certificate(ANY), "is encrypted: keep it without a passphrase"),
        (
            lambda: pem(ANY, passphrase=b"sesame", old=True) + certificate(ANY),
            "is encrypted: keep it without a passphrase",
        ),
        (
            lambda: _DAMAGED.sub(rb"\1AAAA", pem(ANY)) + certificate(ANY),
            "the private key in .* is damaged: make another",
        ),
        (
            lambda: pem(ANY) + certificate(ANY).replace(b"MII", b"AAA", 1),
            "the certificate in .* is damaged: make another",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, make: Callable[[], bytes], told: str) -> None:
    file, text = tmp_path / "graph.pem", make()
    file.write_bytes(text)
    with pytest.raises(BadInputError, match=told) as refusal:
        encryption_of([file])
    assert "graph.pem" in str(refusal.value)
    for line in text.splitlines():
        assert len(line) < 20 or line.startswith(b"-----") or line.decode("latin-1") not in str(refusal.value)


@pytest.mark.parametrize("name", ["missing.pem", "."])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnavailableError, match=r"cannot be read .*check certificate_files in headrace\.toml"):
        encryption_of([tmp_path / name])
