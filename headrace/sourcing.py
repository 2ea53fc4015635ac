"""The sources of a store, put together from its settings: what syncs them, and what takes their notifications."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from headrace import providers
from headrace.errors import BadInputError
from headrace.processors.group_fold import GroupFold
from headrace.producers.connections import hook_of
from headrace.producers.deliveries import Deliveries
from headrace.producers.hints import Hints
from headrace.producers.hooks import Hook, hook
from headrace.producers.intake import Intake
from headrace.producers.notifications import notification_router
from headrace.producers.provider import Connected, Listens, Watcher
from headrace.producers.redelivery import Redelivery
from headrace.producers.setups import App, GmailPush, MailApp, setups
from headrace.producers.source_host import SourceHost
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.settings import ImapApp, Settings, read_secret
from headrace.store import Store


def setups_of(settings: Settings) -> Mapping[str, ProviderSetup]:
    """The providers that the settings set up.

    :raises BadInputError: a setting cannot be used.
    :raises UnavailableError: a file with an app's secret, or with a certificate, cannot be read.
    """
    google, microsoft, here = settings.google, settings.microsoft, settings.store
    push = None
    if google is not None and google.topic and google.audience and google.service_account:
        push = GmailPush(google.topic, google.audience, google.service_account)
    built_in = setups(
        google=App(google.client_id, here / google.client_secret_file) if google else None,
        push=push,
        microsoft=App(microsoft.client_id, here / microsoft.client_secret_file) if microsoft else None,
        microsoft_tenant=microsoft.tenant if microsoft else "common",
        microsoft_certificates=[here / file for file in microsoft.certificate_files] if microsoft else (),
        imap={host: _imap_app(app, here) for host, app in settings.imap.oauth.items()},
        indexes=here / "indexes",
    )
    return {**built_in, **providers.brought(settings.providers, here)}


def _imap_app(app: ImapApp, here: Path) -> MailApp:
    secret = here / app.client_secret_file if app.client_secret_file is not None else None
    return MailApp(App(app.client_id, secret), app.authorize_url, app.token_url, app.scope, app.redirect)


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
    section = providers.wanted_section(provider)
    if section is not None:
        page = f"docs/providers/{provider}.md" if provider in providers.BUILT_IN else "what its package says"
        raise BadInputError(f"{provider} is not set up here: put the section {section} into headrace.toml; see {page}")
    raise BadInputError(f"there is no provider {provider!r}; there are {', '.join(providers.names())}")


class FoldShare:
    """The :class:`headrace.producers.source_host.Share` of a process that folds some partitions of a log in Kafka: the
    accounts that live on them. So an account is synced where it is folded, by one process at a time."""

    def __init__(self, fold: GroupFold, intake: Intake) -> None:
        self._fold: Final = fold
        self._intake: Final = intake

    def holds(self, tenant: str, account: str) -> bool:
        """See :class:`headrace.producers.source_host.Share`."""
        return self._fold.running and self._intake.partition(tenant, account) in self._fold.folded

    def listening(self, listener: Callable[[], object]) -> AbstractContextManager[None]:
        """See :class:`headrace.producers.source_host.Share`."""
        return self._fold.listening(listener)


def host_of(store: Store, settings: Settings, fold: GroupFold | None = None) -> SourceHost:
    """What syncs a store's sources in this process, from entering to leaving: those on the partitions of ``fold``, or
    of the store's own fold where it shares the log with others; else all of them."""
    shared = fold if fold is not None else store.group_fold
    found = setups_of(settings)
    syncs = syncs_of(store, settings, found)

    def watch(connected: Connected) -> Watcher | None:
        setup = found.get(connected.provider)
        if setup is None or not isinstance(setup.provider, Listens):
            return None
        return setup.provider.watcher(connected, syncs.tokens(connected))

    share = FoldShare(shared, store.intake) if shared is not None else None
    return SourceHost(store, store.connections, syncs, watch, share=share)


class Notified(NamedTuple):
    """What takes providers' and hooks' deliveries, and what runs a kept one again."""

    router: APIRouter
    redelivery: Redelivery


def hooks_of(settings: Settings) -> dict[str, Hook]:
    """The hooks that the settings set up, with their secrets.

    :raises BadInputError: a setting cannot be used.
    :raises UnavailableError: a file with a secret cannot be read.
    """
    found: dict[str, Hook] = {}
    for name, section in settings.hooks.items():
        secrets = [read_secret(settings.store / file) for file in section.secret_files]
        found[name] = hook(name, section.model_dump(exclude_none=True, exclude={"secret_files"}), secrets)
    return found


def check_hook(settings: Settings, wanted: Mapping[str, str]) -> None:
    """See that the hook that a source's settings name is set up.

    :raises BadInputError: it is not, or it cannot be read.
    """
    hooked = hook_of(wanted)
    if hooked is not None and hooked[0] not in settings.hooks:
        raise BadInputError(
            f"there is no hook {hooked[0]!r}: put the section [hooks.{hooked[0]}] into headrace.toml; see"
            " docs/providers/hooks.md"
        )


def notifications_of(
    store: Store, settings: Settings, registry: CollectorRegistry, deliveries: Deliveries | None = None
) -> Notified:
    """The endpoints of the providers and hooks that the settings set up; ``deliveries`` is told of what comes."""
    providers = {name: setup.provider for name, setup in setups_of(settings).items()}
    hooks, hints = hooks_of(settings), Hints(store.log, store.tables, store.applied, store.intake)
    router = notification_router(
        providers, lambda: store.connections, hints, registry, hooks=hooks, deliveries=deliveries
    )
    return Notified(router, Redelivery(providers, hooks, lambda: store.connections, hints, store.registry))
