"""One synchronisation of one source, from the cursor in the log to the next one.

The order makes it safe to stop anywhere: the start is on the log, and in the tables, before the provider is asked;
the new cursor is on the log after everything it stands for. A sync that breaks off leaves a start without an end, and
the next one begins again from the old cursor with event ids that are the same.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from headrace.errors import HaltError, UnavailableError
from headrace.producers.event import Known, NewEvent, Source


class OvertakenError(UnavailableError):
    """Somebody else syncs the source now: a later start is on the log, or the account is another process's. What this
    sync appends from there on is ineffective, so it stops; nothing is lost by that."""


class Begun(NamedTuple):
    """A sync that has begun: its id, where the last completed one left off (as the fold holds it; ``None`` before the
    first), and the state of the account's entities."""

    sync: str
    cursor: str | None
    known: Known


class SyncPort(Protocol):
    """The log and the tables, as far as one synchronisation of one source needs them."""

    def begin(self, full: bool) -> Begun:
        """Append ``source.sync_started`` and wait until the tables have reached it."""
        ...

    def found(self, sync: str, events: Sequence[NewEvent]) -> None:
        """Append events in the name of ``sync``, if there are any, and wait until the tables have reached them.

        :raises OvertakenError: somebody else syncs the source now.
        """
        ...

    def finish(self, sync: str, cursor: str | None) -> None:
        """Append ``source.synced`` and wait until the tables have reached it.

        :raises OvertakenError: somebody else syncs the source now, and the tables took no notice of it.
        """
        ...


class Synced(NamedTuple):
    """How a sync went: how many events it found, whether it compared everything, and where the next one goes on."""

    events: int
    full: bool
    cursor: str | None


def run_sync(source: Source, port: SyncPort, *, full: bool = False) -> Synced:
    """Bring the log up to what ``source`` shows. ``full`` compares everything, whatever the cursor.

    :raises UnavailableError: the provider or the log does not answer. Nothing but the start was appended (or, where
        the log broke off, some events that the next sync repeats under the same ids); run it again later.
    :raises BadInputError: the provider refuses us; the message says what to mend.
    """
    begun = port.begin(full)
    events = 0
    for page in source.pages(None if full else begun.cursor, begun.known):
        port.found(begun.sync, page.events)
        events += len(page.events)
        if not page.more:
            port.finish(begun.sync, page.cursor)
            return Synced(events, page.full, page.cursor)
    raise HaltError(f"{type(source).__name__} gave no last page: a bug in the provider's module; report it")
