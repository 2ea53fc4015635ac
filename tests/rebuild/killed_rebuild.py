"""What is killed: ``headrace replay --rebuild``, which dies by itself the n-th time that it comes to a named point.

Arguments: the point (a key of :data:`POINTS`), ``before`` or ``after``, n, then those of the command line.
"""

import sys
from typing import Final

from headrace.processors.engine import Engine
from headrace.projections.postgres_rebuild import Rebuild
from headrace.projections.sqlite_rebuild import FileRebuild
from tests.killed import Points, run_until

POINTS: Final[Points] = {
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


if __name__ == "__main__":
    sys.exit(run_until(POINTS, *sys.argv[1:]))
