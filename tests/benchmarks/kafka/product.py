"""headrace as it is run: its commands, each a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from tests.benchmarks.kafka.place import ROOT, Place, Ran

_STOP_SECONDS: Final = 60
_LOOK_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 3_600.0


def environment(place: Place, topic: str, schema: str) -> dict[str, str]:
    """What headrace's commands find their way by."""
    return {
        "HEADRACE_STORE": str(place.scratch / f"store-{schema}"),
        "HEADRACE_LOG_URL": place.log_url(topic),
        "HEADRACE_DB_URL": place.dsn,
        "HEADRACE_DB_SCHEMA": schema,
        "HEADRACE_PORT": "0",
        "HEADRACE_WORKER_PORT": "0",
    }


def command(settings: dict[str, str], *words: str) -> None:
    """Run one and see that it worked.

    :raises RuntimeError: it did not.
    """
    line = [sys.executable, "-m", "headrace", *words]
    done = subprocess.run(line, env={**os.environ, **settings}, check=False, cwd=ROOT, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"headrace {' '.join(words)} failed: {done.stderr.decode()[-1_000:]}")


@contextmanager
def started(settings: dict[str, str], *words: str) -> Generator[subprocess.Popen[str], None, None]:
    """One that goes on until the context ends, as soon as it is started."""
    running = subprocess.Popen(
        [sys.executable, "-m", "headrace", *words, "--json"],
        env={**os.environ, **settings},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextmanager
def process(settings: dict[str, str], *words: str) -> Generator[dict[str, Any], None, None]:
    """One that goes on until the context ends: what it says in its first line of JSON."""
    with started(settings, *words) as running:
        assert running.stdout is not None
        said = running.stdout.readline()
        if not said:
            raise RuntimeError(f"headrace {' '.join(words)} ended with {running.wait()}; run it by hand to see why")
        yield json.loads(said)


@contextmanager
def folded(place: Place, schema: str) -> Generator[Callable[[], int], None, None]:
    """How many records the tables have, whenever that is asked."""
    asked = sql.SQL("SELECT coalesce(sum(next_offset), 0)::bigint FROM {}").format(sql.Identifier(schema, "partitions"))
    with psycopg.connect(place.dsn, autocommit=True) as connection:

        def look() -> int:
            row = connection.execute(asked).fetchone()
            assert row is not None
            return int(row[0])

        yield look


def reached(look: Callable[[], int], wanted: int) -> int:
    """Wait until there are so many; how many there are then.

    :raises TimeoutError: it takes for ever.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (seen := look()) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the worker has folded {seen:,} records of {wanted:,}; run it by hand to see why")
        time.sleep(_LOOK_SECONDS)
    return seen


def worker(place: Place, topic: str, total: int, warm: int) -> Ran:
    """``headrace worker`` with everything that it does beside the fold, from the topic into the tables: rate after the
    first ``warm`` records, and the most memory it had."""
    with place.schema() as schema:
        settings = environment(place, topic, schema)
        command(settings, "migrate")
        with folded(place, schema) as look, started(settings, "worker") as running:

            def alive() -> int:
                if running.poll() is not None:
                    raise RuntimeError(f"headrace worker ended with {running.returncode}; run it by hand to see why")
                return look()

            first, begun = reached(alive, warm), time.perf_counter()
            last = reached(alive, total)
            return Ran(last - first, time.perf_counter() - begun, _most_megabytes(running.pid))


def _most_megabytes(pid: int) -> float:
    """See proc_pid_status(5), VmHWM."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
