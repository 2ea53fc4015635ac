"""The sources that somebody connected, with their grants and watches: what the vault holds, opened."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, TypeVar

from headrace.errors import BadInputError, HaltError, NotFoundError
from headrace.keys import Keys
from headrace.producers.provider import Connected, Watch
from headrace.producers.schedule import SourceKey
from headrace.producers.vault import Seal, Vault

_SOURCE: Final = "source"
_GRANT: Final = "grant"
_WATCH: Final = "watch"
_WATCHED: Final = "watched"
_DUE: Final = "due"
_GONE: Final = "gone"
_HOOK: Final = "hook"
HOOK_SETTING: Final = "hook"
HOOK_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
MOST_HOOK_ACCOUNT_CHARS: Final = 256
_Read = TypeVar("_Read")
_DAMAGED: Final = (ValueError, KeyError, TypeError)

Grant = Mapping[str, Any]
"""What opens a source: ``password``; or OAuth's ``refresh_token``, ``access_token`` and ``expires_at`` (epoch
seconds)."""


class Watched(NamedTuple):
    """A watch, and whose it is."""

    provider: str
    watch: Watch
    source: SourceKey


class Due(NamedTuple):
    """What a sync is to do besides: ``compare`` everything, ``watch`` anew. ``asked``: somebody asked for a sync, and
    this is which asking it was the last time; empty: nobody did."""

    compare: bool
    watch: bool
    asked: str = ""


def key_of(connected: Connected) -> SourceKey:
    """What a connected source is known by."""
    return SourceKey(connected.tenant, connected.account, connected.source)


def hook_of(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """The hook that a connected source is hinted by, and its account there: its setting ``hook``, ``NAME/ACCOUNT``;
    ``None`` where it has none.

    :raises BadInputError: it cannot be read.
    """
    said = settings.get(HOOK_SETTING)
    if said is None:
        return None
    name, _, account = said.partition("/")
    if not HOOK_NAME.match(name) or not 0 < len(account) <= MOST_HOOK_ACCOUNT_CHARS:
        raise BadInputError("a source's hook is NAME/ACCOUNT: the hook's name, and the account's id at the service")
    return name, account


class Connections:
    """Of one store. May be used by any number of threads and processes."""

    def __init__(self, vault: Vault, keys: Keys) -> None:
        self._vault: Final = vault
        self._seal: Final = Seal(keys)

    # -- sources --------------------------------------------------------------------------------------------------

    def add(self, connected: Connected, grant: Grant) -> bool:
        """Connect a source, or connect it again with another grant or other settings; whether it is new.

        :raises BadInputError: the name is another provider's, or its hook cannot be read.
        """
        key, hooked = key_of(connected), hook_of(connected.settings)
        earlier = self.find(key)
        if earlier is not None and earlier.provider != connected.provider:
            raise BadInputError(
                f"{connected.source} of {connected.account} is connected by {earlier.provider} already: remove it"
                " first, or give this one another name"
            )
        with self.alone(key):
            self._put(_GRANT, _name(key), grant)
        self._put(_SOURCE, _name(key), {"provider": connected.provider, "settings": dict(connected.settings)})
        self._vault.write(_GONE, _name(key), None)
        if earlier is not None:
            self.put_due(key, asked=True)  # what kept it from being synced may be mended
        before = hook_of(earlier.settings) if earlier is not None else None
        if before is not None and before != hooked:
            self._hook(before, key, hinted=False)
        if hooked is not None:
            self._hook(hooked, key, hinted=True)
        return earlier is None

    def all(self) -> list[Connected]:
        """Every connected source, by tenant, account and name."""
        return [self._connected(name, said) for name, said in self._each(_SOURCE)]

    def find(self, key: SourceKey) -> Connected | None:
        """A connected source, ``None`` where there is none."""
        said = self._get(_SOURCE, _name(key))
        return self._connected(_name(key), said) if said is not None else None

    def get(self, key: SourceKey) -> Connected:
        """A connected source.

        :raises NotFoundError: there is none.
        """
        found = self.find(key)
        if found is None:
            raise NotFoundError(
                f"no source {key.source} of the account {key.account} is connected; `headrace source ls` lists those"
                " that are"
            )
        return found

    def remove(self, key: SourceKey) -> None:
        """Forget a source, its grant and its watches. What it brought stays on the log; that it feeds nothing any more
        is still to be said there (:meth:`gone`)."""
        for watched in self.watches(key):
            self.drop_watch(watched.provider, watched.watch.id)
        connected = self.find(key)
        hooked = hook_of(connected.settings) if connected is not None else None
        if hooked is not None:
            self._hook(hooked, key, hinted=False)
        if connected is not None:
            self._put(_GONE, _name(key), {})
        for realm in (_SOURCE, _GRANT, _DUE):
            self._vault.write(realm, _name(key), None)

    def gone(self) -> list[SourceKey]:
        """The sources that were removed, and of which the log does not say so yet."""
        return [_key(name) for name, _ in self._each(_GONE)]

    def forget(self, key: SourceKey) -> None:
        """The log says so now."""
        self._vault.write(_GONE, _name(key), None)

    # -- grants ---------------------------------------------------------------------------------------------------

    def grant(self, key: SourceKey) -> Grant | None:
        """What opens a source, ``None`` where nothing is kept."""
        return self._get(_GRANT, _name(key))

    def put_grant(self, key: SourceKey, grant: Grant) -> None:
        """Keep another grant; within :meth:`alone`."""
        self._put(_GRANT, _name(key), grant)

    def alone(self, key: SourceKey) -> AbstractContextManager[None]:
        """While it lasts nobody else changes this source's grant."""
        return self._vault.alone(_GRANT, _name(key))

    # -- watches --------------------------------------------------------------------------------------------------

    def put_watch(self, key: SourceKey, provider: str, watch: Watch) -> None:
        """Keep a watch of a source; one with the same id is replaced."""
        said = {**watch._asdict(), "details": dict(watch.details), "of": list(key)}
        name = f"{provider}/{watch.id}"
        self._note_watch(key, name, kept=True)  # first: a watch that its source does not know of would never be stopped
        self._put(_WATCH, name, said)

    def drop_watch(self, provider: str, watch_id: str) -> None:
        """Forget a watch."""
        found, name = self.find_watch(provider, watch_id), f"{provider}/{watch_id}"
        self._vault.write(_WATCH, name, None)
        if found is not None:
            self._note_watch(found.source, name, kept=False)

    def _note_watch(self, key: SourceKey, watch: str, *, kept: bool) -> None:
        """Which watches a source has stands with the source: looking through everybody's for it, at every sync, would
        cost the more the more sources there are."""
        with self._vault.alone(_WATCHED, _name(key)):
            before = set(self._watches_of(key))
            after = sorted(before | {watch} if kept else before - {watch})
            if after:
                self._put(_WATCHED, _name(key), {"by": after})
            else:
                self._vault.write(_WATCHED, _name(key), None)

    def _watches_of(self, key: SourceKey) -> list[str]:
        said = self._get(_WATCHED, _name(key)) or {"by": []}
        return _read(_WATCHED, _name(key), lambda: [str(name) for name in said["by"]])

    def find_watch(self, provider: str, watch_id: str) -> Watched | None:
        """A watch by its id."""
        name = f"{provider}/{watch_id}"
        said = self._get(_WATCH, name)
        return _watched(name, said) if said is not None else None

    def watches(self, key: SourceKey | None = None) -> list[Watched]:
        """All watches, or those of a source."""
        if key is None:
            return [_watched(name, said) for name, said in self._each(_WATCH)]
        found = (self.find_watch(*name.split("/", 1)) for name in self._watches_of(key))
        return [one for one in found if one is not None and one.source == key]

    # -- hooks ----------------------------------------------------------------------------------------------------

    def hooked(self, hook: str, account: str) -> list[SourceKey]:
        """The sources that are connected as a hook's account (their setting ``hook``)."""
        name = _hook_name((hook, account))
        said = self._get(_HOOK, name)
        if said is None:
            return []
        return _read(_HOOK, name, lambda: [SourceKey(*one) for one in said["of"]])

    def _hook(self, hooked: tuple[str, str], key: SourceKey, *, hinted: bool) -> None:
        """From now on a source is hinted by this hook's account, or is no more."""
        name = _hook_name(hooked)
        with self._vault.alone(_HOOK, name):
            others = {one for one in self.hooked(*hooked) if one != key}
            sources = sorted({*others, key} if hinted else others)
            if sources:
                self._put(_HOOK, name, {"of": [list(one) for one in sources]})
            else:
                self._vault.write(_HOOK, name, None)

    # -- what is due ----------------------------------------------------------------------------------------------

    def put_due(self, key: SourceKey, *, compare: bool = False, watch: bool = False, asked: bool = False) -> None:
        """The provider lost something, or somebody asks: the next sync is to do this besides what was due already."""
        with self._vault.alone(_DUE, _name(key)):
            earlier = self.due(key)
            last = secrets.token_hex(8) if asked else earlier.asked
            due = Due(earlier.compare or compare, earlier.watch or watch, last)
            self._put(_DUE, _name(key), due._asdict())

    def due(self, key: SourceKey) -> Due:
        """What is due."""
        return _due(self._get(_DUE, _name(key)) or {})

    def all_due(self) -> dict[SourceKey, Due]:
        """The sources with something due."""
        return {_key(name): _due(said) for name, said in self._each(_DUE)}

    def done(self, key: SourceKey, due: Due) -> None:
        """What :meth:`due` said has been done, and nothing was added since."""
        with self._vault.alone(_DUE, _name(key)):
            if self.due(key) == due:
                self._vault.write(_DUE, _name(key), None)

    # -- what is sealed -------------------------------------------------------------------------------------------

    def _put(self, realm: str, name: str, said: Mapping[str, Any]) -> None:
        plain = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
        self._vault.write(realm, name, self._seal.close(realm, name, plain))

    def _get(self, realm: str, name: str) -> dict[str, Any] | None:
        sealed = self._vault.read(realm, name)
        return self._opened(realm, name, sealed) if sealed is not None else None

    def _each(self, realm: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, sealed in self._vault.all(realm):
            yield name, self._opened(realm, name, sealed)

    def _opened(self, realm: str, name: str, sealed: bytes) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._seal.open(realm, name, sealed))
        return said

    @staticmethod
    def _connected(name: str, said: Mapping[str, Any]) -> Connected:
        return _read(
            _SOURCE, name, lambda: Connected(*_key(name), provider=said["provider"], settings=dict(said["settings"]))
        )


def _hook_name(hooked: tuple[str, str]) -> str:
    """A service may name its accounts by addresses, and names are not sealed."""
    hook, account = hooked
    return f"{hook}/{hashlib.sha256(account.encode('utf-8', 'replace')).hexdigest()[:32]}"


def _watched(name: str, said: Mapping[str, Any]) -> Watched:
    def read() -> Watched:
        watch = Watch(said["id"], said["secret"], said["expires_at"], dict(said["details"]))
        return Watched(name.partition("/")[0], watch, SourceKey(*said["of"]))

    return _read(_WATCH, name, read)


def _due(said: Mapping[str, Any]) -> Due:
    return Due(said.get("compare", False), said.get("watch", False), str(said.get("asked") or ""))


def _read(realm: str, name: str, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except _DAMAGED as error:
        raise HaltError(
            f"what is kept of the {realm} {name} is of another release ({error!r}): run that one, or connect the"
            " source again"
        ) from error


def _name(key: SourceKey) -> str:
    return "/".join(key)


def _key(name: str) -> SourceKey:
    """A source's own name may hold slashes."""
    tenant, account, source = name.split("/", 2)
    return SourceKey(tenant, account, source)
