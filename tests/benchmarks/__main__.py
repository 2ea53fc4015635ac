"""``make bench``: everything, medians of several runs, each figure beside a peer of the same run.

The machine's own noise is larger than many differences: read the ratios.
"""

import sys
import tempfile
from pathlib import Path

from tests.benchmarks import appends, engine, verdicts

PARTS = {"appends": appends.run, "engine": engine.run, "verdicts": verdicts.run}


def main(names: list[str]) -> None:
    """Run the parts named, all without a name."""
    unknown = set(names) - PARTS.keys()
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
            PARTS[name](Path(directory))


main(sys.argv[1:])
