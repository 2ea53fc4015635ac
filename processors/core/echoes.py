"""Echoes: the act of an attempt as it comes back through the provider, told apart from everybody else's.

An attempt says beforehand what it will look like (``delivery.attempted``): ``echo`` is the deciding state that it leads
to, but for what providers stamp on it; ``mark`` is what the object itself will carry. A fact is the echo of an attempt,
once, if

- it carries the mark (or, where the provider's answer to the act is on the log by then, is of the version that it
  named), where the attempt has one; and
- it leads to just that state while no other fact came since the attempt, where the attempt foresaw one. Where it did
  not (a message that is sent: nobody can write on top of it), the mark alone tells.

Anything else is somebody's edit. The echo may come before the outcome is on the log or after it: what a success still
awaits is kept with the entity until it comes, or until a fact that nobody foresaw has come between.

An attempt that says neither ``echo`` nor ``mark`` is of version 1: it is judged as ever, so the verdicts of older logs
stay what they are, and the fold's version with them (an older processor lacks version 2 of the record, and halts).
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from headrace.processors.core.kind import Kind
from headrace.processors.core.model import EntityRow, Intent, State
from headrace.processors.core.verdicts import canonical

MOST_AWAITED: Final = 16
"""Echoes of successes that an entity waits for, the newest ones."""


def settled(kind: Kind, state: State) -> bytes:
    """SHA-256 of a deciding state in canonical JSON, without what providers stamp on it."""
    return _hash({name: value for name, value in state.items() if name not in kind.stamps})


def foreseen(kind: Kind, state: State | None, proposal: str, data: Mapping[str, Any], **shown: Any) -> bytes:
    """What ``delivery.attempted`` says as ``echo``: carried out on ``state``, the proposal leads to this. ``shown`` is
    what a provider is known to make of it besides (an organizer, that a deleted object is ``removed``)."""
    return settled(kind, {**kind.foresee(state, proposal, data), **shown})


def is_told_apart(intent: Intent) -> bool:
    """Whether its attempt is of version 2: it says how its echo is recognised."""
    return intent.echo is not None or intent.mark is not None


def awaited(intent: Intent) -> bool:
    """Whether a success still has an echo to come."""
    return intent.mark is not None if intent.echo is None else intent.clean


def echo_of(kind: Kind, row: EntityRow, mark: str | None) -> Intent | None:
    """The attempt whose echo the fact is that led to ``row.state`` and carries ``mark``; of several the earliest.
    ``None``: it is a fact like any other."""
    found: bytes | None = None
    for intent in (*row.awaited, *row.intents):
        if intent.attempt is None:
            continue
        if not is_told_apart(intent):
            if intent.clean and intent.foreseen is not None and intent.foreseen == _hash(row.state):
                return intent
            continue
        if intent.mark is not None and intent.mark != mark and not _is_of_version(kind, row, intent):
            continue
        if intent.echo is None:
            if intent.mark == mark:
                return intent
            continue
        if found is None:
            found = settled(kind, row.state or {})
        if intent.clean and intent.echo == found:
            return intent
    return None


def _is_of_version(kind: Kind, row: EntityRow, intent: Intent) -> bool:
    version = (row.state or {}).get(kind.version) if kind.version is not None else None
    return version is not None and version == intent.reference


def settle(row: EntityRow, echoed: Intent | None) -> None:
    """What a fact leaves of the echoes that the entity waits for. ``echoed`` is the attempt that it is the echo of.

    A state that some attempt foresaw leaves those foreseen on top of it; those before it are in it. Any other fact
    leaves none that foresaw a state.
    """
    if echoed is not None and (echoed.echo is not None or echoed.mark is None):
        at = next((place for place, one in enumerate(row.awaited) if one is echoed), len(row.awaited))
        row.awaited = [one for place, one in enumerate(row.awaited) if place > at or (one.echo is None and place < at)]
        return
    row.awaited = [one for one in row.awaited if one.echo is None and one is not echoed]
    for intent in row.intents:
        if intent.attempt is not None:
            intent.clean = False


def attempt(intent: Intent, body: Mapping[str, Any], agent: str) -> None:
    """The attempt that ``delivery.attempted`` says is under way; ``agent`` made the proposal."""
    intent.attempt, intent.foreseen, intent.clean = body["attempt"], body["foreseen"], True
    intent.echo, intent.mark, intent.agent = body["echo"], body["mark"], agent


def succeeded(row: EntityRow, intent: Intent, reference: str | None) -> None:
    """The intent has succeeded, and is taken off the entity: its echo may be still to come."""
    if awaited(intent):
        intent.reference = reference
        row.awaited = [*row.awaited, intent][-MOST_AWAITED:]


def _hash(state: State | None) -> bytes:
    return hashlib.sha256(canonical(state)).digest()
