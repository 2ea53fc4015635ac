"""The sync of a connected source: its provider asked with its grant, its watch renewed, what it found on the log."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

import httpx

from headrace.errors import BadInputError, HeadraceError
from headrace.log.port import Log
from headrace.processors.applied import Applied
from headrace.processors.core.kind import Kind
from headrace.producers.connections import Connections, Watched, key_of
from headrace.producers.feed import Feed
from headrace.producers.intake import Intake
from headrace.producers.notifications import PATH
from headrace.producers.oauth import OAuthApp, StoredTokens
from headrace.producers.provider import Connected, Provider
from headrace.producers.provider_http import ProviderHttp
from headrace.producers.schedule import SourceKey
from headrace.producers.sync import Synced, run_sync
from headrace.projections.port import Tables
from headrace.schemas.refs import ActorRef

_SPARE_MS: Final = 3_600_000
"""A watch that says nothing of when it wants to be renewed is, this long before its end."""
_KEPT_AT: Final = "kept_at"
"""In a watch's details: when it was made or renewed, in epoch milliseconds."""
_log: Final = logging.getLogger("headrace.sync")


class Access(NamedTuple):
    """What a source is connected by where a person consents: the app that asks, and the scope that it asks for."""

    app: OAuthApp
    scope: str


def by_password(settings: Mapping[str, str]) -> Access | None:  # noqa: ARG001 - whatever they are
    """A source that opens with a password."""
    return None


class ProviderSetup(NamedTuple):
    """A provider as it is set up here. ``access`` says by what a source with these settings is connected, ``None``
    where it opens with a password; it raises BadInputError where nothing is set up here for them, and UnavailableError
    where an app's secret cannot be read. ``grantless``: its sources are open to whoever runs this process."""

    provider: Provider
    base_url: str
    access: Callable[[Mapping[str, str]], Access | None] = by_password
    grantless: bool = False


class Parts(Protocol):
    """What a store has of what a sync takes; :class:`headrace.store.Store` is one."""

    @property
    def log(self) -> Log: ...
    @property
    def tables(self) -> Tables: ...
    @property
    def applied(self) -> Applied: ...
    @property
    def intake(self) -> Intake: ...
    @property
    def kinds(self) -> Mapping[str, Kind]: ...


def _always() -> bool:
    return True


class _NoTokens:
    """While settings are looked at, nobody is asked."""

    def access(self, *, refused: str | None = None) -> str:  # noqa: ARG002 - there is none either way
        return ""


