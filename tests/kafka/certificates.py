"""A certificate authority, a server's certificate and a client's, made for one test run."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Certificates(NamedTuple):
    """Files: the authority's certificate, the server's key and certificate in one, the client's apart."""

    trust: Path
    server: Path
    client: Path
    client_key: Path


def make_certificates(directory: Path, client: str = "headrace") -> Certificates:
    """A new authority and what it signs: a server's certificate for 127.0.0.1, and one of a client of this name; valid
    for a day."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, served, held = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    trusted = (
        _certificate("headrace tests", authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority, SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    serving = _certificate("127.0.0.1", served).add_extension(names, critical=False).sign(authority, SHA256())
    holding = _certificate(client, held).sign(authority, SHA256())
    found = Certificates(*(directory / name for name in ("ca.pem", "server.pem", "client.pem", "client.key")))
    found.trust.write_bytes(trusted.public_bytes(Encoding.PEM))
    found.server.write_bytes(_pem(served) + serving.public_bytes(Encoding.PEM))
    found.client.write_bytes(holding.public_bytes(Encoding.PEM))
    found.client_key.write_bytes(_pem(held))
    return found


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headrace tests")]))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
