"""The providers that there are, as the settings set them up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from headrace.errors import UnavailableError
from headrace.producers import caldav_provider, gmail, gmail_api, google_calendar, google_calendar_api, graph, graph_api
from headrace.producers.caldav_provider import Caldav
from headrace.producers.gmail import Gmail
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.graph import Graph
from headrace.producers.graph_notification import microsoft_keys
from headrace.producers.imap import NAME as IMAP
from headrace.producers.imap import Imap
from headrace.producers.oauth import OAuthApp
from headrace.producers.oidc import GoogleKeys
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
        caldav_provider.NAME: ProviderSetup(Caldav(), _NOWHERE, None),
        IMAP: ProviderSetup(Imap(indexes), _NOWHERE, None),
    }
    if google is not None:
        app = _app("Google", google, _GOOGLE_AUTHORIZE, _GOOGLE_TOKEN, _OFFLINE)
        found[google_calendar.NAME] = ProviderSetup(
            GoogleCalendar(), google_calendar_api.BASE_URL, app, _calendar_scope
        )
        if push is not None:
            made = Gmail(
                topic=push.topic, audience=push.audience, service_account=push.service_account, keys=GoogleKeys()
            )
            found[gmail.NAME] = ProviderSetup(made, gmail_api.BASE_URL, app, _gmail_scope)
    if microsoft is not None:
        base = f"{_MICROSOFT}/{microsoft_tenant}/oauth2/v2.0"
        app = _app("Microsoft", microsoft, f"{base}/authorize", f"{base}/token", {"prompt": "select_account"})
        made_graph = Graph(client_id=microsoft.client_id, keys=microsoft_keys())
        found[graph.NAME] = ProviderSetup(made_graph, graph_api.BASE_URL, app, _graph_scope)
    return found


def _gmail_scope(settings: Mapping[str, str]) -> str:
    return gmail.SCOPES.get(settings.get("content", "headers"), "")


def _calendar_scope(settings: Mapping[str, str]) -> str:
    return google_calendar.SCOPES.get(settings.get("scope", "own"), "")


def _graph_scope(settings: Mapping[str, str]) -> str:
    follow = settings.get("follow", "mail")
    named = follow if follow == "calendar" else f"{follow} {settings.get('content', 'headers')}"
    return " ".join((*graph.SCOPES.get(named, ()), "offline_access"))


def _app(provider: str, app: App, authorize_url: str, token_url: str, extra: Mapping[str, str]) -> OAuthApp:
    try:
        secret = app.secret_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"the secret of the app at {provider}, {app.secret_file}, cannot be read ({error}); check the file"
        ) from None
    return OAuthApp(provider, authorize_url, token_url, app.client_id, secret, extra)
