"""The product's parts as processes of their own, as an operator starts them, and signals by their ids."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from headrace.api.server import SERVER_FILE
from infra.stack.child import Child

START_SECONDS: Final = 90.0


def headrace(*words: str | Path) -> list[str]:
    """The command line of one of headrace's own commands."""
    return [sys.executable, "-m", "headrace.cli", *map(str, words)]


class Part:
    """A process by name, whose output is beside its directory. Start it from a thread that outlives it."""

    def __init__(
        self, directory: Path, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory: Final = directory
        directory.mkdir(parents=True, exist_ok=True)
        log = directory.with_name(f"{directory.name}.log")
        self.child: Final = Child(directory.name, command, log, environment=environment)

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.child.name

    def start(self) -> None:
        """Start it, unless it runs."""
        self.child.start()

    def has_ended(self) -> bool:
        """Whether it does not run any more."""
        return not self.child.running

    def is_asleep(self) -> bool:
        """Whether it stands still at a SIGSTOP."""
        return self.child.running and is_stopped(self.child.pid)

    def kill(self) -> None:
        """SIGKILL."""
        self.child.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        if self.child.running:
            self.child.pause()

    def resume(self) -> None:
        """SIGCONT."""
        if self.child.running:
            self.child.resume()


class Api(Part):
    """A process that answers HTTP: ``headrace dev``, ``headrace serve``, or a stand-in of the tests."""

    url = ""

    def start(self) -> None:
        """Start it, and return when it answers.

        :raises UnavailableError: it does not; with its last words.
        """
        self.child.start()
        self.child.wait_ready(self._answers, START_SECONDS)

    def _answers(self) -> bool:
        try:
            said = json.loads((self.directory / SERVER_FILE).read_text(encoding="utf-8"))
            if said["pid"] != self.child.pid:  # left behind by one that was killed
                return False
            self.url = said["url"]
            return httpx.get(f"{self.url}/health/live", timeout=1.0).status_code == 200
        except (OSError, ValueError, httpx.HTTPError):
            return False


def is_stopped(pid: int) -> bool:
    """Whether a process stands still at a SIGSTOP."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "T"


def family(pid: int) -> list[int]:
    """A process and all below it: a server that forks leads no group that a signal could be sent to."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def tell_family(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all below it."""
    for one in family(pid):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(one, number)
