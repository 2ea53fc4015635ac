"""What can be set: by arguments, by ``HEADRACE_…`` in the environment, by ``headrace.toml`` in the store's directory,
in that order of precedence.

.. code-block:: toml

    host = "0.0.0.0"                      # HEADRACE_HOST; anything but loopback needs API keys
    port = 8416                           # HEADRACE_PORT; 0 takes a free one

    log_url = "kafka://k1:9092,k2:9092/headrace.events"   # HEADRACE_LOG_URL; without it a file in this directory
    db_url = "postgresql://headrace@db/headrace"          # HEADRACE_DB_URL; without it a file in this directory
    db_schema = "headrace"                                # HEADRACE_DB_SCHEMA
    key_file = "keys/master"                              # HEADRACE_KEY_FILE; the same in every process on the log
    schema_registry_url = "https://registry:8081"         # HEADRACE_SCHEMA_REGISTRY_URL; optional
    worker_port = 8417                                    # HEADRACE_WORKER_PORT; a worker's metrics and health

    public_url = "https://headrace.example.com"   # HEADRACE_PUBLIC_URL; where providers send notifications to

    [google]                              # docs/providers/gmail.md, docs/providers/google_calendar.md
    client_id = "….apps.googleusercontent.com"
    client_secret_file = "keys/google"
    topic = "projects/P/topics/gmail"     # Gmail's: what it publishes to, and what its pushes show
    audience = "https://headrace.example.com/v1/notifications/gmail"
    service_account = "headrace-push@P.iam.gserviceaccount.com"

    [microsoft]                           # docs/providers/graph.md
    client_id = "…"
    client_secret_file = "keys/microsoft"
    tenant = "common"
    certificate_files = ["keys/graph.pem"]   # rich notifications; the first is used, the others still decrypt

    [imap.oauth."imap.example.com"]       # docs/providers/imap.md; for hosts other than Google's and Microsoft's
    client_id = "…"
    client_secret_file = "keys/imap"      # without it a public client (RFC 6749, section 2.1)
    authorize_url = "https://login.example.com/authorize"
    token_url = "https://login.example.com/token"
    scope = "imap offline_access"
    redirect = "http://127.0.0.1"         # or http://localhost; a free port of this machine is added to it

    [hooks.nylas]                         # docs/providers/hooks.md; POST /v1/notifications/nylas
    preset = "nylas"                      # or emailengine; or header, encoding, account and the rest
    secret_files = ["keys/nylas"]         # two while one replaces the other

    [providers.NAME]                      # of a provider that a package brings: as that says (docs/sources.md)

    [[api_keys]]
    name = "drafting-agent"               # proposals made with it are agent/drafting-agent's
    sha256 = "…"                          # of the key; the key itself is stored nowhere
    tenant = "acme"
    verbs = ["read", "propose"]           # of read, propose, review, send, admin
    expires_at = 2027-01-01T00:00:00Z     # optional

    [[webhooks]]
    name = "mailroom"                     # POST /v1/webhooks/standard/mailroom
    tenant = "acme"
    source = "webhook/mailroom"
    actor = "user/webhook"
    secret_files = ["keys/mailroom"]      # or secrets = ["whsec_…"]; two while one replaces the other
"""

import base64
import contextlib
import hashlib
import ipaddress
import os
import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from headrace.errors import BadInputError, UnavailableError
from headrace.places import Places
from headrace.producers.signatures import SECRET_PREFIX, Endpoint, secret_key
from headrace.schemas.models import OpaqueId
from headrace.schemas.refs import ACTOR_KINDS, OPAQUE_ID, ActorRef
from headrace.store import default_directory

FILE: Final = "headrace.toml"
DEFAULT_PORT: Final = 8416
DEFAULT_WORKER_PORT: Final = 8417
LOCAL_TENANT: Final = "local"
KEY_PREFIX: Final = "hr_"
DEFAULT_WEBHOOK: Final = "default"
WEBHOOK_ACTOR: Final = "user/webhook"
SECRET_FILE: Final = Path("keys") / "webhook-default"

Verb = Literal["read", "propose", "review", "send", "admin"]
VERBS: Final[frozenset[Verb]] = frozenset(("read", "propose", "review", "send", "admin"))


