"""One synchronisation of one source, from the cursor in the log to the next one.

The order makes it safe to stop anywhere: the start is on the log, and in the tables, before the provider is asked;
the new cursor is on the log after everything it stands for. A sync that breaks off leaves a start without an end, and
the next one begins again from the old cursor with event ids that are the same.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from headrace.producers.event import Known, NewEvent, Source


class SyncPort(Protocol):
    """The log and the tables, as far as one synchronisation of one source needs them."""

    def started(self, full: bool) -> str:
        """Append ``source.sync_started``, wait until the tables have reached it, and return the sync's id."""
        ...

    def cursor(self) -> str | None:
        """Where the last completed sync left off, as the fold holds it; ``None`` before the first one."""
        ...

    def known(self) -> Known:
        """The state of the account's entities."""
        ...

    def finish(self, sync: str, events: Sequence[NewEvent], cursor: str | None) -> None:
        """Append the events in the name of ``sync``, wait for their acknowledgement, then append ``source.synced``."""
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
    sync = port.started(full)
    cursor = None if full else port.cursor()
    changes = source.changes(cursor, port.known())
    port.finish(sync, changes.events, changes.cursor)
    return Synced(len(changes.events), changes.full, changes.cursor)