class SourceSyncs:
    """Syncs connected sources, one call a sync; from any thread, but one source at a time.

    ``address`` is how the world reaches this headrace (``https://…``), ``None`` where it does not: then nothing is
    watched, and sources are looked at every now and then. ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        parts: Parts,
        connections: Connections,
        setups: Mapping[str, ProviderSetup],
        address: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parts, self._connections, self._setups = parts, connections, setups
        self._address, self._transport, self._clock = address, transport, clock

    def sync(self, key: SourceKey, *, full: bool = False, ours: Callable[[], bool] = _always) -> Synced:
        """Bring the log up to what the source shows. ``ours`` says whether this process still is the one to do that.

        :raises NotFoundError: it is not connected any more.
        :raises OvertakenError: somebody else syncs it now.
        :raises UnavailableError: its provider, the log or the tables do not answer; again later.
        :raises BadInputError: somebody has to mend something; the message says what.
        """
        connected = self._connections.get(key)
        setup = self._setup(connected)
        due = self._connections.due(key)
        with self._asking(connected, setup) as http:
            if ours():
                self._keep_watched(key, connected, setup, http, anew=due.watch)
            pseudonym = self._parts.intake.pseudonyms(key.tenant, key.account)
            source = setup.provider.source(connected, http, pseudonym)
            feed = Feed(
                self._parts.log,
                self._parts.tables,
                self._parts.applied,
                self._parts.intake,
                self._parts.kinds,
                tenant=key.tenant,
                account=key.account,
                source=key.source,
                feeds=source.feeds,
                actor=ActorRef("user", key.account),
                ours=ours,
            )
            synced = run_sync(source, feed, full=full or due.compare)
        if any(due):
            self._connections.done(key, due)
        return synced

    def check(self, connected: Connected) -> None:
        """See that a source's settings can be used; asks its provider nothing.

        :raises BadInputError: they cannot, or its provider, or the app that it is connected by, is not set up here.
        :raises UnavailableError: a file with the app's secret cannot be read.
        """
        setup = self._setup(connected)
        pseudonym = self._parts.intake.pseudonyms(connected.tenant, connected.account)
        with ProviderHttp(setup.base_url, _NoTokens(), transport=self._transport) as http:
            setup.provider.source(connected, http, pseudonym)
        setup.access(connected.settings)

    def try_grant(self, connected: Connected) -> None:
        """See that a source's grant still gives tokens, by refreshing it.

        :raises BadInputError: somebody must mend something; the message says what.
        :raises UnavailableError: its provider does not answer.
        """
        if not self._setup(connected).grantless:
            self.tokens(connected).check()

    def tokens(self, connected: Connected) -> StoredTokens:
        """What opens a source: its password, or the access tokens of its grant, refreshed when they end.

        :raises BadInputError: what it is connected by is not set up here.
        """
        access = self._setup(connected).access(connected.settings)
        app = access.app if access is not None else None
        return StoredTokens(self._connections, key_of(connected), app, transport=self._transport, clock=self._clock)

    def unwatch(self, key: SourceKey) -> None:
        """Have the provider notify no more of a source that is about to be removed.

        :raises UnavailableError: it does not answer; what is left of the watch ends by itself.
        :raises BadInputError: it refuses.
        """
        connected = self._connections.get(key)
        setup = self._setup(connected)
        with self._asking(connected, setup) as http:
            for watched in self._connections.watches(key):
                setup.provider.stop(connected, http, watched.watch)
                self._connections.drop_watch(watched.provider, watched.watch.id)

    def _setup(self, connected: Connected) -> ProviderSetup:
        setup = self._setups.get(connected.provider)
        if setup is None:
            raise BadInputError(
                f"{connected.source} of {connected.account} is read through {connected.provider}, which is not set up"
                " here: put its section into headrace.toml"
            )
        return setup

    def _asking(self, connected: Connected, setup: ProviderSetup) -> ProviderHttp:
        return ProviderHttp(setup.base_url, self.tokens(connected), transport=self._transport)

    def _keep_watched(
        self, key: SourceKey, connected: Connected, setup: ProviderSetup, http: ProviderHttp, *, anew: bool
    ) -> None:
        """Watch, or renew what is about to end. A source that cannot be watched is read all the same: it is looked at
        every now and then."""
        if self._address is None:
            return
        now = int(self._clock() * 1_000)
        kept = sorted(self._connections.watches(key), key=_age)
        for gone in [one for one in kept[:-1] if one.watch.expires_at < now]:
            self._connections.drop_watch(gone.provider, gone.watch.id)
        last = kept[-1] if kept else None
        if last is not None and not anew and now < _renew_at(last):
            return
        address = f"{self._address.rstrip('/')}{PATH}/{setup.provider.name}"
        try:
            watch = setup.provider.watch(connected, http, address, last.watch if last is not None else None, now)
        except HeadraceError as error:
            _log.warning(
                "%s of %s is not watched: %s; it is looked at every now and then", key.source, key.account, error
            )
            return
        if watch is not None:
            details = {**watch.details, _KEPT_AT: str(now)}
            self._connections.put_watch(key, setup.provider.name, watch._replace(details=details))


def _age(watched: Watched) -> tuple[int, int]:
    """The one to go on with is the last that was made or renewed. Not the last to end: one that lives for a week may
    have been replaced by one that lives for a day."""
    since = watched.watch.details.get(_KEPT_AT, "")
    return int(since) if since.isdigit() else 0, watched.watch.expires_at


def _renew_at(watched: Watched) -> int:
    said = watched.watch.details.get("renew_at", "")
    return int(said) if said.isdigit() else watched.watch.expires_at - _SPARE_MS
