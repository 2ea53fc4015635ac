"""Deliveries run again from what the log keeps of them (``source.notified``, its content): read by today's code, and a
hint given once more. Who sent them was verified when they came, and cannot be verified again: what showed it is not
kept.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from headrace.errors import BadInputError, UndecodableError
from headrace.log.port import Stored
from headrace.producers.connections import Connections
from headrace.producers.hints import Hints, stored_delivery
from headrace.producers.hooks import Hook
from headrace.producers.notifications import Due, put_due
from headrace.producers.provider import Delivery, Hint, Provider, Rereads
from headrace.producers.refusal import RefusedError
from headrace.producers.schedule import SourceKey
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import parse_account_key
from headrace.schemas.registry import Registry

NOTIFIED: Final = "source.notified"


class Kept(NamedTuple):
    """A delivery as the log keeps it. ``to``: the provider or hook it was sent to, ``None`` where an earlier release
    kept it; ``delivery_id`` as the hint has it."""

    source: SourceKey
    to: str | None
    delivery_id: str | None
    delivery: Delivery


class Again(NamedTuple):
    """What a kept delivery comes to. ``watch``: whether what it names is still watched; ``added``: whether a hint was
    put on the log, ``None`` where nothing was to be done."""

    source: SourceKey
    to: str
    delivery_id: str | None
    received_at: float
    size: int
    kinds: tuple[str, ...]
    watch: bool
    added: bool | None


def kept_delivery(registry: Registry, stored: Stored) -> Kept:
    """The delivery in a record.

    :raises BadInputError: there is none in it; the message says why.
    """
    try:
        envelope = from_headers(stored.headers)
        body = registry.decode(stored.value).body if envelope.type == NOTIFIED else {}
    except UndecodableError as error:
        raise BadInputError(f"the record cannot be read ({error}): there is nothing to run again") from None
    if envelope.type != NOTIFIED:
        raise BadInputError(
            f"the record is a {envelope.type}, no delivery: run a {NOTIFIED} again. Of signed webhooks no raw form is"
            " kept: their events are on the log whole, and the same ids again change nothing"
        )
    if body["content"] is None:
        raise BadInputError(
            "this hint came by no delivery: a connection held open heard it; `headrace source sync` syncs its source"
        )
    if body["content_key"] is not None:
        raise BadInputError("the delivery is sealed: it can no longer be read")
    found = stored_delivery(body["content"])
    return Kept(SourceKey(*parse_account_key(stored.key or b""), envelope.source), found.to, body["delivery"], found)


class Redelivery:
    """Runs kept deliveries again, through ``providers`` and ``hooks`` by their names."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        hooks: Mapping[str, Hook],
        connections: Callable[[], Connections],
        hints: Hints,
        registry: Registry,
    ) -> None:
        self._providers, self._hooks, self._connections = dict(providers), dict(hooks), connections
        self._hints, self._registry = hints, registry

    def run(self, stored: Stored, *, dry_run: bool) -> Again:
        """Read a record's delivery again, and unless it is a ``dry_run`` give its source a hint (none is added while an
        earlier one waits for its sync). For a thread.

        :raises NotFoundError: its source is not connected any more.
        :raises BadInputError: there is no delivery in it, or it says nothing to its source now.
        :raises UnavailableError: the log or the vault does not answer.
        """
        kept, connections = kept_delivery(self._registry, stored), self._connections()
        connected = connections.get(kept.source)
        to = kept.to if kept.to is not None else connected.provider
        try:
            found = self._said(to, kept.delivery)
        except RefusedError as refused:
            raise BadInputError(f"it says nothing that {to} says now ({refused.reason}): {refused}") from None
        looked_up = {hint: self._watched(connections, to, hint, kept.source) for hint in found}
        own = {hint: watched for hint, watched in looked_up.items() if watched is not None}
        if found and not own:
            raise BadInputError("what it names belongs to other sources now: there is nothing to do for this one")
        added: bool | None = None
        if own and not dry_run:
            for hint in own:
                put_due(connections, Due(kept.source, hint, kept.delivery))
            added = self._hints.append(kept.source, kept.delivery, kept.delivery_id)
        return Again(
            kept.source,
            to,
            kept.delivery_id,
            kept.delivery.received_at,
            len(kept.delivery.body),
            tuple(sorted({hint.kind for hint in own})),
            any(own.values()),
            added,
        )

    def _said(self, to: str, delivery: Delivery) -> tuple[Hint, ...]:
        if to in self._hooks:
            return (self._hooks[to].read(delivery),)
        provider: object = self._providers.get(to)
        if not isinstance(provider, Rereads):
            raise BadInputError(f"{to} is not set up here, or delivers nothing: put its section into headrace.toml")
        return provider.read(delivery)

    def _watched(self, connections: Connections, to: str, hint: Hint, source: SourceKey) -> bool | None:
        """Whether what a hint names is still watched for the source; ``None``: it is another's now."""
        if to in self._hooks:
            return True if source in connections.hooked(to, hint.watch) else None
        watched = connections.find_watch(to, hint.watch)
        if watched is None:
            return False  # replaced since; the record says whose it was
        return True if watched.source == source else None
