"""A process to kill: the command line, which dies by itself the n-th time that it comes to a named point."""

import os
import signal
from collections.abc import Mapping
from typing import Any

from headrace.cli.main import run

Points = Mapping[str, tuple[type, str]]
"""By name: a class, and the method of it where a process may die."""


def run_until(points: Points, point: str, when: str, count: str, *arguments: str) -> int:
    """Run the command line until then: ``before`` or ``after`` the ``count``-th call; its exit code where it does not
    come to that."""
    owner, name = points[point]
    does = getattr(owner, name)
    left = int(count)

    def dies(*args: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = does(*args, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, dies)
    return run(arguments)
