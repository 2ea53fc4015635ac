"""``python -m tests.benchmarks.producers``: what comes in from providers. ``--quick`` takes half a minute.

The machine's own noise is larger than many differences: read the ratios, and let nothing else run meanwhile.
"""

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks.producers import deliveries, resync
from tests.benchmarks.producers.deliveries import Size

PARTS = ("deliveries", "resync")


def main() -> None:
    """Run the parts named, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.producers", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    quick = options.quick
    for name in options.parts or PARTS:
        if name == "deliveries":
            with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
                size = Size(5, 0.2, 1_000, 1_000) if quick else Size(50, 2.0, 10_000, 10_000)
                deliveries.run(Path(directory), size)
        else:
            resync.run(2_000 if quick else 100_000)


main()
