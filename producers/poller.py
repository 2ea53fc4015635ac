"""Running the syncs of an embedded store: every source in a thread of its own, so that a slow one delays nobody.

A provider that does not answer is asked again at the next turn; nothing is lost, the cursor is on the log.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from headrace.errors import BadInputError, HeadraceError, UnavailableError
from headrace.producers.event import Source
from headrace.producers.feed import Feed
from headrace.producers.sync import run_sync

_STOP_SECONDS: Final = 5.0
_log: Final = logging.getLogger("headrace.sync")


class Polled(NamedTuple):
    """A source with what it is held against. ``name`` is what people call it."""

    name: str
    source: Source
    feed: Feed


class Poller:
    """Syncs each source at once and then every ``period_s`` seconds, until :meth:`stop`.

    ``told`` is called after every turn with the source's name and what went wrong, ``None`` if nothing did.
    """

    def __init__(
        self,
        sources: Sequence[Polled],
        *,
        period_s: float,
        told: Callable[[str, HeadraceError | None], None] = lambda _name, _error: None,
    ) -> None:
        self._period_s, self._told = period_s, told
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(polled,), name=f"headrace-sync-{polled.name}", daemon=True)
            for polled in sources
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the turns at hand; a turn that waits for its provider is left behind after five seconds."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_STOP_SECONDS)

    def _run(self, polled: Polled) -> None:
        while not self._stopping.is_set():
            self._told(polled.name, self._turn(polled))
            self._stopping.wait(self._period_s)

    def _turn(self, polled: Polled) -> HeadraceError | None:
        try:
            synced = run_sync(polled.source, polled.feed)
        except UnavailableError as error:
            _log.warning("%s: %s; the next turn tries again", polled.name, error)
            return error
        except BadInputError as error:
            _log.error("%s: %s", polled.name, error)
            return error
        except HeadraceError as error:
            _log.critical("%s: %s; its sync has ended", polled.name, error)
            self._stopping.set()
            return error
        _log.info("%s: %d events%s", polled.name, synced.events, ", compared in full" if synced.full else "")
        return None
