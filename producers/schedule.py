"""Which sources to sync now: one account at a time by one thread, and nobody waits for anybody else's slow provider.

Pure: time is an argument, in seconds of any clock that only goes forward.

Sources that answer well share the *fast* lanes. One that fails, or takes long, is moved to the *slow* lanes until it
does well again, and while it runs it no longer counts against the fast ones. So the worst that many broken sources do
to a good one is to take threads; how many threads there are at the most is far more than there are lanes.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, NamedTuple

Outcome = Literal["done", "failed", "refused"]
"""``failed``: asking again later may work. ``refused``: somebody must mend something first; it is asked rarely."""


class SourceKey(NamedTuple):
    """A source of an account."""

    tenant: str
    account: str
    source: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, how many at once, and how long to wait after a failure; times in seconds.

    ``period``: how often a source is looked at when nothing hints (notifications get lost). ``slow_after``: a sync that
    takes longer makes its source a slow one.
    """

    period: float = 300.0
    fast_lanes: int = 8
    slow_lanes: int = 4
    threads: int = 64
    slow_after: float = 5.0
    first_retry: float = 1.0
    longest_retry: float = 300.0
    refused_retry: float = 900.0


@dataclass(slots=True)
class _Entry:
    due: float
    not_before: float = 0.0
    failures: int = 0
    slow: bool = False
    since: float | None = None
    paused_until: float = 0.0
    asked: bool = False


class Schedule:
    """``random`` gives numbers in [0, 1): waits are spread by it, so that many sources do not come back at once."""

    def __init__(self, pace: Pace, random: Callable[[], float]) -> None:
        self._pace: Final = pace
        self._random: Final = random
        self._entries: Final[dict[SourceKey, _Entry]] = {}
        self._running: Final[dict[tuple[str, str], SourceKey]] = {}
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
        fast = slow = 0
        for source in self._running.values():
            quick = self._quick_until(source) > now
            fast, slow = fast + quick, slow + (not quick)
        taken: list[SourceKey] = []
        passed: list[tuple[float, SourceKey]] = []
        while self._queue and self._queue[0][0] <= now and len(self._running) < self._pace.threads:
            due, source = heapq.heappop(self._queue)
            entry = self._entries.get(source)
            if entry is None or entry.since is not None or entry.due != due:
                continue  # dropped, running, or put elsewhere since
            full = slow >= self._pace.slow_lanes if entry.slow else fast >= self._pace.fast_lanes
            if full or source[:2] in self._running:
                passed.append((due, source))
                continue
            entry.since = now
            self._running[source[:2]] = source
            fast, slow = fast + (not entry.slow), slow + entry.slow
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
            entry.slow = took >= self._pace.slow_after
            wait = self._pace.period * (0.9 + 0.2 * self._random())
        else:
            entry.failures += 1
            entry.slow = True
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
        # It waits for a lane or for its account: one is free when a sync ends, or counts as slow.
        return min((until for one in self._running.values() if (until := self._quick_until(one)) > now), default=None)

    def _quick_until(self, source: SourceKey) -> float:
        """Until when a running sync takes up a fast lane."""
        entry = self._entries.get(source)
        if entry is None or entry.slow or entry.since is None:
            return -inf
        return entry.since + self._pace.slow_after

    @property
    def running(self) -> int:
        """How many syncs run."""
        return len(self._running)

    def _put(self, source: SourceKey, entry: _Entry, due: float) -> None:
        entry.due = due
        heapq.heappush(self._queue, (due, source))
