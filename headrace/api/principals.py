"""Who asks. Tenant, actor and source come from here and never from a request's body."""

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.api.problems import ProblemError
from headrace.schemas.refs import ActorRef
from headrace.settings import LOCAL_TENANT, VERBS, ApiKey, Verb


class Principal(NamedTuple):
    """``operator`` tells that no keys are configured: whoever is on this machine asks, and sees what has no tenant."""

    name: str
    tenant: str
    verbs: frozenset[Verb]
    operator: bool = False

    @property
    def agent(self) -> ActorRef:
        """As the actor of proposals and claims."""
        return ActorRef("agent", self.name)

    @property
    def user(self) -> ActorRef:
        """As the actor of answers."""
        return ActorRef("user", self.name)

    @property
    def source(self) -> str:
        """As the source of records."""
        return f"api/{self.name}"


LOCAL: Final = Principal("local", LOCAL_TENANT, VERBS, operator=True)
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="headrace"'}


def authenticate(keys: Sequence[ApiKey], authorization: str | None) -> Principal:
    """Whose key this is. Compares digests, all of them, in constant time each.

    :raises ProblemError: 401, the same for a key that is missing, unknown or has run out.
    """
    if not keys:
        return LOCAL
    scheme, _, key = (authorization or "").partition(" ")
    digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
    found: ApiKey | None = None
    for known in keys:
        if hmac.compare_digest(known.sha256, digest):
            found = known
    expired = found is not None and found.expires_at is not None and found.expires_at.timestamp() <= time.time()
    if found is None or expired or scheme.lower() != "bearer":
        raise ProblemError(
            401, "unauthorized", "send a valid API key as Authorization: Bearer hr_…", headers=_CHALLENGE
        )
    return Principal(found.name, found.tenant, found.verbs)


def require(principal: Principal, verb: Verb) -> None:
    """Let pass who may.

    :raises ProblemError: 403.
    """
    if verb not in principal.verbs:
        raise ProblemError(403, "forbidden", f"this API key may not {verb}: use one that has the verb {verb!r}")