def parse_actor(text: str) -> ActorRef:
    """``kind/id`` as an actor.

    :raises ValueError: it is none.
    """
    kind, _, actor_id = text.partition("/")
    if kind not in ACTOR_KINDS or not OPAQUE_ID.match(actor_id):
        raise ValueError(f"{text[:60]!r} is no actor: write user/…, agent/… or system/… with an opaque id")
    return ActorRef(kind, actor_id)


class ApiKey(BaseModel):
    """Who may do what in which tenant. Of the key only its SHA-256 is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: OpaqueId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tenant: OpaqueId
    verbs: frozenset[Verb]
    expires_at: AwareDatetime | None = None


class Webhook(BaseModel):
    """An endpoint for Standard Webhooks: whose events come in by it, and what signs them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: OpaqueId
    tenant: OpaqueId
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~:/+=-]{1,200}$")]
    actor: str = WEBHOOK_ACTOR
    secrets: tuple[str, ...] = Field(default=(), repr=False)
    secret_files: tuple[Path, ...] = Field(default=(), description="relative to the store's directory")

    @field_validator("actor")
    @classmethod
    def _is_actor(cls, text: str) -> str:
        parse_actor(text)
        return text


class GoogleApp(BaseModel):
    """An app in the Google Cloud; the last three are Gmail's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path = Field(description="relative to the store's directory")
    topic: str | None = None
    audience: str | None = None
    service_account: str | None = None


class MicrosoftApp(BaseModel):
    """An app in Microsoft Entra. ``tenant``: whose people may connect, ``common`` for everybody's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path = Field(description="relative to the store's directory")
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,100}$")] = "common"
    certificate_files: tuple[Path, ...] = Field(default=(), description="relative to the store's directory")


class ImapApp(BaseModel):
    """An app at the authorization server of an IMAP server. A token goes over TLS, or stays on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path | None = Field(default=None, description="relative to the store's directory")
    authorize_url: str
    token_url: str
    scope: Annotated[str, Field(min_length=1)]
    redirect: Literal["http://127.0.0.1", "http://localhost"] = "http://127.0.0.1"

    @field_validator("authorize_url", "token_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or not (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
        ):
            raise ValueError("write https://…; http only to this very machine")
        return url


class ImapSection(BaseModel):
    """What IMAP sources with ``auth=oauth`` are connected by, by host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    oauth: dict[Annotated[str, Field(pattern=r"^[a-z0-9.:-]{1,253}$")], ImapApp] = {}


