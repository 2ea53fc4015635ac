"""What an entity kind brings: pure functions and plain data. Found by the entry point group ``headrace.kinds``."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from headrace.processors.core.model import Event, State
from headrace.schemas.refs import Touch

GROUP: Final = "headrace.kinds"


class Column(NamedTuple):
    """A typed column of the kind's table, besides those every kind has.

    ``type`` is one of ``text``, ``integer``, ``boolean``, ``time`` (epoch milliseconds UTC) and ``json``. The value
    is ``state[name]``, or with ``content=True`` the field of that name in the entity's latest content, where it is in
    clear. ``indexed`` columns are looked up within an account.
    """

    name: str
    type: str
    comment: str
    content: bool = False
    indexed: bool = False


class Kind(Protocol):
    """An entity kind. Its four functions see their arguments and nothing else: no clock, no randomness, no IO.

    An exception in them is a bug and halts the processor; a refusal is a value.
    """

    @property
    def name(self) -> str:
        """Such as ``mail.thread``."""
        ...

    @property
    def table(self) -> str:
        """The name of its table, such as ``threads``."""
        ...

    @property
    def comment(self) -> str:
        """What a row of its table is."""
        ...

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its typed columns."""
        ...

    @property
    def containers(self) -> tuple[str, ...]:
        """The container names that its footprints speak of, such as ``calendar``."""
        ...

    @property
    def events(self) -> tuple[str, ...]:
        """The event types that are facts about it. Doors refuse others; on the log one would change nothing."""
        ...

    @property
    def proposals(self) -> tuple[str, ...]:
        """The proposal kinds that may be made on it."""
        ...

    @property
    def stamps(self) -> tuple[str, ...]:
        """What of its state a provider decides by itself when it carries something out (versions, names of its own),
        so that no attempt foresees it."""
        ...

    @property
    def version(self) -> str | None:
        """Which of these is the provider's version, as its answer to a write names it; ``None`` where there is none."""
        ...

    def evolve(self, state: State | None, event: Event) -> dict[str, Any]:
        """The state after a fact. ``None`` is the state before the first. A type it does not know changes nothing."""
        ...

    def foresee(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The state as it will be once the proposal is carried out."""
        ...

    def guard(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> str | None:
        """The rule that forbids the proposal in this state (open intents included), ``None`` when none does."""
        ...

    def footprint(self, state: State | None) -> tuple[Touch, ...]:
        """Which containers, and which intervals of them, an entity in this state takes up."""
        ...
