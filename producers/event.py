"""What a source hands over: an event that is not on the log yet."""

from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple, Protocol


class NewEvent(NamedTuple):
    """``body`` and ``content`` are shaped by the Avro schemas of ``type``; fields marked ``headrace.pseudonym`` may be
    in clear here, the intake replaces them. ``id`` is derived from the provider's own ids, so that handing the same
    event over again is harmless. ``occurred_at`` is RFC 3339, ``None`` where the provider does not say. ``mark`` is the
    object's, where that is as an agent's act left it (:mod:`headrace.producers.marks`)."""

    type: str
    kind: str
    entity: str
    id: str
    body: Mapping[str, Any]
    content: Mapping[str, Any] | None = None
    occurred_at: str | None = None
    concerns: tuple[str, ...] = ()
    mark: str | None = None


class KnownEntity(NamedTuple):
    """What the tables hold of an entity: its deciding state, and its head as text (for deriving event ids)."""

    id: str
    state: Mapping[str, Any]
    head: str


class Known(Protocol):
    """The state that earlier syncs led to, as far as the log goes."""

    def where(self, kind: str, **columns: str | Set[str]) -> Iterator[KnownEntity]:
        """The entities of ``kind`` in this account whose typed columns (or whose ``id``) have these values, by id. They
        are read some at a time, each as it is by then: go through them and keep none, for there may be more than memory
        should hold.

        Of one column it may be a set of values, of which each entity has one. What is asked for so is looked up, where
        the column is indexed, even if the set has but one value; a single value sorts out what is gone through."""
        ...


class Changes(NamedTuple):
    """One page of a fetch: what really changed. ``full`` tells that the cursor was of no use and everything is
    compared. ``more`` pages follow, or this is the last, and ``cursor`` is where the next fetch goes on."""

    events: tuple[NewEvent, ...]
    cursor: str | None
    full: bool
    more: bool = False


class Source(Protocol):
    """One mailbox or calendar at a provider. Adding a provider is one module with one of these."""

    @property
    def feeds(self) -> tuple[str, ...]:
        """The entity kinds whose truth this source is."""
        ...

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """Ask the provider what changed since ``cursor`` (``None``: everything), page by page: what a page found is in
        the tables, and so in what ``known`` answers, before the next is asked for. At least one page; only the last has
        ``more`` false.

        :raises UnavailableError: the provider does not answer; nothing is lost, the cursor stays.
        :raises BadInputError: the provider refuses us (credentials, address); the message says what to mend.
        """
        ...
