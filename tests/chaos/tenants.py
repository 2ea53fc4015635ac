"""Who the clients are: tenants with accounts, keys and a webhook each, and the settings that let them in."""

import base64
import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from headrace.producers.signatures import SECRET_PREFIX

TENANTS: Final = ("acme", "globex")
ACCOUNTS_EACH: Final = 4
SHARED: Final = "front-desk"
"""An account name that every tenant has: another account in each."""


class Login(NamedTuple):
    """A client's key and its tenant's webhook."""

    tenant: str
    name: str
    key: str
    webhook: str
    secret: str

    @property
    def accounts(self) -> tuple[str, ...]:
        """Of its tenant."""
        return (SHARED, *(f"{self.tenant[0]}{number}" for number in range(ACCOUNTS_EACH - 1)))


def logins(clients: int) -> list[Login]:
    """Clients by turns of every tenant. Keys are made of names: these stores live for minutes, on this machine."""
    return [_login(TENANTS[number % len(TENANTS)], f"agent-{number}") for number in range(clients)]


def _login(tenant: str, name: str) -> Login:
    key = f"hr_{hashlib.sha256(name.encode()).hexdigest()}"
    secret = base64.b64encode(hashlib.sha256(tenant.encode()).digest()).decode()
    return Login(tenant, name, key, f"mailroom-{tenant}", SECRET_PREFIX + secret)


def write_settings(directory: Path, clients: list[Login], more: str = "") -> None:
    """``headrace.toml`` in a store's directory; ``more`` goes first."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = [more]
    for one in clients:
        digest = hashlib.sha256(one.key.encode()).hexdigest()
        verbs = '["read", "propose", "review", "send"]'
        parts.append(
            f'[[api_keys]]\nname = "{one.name}"\nsha256 = "{digest}"\ntenant = "{one.tenant}"\nverbs = {verbs}\n'
        )
    for webhook, tenant, secret in sorted({(one.webhook, one.tenant, one.secret) for one in clients}):
        parts.append(
            f'[[webhooks]]\nname = "{webhook}"\ntenant = "{tenant}"\nsource = "webhook/{tenant}"\n'
            f'actor = "user/{tenant}"\nsecrets = ["{secret}"]\n'
        )
    (directory / "headrace.toml").write_text("\n".join(parts), encoding="utf-8")