class HookSection(BaseModel):
    """How a service signs what it sends, and where its deliveries name its account; see
    :class:`headrace.producers.hooks.Hook`. What a preset says needs not be said again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["nylas", "emailengine"] | None = None
    secret_files: tuple[Path, ...] = Field(default=(), description="relative to the store's directory")
    header: str | None = None
    encoding: Literal["hex", "base64", "base64url"] | None = None
    algorithm: Literal["sha256", "sha384", "sha512"] | None = None
    prefix: str | None = None
    timestamp_header: str | None = None
    tolerance_s: int | None = None
    account: tuple[str, ...] | None = None
    delivery: str | None = None
    delivery_header: str | None = None
    challenge: str | None = None

    @field_validator("account", mode="before")
    @classmethod
    def _one_or_many(cls, said: Any) -> Any:
        return (said,) if isinstance(said, str) else said


class Settings(BaseSettings):
    """One process's settings. Make them with :func:`load_settings`, which words what is wrong with them."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="forbid", frozen=True)

    store: Path = Field(default_factory=default_directory, description="the store's directory")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_PORT
    log_url: str | None = Field(default=None, min_length=1)
    db_url: str | None = Field(default=None, min_length=1, repr=False, description="may hold a password")
    db_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,40}$")] = "headrace"
    key_file: Path | None = Field(default=None, description="relative to the store's directory")
    schema_registry_url: str | None = Field(default=None, min_length=1)
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_WORKER_PORT
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s?#]*$")] | None = None
    google: GoogleApp | None = None
    microsoft: MicrosoftApp | None = None
    imap: ImapSection = ImapSection()
    hooks: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], HookSection] = {}
    providers: dict[str, dict[str, Any]] = {}
    api_keys: tuple[ApiKey, ...] = ()
    webhooks: tuple[Webhook, ...] = ()

    @field_validator("api_keys", "webhooks")
    @classmethod
    def _named_apart(cls, given: tuple[ApiKey | Webhook, ...]) -> tuple[ApiKey | Webhook, ...]:
        names = [one.name for one in given]
        if len(set(names)) != len(names):
            raise ValueError("two have one name; give each its own")
        return given

    @property
    def places(self) -> Places:
        """Where the log, the tables and the key are."""
        key_file = self.store / self.key_file if self.key_file is not None else None
        return Places(self.log_url, self.db_url, self.db_schema, key_file, self.schema_registry_url)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the caller passes them by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, then the file in the directory that those two name."""
        store = init_settings().get("store") or env_settings().get("store") or default_directory()
        file = TomlConfigSettingsSource(settings_cls, toml_file=Path(store) / FILE)
        return init_settings, env_settings, file


def load_settings(store: Path | None = None, *, host: str | None = None, port: int | None = None) -> Settings:
    """The settings in force; ``None`` leaves a setting to the environment, the file and the default.

    :raises BadInputError: something is wrong with them; the message names what, never a secret.
    """
    given: dict[str, Any] = {"store": store, "host": host, "port": port}
    try:
        found = Settings(**{name: value for name, value in given.items() if value is not None})
        found.places.checked()
        return found  # noqa: TRY300
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)
        )
        raise BadInputError(f"the settings cannot be used: {faults}; mend {FILE} or HEADRACE_…") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, SettingsError) as error:
        raise BadInputError(f"the settings cannot be read: {error}; mend {FILE} or HEADRACE_…") from None
    except OSError as error:
        raise BadInputError(f"the settings cannot be read: {error}; check the file's owner and mode") from None


def is_loopback(host: str) -> bool:
    """Whether an address or host name is this machine talking to itself. Names other than ``localhost`` are not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_unsafe(settings: Settings) -> None:
    """Without API keys whoever reaches the port may do everything, so only this machine may reach it.

    :raises BadInputError: any other address, and no keys.
    """
    if not settings.api_keys and not is_loopback(settings.host):
        raise BadInputError(
            f"refusing to listen on {settings.host} without API keys: anybody who reaches it could read and change"
            f" everything. Add [[api_keys]] to {settings.store / FILE}, or listen on 127.0.0.1"
        )


def new_key() -> tuple[str, str]:
    """A fresh API key (256 random bits) to hand out once, and the SHA-256 of it to keep."""
    key = KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    return key, hashlib.sha256(key.encode()).hexdigest()


def webhook_endpoints(settings: Settings) -> dict[str, Endpoint]:
    """The configured webhook endpoints by name; without any, ``default`` with a secret made on first use.

    :raises BadInputError: an endpoint has no secret, or one that cannot be used.
    :raises UnavailableError: a file with secrets cannot be read or made.
    """
    configured = settings.webhooks or (
        Webhook(
            name=DEFAULT_WEBHOOK,
            tenant=LOCAL_TENANT,
            source=f"webhook/{DEFAULT_WEBHOOK}",
            secrets=(_default_secret(settings.store / SECRET_FILE),),
        ),
    )
    endpoints: dict[str, Endpoint] = {}
    for webhook in configured:
        found = (*webhook.secrets, *(read_secret(settings.store / file) for file in webhook.secret_files))
        if not found:
            raise BadInputError(f"the webhook {webhook.name!r} has no secret: give it secrets or secret_files")
        for secret in found:
            secret_key(secret)
        endpoints[webhook.name] = Endpoint(
            webhook.name, webhook.tenant, webhook.source, parse_actor(webhook.actor), found
        )
    return endpoints


def read_secret(path: Path) -> str:
    """What a file with a webhook's or a hook's secret holds.

    :raises UnavailableError: it cannot be read.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"the webhook secret {path} cannot be read: {error}; check the file") from None


def _default_secret(path: Path) -> str:
    """The secret in a file, made now if there is none. Readable by its owner only."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(fresh, path)  # whoever comes first makes it; nobody overwrites it
            finally:
                fresh.unlink()
    except OSError as error:
        raise UnavailableError(f"the webhook secret {path} cannot be made: {error}; check the directory") from None
    return read_secret(path)
