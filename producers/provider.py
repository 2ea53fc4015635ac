"""What a provider's module brings, so that adding a provider is one module: how to read it, how to have it notify, and
how to tell its notifications from anybody else's.

A notification is a hint (:class:`Hint`): it says that something changed at a source, never what. What changed is read
from the provider (:class:`headrace.producers.event.Source`), from the cursor that the log holds.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from headrace.producers.event import Source
from headrace.producers.provider_http import ProviderHttp, Tokens

HintKind = Literal["changed", "missed", "reauthorize", "removed"]
"""``changed``: read what is new. ``missed``: notifications got lost; compare everything. ``reauthorize``: the watch
ends soon unless it is renewed. ``removed``: it has ended; make another and compare everything."""


class Connected(NamedTuple):
    """A source that somebody connected. ``source`` is its name on the log, ``settings`` what its provider needs to find
    it (an address, a calendar's id), in clear: it is kept sealed, and never stands on the log or in a message."""

    tenant: str
    account: str
    source: str
    provider: str
    settings: Mapping[str, str]

    def __repr__(self) -> str:
        """Without the settings: they name people."""
        return f"Connected({self.tenant!r}, {self.account!r}, {self.source!r}, {self.provider!r})"


class Watch(NamedTuple):
    """A provider's promise to notify: a Gmail watch, a Calendar channel, a Graph subscription.

    ``id`` is what its notifications name it by, unique within the provider; ``secret`` what they must show (empty where
    they are signed instead); ``expires_at`` epoch milliseconds UTC; ``details`` what renewing and ending it takes.
    """

    id: str
    secret: str
    expires_at: int
    details: Mapping[str, str]

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Watch({self.id!r}, expires_at={self.expires_at})"


class Delivery(NamedTuple):
    """A request to a provider's endpoint, as it came: header names in lower case, the body as sent and within the
    limit; ``received_at`` in epoch seconds by the clock of this machine; ``to`` is the provider or hook that it was
    sent to, as the address has it."""

    method: str
    headers: tuple[tuple[bytes, bytes], ...]
    query: tuple[tuple[str, str], ...]
    body: bytes
    received_at: float
    to: str | None = None


class Hint(NamedTuple):
    """Something changed at what ``watch`` watches. ``delivery`` is the provider's own id of the notification, the same
    when it is sent again; ``None`` where it gives none."""

    watch: str
    delivery: str | None
    kind: HintKind = "changed"


class Answer(NamedTuple):
    """What the provider is answered once the hints are on the log."""

    status: int
    body: bytes = b""
    content_type: str | None = None


class Received(NamedTuple):
    """What a delivery comes to: no hints where it is a handshake, or where all that is in it is for somebody else.

    ``dropped`` are the reasons (keys of the refusals' table) for what a delivery of several notifications also held and
    nobody is told of; each counts as a refusal, and the others go on. ``parts`` are the bodies to keep with hints
    instead of the whole one: where it also holds what is others', or a secret that the sender is let in by.
    """

    hints: tuple[Hint, ...]
    answer: Answer
    dropped: tuple[str, ...] = ()
    parts: Mapping[Hint, bytes] = MappingProxyType({})


class Provider(Protocol):
    """One provider. The object holds configuration only (an app's id, an audience, a base URL) and is shared by all
    threads."""

    @property
    def name(self) -> str:
        """As in ``headrace source add NAME`` and ``/v1/notifications/NAME``."""
        ...

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> Source:
        """What reads a connected source; ``pseudonym`` is the account's."""
        ...

    def watch(
        self, connected: Connected, http: ProviderHttp, address: str, last: Watch | None, now: int
    ) -> Watch | None:
        """Have the provider notify ``address`` of changes from ``now`` (epoch milliseconds) on, or go on doing so where
        ``last`` is about to end; ``None`` where a provider notifies nobody (it is polled, or held open).

        :raises UnavailableError: it does not answer.
        :raises BadInputError: it refuses; the message says what to mend.
        """
        ...

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """Have the provider notify no more: of a source that is removed, or because another watch replaced this one.
        Harmless when it has ended.

        :raises UnavailableError: it does not answer; the watch ends by itself, later.
        """
        ...

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:
        """Verify a delivery; ``watch`` looks one up by its id. Reads nothing from the provider but its public keys.

        :raises RefusedError: it is forged, expired, for another audience, malformed, or of an unknown watch.
        """
        ...


@runtime_checkable
class Rereads(Protocol):
    """A provider whose deliveries can be read again from what was kept of them."""

    def read(self, delivery: Delivery) -> tuple[Hint, ...]:
        """What a delivery says that was verified when it came: what showed who sent it is not kept.

        :raises RefusedError: it cannot be read.
        """
        ...


class Watcher(Protocol):
    """Holds a connection to a provider that notifies nobody, and hints what is heard on it."""

    def hints(self) -> Iterator[Hint]:
        """Until it is stopped. Raises HeadraceError where a person must act."""
        ...

    def stop(self) -> None:
        """End it, from another thread."""
        ...


@runtime_checkable
class Listens(Protocol):
    """A provider that notifies nobody, and says on a connection held open that something changed."""

    def watcher(self, connected: Connected, tokens: Tokens) -> Watcher:
        """What holds a connection open and gives hints, which name the source; ``tokens`` are the source's.

        :raises BadInputError: its settings cannot be used.
        """
        ...
