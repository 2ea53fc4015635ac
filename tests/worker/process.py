"""A worker as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_migrations import migrate
from tests.worker.site import KINDS, PATIENCE, Site, until

PROGRAMS: Final = Path(sys.executable).parent
_STOP_SECONDS: Final = 60.0


class Place(Protocol):
    """Where a worker's log and tables are, and its store's directory."""

    @property
    def directory(self) -> Path: ...
    @property
    def url(self) -> str: ...
    @property
    def postgres(self) -> str: ...
    @property
    def schema(self) -> str: ...


class Elsewhere(NamedTuple):
    """A site whose log a worker finds at another address."""

    site: Site
    url: str

    @property
    def directory(self) -> Path:
        """See :class:`Place`."""
        return self.site.directory

    @property
    def postgres(self) -> str:
        """See :class:`Place`."""
        return self.site.postgres

    @property
    def schema(self) -> str:
        """See :class:`Place`."""
        return self.site.schema


def migrated(site: Site) -> Site:
    """The site with empty tables, as ``headrace migrate`` leaves it."""
    migrate(Address(site.postgres, site.schema), KINDS)
    return site


def environment(site: Place, **more: str) -> dict[str, str]:
    """What a worker finds its way by; nothing of this process's own settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {
        **own,
        "HEADRACE_LOG_URL": site.url,
        "HEADRACE_DB_URL": site.postgres,
        "HEADRACE_DB_SCHEMA": site.schema,
        "HEADRACE_STORE": str(site.directory),
        "HEADRACE_WORKER_PORT": "0",
        **more,
    }


class WorkerProcess:
    """``headrace worker`` unless another command is given; ended, at the latest, with the context."""

    def __init__(self, site: Place, command: Sequence[str] | None = None, **more: str) -> None:
        self.log = site.directory / f"worker-{len(list(site.directory.glob('worker-*')))}.log"
        given = command or [str(PROGRAMS / "headrace"), "worker", "--json"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                given, env=environment(site, **more), stdout=subprocess.PIPE, stderr=log, cwd=site.directory, text=True
            )
        self._said: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if error is not None:
            sys.stderr.write(f"--- {self.log.name}\n{self.log.read_text(errors='replace')[-8_000:]}\n")

    @property
    def said(self) -> Mapping[str, Any]:
        """What it says once it works."""
        if self._said is None:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, self.log.read_text(errors="replace")
            found: Mapping[str, Any] = json.loads(line)
            self._said = found
        return self._said

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of its web server."""
        try:
            with urllib.request.urlopen(f"{self.said['url']}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def figures(self) -> dict[str, float]:
        """Its metrics by name; those with a partition, summed up."""
        found: dict[str, float] = {}
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith("headrace_"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                found[name] = found.get(name, 0) + float(value)
        return found

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        """Return once it is ready."""
        until(lambda: self.get("/health/ready")[0] == 200, seconds, 0.1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = _STOP_SECONDS) -> int:
        """Its exit code, once it has one."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Tell it to stop; its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()
