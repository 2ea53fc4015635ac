"""The sources of a store, put together from its settings: what syncs them, and what takes their notifications."""

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from headrace.errors import BadInputError
from headrace.producers.connections import key_of
from headrace.producers.hints import Hints
from headrace.producers.imap import Imap
from headrace.producers.notifications import notification_router
from headrace.producers.oauth import StoredTokens
from headrace.producers.provider import Connected
from headrace.producers.setups import App, GmailPush, setups
from headrace.producers.source_host import SourceHost, Watcher
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.settings import Settings
from headrace.store import Store

_SECTIONS: Final = {
    "gmail": "[google] with topic, audience and service_account",
    "google_calendar": "[google]",
    "graph": "[microsoft]",
}


def setups_of(settings: Settings) -> Mapping[str, ProviderSetup]:
    """The providers that the settings set up.

    :raises BadInputError: a setting cannot be used.
    :raises UnavailableError: a file with an app's secret cannot be read.
    """
    google, microsoft = settings.google, settings.microsoft
    push = None
    if google is not None and google.topic and google.audience and google.service_account:
        push = GmailPush(google.topic, google.audience, google.service_account)
    return setups(
        google=App(google.client_id, settings.store / google.client_secret_file) if google else None,
        push=push,
        microsoft=App(microsoft.client_id, settings.store / microsoft.client_secret_file) if microsoft else None,
        microsoft_tenant=microsoft.tenant if microsoft else "common",
        indexes=settings.store / "indexes",
    )


def syncs_of(store: Store, settings: Settings, found: Mapping[str, ProviderSetup] | None = None) -> SourceSyncs:
    """What syncs the sources that are connected to a store, through the providers ``found`` if somebody has set them up
    already."""
    setups_here = found if found is not None else setups_of(settings)
    return SourceSyncs(store, store.connections, setups_here, settings.public_url)


def setup_of(found: Mapping[str, ProviderSetup], provider: str) -> ProviderSetup:
    """A provider's setup.

    :raises BadInputError: there is no such provider, or it is not set up here.
    """
    if provider in found:
        return found[provider]
    if provider in _SECTIONS:
        raise BadInputError(
            f"{provider} is not set up here: put the section {_SECTIONS[provider]} into headrace.toml; see"
            f" docs/providers/{provider}.md"
        )
    raise BadInputError(f"there is no provider {provider!r}; there are {', '.join(sorted({*found, *_SECTIONS}))}")


def host_of(store: Store, settings: Settings) -> SourceHost:
    """What syncs all of a store's sources in this process, from entering to leaving."""
    found = setups_of(settings)

    def watch(connected: Connected) -> Watcher | None:
        setup = found.get(connected.provider)
        if setup is None or not isinstance(setup.provider, Imap):
            return None
        return setup.provider.watcher(connected, StoredTokens(store.connections, key_of(connected), setup.app))

    return SourceHost(store, store.connections, syncs_of(store, settings, found), watch)


def notifications_of(store: Store, settings: Settings, registry: CollectorRegistry) -> APIRouter:
    """The endpoints of the providers that the settings set up."""
    providers = {name: setup.provider for name, setup in setups_of(settings).items()}
    hints = Hints(store.log, store.tables, store.applied, store.intake)
    return notification_router(providers, lambda: store.connections, hints, registry)
