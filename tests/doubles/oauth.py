"""An authorization server's token endpoint (RFC 6749, sections 4.1.3 and 6), with proof keys (RFC 7636) and rotation:
a refresh token works once, and one that comes twice has its whole family revoked (RFC 9700, section 4.14.2)."""

import base64
import hashlib
import secrets
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.doubles.http import DropError, Reply, Request

CLIENT: Final = "client-1"
SECRET: Final = "s3cr3t-of-the-app"
LIFETIME: Final = 3_600


class AuthorizationServer:
    """``rotates``: every refresh gives another refresh token. ``lose`` answers break after the token was made."""

    def __init__(self, *, rotates: bool = True) -> None:
        self.rotates = rotates
        self.lose = 0
        self.ailing: list[int] = []
        """Status codes to answer next instead."""
        self.refreshes = 0
        self.access: set[str] = set()
        self._codes: Final[dict[str, tuple[str, str]]] = {}
        self._live: Final[set[str]] = set()
        self._used: Final[dict[str, str]] = {}
        self._family: Final[dict[str, str]] = {}

    def consent(self, url: str) -> str:
        """What a browser is sent back to after the person said yes at ``url``."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(12)
        self._codes[code] = asked["code_challenge"], asked["redirect_uri"]
        return asked["redirect_uri"] + "?" + urlencode({"code": code, "state": asked["state"]})

    def revoke(self) -> None:
        """The person takes it back."""
        self._live.clear()
        self.access.clear()

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        said = dict(parse_qsl(request.body.decode()))
        if self.ailing:
            return Reply.json(self.ailing.pop(0), {"error": "temporarily_unavailable"})
        if (said.get("client_id"), said.get("client_secret")) != (CLIENT, SECRET):
            return Reply.json(401, {"error": "invalid_client"})
        if said.get("grant_type") == "authorization_code":
            return self._first(said)
        if said.get("grant_type") == "refresh_token":
            return self._refresh(said)
        return Reply.json(400, {"error": "unsupported_grant_type"})

    def _first(self, said: dict[str, str]) -> Reply:
        challenge, redirect = self._codes.pop(said.get("code", ""), (None, None))
        digest = hashlib.sha256(said.get("code_verifier", "").encode()).digest()
        if challenge != base64.urlsafe_b64encode(digest).rstrip(b"=").decode() or redirect != said.get("redirect_uri"):
            return Reply.json(400, {"error": "invalid_grant"})
        return self._given(secrets.token_urlsafe(12))

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

    def _given(self, family: str) -> Reply:
        access = "at-" + secrets.token_urlsafe(12)
        self.access.add(access)
        said = {"access_token": access, "token_type": "Bearer", "expires_in": LIFETIME, "scope": "mail"}
        if self.rotates or family not in self._family.values():
            refresh = "rt-" + secrets.token_urlsafe(12)
            self._family[refresh] = family
            self._live.add(refresh)
            said["refresh_token"] = refresh
        return Reply.json(200, said)
