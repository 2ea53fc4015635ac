"""Where it is measured: one broker, one PostgreSQL on this machine; each measured thing is a process of its own."""

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from infra.stack.artifacts import cache
from infra.stack.service import Wanted, joined

ROOT: Final = Path(__file__).resolve().parents[3]
_LOCK: Final = ROOT / "infra" / "lock" / "peers.txt"
_LONGEST_SECONDS: Final = 3_600


class Ran(NamedTuple):
    """What a process said of itself: events in seconds, and the most memory it had (MB, 0: it did not say)."""

    events: int
    seconds: float
    megabytes: float = 0.0

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


class Place(NamedTuple):
    """``brokers`` and ``dsn`` are addresses, ``scratch`` a directory to write to."""

    brokers: str
    dsn: str
    scratch: Path

    def log_url(self, topic: str) -> str:
        """The address of a log."""
        return f"kafka://{self.brokers}/{topic}?replication.factor=1"

    def run(self, module: str, *arguments: object, python: Path | None = None) -> list[Ran]:
        """Run a module as a process of its own, and read what it says at its end: a JSON object a line.

        :raises RuntimeError: it failed.
        """
        command = [str(python or sys.executable), "-W", "ignore", "-m", module, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command,
            cwd=self.scratch,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LONGEST_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-2_000:]}")
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return [Ran(one["events"], one["seconds"], one.get("megabytes", 0.0)) for one in said if "events" in one]

    @contextmanager
    def schema(self) -> Generator[str, None, None]:
        """A new schema's name; what is made in it is dropped afterwards."""
        name = f"bench_{secrets.token_hex(4)}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))

    def eventsourcing(self, schema: str) -> str:
        """Settings of that library's PostgreSQL module, as JSON."""
        found = conninfo_to_dict(self.dsn)
        named = {"DBNAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
        env = {f"POSTGRES_{name}": str(found.get(key) or "") for name, key in named.items()}
        module = {"PERSISTENCE_MODULE": "eventsourcing.postgres", "POSTGRES_SCHEMA": schema}
        return json.dumps({**env, **module})


@contextmanager
def place(scratch: Path) -> Generator[Place, None, None]:
    """The parts that the environment names, else a stack started for this run."""
    named = os.environ.get("HEADRACE_TEST_KAFKA"), os.environ.get("HEADRACE_TEST_POSTGRES")
    if named[0] and named[1]:
        yield Place(named[0], named[1], scratch)
        return
    with joined(scratch / "stack", Wanted(("kafka", "postgres"))) as found:
        yield Place(found["kafka"], found["postgres"], scratch)


def peers_python() -> Path:
    """The interpreter of an environment that holds the peers, whose pins differ; made now if it is not there."""
    home = cache() / f"peers-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        uv = [str(Path(sys.executable).parent / "uv")]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True)
        install = ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(_LOCK)]
        subprocess.run([*uv, *install], check=True)
        (home / "complete").touch()
    return python


def show(title: str, lines: Sequence[tuple[str, float, str, float | None]]) -> None:
    """Print one table: name, value, unit, ratio to headrace."""
    print(f"\n{title}", flush=True)
    for name, value, unit, ratio in lines:
        beside = f"{ratio:8.2f} x headrace" if ratio is not None else ""
        print(f"  {name:<66}{value:>12,.1f} {unit:<10}{beside}", flush=True)
