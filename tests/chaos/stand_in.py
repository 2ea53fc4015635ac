"""``headrace`` with a named place to die at: ``python -m tests.chaos.stand_in POINT NTH WORD…``.

The ports are wrapped here, in a program of the tests' own; the product has no hooks. The process is killed (SIGKILL, by
itself) the NTH time it comes to the place.

==================  ================================================================================================
``append.before``   the log is about to be asked to append
``append.after``    what was appended is durable, and nobody was told
``load.after``      a batch's rows are loaded, and it is about to be folded
``publish.before``  the verdicts of a batch are about to be published
``publish.after``   they are, and nothing of the batch is committed
``commit.before``   the batch is about to be committed
``commit.after``    it is, and nobody was told
``resume.after``    a processor has seen where the tables are
==================  ================================================================================================
"""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from headrace.cli.main import run
from headrace.log.kafka import KafkaLog
from headrace.log.sqlite import SqliteLog
from headrace.processors.verdict_topic import VerdictTopic
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables

_PORTS: Final[dict[str, tuple[type[Any], ...]]] = {
    "append": (SqliteLog, KafkaLog),
    "load": (SqliteTables, PostgresTables),
    "publish": (VerdictTopic,),
    "commit": (SqliteTables, PostgresTables),
    "resume": (SqliteTables, PostgresTables),
}
EMBEDDED: Final = ("append.before", "append.after", "load.after", "commit.before", "commit.after")
WORKERS: Final = ("resume.after", "load.after", "publish.before", "publish.after", "commit.before", "commit.after")
APIS: Final = ("append.before", "append.after")


class Countdown:
    """Kills this process the ``nth`` time it is called."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._lock: Final = threading.Lock()

    def __call__(self) -> None:
        """One time less."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def wrapped(method: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]) -> Callable[..., Any]:
    """The method, with something done on either side of it."""

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        before()
        found = method(*arguments, **named)
        after()
        return found

    return call


def main(point: str, nth: str, *words: str) -> None:
    """Set the trap, and be ``headrace``."""
    name, _, side = point.partition(".")
    down = Countdown(int(nth))
    before, after = (down, _nothing) if side == "before" else (_nothing, down)
    for port in _PORTS[name]:
        setattr(port, name, wrapped(getattr(port, name), before, after))
    sys.argv = ["headrace", *words]
    run()


def _nothing() -> None:
    """The other side."""


def command(point: str, nth: int, *words: str) -> list[str]:
    """The command line of this program."""
    return [sys.executable, "-m", "tests.chaos.stand_in", point, str(nth), *words]


if __name__ == "__main__":
    main(*sys.argv[1:])
