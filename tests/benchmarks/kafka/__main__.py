"""``python -m tests.benchmarks.kafka``: Kafka and PostgreSQL, headrace beside its peers. ``--quick`` takes two minutes.

The machine's own noise is larger than many differences: read the ratios, and let nothing else run meanwhile.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.kafka import downtime, latency
from tests.benchmarks.kafka.place import Place, place
from tests.benchmarks.kafka.sharing import sharing
from tests.benchmarks.kafka.throughput import Size, facts, growth, mixed

PARTS = ("facts", "mixed", "sharing", "growth", "downtime", "latency")


def main() -> None:
    """Run the parts named, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kafka", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, one run each")
    parser.add_argument("--events", type=int, help="how many (300,000; quick 20,000)")
    parser.add_argument("--runs", type=int, help="medians of so many (3; quick 1)")
    parser.add_argument("--batch", type=int, default=1_000, help="records folded in one transaction (%(default)s)")
    parser.add_argument("--downtime", type=float, help="seconds without a worker (60; quick 2)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    quick = options.quick
    size = Size(
        options.events or (20_000 if quick else 300_000),
        2_000 if quick else 20_000,
        2_000 if quick else 20_000,
        options.runs or (1 if quick else 3),
        options.batch,
    )
    sizes = (1_000, 10_000) if quick else (10_000, 100_000, 1_000_000)
    work: dict[str, Callable[[Place], None]] = {
        "facts": lambda at: facts(at, size),
        "mixed": lambda at: mixed(at, size),
        "sharing": lambda at: sharing(at, size),
        "growth": lambda at: growth(at, sizes, 5_000 if quick else 20_000, size.batch),
        "downtime": lambda at: downtime.run(at, options.downtime or (2 if quick else 60), 1_000, size.entities),
        "latency": lambda at: latency.run(at, 100 if quick else 1_000),
    }
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # PostgreSQL may run as another user
        with place(scratch) as found:
            for name in options.parts or PARTS:
                work[name](found)


main()
