"""The providers that there are, as the settings set them up. One that is not set up is not imported either."""
# ruff: noqa: PLC0415 - each brings libraries that whoever does without it need not wait for

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from headrace.errors import UnavailableError
from headrace.producers.caldav_provider import NAME as CALDAV
from headrace.producers.caldav_provider import Caldav
from headrace.producers.imap import NAME as IMAP
from headrace.producers.imap import Imap
from headrace.producers.oauth import OAuthApp
from headrace.producers.source_syncs import ProviderSetup

_NOWHERE: Final = "https://invalid./"
"""The base of providers that are not asked by HTTP."""
_GOOGLE_AUTHORIZE: Final = "https://accounts.google.com/o/oauth2/v2/auth"
_GOOGLE_TOKEN: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_MICROSOFT: Final = "https://login.microsoftonline.com"
_OFFLINE: Final = {"access_type": "offline", "prompt": "consent"}
"""Google gives a refresh token for these alone, and each time (https://developers.google.com/identity/protocols/oauth2)."""


class App(NamedTuple):
    """An app at Google or Microsoft. ``secret_file`` is read when it is set up."""

    client_id: str
    secret_file: Path


class GmailPush(NamedTuple):
    """What Gmail's pushes are told by: see :class:`headrace.producers.gmail.Gmail`."""

    topic: str
    audience: str
    service_account: str


def setups(
    *,
    google: App | None,
    push: GmailPush | None,
    microsoft: App | None,
    microsoft_tenant: str = "common",
    indexes: Path | None = None,
) -> Mapping[str, ProviderSetup]:
    """By name. ``indexes`` is a directory for what IMAP keeps between syncs.

    :raises BadInputError: a setting cannot be used.
    :raises UnavailableError: a file with an app's secret cannot be read.
    """
    found = {
        CALDAV: ProviderSetup(Caldav(), _NOWHERE, None),
        IMAP: ProviderSetup(Imap(indexes), _NOWHERE, None),
    }
    if google is not None:
        app = _app("Google", google, _GOOGLE_AUTHORIZE, _GOOGLE_TOKEN, _OFFLINE)
        found |= _google_calendar(app)
        if push is not None:
            found |= _gmail(app, push)
    if microsoft is not None:
        base = f"{_MICROSOFT}/{microsoft_tenant}/oauth2/v2.0"
        app = _app("Microsoft", microsoft, f"{base}/authorize", f"{base}/token", {"prompt": "select_account"})
        found |= _graph(app)
    return found


def _google_calendar(app: OAuthApp) -> dict[str, ProviderSetup]:
    from headrace.producers.google_calendar import NAME, SCOPES, GoogleCalendar
    from headrace.producers.google_calendar_api import BASE_URL

    def scope(settings: Mapping[str, str]) -> str:
        return SCOPES.get(settings.get("scope", "own"), "")

    return {NAME: ProviderSetup(GoogleCalendar(), BASE_URL, app, scope)}


def _gmail(app: OAuthApp, push: GmailPush) -> dict[str, ProviderSetup]:
    from headrace.producers.gmail import NAME, SCOPES, Gmail
    from headrace.producers.gmail_api import BASE_URL
    from headrace.producers.oidc import GoogleKeys

    def scope(settings: Mapping[str, str]) -> str:
        return SCOPES.get(settings.get("content", "headers"), "")

    made = Gmail(topic=push.topic, audience=push.audience, service_account=push.service_account, keys=GoogleKeys())
    return {NAME: ProviderSetup(made, BASE_URL, app, scope)}


def _graph(app: OAuthApp) -> dict[str, ProviderSetup]:
    from headrace.producers.graph import NAME, SCOPES, Graph
    from headrace.producers.graph_api import BASE_URL
    from headrace.producers.graph_notification import microsoft_keys

    def scope(settings: Mapping[str, str]) -> str:
        follow = settings.get("follow", "mail")
        named = follow if follow == "calendar" else f"{follow} {settings.get('content', 'headers')}"
        return " ".join((*SCOPES.get(named, ()), "offline_access"))

    return {NAME: ProviderSetup(Graph(client_id=app.client_id, keys=microsoft_keys()), BASE_URL, app, scope)}


def _app(provider: str, app: App, authorize_url: str, token_url: str, extra: Mapping[str, str]) -> OAuthApp:
    try:
        secret = app.secret_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"the secret of the app at {provider}, {app.secret_file}, cannot be read ({error}); check the file"
        ) from None
    return OAuthApp(provider, authorize_url, token_url, app.client_id, secret, extra)
