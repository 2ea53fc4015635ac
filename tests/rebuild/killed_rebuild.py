"""What is killed: ``headrace replay --rebuild``, which dies by itself the n-th time that it comes to a named point.

Arguments: the point (a key of :data:`POINTS`), ``before`` or ``after``, n, then those of the command line.
"""

import os
import signal
import sys
from typing import Any, Final

from headrace.cli.main import run
from headrace.processors.engine import Engine
from headrace.projections.postgres_rebuild import Rebuild
from headrace.projections.sqlite_rebuild import FileRebuild

POINTS: Final[dict[str, tuple[type, str]]] = {
    "preparing": (Rebuild, "prepare"),
    "folding": (Engine, "apply"),
    "switching": (Rebuild, "_switched"),
    "locking": (Rebuild, "_lock"),
    "comparing": (Rebuild, "_check_equal"),
    "dropping": (Rebuild, "_drop"),
    "making known": (Rebuild, "_make_known"),
    "switching files": (FileRebuild, "switch"),
    "comparing files": (FileRebuild, "_check_equal"),
    "cleaning up": (FileRebuild, "clean_up"),
}


def main(point: str, when: str, count: str, *arguments: str) -> int:
    """Run the command line until then."""
    owner, name = POINTS[point]
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


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
