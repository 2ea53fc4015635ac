"""The providers that there are, as the settings set them up. One that is not set up is not imported either."""
# ruff: noqa: PLC0415 - each brings libraries that whoever does without it need not wait for

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.caldav_provider import NAME as CALDAV
from headrace.producers.caldav_provider import Caldav
from headrace.producers.imap import NAME as IMAP
from headrace.producers.imap import Imap
from headrace.producers.oauth import LOCALHOST, LOOPBACK, OAuthApp
from headrace.producers.source_syncs import Access, ProviderSetup

_NOWHERE: Final = "https://invalid./"
"""The base of providers that are not asked by HTTP."""
_GOOGLE_AUTHORIZE: Final = "https://accounts.google.com/o/oauth2/v2/auth"
_GOOGLE_TOKEN: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_MICROSOFT: Final = "https://login.microsoftonline.com"
_OFFLINE: Final = {"access_type": "offline", "prompt": "consent"}
"""Google gives a refresh token for these alone, and each time (https://developers.google.com/identity/protocols/oauth2)."""
_CHOOSE: Final = {"prompt": "select_account"}
GOOGLE_IMAP: Final = "imap.gmail.com"
_GOOGLE_IMAP_SCOPE: Final = "https://mail.google.com/"
"""https://developers.google.com/workspace/gmail/imap/xoauth2-protocol: the only one that IMAP takes."""
MICROSOFT_IMAP: Final = "outlook.office365.com"
_MICROSOFT_IMAP_SCOPE: Final = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access"
"""https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth"""

_SECTIONS: Final = {
    GOOGLE_IMAP: ("[google]", "client_secret_file"),
    MICROSOFT_IMAP: ("[microsoft]", "client_secret_file"),
}


class App(NamedTuple):
    """An app at Google, Microsoft or elsewhere. ``secret_file`` is read when the app is set up or, of an IMAP server's,
    when it is used; ``None`` for a public client."""

    client_id: str
    secret_file: Path | None


class GmailPush(NamedTuple):
    """What Gmail's pushes are told by: see :class:`headrace.producers.gmail.Gmail`."""

    topic: str
    audience: str
    service_account: str


class MailApp(NamedTuple):
    """An app at the authorization server of an IMAP server; ``redirect`` as that of
    :class:`headrace.producers.oauth.OAuthApp`."""

    app: App
    authorize_url: str
    token_url: str
    scope: str
    redirect: str


def setups(
    *,
    google: App | None,
    push: GmailPush | None,
    microsoft: App | None,
    microsoft_tenant: str = "common",
    microsoft_certificates: Sequence[Path] = (),
    imap: Mapping[str, MailApp] | None = None,
    indexes: Path | None = None,
) -> Mapping[str, ProviderSetup]:
    """By name. ``microsoft_certificates`` are files with what Graph's rich notifications are encrypted for; ``imap``
    are apps by host; ``indexes`` is a directory for what IMAP keeps between syncs.

    :raises BadInputError: a setting cannot be used.
    :raises UnavailableError: a file with an app's secret, or with a certificate, cannot be read.
    """
    found = {CALDAV: ProviderSetup(Caldav(), _NOWHERE)}
    at_google = at_microsoft = None
    if google is not None:
        secret = _secret("Google", google)
        at_google = OAuthApp(
            "Google", _GOOGLE_AUTHORIZE, _GOOGLE_TOKEN, google.client_id, secret, _OFFLINE, redirect=LOOPBACK
        )
        found |= _google_calendar(at_google)
        if push is not None:
            found |= _gmail(at_google, push)
    if microsoft is not None:
        base = f"{_MICROSOFT}/{microsoft_tenant}/oauth2/v2.0"
        # The portal takes no http://127.0.0.1, and of http://localhost any port
        # (https://learn.microsoft.com/entra/identity-platform/reply-url, "Localhost exceptions").
        authorize, token, secret = f"{base}/authorize", f"{base}/token", _secret("Microsoft", microsoft)
        at_microsoft = OAuthApp("Microsoft", authorize, token, microsoft.client_id, secret, _CHOOSE, redirect=LOCALHOST)
        found |= _graph(at_microsoft, microsoft_certificates)
    return found | {IMAP: ProviderSetup(Imap(indexes), _NOWHERE, _mail_access(at_google, at_microsoft, imap or {}))}


