"""A part of a benchmark in a process of its own, which answers a line of JSON to a line."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]


class Part:
    """One that runs; it ends when its input does."""

    def __init__(self, module: str, process: "subprocess.Popen[str]") -> None:
        self._module: Final = module
        self._process: Final = process
        self.begun: Final = self._heard()

    def done(self, line: str = "") -> dict[str, Any]:
        """What it has done, once it has done what the line says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with {self._process.wait()}: what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def running(module: str, *arguments: object) -> Generator[Part]:
    """A module with these arguments."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ) as process:
        try:
            yield Part(module, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
