"""``headrace source add``, ``sync``, ``rm`` and ``doctor``, done."""

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.cli import output
from headrace.cli.connecting import Wanted, connected_of, password_of
from headrace.cli.consenting import consented
from headrace.cli.reading import SERVER_FILE, directory, opened_store, reading
from headrace.errors import BadInputError, HeadraceError, WriterLockedError
from headrace.producers.connections import Grant, hook_of, key_of
from headrace.producers.hints import Hints
from headrace.producers.provider import Connected
from headrace.producers.schedule import SourceKey
from headrace.producers.source_syncs import Access, SourceSyncs
from headrace.projections import known
from headrace.schemas.envelope import rfc3339
from headrace.settings import Settings, load_settings
from headrace.sourcing import check_hook, setup_of, setups_of, syncs_of
from headrace.store import Store

PATIENCE_SECONDS: Final = 5.0
"""How long a worker has to begin a sync that somebody asks for."""
_STALE_MS: Final = 3_600_000
"""How old a source's freshness may be before the doctor asks why."""


class Finding(NamedTuple):
    """What was looked at, and what is wrong with it: ``None`` for nothing."""

    source: str
    check: str
    said: str
    fault: str | None


def add(store: Path | None, wanted: Wanted, password_file: Path | None, *, paste: bool = False) -> dict[str, Any]:
    """Connect a source; the process that runs on the store, or a worker, syncs it within seconds. With ``paste`` the
    browser that a person consents in is on another machine.

    :raises NotFoundError: there is no store.
    :raises BadInputError: something is missing or wrong; the message says what.
    :raises UnavailableError: the provider does not answer.
    """
    settings = load_settings(directory(store))
    found = setups_of(settings)
    setup = setup_of(found, wanted.provider)
    connected = connected_of(wanted)
    check_hook(settings, wanted.settings)
    with reading(store) as opened:
        syncs_of(opened, settings, found).check(connected)
        grant = {} if setup.grantless else _given(setup.access(wanted.settings), password_file, paste=paste)
        new = opened.connections.add(connected, grant)
    return {**_said(connected), "new": new}


def _given(access: Access | None, password_file: Path | None, *, paste: bool) -> Grant:
    """What opens the source: a password, or what a person consents to."""
    if access is None:
        if paste:
            raise BadInputError("this source opens with a password, which nobody consents to: leave out --paste")
        return {"password": password_of(password_file)}
    if password_file is not None:
        raise BadInputError(
            f"this source opens with somebody's consent at {access.app.provider}, and with no password: leave out"
            " --password-file"
        )
    return consented(access, paste=paste)


def remove(store: Path | None, key: SourceKey) -> dict[str, Any]:
    """Have the provider notify no more, and forget the source.

    :raises NotFoundError: there is none.
    """
    settings = load_settings(directory(store))
    with reading(store) as opened:
        connected = opened.connections.get(key)
        try:
            syncs_of(opened, settings).unwatch(key)
        except HeadraceError as error:
            output.note(f"headrace: its provider was not told ({error}); what it still sends is turned away")
        opened.connections.remove(key)
    return _said(connected)


def sync(store: Path | None, key: SourceKey, *, full: bool) -> dict[str, Any]:
    """Sync now: in the process that runs on the store or, of one in Kafka, in the worker that has the account; or else
    in this one.

    :raises NotFoundError: there is no such source.
    """
    settings = load_settings(directory(store))
    shared = settings.places.shared
    with _to_sync_in(settings) as (opened, running):
        said = _said(opened.connections.get(key))
        if running or shared:
            opened.connections.put_due(key, compare=full, asked=True)
        if running or (shared and _taken_up(opened, key)):
            return {**said, "asked": True}
        if shared:
            output.note(f"headrace: no worker took it up within {PATIENCE_SECONDS:g} s, so it is synced here")
        synced = syncs_of(opened, settings).sync(key, full=full)
    return {**said, "events": synced.events, "compared": synced.full}


@contextmanager
def _to_sync_in(settings: Settings) -> Generator[tuple[Store, bool]]:
    """The store to sync in, and whether a process runs on it that syncs: then this one only reads. What that one said
    of itself is not enough: one that was killed leaves it behind."""
    shared = settings.places.shared
    try:
        store, running = opened_store(settings.store, settings.places, writer=True, fold=not shared), False
    except WriterLockedError:
        if not (settings.store / SERVER_FILE).exists():
            raise
        store, running = opened_store(settings.store, settings.places, writer=False, fold=False), True
    with store:
        yield store, running


def _taken_up(store: Store, key: SourceKey) -> bool:
    """Whether somebody begins a sync of the source for a hint, within the time there is for that."""
    Hints(store.log, store.tables, store.applied, store.intake).append(key)
    partition = store.intake.partition(key.tenant, key.account)
    end, until = store.log.describe().ends[partition], time.monotonic() + PATIENCE_SECONDS
    moved = threading.Event()
    with store.applied.listening(moved.set):
        while True:
            moved.clear()
            if store.applied.next_offset(partition) >= end:
                with store.tables.snapshot() as reader:
                    row = known.source(reader, *key)
                if row is not None and row.sync_offset > row.hint_offset:
                    return True
            left = until - time.monotonic()
            if left <= 0 or not moved.wait(left):
                return False


def examined(store: Path | None) -> list[Finding]:
    """What is wrong with the connected sources, one line for everything that was looked at."""
    settings = load_settings(directory(store))
    with reading(store) as opened:
        syncs = syncs_of(opened, settings)
        return [finding for one in opened.connections.all() for finding in _examined(opened, settings, syncs, one)]


def _examined(store: Store, settings: Settings, syncs: SourceSyncs, connected: Connected) -> Iterator[Finding]:
    key, named = key_of(connected), f"{connected.account} {connected.source}"
    for check, look in (("settings", syncs.check), ("grant", syncs.try_grant)):
        try:
            look(connected)
        except HeadraceError as error:
            yield Finding(named, check, "", str(error))
            return
        yield Finding(named, check, "ok", None)
    watches = [one.watch.expires_at for one in store.connections.watches(key)]
    if settings.public_url is None:
        yield Finding(named, "watch", "none: public_url is not set, so nothing can be sent here; it is polled", None)
    elif watches and max(watches) < time.time() * 1_000:
        fault = "it ended: is a process running that syncs? `headrace dev` or `headrace worker`"
        yield Finding(named, "watch", rfc3339(max(watches)), fault)
    else:
        yield Finding(named, "watch", f"until {rfc3339(max(watches))}" if watches else "none: it is polled", None)
    hooked = hook_of(connected.settings)
    if hooked is not None:
        there = hooked[0] in settings.hooks
        missing = None if there else f"put [hooks.{hooked[0]}] into headrace.toml; see docs/providers/hooks.md"
        yield Finding(named, "hook", hooked[0] if there else f"{hooked[0]} is not set up here:", missing)
    with store.tables.snapshot() as reader:
        row = known.source(reader, *key)
    if row is None or row.fresh_offset < 0:
        yield Finding(named, "freshness", "never synced:", "is a process running that syncs? `headrace source sync`")
        return
    late = time.time() * 1_000 - row.fresh_time > _STALE_MS
    why = "no sync for an hour: look at the log of the process that syncs" if late else None
    yield Finding(named, "freshness", f"complete up to {rfc3339(row.fresh_time)}", why)


def _said(connected: Connected) -> dict[str, Any]:
    return {
        "source": connected.source,
        "provider": connected.provider,
        "tenant": connected.tenant,
        "account": connected.account,
    }
