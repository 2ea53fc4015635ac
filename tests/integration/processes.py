"""The real ``headrace`` as processes of their own, on the store that ``--store`` or ``HEADRACE_STORE`` names."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration import stores

HEADRACE = [sys.executable, "-m", "headrace"]
PATIENCE_S = 60


def environment(words: Sequence[object], variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what a developer's shell may have set for the command line; and where the named store is."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "NO_COLOR"))}
    named = str(words[words.index("--store") + 1]) if "--store" in words else variables.get("HEADRACE_STORE")
    return {**own, **(stores.variables(Path(named)) if named is not None else {}), **variables}


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed."""
        return json.loads(self.out)


def headrace(*words: object, stdin: str = "", **variables: str) -> Ran:
    """Run a command to its end."""
    ran = subprocess.run(
        [*HEADRACE, *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment(words, variables),
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


class Following:
    """A command that runs on: its lines are read as they come."""

    def __init__(self, *words: object, **variables: str) -> None:
        self.process = subprocess.Popen(
            [*HEADRACE, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(words, variables),
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = self.process.stdout, self.process.stderr

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)

    def line(self) -> dict[str, Any]:
        """The next line."""
        read = self.out.readline()
        assert read, self.err.read()
        found: dict[str, Any] = json.loads(read)
        return found

    def ends(self, signal_: int) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(signal_)
        return self.process.wait(PATIENCE_S)
