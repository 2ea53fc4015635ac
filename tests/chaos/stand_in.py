"""``headrace`` with something wrong with it: ``python -m tests.chaos.stand_in TRAP WORD…``.

The ports are wrapped here, in a program of the tests' own; the product has no hooks. Traps:

``kill@POINT:NTH``  the process kills itself (SIGKILL) the NTH time it comes to the point
``stop@POINT:NTH``  it stops itself there (SIGSTOP), and goes on when somebody continues it
``alone@GROUP``     a worker believes that it has every partition, whatever other workers there are

==================  ================================================================================================
``append.before``   the log is about to be asked to append
``append.after``    what was appended is durable, and nobody was told
``load.after``      a batch's rows are loaded, and it is about to be folded
``publish.before``  the verdicts of a batch are about to be published
``publish.after``   they are on their way, and nothing of the batch is committed
``commit.before``   the batch is about to be committed
``end.before``      its rows are written, and COMMIT is about to be said
``announce.before`` it is committed, and nobody was notified
``commit.after``    it is committed and was made known
``resume.after``    a processor has seen where the tables are
==================  ================================================================================================
"""

import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from headrace.cli.main import run
from headrace.log.kafka import KafkaLog
from headrace.log.sqlite import SqliteLog
from headrace.processors.verdict_topic import VerdictTopic
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables

_PORTS: Final[dict[str, tuple[tuple[type[Any], str], ...]]] = {
    "append": ((SqliteLog, "append"), (KafkaLog, "append")),
    "load": ((SqliteTables, "load"), (PostgresTables, "load")),
    "publish": ((VerdictTopic, "publish"),),
    "commit": ((SqliteTables, "commit"), (PostgresTables, "commit")),
    "end": ((PostgresTables, "_end"),),
    "announce": ((PostgresTables, "_make_known"),),
    "resume": ((SqliteTables, "resume"), (PostgresTables, "resume")),
}
_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
EMBEDDED: Final = ("append.before", "append.after", "load.after", "commit.before", "commit.after")
WORKERS: Final = (
    "resume.after",
    "load.after",
    "publish.before",
    "publish.after",
    "commit.before",
    "end.before",
    "announce.before",
    "commit.after",
)
APIS: Final = ("append.before", "append.after")


class Countdown:
    """Sends this process a signal the ``nth`` time it is called; once."""

    def __init__(self, nth: int, number: signal.Signals) -> None:
        self._left = nth
        self._number: Final = number
        self._lock: Final = threading.Lock()

    def __call__(self) -> None:
        """One time less."""
        with self._lock:
            self._left -= 1
            due = self._left == 0
        if due:
            os.kill(os.getpid(), self._number)


def wrapped(method: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]) -> Callable[..., Any]:
    """The method, with something done on either side of it."""

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        before()
        found = method(*arguments, **named)
        after()
        return found

    return call


def main(trap: str, *words: str) -> None:
    """Set the trap, and be ``headrace``."""
    what, _, where = trap.partition("@")
    if what == "alone":
        parts: Any = importlib.import_module("headrace.processors.worker_parts")
        parts.fold_group = functools.partial("headrace-fold.{1}.{0}".format, where)
    else:
        point, _, nth = where.partition(":")
        name, _, side = point.partition(".")
        down = Countdown(int(nth), _SIGNALS[what])
        before, after = (down, _nothing) if side == "before" else (_nothing, down)
        for port, method in _PORTS[name]:
            setattr(port, method, wrapped(getattr(port, method), before, after))
    sys.argv = ["headrace", *words]
    run()


def _nothing() -> None:
    """The other side."""


def command(trap: str, *words: str | Path) -> list[str]:
    """The command line of this program."""
    return [sys.executable, "-m", "tests.chaos.stand_in", trap, *map(str, words)]


if __name__ == "__main__":
    main(*sys.argv[1:])
