"""Loggers of libraries that say the same thing many times a second while a broker is away."""

import logging
import time
from collections.abc import Callable
from typing import Final

_SECONDS: Final = 10.0


class Sparing(logging.Filter):
    """Of each place in a library's code one warning or error in so many ``seconds``; the next one says how many were
    kept back. ``clock`` gives seconds."""

    def __init__(self, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._kept: Final[dict[tuple[str, int], int]] = {}
        self._next: Final[dict[tuple[str, int], float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), self._clock()
        if now < self._next.get(place, now):
            self._kept[place] = self._kept.get(place, 0) + 1
            return False
        self._next[place] = now + self._seconds
        kept = self._kept.pop(place, 0)
        if kept:
            record.msg, record.args = f"{record.getMessage()} (and {kept} more like this)", None
        return True


def spare(library: str) -> None:
    """Put one on each logger that a library has made so far."""
    sparing = Sparing()
    for name in list(logging.root.manager.loggerDict):
        if name == library or name.startswith(f"{library}."):
            logging.getLogger(name).addFilter(sparing)
