"""How a mailbox is reached and who logs in there: settings of a connected source, TLS, passwords and OAuth tokens."""

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, cast

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.imap_client import Client, NoError, speaking
from headrace.producers.provider_http import GrantError, Tokens, is_here

TIMEOUT_SECONDS: Final = 30.0
Security = Literal["tls", "starttls", "none"]
Auth = Literal["password", "oauth"]
Content = Literal["headers", "text"]
_PORTS: Final = {"tls": 993, "starttls": 143, "none": 143}
ROLES: Final = ("sent", "drafts", "trash", "junk", "archive")
"""Folders whose names may be given, where the server does not say which they are (RFC 6154)."""


class ImapSettings(NamedTuple):
    """A connected source's settings. ``folders`` are names by role (:data:`ROLES`)."""

    host: str
    port: int
    security: Security
    username: str
    address: str
    auth: Auth
    content: Content
    ca_file: str | None
    folders: Mapping[str, str]

    def __repr__(self) -> str:
        """Without the names of people."""
        return f"ImapSettings({self.host!r}, {self.port}, {self.security!r})"

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Self:
        """Read ``host``, ``port``, ``security`` (``tls``, ``starttls``, ``none``), ``username``, ``address`` (default:
        the user name), ``auth`` (``password``, ``oauth``), ``content`` (``headers``, ``text``), ``ca_file``, and one
        name for each of :data:`ROLES`.

        :raises BadInputError: one of them cannot be used.
        """
        host, username = settings.get("host", "").strip(), settings.get("username", "").strip()
        if not host or not username:
            raise BadInputError("an IMAP source needs host and username; connect it again and give both")
        security = _one_of(settings, "security", ("tls", "starttls", "none"))
        if security == "none" and not is_here(host):
            raise BadInputError("security=none shows the password to the network: take tls or starttls")
        port = settings.get("port", str(_PORTS[security]))
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
            raise BadInputError("port of an IMAP source is a number from 1 to 65535; correct its settings")
        return cls(
            host,
            int(port),
            cast("Security", security),
            username,
            settings.get("address", "").strip() or username,
            cast("Auth", _one_of(settings, "auth", ("password", "oauth"))),
            cast("Content", _one_of(settings, "content", ("headers", "text"))),
            settings.get("ca_file"),
            {role: settings[role] for role in ROLES if settings.get(role)},
        )


def connect(settings: ImapSettings, tokens: Tokens, *, timeout_s: float) -> Client:
    """A connection that is logged in. ``tokens.access()`` is the OAuth access token, or the password.

    :raises GrantError: who we say we are is not believed, with a fresh token either.
    :raises ThrottledError: the server wants to be left alone.
    :raises UnavailableError: it cannot be reached.
    :raises BadInputError: a setting does not fit it; the message says which.
    """
    secret = tokens.access()
    try:
        return _logged_in(settings, secret, timeout_s)
    except GrantError:
        fresh = tokens.access(refused=secret)
        if fresh == secret:
            raise
    return _logged_in(settings, fresh, timeout_s)


def let_go(client: Client) -> None:
    """Log out if that is possible still, and close the connection."""
    with suppress(Exception):
        client.logout()
        return
    hang_up(client)


def hang_up(client: Client) -> None:
    """Close the connection."""
    with suppress(Exception):
        client.shutdown()


def _logged_in(settings: ImapSettings, secret: str, timeout_s: float) -> Client:
    context = _context(settings)
    with speaking(settings.host):
        client = Client(settings.host, settings.port, context if settings.security == "tls" else None, timeout_s)
    try:
        if settings.security == "starttls":
            _start_tls(client, settings, context)
        _log_in(client, settings, secret)
    except BaseException:
        let_go(client)
        raise
    return client


def _start_tls(client: Client, settings: ImapSettings, context: ssl.SSLContext | None) -> None:
    with speaking(settings.host):
        offered = client.has_capability("STARTTLS")
    if not offered:
        raise BadInputError(f"{settings.host} has no STARTTLS on port {settings.port}: take security=tls and its port")
    with speaking(settings.host):
        client.starttls(context)


def _log_in(client: Client, settings: ImapSettings, secret: str) -> None:
    try:
        with speaking(settings.host):
            able = frozenset(client.capabilities())
            if settings.auth == "oauth":
                _log_in_by_token(client, settings, secret, able)
            elif b"AUTH=PLAIN" in able:
                client.plain_login(settings.username, secret)  # unlike LOGIN it takes any password
            elif b"LOGINDISABLED" in able:
                raise BadInputError(f"{settings.host} takes no passwords on this connection: take tls, or auth=oauth")
            else:
                client.login(settings.username, secret)
    except NoError as error:
        if error.code == "PRIVACYREQUIRED":
            raise BadInputError(f"{settings.host} takes no passwords without TLS: take tls or starttls") from None
        what = "token" if settings.auth == "oauth" else "user name or password"
        raise GrantError(f"{settings.host} does not take the {what}; connect the source again") from None


def _log_in_by_token(client: Client, settings: ImapSettings, token: str, able: frozenset[bytes]) -> None:
    """XOAUTH2 (https://developers.google.com/workspace/gmail/imap/xoauth2-protocol), else OAUTHBEARER (RFC 7628). What
    is wrong with a token, the server says in a challenge, to be answered with nothing."""
    said: list[bytes] = []

    def answering(first: str) -> Callable[[bytes], bytes]:
        def answered(challenge: bytes) -> bytes:
            said.append(challenge)
            return first.encode() if len(said) == 1 else b""

        return answered

    bearer = f"auth=Bearer {token}\1"
    if b"AUTH=XOAUTH2" in able:
        client.sasl_login("XOAUTH2", answering(f"user={settings.username}\1{bearer}\1"))
    elif b"AUTH=OAUTHBEARER" in able:
        name = settings.username.replace("=", "=3D").replace(",", "=2C")
        client.sasl_login("OAUTHBEARER", answering(f"n,a={name},\1{bearer}\1"))
    else:
        raise BadInputError(f"{settings.host} takes no OAuth tokens: connect the source with a password")


def _context(settings: ImapSettings) -> ssl.SSLContext | None:
    if settings.security == "none":
        return None
    if settings.ca_file is not None and not Path(settings.ca_file).is_file():
        raise BadInputError("ca_file of the IMAP source names no file; correct its settings")
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except ssl.SSLError:
        raise BadInputError("ca_file of the IMAP source holds no certificate in PEM; correct its settings") from None
    except OSError as error:
        raise UnavailableError(f"ca_file of the IMAP source cannot be read ({type(error).__name__})") from None


def _one_of(settings: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    said = settings.get(name, allowed[0])
    if said not in allowed:
        raise BadInputError(f"{name} of an IMAP source is one of {', '.join(allowed)}; correct its settings")
    return said
