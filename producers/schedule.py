"""Which sources to sync now: one account at a time by one thread, and nobody waits for anybody else's slow provider.

Pure: time is an argument, in seconds of any clock that only goes forward.

Each group of sources (a provider's) has lanes and threads of its own. In a group, those that did well and soon share
the *fast* lanes, those that took long the *slow* ones, those that failed the *failing* ones. A sync takes up its lane
for ``slow_after`` seconds, and from then on only a thread, of which the slow ones may have three quarters and the
failing ones half. So whoever hangs holds others up for a moment while it begins, and what hangs for good leaves threads
to those that did better; another provider's sources never notice.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Outcome = Literal["done", "failed", "refused"]
"""``failed``: asking again later may work. ``refused``: somebody must mend something first; it is asked rarely."""
Manner = Literal["fast", "slow", "failing"]
"""How a source did the last time; of a new one nothing bad is known."""


class SourceKey(NamedTuple):
    """A source of an account."""

    tenant: str
    account: str
    source: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, how many at once of each group, and how long to wait after a failure; times in seconds.

    ``period``: how often a source is looked at when nothing hints (notifications get lost). ``slow_after``: a sync that
    takes longer makes its source a slow one. ``slow_lanes`` there are for the slow, and as many for the failing ones.
    """

    period: float = 300.0
    fast_lanes: int = 8
    slow_lanes: int = 4
    threads: int = 64
    slow_after: float = 5.0
    first_retry: float = 1.0
    longest_retry: float = 300.0
    refused_retry: float = 900.0

    def lanes(self, manner: Manner) -> int:
        """How many may be in their first ``slow_after`` seconds at once."""
        return self.fast_lanes if manner == "fast" else self.slow_lanes

    def most(self, manner: Manner) -> int:
        """How many threads may be taken when one more begins."""
        return {"fast": self.threads, "slow": self.threads * 3 // 4, "failing": self.threads // 2}[manner]


@dataclass(slots=True)
class _Entry:
    due: float
    not_before: float = 0.0
    failures: int = 0
    manner: Manner = "fast"
    since: float | None = None
    paused_until: float = 0.0
    asked: bool = False


class _Running(NamedTuple):
    source: SourceKey
    group: str
    manner: Manner
    lane_until: float


def _one_group(_: SourceKey) -> str:
    return ""


class Schedule:
    """``random`` gives numbers in [0, 1): waits are spread by it, so that many sources do not come back at once.
    ``group`` says with which others a source shares lanes and threads."""

    def __init__(self, pace: Pace, random: Callable[[], float], group: Callable[[SourceKey], str] = _one_group) -> None:
        self._pace: Final = pace
        self._random: Final = random
        self._group: Final = group
        self._entries: Final[dict[SourceKey, _Entry]] = {}
        self._running: Final[dict[tuple[str, str], _Running]] = {}
        self._queue: list[tuple[float, SourceKey]] = []

    def keep(self, sources: Iterable[SourceKey], now: float) -> None:
        """These are the sources there are: new ones are due at once, those that are gone are dropped."""
        wanted = set(sources)
        for gone in self._entries.keys() - wanted:
            del self._entries[gone]
        for new in sorted(wanted - self._entries.keys()):
            self._entries[new] = _Entry(now)
            heapq.heappush(self._queue, (now, new))

    def hint(self, source: SourceKey, now: float) -> None:
        """Something changed there: it is due, though not before a provider that asked for a pause has had it."""
        entry = self._entries.get(source)
        if entry is not None and entry.since is None:
            self._put(source, entry, min(entry.due, max(now, entry.not_before)))

    def ask(self, source: SourceKey, now: float) -> None:
        """Somebody wants it synced: it is due, however badly it did before, though not before a provider that asked for
        a pause has had it. One that runs is due again when it is over."""
        entry = self._entries.get(source)
        if entry is None:
            return
        if entry.since is not None:
            entry.asked = True
            return
        entry.not_before, entry.failures = entry.paused_until, 0
        self._put(source, entry, max(now, entry.paused_until))

    def take(self, now: float) -> list[SourceKey]:
        """The sources whose sync is to begin now, those that have waited longest first; they count as running."""
        threads = Counter(one.group for one in self._running.values())
        lanes = Counter((one.group, one.manner) for one in self._running.values() if one.lane_until > now)
        taken: list[SourceKey] = []
        passed: list[tuple[float, SourceKey]] = []
        while self._queue and self._queue[0][0] <= now:
            due, source = heapq.heappop(self._queue)
            entry = self._entries.get(source)
            if entry is None or entry.since is not None or entry.due != due:
                continue  # dropped, running, or put elsewhere since
            group, manner = self._group(source), entry.manner
            full = lanes[group, manner] >= self._pace.lanes(manner) or threads[group] >= self._pace.most(manner)
            if full or source[:2] in self._running:
                passed.append((due, source))
                continue
            entry.since = now
            self._running[source[:2]] = _Running(source, group, manner, now + self._pace.slow_after)
            threads[group] += 1
            lanes[group, manner] += 1
            taken.append(source)
        for one in passed:
            heapq.heappush(self._queue, one)
        return taken

    def ended(self, source: SourceKey, now: float, outcome: Outcome, *, pause: float = 0.0) -> None:
        """A sync is over. ``pause``: how long the provider wants to be left alone, whatever changes. Hints during the
        sync were not taken note of: look for them again."""
        self._running.pop(source[:2], None)
        entry = self._entries.get(source)
        if entry is None or entry.since is None:
            return
        took, entry.since = now - entry.since, None
        entry.paused_until = now + pause
        if outcome == "done":
            entry.failures, entry.not_before = 0, now + pause
            entry.manner = "slow" if took >= self._pace.slow_after else "fast"
            wait = self._pace.period * (0.9 + 0.2 * self._random())
        else:
            entry.failures += 1
            entry.manner = "failing"
            longest = self._pace.refused_retry if outcome == "refused" else self._pace.longest_retry
            first = longest if outcome == "refused" else self._pace.first_retry
            wait = min(longest, first * 2 ** min(entry.failures - 1, 30)) * (0.5 + 0.5 * self._random())
            entry.not_before = now + max(wait, pause)
        self._put(source, entry, max(now + wait, entry.not_before))
        if entry.asked:
            entry.asked = False
            self.ask(source, now)

    def next_time(self, now: float) -> float | None:
        """When :meth:`take` may have more than it had at ``now``, if nothing else happens; ``None``: never."""
        while self._queue:
            due, source = self._queue[0]
            entry = self._entries.get(source)
            if entry is not None and entry.since is None and entry.due == due:
                break
            heapq.heappop(self._queue)
        if not self._queue:
            return None
        if self._queue[0][0] > now:
            return self._queue[0][0]
        # It waits for a lane, a thread or its account: one is free when a sync ends, or has had its lane's time.
        return min((one.lane_until for one in self._running.values() if one.lane_until > now), default=None)

    @property
    def running(self) -> int:
        """How many syncs run."""
        return len(self._running)

    def _put(self, source: SourceKey, entry: _Entry, due: float) -> None:
        entry.due = due
        heapq.heappush(self._queue, (due, source))