def _google_calendar(app: OAuthApp) -> dict[str, ProviderSetup]:
    from headrace.producers.google_calendar import NAME, SCOPES, GoogleCalendar
    from headrace.producers.google_calendar_api import BASE_URL

    def access(settings: Mapping[str, str]) -> Access:
        return Access(app, SCOPES.get(settings.get("scope", "own"), ""))

    return {NAME: ProviderSetup(GoogleCalendar(), BASE_URL, access)}


def _gmail(app: OAuthApp, push: GmailPush) -> dict[str, ProviderSetup]:
    from headrace.producers.gmail import NAME, SCOPES, Gmail
    from headrace.producers.gmail_api import BASE_URL
    from headrace.producers.oidc import GoogleKeys

    def access(settings: Mapping[str, str]) -> Access:
        return Access(app, SCOPES.get(settings.get("content", "headers"), ""))

    made = Gmail(topic=push.topic, audience=push.audience, service_account=push.service_account, keys=GoogleKeys())
    return {NAME: ProviderSetup(made, BASE_URL, access)}


def _graph(app: OAuthApp, certificates: Sequence[Path]) -> dict[str, ProviderSetup]:
    from headrace.producers.graph import NAME, SCOPES, Graph
    from headrace.producers.graph_api import BASE_URL
    from headrace.producers.graph_certificates import encryption_of
    from headrace.producers.graph_notification import microsoft_keys

    def access(settings: Mapping[str, str]) -> Access:
        follow = settings.get("follow", "mail")
        named = follow if follow == "calendar" else f"{follow} {settings.get('content', 'headers')}"
        return Access(app, " ".join((*SCOPES.get(named, ()), "offline_access")))

    made = Graph(client_id=app.client_id, keys=microsoft_keys(), encryption=encryption_of(certificates))
    return {NAME: ProviderSetup(made, BASE_URL, access)}


def _mail_access(
    google: OAuthApp | None, microsoft: OAuthApp | None, others: Mapping[str, MailApp]
) -> Callable[[Mapping[str, str]], Access | None]:
    """By what an IMAP source is connected: what is set up for its host, else the app at Google or Microsoft where it is
    theirs."""
    known = {GOOGLE_IMAP: (google, _GOOGLE_IMAP_SCOPE), MICROSOFT_IMAP: (microsoft, _MICROSOFT_IMAP_SCOPE)}

    def access(settings: Mapping[str, str]) -> Access | None:
        if settings.get("auth") != "oauth":
            return None
        host = settings.get("host", "").strip().lower()
        other = others.get(host)
        if other is not None:
            client, secret = other.app.client_id, _secret(host, other.app)
            made = OAuthApp(host, other.authorize_url, other.token_url, client, secret, {}, redirect=other.redirect)
            return Access(made, other.scope)
        app, scope = known.get(host, (None, ""))
        if app is None:
            section, wanted = _SECTIONS.get(host, (f'[imap.oauth."{host}"]', "authorize_url, token_url and scope"))
            raise BadInputError(
                f"no app is set up here that could ask for access to mail at {host}: put the section {section} with"
                f" client_id, {wanted} into headrace.toml; see docs/providers/imap.md"
            )
        return Access(app, scope)

    return access


def _secret(provider: str, app: App) -> str:
    """An app's secret; empty for a public client."""
    if app.secret_file is None:
        return ""
    try:
        secret = app.secret_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise UnavailableError(
            f"the secret of the app at {provider}, {app.secret_file}, cannot be read ({why}); check the file"
        ) from None
    if not secret:
        raise BadInputError(f"the secret of the app at {provider}, {app.secret_file}, is empty; put the secret into it")
    return secret
