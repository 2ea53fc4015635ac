"""``python -m headrace`` is the same as ``headrace``."""

import sys

from headrace.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
