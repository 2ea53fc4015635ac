"""``headrace log copy``: addresses, waiting for the process that writes, what is printed."""

import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from headrace.cli import output
from headrace.cli.auditing import progress
from headrace.errors import BadInputError, WriterLockedError
from headrace.log import copy_to_kafka, copy_to_sqlite, sqlite_file
from headrace.log.copying import Copy, Outcome
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import SCHEME, KafkaAddress
from headrace.log.port import Log, Record
from headrace.log.sqlite import SqliteLog
from headrace.store import KEY_FILE

_FILE = "sqlite"
_FOLLOW_SECONDS = 0.5


class Place(NamedTuple):
    """``url`` of a log in Kafka, or ``directory`` of one in a file. ``name`` is its address for people, without options
    (they may say who signs in)."""

    name: str
    url: str | None
    directory: Path

    def opened(self, *, writer: bool) -> KafkaLog | SqliteLog:
        """The log, open."""
        if self.url is not None:
            return KafkaLog.open(self.url, writer=writer)
        return SqliteLog.open(self.directory, writer=writer)


def parse(text: str) -> Place:
    """An address of a log: ``sqlite:DIR_OR_FILE`` or ``kafka://…``.

    :raises BadInputError: it is none.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme == SCHEME:
        return Place(str(KafkaAddress.parse(text)), text, Path())
    if colon and scheme == _FILE and rest:
        path = Path(rest.removeprefix("//"))
        directory = path.parent if path.name == sqlite_file.NAME else path
        return Place(copy_to_sqlite.address_of(directory), None, directory.absolute())
    raise BadInputError(f"{text[:80]!r} is no address of a log: write sqlite:DIRECTORY or kafka://host:port/topic")


def discard(to: str) -> None:
    """Throw an unfinished copy away.

    :raises BadInputError: it is none; nothing was deleted.
    """
    place = parse(to)
    if place.url is not None:
        copy_to_kafka.discard(place.url)
    else:
        copy_to_sqlite.discard(place.directory)
    output.note(f"headrace: the unfinished copy at {place.name} is gone; its origin is as it was")


def copy(from_: str, to: str, *, move: bool | None) -> dict[str, Any]:
    """Copy the log; what was done. Without ``move`` said, a log is moved to Kafka, and a file is a replica.

    :raises HeadraceError: it did not work, or was interrupted; the same again goes on.
    """
    origin, destination = parse(from_), parse(to)
    moving = destination.url is not None if move is None else move
    if not moving and destination.url is not None:
        raise BadInputError("a replica is for reading, and is a file: name sqlite:DIRECTORY as --to")
    if origin.name == destination.name:
        raise BadInputError(f"{origin.name} is both: name another place as --to")
    with (
        origin.opened(writer=False) as log,
        _destination(destination, log, origin, moving=moving) as opened,
        progress("moving the log" if moving else "copying the log") as said,
    ):
        run = Copy(log, origin.name, opened, said)
        outcome = run.move(_Closing(origin, log, run)) if moving else run.replicate()
    return _told(outcome, origin, destination, moving=moving)


@contextmanager
def _destination(
    place: Place, log: Log, origin: Place, *, moving: bool
) -> Generator[copy_to_kafka.KafkaDestination | copy_to_sqlite.SqliteDestination, None, None]:
    described = log.describe()
    opened = (
        copy_to_kafka.KafkaDestination.open(place.url, described)
        if place.url is not None
        else copy_to_sqlite.SqliteDestination.open(place.directory, described, origin.name, moving=moving)
    )
    try:
        yield opened
    finally:
        opened.close()


class _Closing:
    """Closes the origin. While another process has it open for writing, what that still writes is copied. A file is
    closed in one transaction, so there is nothing to finish."""

    def __init__(self, place: Place, log: Log, run: Copy) -> None:
        self._place = place
        self._log = log
        self._run = run

    def __call__(self, closings: Sequence[Record]) -> None:
        told = False
        while self._place.url is not None or self._log.describe().successor is None:
            try:
                with self._place.opened(writer=True) as writer:
                    writer.append(closings)
                    return
            except WriterLockedError as error:
                if not told:
                    who = str(error).partition(";")[0]
                    output.note(f"headrace: all so far is copied and compared. Stop headrace there now: {who}")
                    output.note("headrace: what it still writes is copied too; when it has stopped, the log moves")
                    told = True
            self._log.wait(dict(enumerate(self._log.describe().ends)), _FOLLOW_SECONDS)
            self._run.catch_up()


def _told(outcome: Outcome, origin: Place, destination: Place, *, moving: bool) -> dict[str, Any]:
    return {
        "log_id": outcome.log_id.hex(),
        "from": origin.name,
        "to": destination.name,
        "moved": moving,
        "copied": outcome.records,
        "compared": sum(outcome.ends),
        "closed_seconds": round(outcome.closed_seconds, 3) if outcome.closed_seconds is not None else None,
        "chains": [chain.hex() for chain in outcome.chains],
        "next": _next(origin, destination, moving=moving),
    }


def _next(origin: Place, destination: Place, *, moving: bool) -> list[str]:
    """What is left to do, in words."""
    if destination.url is not None:
        kept = f", in {origin.directory / KEY_FILE}" if origin.url is None else ""
        return [
            f"set HEADRACE_LOG_URL={shlex.quote(destination.url)}",
            "set HEADRACE_DB_URL=postgresql://… (a log in Kafka has its tables in PostgreSQL), then `headrace migrate`",
            f"every process needs the log's key{kept}: by HEADRACE_KEY_FILE, or in its store; back it up",
            "then `headrace worker` and `headrace serve`",
        ]
    key = destination.directory / KEY_FILE
    if moving:
        return [
            f"copy the log's key to {key}, and whatever else the old store had but log.db and tables.db",
            f"set HEADRACE_STORE={shlex.quote(str(destination.directory))}, unset HEADRACE_LOG_URL and HEADRACE_DB_URL",
            "then `headrace dev`",
        ]
    at = shlex.quote(str(destination.directory))
    return [
        f"copy the log's key to {key}",
        f"unset HEADRACE_LOG_URL and HEADRACE_DB_URL, then `headrace replay --rebuild --store {at}` folds it",
        f"look at it: `headrace audit verify --store {at}`",
        "repeat the copy and the rebuild to bring the replica up to date",
    ]


def print_told(told: dict[str, Any]) -> None:
    """The outcome as a screen."""
    output.text(f"log {told['log_id']} {'moved' if told['moved'] else 'copied'} to {told['to']}")
    output.text(f"{told['copied']} records copied, {told['compared']} compared: offsets, times and chains are equal")
    if told["closed_seconds"] is not None:
        output.text(f"closed for {told['closed_seconds']} s")
    for one in told["next"]:
        output.text(f"next: {one}")
