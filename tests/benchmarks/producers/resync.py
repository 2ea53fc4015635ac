"""A calendar of many events is read for the first time; then its cursor is lost, and it is read and compared whole."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from headrace.producers.connections import Connections, key_of
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.provider import Connected
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.producers.vault_sqlite import SqliteVault
from headrace.store import Store
from tests.benchmarks.figures import Figure, show
from tests.doubles.google_calendar import READ, GoogleCalendarDouble
from tests.doubles.google_calendar_desk import ADDRESS
from tests.doubles.http import Grant, Reply, Request, transport
from tests.providers.google_calendar_parts import BASE

_ROOT: Final = Path(__file__).resolve().parents[3]
_CHANGED: Final = 100
"""Of so many events one is edited while nobody looks."""


class _Timed:
    """A double, and how long it takes itself."""

    def __init__(self, double: GoogleCalendarDouble) -> None:
        self._double = double
        self.seconds, self.asked = 0.0, 0

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        begun = time.perf_counter()
        try:
            return self._double.answer(request)
        finally:
            self.seconds += time.perf_counter() - begun
            self.asked += 1


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure(events: int) -> None:
    """In a process of its own: its memory is this work's, besides what the double holds."""
    double = GoogleCalendarDouble(Grant([READ]))
    for number in range(events):
        hour, day = 8 + number % 10, 1 + number % 28
        when = (
            {"dateTime": f"2026-11-{day:02d}T{hour:02d}:00:00Z"},
            {"dateTime": f"2026-11-{day:02d}T{hour:02d}:30:00Z"},
        )
        double.insert(
            start=when[0], end=when[1], attendees=[{"email": "bob@example.com", "responseStatus": "accepted"}]
        )
    timed = _Timed(double)
    source = Connected("bench", "ann", "calendar", "google_calendar", {"calendar": ADDRESS})
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        directory = Path(name)
        with Store(directory / "store", writer=True, partitions=2) as store:
            connections = Connections(SqliteVault(directory), store.keys)
            connections.add(source, {"access_token": double.grant.token, "expires_at": time.time() + 36_000})
            setups = {"google_calendar": ProviderSetup(GoogleCalendar(), BASE, None)}
            syncs = SourceSyncs(store, connections, setups, None, transport=transport(timed))
            before = _megabytes()
            first = _one(syncs, source, timed)
            double.forget(ADDRESS)
            for number, stored in enumerate(list(double.events[ADDRESS].values())):
                if number % _CHANGED == 0:
                    double.edit(stored, summary="Moved to another room")
            double.forget(ADDRESS)
            again = _one(syncs, source, timed)
    print(json.dumps({"first": first, "again": again, "before": before, "most": _megabytes()}))


def _one(syncs: SourceSyncs, source: Connected, timed: _Timed) -> dict[str, Any]:
    seconds, asked, begun = timed.seconds, timed.asked, time.perf_counter()
    synced = syncs.sync(key_of(source))
    spent = time.perf_counter() - begun
    return {
        "seconds": spent,
        "double": timed.seconds - seconds,
        "asked": timed.asked - asked,
        "events": synced.events,
        "full": synced.full,
    }


def run(events: int) -> None:
    """Measure and print."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.producers.resync", str(events)],
        cwd=_ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    figures: list[Figure] = []
    for name, one in (("first sync", said["first"]), ("cursor lost", said["again"])):
        if not one["full"]:
            raise RuntimeError(f"{name}: it was not read whole")
        figures.append(Figure(f"{name}: whole", one["seconds"], "s"))
        figures.append(
            Figure(f"{name}: of which the double", one["double"], "s", one["double"] / one["seconds"], "whole")
        )
        figures.append(Figure(f"{name}: requests", one["asked"], ""))
        figures.append(Figure(f"{name}: events emitted", one["events"], ""))
    figures.append(Figure("memory before, the double's events in it", said["before"], "MB"))
    figures.append(Figure("memory at the most", said["most"], "MB"))
    show(f"A calendar of {events:,} events; 1 in {_CHANGED} is edited while its cursor is lost", figures)


if __name__ == "__main__":
    _measure(int(sys.argv[1]))
