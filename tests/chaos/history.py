"""What clients asked, what they were told, and when: the only thing that the checker believes about them."""

import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

EVENT: Final = "event"
PROPOSE: Final = "propose"
ANSWER: Final = "answer"
CLAIM: Final = "claim"
READ: Final = "read"
SCOPE: Final = "scope"
LOOKUP: Final = "lookup"
PROBE: Final = "probe"
WRITES: Final = frozenset({EVENT, PROPOSE, ANSWER, CLAIM})

OK: Final = "ok"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Operation:
    """One attempt of a client: a retry is another one with the same ``id``.

    Times are nanoseconds of the monotonic clock, which the processes of a machine share. ``outcome`` is ``ok``
    (answered), ``failed`` (surely had no effect) or ``unknown``; an operation that never ended is unknown and ``ended``
    is ``None``.
    ``said`` is what the client sent, ``told`` what the answer says.
    """

    client: str
    kind: str
    tenant: str
    account: str
    id: str
    said: Mapping[str, Any]
    invoked: int
    ended: int | None = None
    outcome: str = UNKNOWN
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Whether it was answered."""
        return self.outcome == OK

    @property
    def key(self) -> tuple[str, str, str]:
        """What ties a write to its records: ids are unique in an account."""
        return self.tenant, self.account, self.id


class Call:
    """An operation under way. Exactly one of its methods is called, once."""

    def __init__(self, recorder: "Recorder", number: int) -> None:
        self._recorder: Final = recorder
        self._number: Final = number

    def ok(self, **told: Any) -> None:
        """It was answered."""
        self._recorder.end(self._number, OK, told)

    def failed(self, why: str) -> None:
        """It surely had no effect."""
        self._recorder.end(self._number, FAILED, {"why": why})

    def unknown(self, why: str) -> None:
        """Nobody can say."""
        self._recorder.end(self._number, UNKNOWN, {"why": why})


class Recorder:
    """Takes operations down as they happen, from any thread; into a file too, where one is named."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock: Final = threading.Lock()
        self._operations: Final[list[Operation]] = []
        self._file: Final = path.open("a", encoding="utf-8") if path is not None else None

    def invoke(self, client: str, doing: str, account: tuple[str, str], id_: str, /, **said: Any) -> Call:
        """A client is about to ask."""
        with self._lock:
            number = len(self._operations)
            self._operations.append(Operation(client, doing, *account, id_, said, time.monotonic_ns()))
        return Call(self, number)

    def end(self, number: int, outcome: str, told: Mapping[str, Any]) -> None:
        """It has been answered, or given up."""
        now = time.monotonic_ns()
        with self._lock:
            begun = self._operations[number]
            assert begun.ended is None, f"operation {number} has ended before"
            done = self._operations[number] = replace(begun, ended=now, outcome=outcome, told=told)
            if self._file is not None:
                self._file.write(json.dumps([getattr(done, name) for name in Operation.__slots__]) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def history(self) -> tuple[Operation, ...]:
        """Everything so far, in the order of invocation."""
        with self._lock:
            return tuple(self._operations)


def read_history(path: Path) -> tuple[Operation, ...]:
    """What a recorder wrote into a file: the operations that ended."""
    with path.open(encoding="utf-8") as lines:
        found = [Operation(*json.loads(line)) for line in lines]
    return tuple(sorted(found, key=lambda one: one.invoked))


def counted(history: Iterable[Operation]) -> dict[str, int]:
    """How many operations of each kind and outcome, as ``kind outcome``."""
    counts: dict[str, int] = {}
    for one in history:
        name = f"{one.kind} {one.outcome}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
