"""One run: clients at work, faults one after another, peace, and then the checker's word on what was left behind."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.checker import check
from tests.chaos.evidence import Evidence, Violation
from tests.chaos.history import OK, Recorder, counted
from tests.chaos.stages import Fault, Stage
from tests.chaos.tenants import Login
from tests.chaos.workload import Client

PEACE_SECONDS: Final = 1.0
BETWEEN_ANSWERS: Final = (5, 120)
HALTED: Final = ("restore", "rebuild", "another log", ": a bug", "on a bug")
"""What a process says at its end that no fault here excuses: nothing happened to the log, and nothing to the tables."""
TOGETHER: Final = 0.25
"""How often two faults come at once."""
_GIVE_UP_SECONDS: Final = 120.0


@dataclass
class Report:
    """What a run came to. ``operations`` counts by kind and outcome, ``faults`` by name; ``repeated`` are the records
    that stand on the log more often than they were sent, where that may be: their effect is one all the same."""

    seed: int
    seconds: float
    records: int
    operations: dict[str, int]
    faults: dict[str, int]
    violations: list[Violation]
    repeated: int
    revived: list[str]
    evidence: Evidence = field(repr=False)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {name}" for name, count in self.faults.items()) or "none"
        asked = sum(self.operations.values())
        outcomes = Counter[str]()
        for name, count in self.operations.items():
            outcomes[name.rpartition(" ")[2]] += count
        said = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        lines = [
            f"seed {self.seed}: {self.seconds:.0f} s, {asked} operations ({said}), {self.records} records",
            f"  faults: {faults}",
            f"  put on the log twice by the client of Kafka, with one effect: {self.repeated}",
            f"  started again by the supervisor: {len(self.revived)}",
            *(f"    {words[:300]}" for words in self.revived),
            f"  violations: {len(self.violations)}",
            *(f"    {one.rule}: {one.message[:600]}" for one in self.violations[:20]),
        ]
        return "\n".join(lines)


class Run:
    """Clients on a stage. Faults are struck by whoever calls; :meth:`end` heals, settles and checks."""

    def __init__(self, stage: Stage, who: Sequence[Login], seed: int, file: Path | None = None) -> None:
        self._past: Final = stage.past
        self.recorder: Final = Recorder(file)
        self.struck: Final[Counter[str]] = Counter()
        self._ended_before: Final = len(stage.ended)
        self._stage: Final = stage
        self._seed: Final = seed
        self._stop: Final = threading.Event()
        stage.stops.append(self._stop)
        self._begun: Final = time.monotonic()
        chance = random.Random(f"{seed}/where")
        self._clients: Final = [
            Client(one, self.recorder, lambda: chance.choice(stage.urls), seed, self._stop, run=f"r{len(self._past)}")
            for one in who
        ]
        self._pool: Final = ThreadPoolExecutor(len(self._clients), "client")
        self._working: Final = [self._pool.submit(client.run) for client in self._clients]

    def rest(self, seconds: float) -> None:
        """Let the clients work. Ends at once if one has failed on a bug of its own."""
        done, _ = wait(self._working, timeout=seconds, return_when="FIRST_EXCEPTION")
        for one in done:
            one.result()

    def answered(self, count: int, seconds: float = _GIVE_UP_SECONDS) -> None:
        """Return once so many more operations were answered.

        :raises TimeoutError: they are not, for so long.
        """
        wanted = self._answered() + count
        self.until(lambda: self._answered() >= wanted, seconds)

    def until(self, condition: Callable[[], bool], seconds: float = _GIVE_UP_SECONDS) -> None:
        """Let the clients work until it is so.

        :raises TimeoutError: it is not, for so long.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it never came to be, in {seconds:g} s of work; seed {self._seed}")
            self.rest(0.05)

    def _answered(self) -> int:
        return sum(one.outcome == OK for one in self.recorder.history())

    def suffer(self, chance: random.Random, *faults: Fault) -> None:
        """Faults at once, from strike to mend; what stands on others is mended after them."""
        struck: list[Fault] = []
        try:
            for fault in faults:
                self.struck[fault.name] += 1
                struck.append(fault)
                fault.strike()
            self.rest(chance.uniform(min(one.seconds[0] for one in faults), max(one.seconds[1] for one in faults)))
        finally:
            for fault in sorted(struck, key=lambda one: one.last):
                fault.mend()
        self._stage.revive()

    def storm(self, count: int, faults: Sequence[Fault] | None = None, seconds: float = float("inf")) -> None:
        """So many faults one after another, or as many as fit into so many seconds; each when the clients have been
        answered for a while, and now and then two at once: when and in which order, the seed says. None comes again
        before each of the others has come."""
        chance = random.Random(f"{self._seed}/{len(self._past)}/faults")
        choice, left = list(faults or self._stage.faults), list[Fault]()
        end = time.monotonic() + seconds
        while count > 0 and time.monotonic() < end:
            self.answered(chance.randint(*BETWEEN_ANSWERS))
            self.rest(chance.random() * 0.05)
            left = left or chance.sample(choice, len(choice))
            together = left[: min(count, 2 if chance.random() < TOGETHER else 1)]
            del left[: len(together)]
            self.suffer(chance, *together)
            count -= len(together)

    def end(self) -> Report:
        """Let the clients go on in peace for a moment, have them read everything again, and check."""
        self.rest(PEACE_SECONDS)
        self._stage.revive()
        self._stop.set()
        with self._pool:
            for one in self._working:
                one.result(_GIVE_UP_SECONDS)
            before = len(self.recorder.history())
            for one in [self._pool.submit(client.settle) for client in self._clients]:
                one.result(_GIVE_UP_SECONDS)
        for client in self._clients:
            client.door.close()
        self.recorder.close()
        history = self.recorder.history()
        self._past.extend(history)
        evidence, findings = self._stage.see(tuple(self._past))
        found = check(evidence)
        repeated = [one for one in found if one.rule == "repeated"] if self._stage.may_repeat else []
        violations = [one for one in found if one not in repeated]
        violations += [
            Violation("healed", f"in peace, {one.client} got {one.told} for {one.id}")
            for one in history[before:]
            if one.outcome != OK
        ]
        violations += [Violation("audit", str(finding)) for finding in findings]
        ended = self._stage.ended[self._ended_before :]
        violations += [Violation("halted", words) for words in ended if any(word in words for word in HALTED)]
        return Report(
            self._seed,
            time.monotonic() - self._begun,
            sum(map(len, evidence.log)),
            counted(history),
            dict(self.struck),
            violations,
            len(repeated),
            ended,
            evidence,
        )
