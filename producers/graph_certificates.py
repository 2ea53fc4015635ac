"""The certificates that Graph encrypts resource data for, read from files that hold one each, with its private key.

https://learn.microsoft.com/graph/change-notifications-with-resource-data: RSA, 2048 to 4096 bits; self-signed will do.
"""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.graph import Encryption

_BITS: Final = range(2048, 4097)
_MOST_BYTES: Final = 256 * 1024
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
_CERTIFICATE: Final = re.compile(rb"-----BEGIN (CERTIFICATE)-----.+?-----END \1-----", re.DOTALL)
_MADE_BY: Final = "docs/providers/graph.md has the command that makes such a file"
_BROKEN: Final = (ValueError, TypeError, UnsupportedAlgorithm)


class _Read(NamedTuple):
    id: str
    certificate: str
    key: RSAPrivateKey


def encryption_of(files: Sequence[Path]) -> Encryption | None:
    """What new subscriptions are made with, from the first file; what those of the others encrypted can still be read.
    ``None`` without any file.

    A certificate's id is its SHA-256 fingerprint in hex: another certificate is another id, so that the subscription is
    made anew. Of a file that holds several certificates (a chain) the first counts.

    :raises BadInputError: a file does not hold a certificate and its RSA key; nothing of the key is in the message.
    :raises UnavailableError: a file cannot be read.
    """
    found = [_read(file) for file in files]
    if not found:
        return None
    return Encryption(found[0].id, found[0].certificate, {one.id: one.key for one in found})


def _read(file: Path) -> _Read:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MOST_BYTES)
    except OSError as error:
        raise UnavailableError(
            f"the certificate {file} cannot be read ({error.strerror or type(error).__name__}); check certificate_files"
            f" in headrace.toml, and the file's owner and mode. {_MADE_BY}"
        ) from None
    certificate, key = _certificate(file, raw), _key(file, raw)
    if key.key_size not in _BITS:
        raise BadInputError(
            f"the key in {file} has {key.key_size} bits, and Graph takes {_BITS.start} to {_BITS.stop - 1}: make"
            f" another. {_MADE_BY}"
        )
    if not _belong_together(certificate, key):
        raise BadInputError(
            f"the private key in {file} is not that of the certificate in it: put the two that belong together into it"
        )
    text = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    return _Read(certificate.fingerprint(SHA256()).hex(), text, key)


def _certificate(file: Path, raw: bytes) -> x509.Certificate:
    found = _CERTIFICATE.search(raw)
    if found is None:
        raise BadInputError(f"{file} holds no certificate in PEM: put it into the file, beside its key. {_MADE_BY}")
    try:
        return x509.load_pem_x509_certificate(found[0])
    except _BROKEN:
        raise BadInputError(f"the certificate in {file} is damaged: make another. {_MADE_BY}") from None


def _key(file: Path, raw: bytes) -> RSAPrivateKey:
    found = _KEY.search(raw)
    if found is None:
        raise BadInputError(
            f"{file} holds no private key in PEM: put it into the file, beside its certificate. {_MADE_BY}"
        )
    if found[1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in found[0]:
        raise BadInputError(
            f"the private key in {file} is encrypted: keep it without a passphrase (`openssl pkey`), readable by"
            " headrace alone"
        )
    try:
        key = load_pem_private_key(found[0], password=None)
    except _BROKEN:
        raise BadInputError(f"the private key in {file} is damaged: make another. {_MADE_BY}") from None
    if not isinstance(key, RSAPrivateKey):
        raise BadInputError(
            f"the private key in {file} is not RSA's, and Graph takes no other: make another. {_MADE_BY}"
        )
    return key


def _belong_together(certificate: x509.Certificate, key: RSAPrivateKey) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except _BROKEN:
        return False  # its key is of a kind that nobody knows here
