"""A calendar of many events is read for the first time; then its cursor is lost, and it is read and compared whole.

The double and each of the two syncs run in processes of their own, so that each one's memory is its own.
"""

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
from tests.benchmarks.producers.calendars import CHANGED, LOSE
from tests.benchmarks.producers.process import ROOT, Part, running
from tests.doubles.google_calendar_desk import ADDRESS

_SOURCE: Final = Connected("bench", "ann", "calendar", "google_calendar", {"calendar": ADDRESS})


def _sync(directory: Path, url: str, token: str) -> None:
    """One sync, in a process of its own: its memory at the most is this sync's."""
    with Store(directory / "store", writer=True, partitions=2) as store:
        connections = Connections(SqliteVault(directory), store.keys)
        connections.add(_SOURCE, {"access_token": token, "expires_at": time.time() + 36_000})
        setups = {"google_calendar": ProviderSetup(GoogleCalendar(), f"{url}/calendar/v3/")}
        syncs = SourceSyncs(store, connections, setups, None)
        before, cpu, begun = _megabytes(), time.process_time(), time.perf_counter()
        synced = syncs.sync(key_of(_SOURCE))
        spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    print(json.dumps({**spent, "before": before, "most": _megabytes(), "events": synced.events, "full": synced.full}))


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measured(directory: Path, calendar: Part) -> dict[str, Any]:
    """A sync, and what the double did for it."""
    before, begun = calendar.done(), calendar.begun
    command = [sys.executable, "-m", "tests.benchmarks.producers.resync", str(directory), begun["url"], begun["token"]]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    after = calendar.done()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"double": after["seconds"] - before["seconds"], "asked": after["asked"] - before["asked"]}


def run(events: int) -> None:
    """Measure and print."""
    with (
        running("tests.benchmarks.producers.calendars", events) as calendar,
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as name,
    ):
        first = _measured(Path(name), calendar)
        calendar.done(LOSE)
        again = _measured(Path(name), calendar)
    figures: list[Figure] = []
    for title, one in (("first sync", first), ("cursor lost", again)):
        if not one["full"]:
            raise RuntimeError(f"{title}: it was not read whole")
        figures.append(Figure(f"{title}: whole", one["seconds"], "s"))
        figures.append(
            Figure(f"{title}: of which the double", one["double"], "s", one["double"] / one["seconds"], "whole")
        )
        figures.append(Figure(f"{title}: processor time, without the double's", one["cpu"], "s"))
        figures.append(Figure(f"{title}: requests", one["asked"], ""))
        figures.append(Figure(f"{title}: events emitted", one["events"], ""))
        figures.append(Figure(f"{title}: memory before", one["before"], "MB"))
        figures.append(Figure(f"{title}: memory at the most", one["most"], "MB"))
    show(f"A calendar of {events:,} events; 1 in {CHANGED} is edited while its cursor is lost", figures)


if __name__ == "__main__":
    _sync(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
