"""Where a workload runs: everything in one process on files, or many processes on Kafka and PostgreSQL."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from headrace.errors import HeadraceError, UnavailableError
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Log
from headrace.processors.audit import verify
from headrace.projections.port import Tables
from headrace.store import Store
from tests.chaos.evidence import Evidence, gathered
from tests.chaos.history import Operation
from tests.chaos.processes import Api, Part, headrace
from tests.chaos.tenants import Login, write_settings

HEALED_SECONDS: Final = 90.0
"""How long everything may take to be whole again once nothing disturbs it any more."""
_LOOK_SECONDS: Final = 0.1


class Fault(NamedTuple):
    """Something that goes wrong, and how it comes right again; in between pass ``seconds``, at random from a range.
    Of several at once, those that stand on others are mended ``last``."""

    name: str
    strike: Callable[[], object]
    mend: Callable[[], object]
    seconds: tuple[float, float]
    last: bool = False


class Seen(NamedTuple):
    """What is left at the end: the evidence, and what ``headrace audit verify`` and others find wrong with it."""

    evidence: Evidence
    findings: Sequence[object]


class Stage(Protocol):
    """Processes to talk to, and what may happen to them."""

    @property
    def urls(self) -> Sequence[str]:
        """Where the API answers, or should."""
        ...

    @property
    def past(self) -> list[Operation]:
        """What earlier runs did here: their records are on the log as well."""
        ...

    @property
    def stops(self) -> list[threading.Event]:
        """What ends the clients of each run: set, at the latest, when the stage is taken down."""
        ...

    @property
    def faults(self) -> Sequence[Fault]:
        """What may happen."""
        ...

    @property
    def may_repeat(self) -> bool:
        """Whether a record of one attempt may come to stand on the log twice: Kafka's client sends what it has heard
        nothing of again, and over some outages its sequence numbers do not keep the second one out."""
        ...

    @property
    def ended(self) -> list[str]:
        """The last words of processes that ended by themselves, so far."""
        ...

    def revive(self) -> None:
        """Start whatever should run and has ended by itself, as an operator's supervisor does."""
        ...

    def see(self, history: Sequence[Operation]) -> Seen:
        """Wait until the tables have reached the log's end, and take everything down.

        :raises TimeoutError: they do not.
        """
        ...


class Embedded:
    """``headrace dev`` on a store of its own."""

    def __init__(self, directory: Path, who: Sequence[Login]) -> None:
        self.directory: Final = directory
        self.past: Final[list[Operation]] = []
        self.may_repeat: Final = False
        self.stops: Final[list[threading.Event]] = []
        self.ended: Final[list[str]] = []
        write_settings(directory, list(who))
        self.words: Final = ("dev", "--store", str(directory), "--port", "0")
        self.api = Api(directory, headrace(*self.words))

    def becomes(self, command: Sequence[str | Path]) -> None:
        """Another program from now on, in place of one that has ended; it is started."""
        self.api.child.stop()
        before, self.api = self.api, Api(self.directory, command)
        self.api.url = before.url  # nobody answers there until it has started
        self.api.start()

    def __enter__(self) -> Self:
        self.api.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.stops:
            one.set()
        self.api.child.stop()

    @property
    def urls(self) -> Sequence[str]:
        """See :class:`Stage`."""
        return [self.api.url]

    @property
    def faults(self) -> Sequence[Fault]:
        """See :class:`Stage`."""
        return [
            Fault("kill -9 of headrace dev", self.api.kill, lambda: patiently(self.api.start), (0.0, 0.3)),
            Fault("SIGSTOP of headrace dev", self.api.pause, self.api.resume, (0.2, 2.0)),
        ]

    def revive(self) -> None:
        """See :class:`Stage`."""
        self.ended.extend(revived([self.api]))

    def see(self, history: Sequence[Operation]) -> Seen:
        """See :class:`Stage`. The process is stopped; the store that is opened catches up by itself."""
        self.api.child.stop()
        with Store(self.directory, writer=True) as store:
            wait_caught_up(store.log, store.tables)
            return seen(history, store.log, store.tables)


def seen(history: Sequence[Operation], log: Log, tables: Tables) -> Seen:
    """The evidence of an open log and open tables at rest."""
    registry, kinds = installed_schemas(), installed_kinds()
    evidence = gathered(history, log, tables, registry, kinds)
    return Seen(evidence, verify(log, tables, registry, kinds).findings)


def revived(parts: Sequence[Part]) -> list[str]:
    """Start those that have ended by themselves; the last words of each."""
    ended = [part for part in parts if not part.child.running]
    words = [part.child.last_words() for part in ended]
    for part in ended:
        patiently(part.start)
    return words


def wait_caught_up(
    log: Log, tables: Tables, seconds: float = HEALED_SECONDS, tend: Callable[[], object] = lambda: None
) -> None:
    """Return once the tables are where the log ends; ``tend`` is called now and then until then.

    :raises TimeoutError: they are not, for so long.
    """
    deadline, last = time.monotonic() + seconds, "nothing could be asked"
    while time.monotonic() < deadline:
        try:
            ends = dict(enumerate(log.describe().ends))
            with tables.snapshot() as reader:
                rows = reader.rows("SELECT partition, next_offset FROM partitions", {})
            folded = {row["partition"]: row["next_offset"] for row in rows}
            behind = {partition: end for partition, end in ends.items() if folded.get(partition) != end}
            if not behind:
                return
            last = f"the log ends at {behind}, the tables are at {folded}"
        except HeadraceError as error:
            last = str(error)
        tend()
        time.sleep(_LOOK_SECONDS)
    raise TimeoutError(f"after {seconds:g} s of peace the tables have not caught up: {last}")


def patiently(start: Callable[[], object], tries: int = 20) -> None:
    """Start something that may need more than one try after a crash.

    :raises UnavailableError: it does not come up.
    """
    for left in reversed(range(tries)):
        try:
            start()
        except UnavailableError:
            if not left:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return
