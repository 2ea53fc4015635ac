"""An authorization server: its authorization endpoint, where a person says yes or no in a browser, and its token
endpoint (RFC 6749, sections 4.1 and 6), with proof keys (RFC 7636) and rotation: a refresh token works once, and one
that comes twice has its whole family revoked (RFC 9700, section 4.14.2).

What a client may be registered as, and what it is given for that:

[redirect] RFC 6749, section 4.1.2.1: a redirect address that is not registered is told to the person, and followed by
           nobody
[exact]    section 4.1.3: the token endpoint wants the very redirect address of the authorization request
[google]   https://developers.google.com/identity/protocols/oauth2/native-app: a Desktop app registers no address, and
           may be sent back to http://127.0.0.1 on any port; a refresh token comes with access_type=offline only
           (https://developers.google.com/identity/protocols/oauth2/web-server#offline)
[entra]    https://learn.microsoft.com/entra/identity-platform/reply-url: what is registered must fit in scheme, host
           and path; of http://localhost the port is ignored, of 127.0.0.1 it is not; an address without a path is
           answered with a slash; a refresh token comes with the scope offline_access only, as everywhere where
           OpenID Connect is spoken
           (https://learn.microsoft.com/entra/identity-platform/scopes-oidc#the-offline_access-scope)
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.doubles.http import DropError, Reply, Request

CLIENT: Final = "client-1"
SECRET: Final = "s3cr3t-of-the-app"
LIFETIME: Final = 3_600
Vendor = Literal["google", "entra", "another"]


class AuthorizationServer:
    """``rotates``: every refresh gives another refresh token. ``lose`` answers break after the token was made.
    ``secret`` is the client's, ``None`` for a public one; ``made`` makes access tokens."""

    def __init__(
        self,
        *,
        rotates: bool = True,
        vendor: Vendor = "google",
        secret: str | None = SECRET,
        made: Callable[[], str] = lambda: "at-" + secrets.token_urlsafe(12),
    ) -> None:
        self.rotates = rotates
        self.lose = 0
        self.ailing: list[int] = []
        """Status codes to answer next instead."""
        self.refreshes = 0
        self.access: set[str] = set()
        self.asked: list[dict[str, str]] = []
        """What came to the token endpoint."""
        self.says: Literal["yes", "no", "a used code"] = "yes"
        """What comes of it when a browser is sent here."""
        self._vendor: Final = vendor
        self.secret = secret
        self._made: Final = made
        self._ever: Final[set[str]] = set()
        self._codes: Final[dict[str, tuple[str, str, bool]]] = {}
        self._live: Final[set[str]] = set()
        self._used: Final[dict[str, str]] = {}
        self._family: Final[dict[str, str]] = {}

    def consent(self, url: str) -> str:
        """What a browser is sent back to after the person was at ``url``."""
        split = urlsplit(url)
        reply = self.answer(Request("GET", split.path, tuple(parse_qsl(split.query)), {}, b""))
        assert reply.status == 302, reply.body
        return reply.headers["location"]

    def _authorized(self, asked: dict[str, str]) -> Reply:
        redirect = asked.get("redirect_uri", "")
        if asked.get("client_id") != CLIENT or not self._is_registered(redirect):
            return Reply(400, b"redirect_uri_mismatch", {"content-type": "text/plain"})  # [redirect]
        said = {"state": asked["state"]}
        if self.says == "no":
            said |= {"error": "access_denied"}
        elif asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            said |= {"error": "invalid_request"}
        else:
            code = secrets.token_urlsafe(12)
            offline = (
                asked.get("access_type") == "offline"
                if self._vendor == "google"
                else "offline_access" in asked["scope"].split()
            )
            if self.says == "yes":
                self._codes[code] = asked["code_challenge"], redirect, offline
            said |= {"code": code}
        slash = "" if urlsplit(redirect).path else "/"  # [entra]; Google does no harm by it
        return Reply(302, headers={"location": f"{redirect}{slash}?{urlencode(said)}"})

    def _is_registered(self, redirect: str) -> bool:
        split = urlsplit(redirect)
        if split.scheme != "http" or split.path or split.query or split.port is None:
            return False
        return split.hostname == ("localhost" if self._vendor == "entra" else "127.0.0.1")

    @property
    def given(self) -> frozenset[str]:
        """Every access token that was ever given, revoked ones too."""
        return frozenset(self._ever)

    def knows(self, refresh_token: str) -> bool:
        """Whether a refresh token is of this server, used or revoked ones too."""
        return refresh_token in self._family

    def issue(self) -> dict[str, Any]:
        """A grant, as after somebody's consent."""
        said: dict[str, Any] = json.loads(self._given(secrets.token_urlsafe(12)).body)
        return said

    def revoke(self) -> None:
        """The person takes it back."""
        self._live.clear()
        self.access.clear()

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        if request.path.endswith("/authorize"):
            return self._authorized(dict(request.query))
        said = dict(parse_qsl(request.body.decode()))
        self.asked.append(said)
        if self.ailing:
            return Reply.json(self.ailing.pop(0), {"error": "temporarily_unavailable"})
        if (said.get("client_id"), said.get("client_secret")) != (CLIENT, self.secret):
            return Reply.json(401, {"error": "invalid_client"})
        if said.get("grant_type") == "authorization_code":
            return self._first(said)
        if said.get("grant_type") == "refresh_token":
            return self._refresh(said)
        return Reply.json(400, {"error": "unsupported_grant_type"})

    def _first(self, said: dict[str, str]) -> Reply:
        challenge, redirect, offline = self._codes.pop(said.get("code", ""), (None, None, False))
        digest = hashlib.sha256(said.get("code_verifier", "").encode()).digest()
        if challenge != base64.urlsafe_b64encode(digest).rstrip(b"=").decode() or redirect != said.get("redirect_uri"):
            return Reply.json(400, {"error": "invalid_grant"})  # [exact]
        return self._given(secrets.token_urlsafe(12), offline=offline)

    def _refresh(self, said: dict[str, str]) -> Reply:
        token = said.get("refresh_token", "")
        family = self._family.get(token, "")
        if token in self._used:
            self._live.difference_update([one for one in self._live if self._family[one] == family])
        if token not in self._live:
            return Reply.json(400, {"error": "invalid_grant"})
        self.refreshes += 1
        if self.rotates:
            self._live.discard(token)
            self._used[token] = family
        reply = self._given(family)
        if self.lose:
            self.lose -= 1
            raise DropError
        return reply

    def _given(self, family: str, *, offline: bool = True) -> Reply:
        access = self._made()
        self.access.add(access)
        self._ever.add(access)
        said = {"access_token": access, "token_type": "Bearer", "expires_in": LIFETIME, "scope": "mail"}
        if offline and (self.rotates or family not in self._family.values()):
            refresh = "rt-" + secrets.token_urlsafe(12)
            self._family[refresh] = family
            self._live.add(refresh)
            said["refresh_token"] = refresh
        return Reply.json(200, said)
