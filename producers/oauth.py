"""OAuth 2.0 grants (RFC 6749): asked for once with a person's consent, and refreshed from then on.

A refresh may give another refresh token and void the one before (rotation, RFC 9700, section 4.14.2). So refreshing
one source's grant is for one at a time, the new one is kept before it is used, and of several who wait the others find
it done.
"""

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from headrace.errors import BadInputError, HeadraceError, UnavailableError
from headrace.producers.connections import Connections, Grant
from headrace.producers.provider_http import GrantError
from headrace.producers.schedule import SourceKey

LOOPBACK: Final = "http://127.0.0.1"
"""As RFC 8252, section 7.3, has it."""
LOCALHOST: Final = "http://localhost"
_TIMEOUT_SECONDS: Final = 30.0
_SPARE_SECONDS: Final = 60.0
"""A token that ends this soon is not begun with."""
_GONE: Final = frozenset({"invalid_grant"})
"""The person took it back, or it ended (RFC 6749, section 5.2)."""
_LATER: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_log: Final = logging.getLogger("headrace.oauth")


class OAuthApp(NamedTuple):
    """An app as it is registered with a provider. ``client_secret`` is empty for a public client (RFC 6749, section
    2.1); ``extra`` goes with the authorization request; ``redirect`` is where a browser is sent back to, a port still
    to be added to it: this machine, by the name that the provider takes it by."""

    provider: str
    authorize_url: str
    token_url: str
    client_id: str
    client_secret: str
    extra: Mapping[str, str]
    redirect: str = LOOPBACK

    def __repr__(self) -> str:
        """Without the secret."""
        return f"OAuthApp({self.provider!r}, {self.client_id!r})"


