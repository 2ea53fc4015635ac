"""Who may log in, and over which connections."""

import base64
import hashlib
import hmac
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.imap import Imap
from headrace.producers.imap_login import ImapSettings
from headrace.producers.provider import Delivery
from headrace.producers.provider_http import GrantError, ProviderHttp
from headrace.producers.refusal import RefusedError
from infra.stack.dovecot import DovecotServer
from infra.stack.ports import free_ports
from tests.doubles.desk import desk
from tests.imap.certificates import certified
from tests.imap.parts import Secret, connected
from tests.imap.scripted import Said, Scripted

pytestmark = pytest.mark.embedded("opens no store")

KEY = b"a key that only the tests have, and the server"


def token(user: str, *, key: bytes = KEY, seconds: int = 600) -> str:
    """An access token (RFC 7519, HS256) as Dovecot checks it by itself."""

    def packed(said: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": user, "iat": now - 5, "exp": now + seconds, "iss": "tests"}
    signed = packed({"alg": "HS256", "typ": "JWT", "kid": "default"}) + b"." + packed(claims)
    mac = base64.urlsafe_b64encode(hmac.digest(key, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + mac).decode()


class Secured(NamedTuple):
    server: DovecotServer
    authority: Path


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """With TLS, and taking OAuth tokens."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-imap-"))
    folder.chmod(0o755)
    files, authority = certified(folder)
    keys = folder / "keys" / "default" / "HS256"
    keys.mkdir(parents=True)
    (keys / "default").write_bytes(base64.b64encode(KEY))
    oauth = folder / "oauth2.conf"
    oauth.write_text(
        f"introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={folder}/keys/\n"
        "username_attribute = sub\n"
    )
    for path in (files.key, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    more = f"passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {oauth}\n}}\n"
    made = DovecotServer(folder, certificate=files, mechanisms="plain login xoauth2 oauthbearer", more=more)
    try:
        with made:
            yield Secured(made, authority)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def told(server: DovecotServer, secret: Secret, **more: str) -> list[str]:
    with desk("mail.thread") as here:
        return here.told(Imap(timeout_s=10).mailbox(connected(server, "ann", **more), secret, here.pseudonym))


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_certificates_are_verified(secured: Secured, security: str) -> None:
    server = secured.server
    port = str(server.tls_port if security == "tls" else server.port)
    trusting = {"security": security, "port": port, "ca_file": str(secured.authority)}
    assert told(server, Secret(server.password), **trusting) == []
    with pytest.raises(BadInputError, match="cannot be trusted"):
        told(server, Secret(server.password), security=security, port=port)
    with pytest.raises(BadInputError, match="cannot be trusted"):
        told(server, Secret(server.password), **trusting, host="localhost")


def test_a_wrong_password_is_for_a_person(dovecot: DovecotServer) -> None:
    with pytest.raises(GrantError, match="connect the source again"):
        told(dovecot, Secret("wrong"))
    assert told(dovecot, Secret("wrong", dovecot.password)) == []


@pytest.mark.parametrize("password", ['pä ss"wor\\d', "x" * 1000, "{5}"])
def test_any_password_can_be_said(dovecot: DovecotServer, password: str) -> None:
    with pytest.raises(GrantError):
        told(dovecot, Secret(password))


def test_access_tokens(secured: Secured) -> None:
    oauth = {"auth": "oauth"}
    assert told(secured.server, Secret(token("ann")), **oauth) == []
    assert told(secured.server, Secret(token("ann", seconds=-60), token("ann")), **oauth) == []
    for bad in (token("ann", seconds=-60), token("ann", key=b"x" * 40), token("bob"), "none"):
        with pytest.raises(GrantError):
            told(secured.server, Secret(bad), **oauth)


def test_access_tokens_by_the_other_mechanism() -> None:
    able: dict[str, Said] = {"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER\r\n"}
    with Scripted(able) as server, desk("mail.thread") as here:
        one = connected_to(server.port, auth="oauth", username="a,n=n")
        here.told(Imap(timeout_s=10).mailbox(one, Secret("t0ken"), here.pseudonym))
        [asked] = [line for line in server.asked if b"AUTHENTICATE" in line]
    assert asked.split()[1:3] == [b"AUTHENTICATE", b"OAUTHBEARER"]


def connected_to(port: int, **more: str) -> Any:
    server = type("Server", (), {"port": port})
    return connected(server, "ann", **more)  # type: ignore[arg-type]


def test_where_nobody_answers() -> None:
    [port] = free_ports(1)
    with desk("mail.thread") as here, pytest.raises(UnavailableError, match="does not answer"):
        here.told(Imap().mailbox(connected_to(port), Secret("x"), here.pseudonym))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("NO [AUTHENTICATIONFAILED] no", GrantError),
        ("NO [EXPIRED] no", GrantError),
        ("NO sorry", GrantError),
        ("NO [UNAVAILABLE] the directory is down", UnavailableError),
        ("NO [INUSE] later", UnavailableError),
        ("NO [LIMIT] too many connections", UnavailableError),
        ("NO [PRIVACYREQUIRED] not like this", BadInputError),
    ],
)
def test_refused_logins(answer: str, error: type[Exception]) -> None:
    says: dict[str, Said] = {"AUTHENTICATE": f"TAG {answer}\r\n".encode()}
    with Scripted(says) as server, desk("mail.thread") as here, pytest.raises(error) as caught:
        here.told(Imap(timeout_s=10).mailbox(connected_to(server.port), Secret("x"), here.pseudonym))
    assert type(caught.value) is not BadInputError or "tls" in str(caught.value)


def test_a_password_is_not_shown_where_it_may_not_be() -> None:
    able: dict[str, Said] = {"CAPABILITY": b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n"}
    with Scripted(able) as server, desk("mail.thread") as here:
        source = Imap(timeout_s=10).mailbox(connected_to(server.port), Secret("s3cret"), here.pseudonym)
        with pytest.raises(BadInputError, match="takes no passwords"):
            here.told(source)
        source = Imap(timeout_s=10).mailbox(connected_to(server.port, auth="oauth"), Secret("x"), here.pseudonym)
        with pytest.raises(BadInputError, match="takes no OAuth tokens"):
            here.told(source)
        source = Imap(timeout_s=10).mailbox(connected_to(server.port, security="starttls"), Secret("x"), here.pseudonym)
        with pytest.raises(BadInputError, match="has no STARTTLS"):
            here.told(source)
        assert not any(b"s3cret" in line for line in server.asked)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": ""},
        {"username": " "},
        {"port": "0"},
        {"port": "65536"},
        {"port": "x"},
        {"port": "99999999999999999999"},
        {"security": "ssl"},
        {"security": "none", "host": "imap.example.com"},
        {"auth": "ntlm"},
        {"content": "all"},
    ],
)
def test_settings_that_cannot_be_used(wrong: dict[str, str]) -> None:
    with pytest.raises(BadInputError):
        ImapSettings.of({"host": "imap.example.com", "username": "ann@example.com", **wrong})


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_an_authority_that_is_none(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "authority.pem"
    if text is not None:
        file.write_text(text)
    one = connected_to(1, security="tls", ca_file=str(file))
    with desk("mail.thread") as here, pytest.raises(BadInputError, match="ca_file"):
        here.told(Imap().mailbox(one, Secret("x"), here.pseudonym))


def test_settings_do_not_show_people() -> None:
    settings = ImapSettings.of({"host": "imap.example.com", "username": "ann@example.com"})
    assert settings.port == 993
    assert settings.address == "ann@example.com"
    assert "@" not in repr(settings)


def test_the_port_of_providers(dovecot: DovecotServer) -> None:
    provider = Imap()
    unused = httpx.MockTransport(lambda _: httpx.Response(500))
    with (
        ProviderHttp("https://x.test/", Secret(dovecot.password), transport=unused) as http,
        desk("mail.thread") as here,
    ):
        one = connected(dovecot, "ann")
        source = provider.source(one, http, here.pseudonym)
        assert source.feeds == ("mail.thread",)
        assert here.told(source) == []
        assert provider.watch(one, http, "https://here.test/", None, 0) is None
    with pytest.raises(RefusedError) as caught:
        provider.receive(Delivery("POST", (), (), b"", 0.0), lambda _: None)
    assert caught.value.refusal.status == 404