class Consent:
    """One person's consent: :attr:`url` is where they give it, :meth:`grant` takes the answer.

    With a proof key (PKCE, RFC 7636) and a state, so that an answer to somebody else's question is refused.
    ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        app: OAuthApp,
        scope: str,
        redirect_uri: str,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app, self._redirect_uri, self._transport, self._clock = app, redirect_uri, transport, clock
        self._verifier: Final = secrets.token_urlsafe(48)
        self._state: Final = secrets.token_urlsafe(24)
        self.url: Final[str] = prepare_grant_uri(
            app.authorize_url,
            app.client_id,
            "code",
            redirect_uri,
            scope,
            self._state,
            code_challenge=create_s256_code_challenge(self._verifier),
            code_challenge_method="S256",
            **app.extra,
        )

    def is_answered_by(self, address: str) -> bool:
        """Whether a browser that was sent to ``address`` brings the answer to just this question, yes or no."""
        said = _query(address)
        mine = hmac.compare_digest(said.get("state", "").encode("utf-8", "replace"), self._state.encode())
        return mine and ("code" in said or "error" in said)

    def grant(self, answer: str) -> Grant:
        """What the provider gives for the address that it sent the person back to.

        :raises BadInputError: it is no answer to this question, or the person said no.
        :raises UnavailableError: the provider does not answer.
        """
        said = _query(answer)
        if "error" in said and said.get("state") in (None, self._state):
            raise BadInputError(
                f"{self._app.provider} gives no consent ({said['error']:.60}); begin again, and allow what is asked for"
            )
        if not self.is_answered_by(answer) or not said.get("code"):
            raise BadInputError(
                f"this is no answer to what {self._app.provider} was asked just now; begin again, and give the whole"
                " address that the browser was sent to"
            )
        proof = {"redirect_uri": self._redirect_uri, "code": said["code"], "code_verifier": self._verifier}
        try:
            token = _asked(self._app, self._transport, "authorization_code", **proof)
        except GrantError:
            raise BadInputError(
                f"{self._app.provider} does not take the answer: it came too late, or has been used before; begin again"
            ) from None
        if not token.get("refresh_token"):
            raise BadInputError(
                f"{self._app.provider} gave no refresh token: take the app's access back in the account's settings,"
                " and connect the source again"
            )
        return _grant_of(token, {}, self._clock())


class StoredTokens:
    """The :class:`headrace.producers.provider_http.Tokens` of a connected source; ``clock`` gives epoch seconds."""

    def __init__(
        self,
        connections: Connections,
        key: SourceKey,
        app: OAuthApp | None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connections: Final = connections
        self._key: Final = key
        self._app: Final = app
        self._transport: Final = transport
        self._clock: Final = clock

    def access(self, *, refused: str | None = None) -> str:
        """See :class:`headrace.producers.provider_http.Tokens`; a password where that is what the grant holds."""
        grant = self._kept()
        password = grant.get("password")
        if password is not None:
            if password == refused:
                raise GrantError(f"the password of {self._named} is turned down; connect the source again")
            return str(password)
        found = self._usable(grant, refused)
        if found is not None:
            return found
        with self._connections.alone(self._key):
            grant = self._kept()  # somebody may have refreshed it meanwhile
            found = self._usable(grant, refused)
            if found is not None:
                return found
            fresh = self._refreshed(grant)
            self._connections.put_grant(self._key, fresh)
            return str(fresh["access_token"])

    def check(self) -> None:
        """See that there is a grant, and that it still gives tokens: one that it gave may outlive it for an hour. Of a
        password only the server can say.

        :raises GrantError: it is gone.
        :raises UnavailableError: no new token can be had now.
        """
        if "password" not in self._kept():
            with self._connections.alone(self._key):
                self._connections.put_grant(self._key, self._refreshed(self._kept()))

    def _usable(self, grant: Grant, refused: str | None) -> str | None:
        token = grant.get("access_token")
        if not token or token == refused or grant.get("expires_at", 0) - _SPARE_SECONDS <= self._clock():
            return None
        return str(token)

    def _kept(self) -> Grant:
        grant = self._connections.grant(self._key)
        if grant is None:
            raise GrantError(f"there is no grant for {self._named}; connect the source again")
        return grant

    def _refreshed(self, grant: Grant) -> Grant:
        refresh_token = grant.get("refresh_token")
        if self._app is None or not refresh_token:
            raise GrantError(f"the grant for {self._named} cannot be refreshed; connect the source again")
        token = _asked(self._app, self._transport, "refresh_token", refresh_token=refresh_token)
        _log.info("the grant for %s is refreshed", self._named)
        return _grant_of(token, grant, self._clock())

    @property
    def _named(self) -> str:
        return f"{self._key.source} of {self._key.account}"


def _query(address: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(urlsplit(address).query))
    except ValueError:
        return {}  # no address at all


def _asked(app: OAuthApp, transport: httpx.BaseTransport | None, grant_type: str, **said: str) -> Mapping[str, Any]:
    """A token endpoint's answer, or what its refusal means (RFC 6749, sections 5.1 and 5.2). Nothing of what was sent
    stands in a message."""
    # The app's secret goes in the body: both Google and Microsoft take it so.
    secret = {"client_secret": app.client_secret} if app.client_secret else {}
    body = prepare_token_request(grant_type, client_id=app.client_id, **secret, **said)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    try:
        with httpx.Client(transport=transport, timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
            answer = client.post(app.token_url, content=body, headers=headers)
    except httpx.HTTPError as error:
        raise UnavailableError(
            f"{app.provider} gives no token ({type(error).__name__}); it is asked again later"
        ) from None
    try:
        token = answer.json()
    except ValueError:
        token = None
    if not isinstance(token, dict):
        raise UnavailableError(f"{app.provider} gives no token now ({answer.status_code}); it is asked again later")
    if answer.is_success and isinstance(token.get("access_token"), str) and token["access_token"]:
        return token
    raise _refused(app, answer.status_code, token.get("error"))


def _refused(app: OAuthApp, status: int, error: object) -> HeadraceError:
    if error in _GONE:
        return GrantError(
            f"{app.provider} says that the grant is gone (it was taken back, or has ended); connect the source again"
        )
    busy = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    if busy or error in _LATER or not isinstance(error, str):
        return UnavailableError(f"{app.provider} gives no token now ({status}); it is asked again later")
    return BadInputError(
        f"{app.provider} refuses to give a token ({error:.60}); check the app's client id and secret, its redirect"
        " address and its scopes"
    )


def _grant_of(token: Mapping[str, Any], earlier: Grant, now: float) -> Grant:
    """A refresh that brings no refresh token leaves the one there is (RFC 6749, section 6)."""
    seconds = str(token.get("expires_in"))
    lasts = float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0
    return {
        "access_token": token["access_token"],
        "refresh_token": token.get("refresh_token") or earlier.get("refresh_token"),
        "expires_at": now + lasts,
        "scope": token.get("scope", earlier.get("scope", "")),
    }
