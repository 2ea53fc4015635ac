"""``python -m infra.stack up|down|status|fetch``: the real parts for development, without Docker.

``up`` prints lines for a shell: ``set -a; eval "$(python -m infra.stack up)"; set +a`` and headrace finds them.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace.errors import HeadraceError, UnavailableError
from infra.stack import artifacts
from infra.stack.dovecot import install_dovecot
from infra.stack.service import PARTS, Wanted, addresses, environment, halt, launch, own, run


def main() -> int:
    """Do what the command line says; 0 when that worked, 1 when not, 3 for the status of a stack that does not run."""
    options = _parser().parse_args()
    try:
        return _obey(options)
    except HeadraceError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1


def _obey(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    if options.verb == "fetch":
        _fetch(options.what, install=options.install)
    elif options.verb == "up":
        own(directory)
        if addresses(directory) is None:
            launch(directory, _wanted(options), leased=False)
        _print(directory)
    elif options.verb == "down":
        stopped = halt(directory)
        if options.remove:
            shutil.rmtree(directory, ignore_errors=True)
        print("stopped" if stopped else "no stack was running", file=sys.stderr)
    elif options.verb == "status":
        return 0 if _print(directory) else 3
    else:
        own(directory)
        run(directory, _wanted(options), leased=options.leased, tell=options.tell)
    return 0


def _fetch(what: Sequence[str], *, install: bool) -> None:
    if "dovecot" in what and install:
        install_dovecot()
    if "jvm" in what and install:
        artifacts.install_maven()
    for profile in artifacts.PROFILES if "jvm" in what else ():
        artifacts.fetched(profile)


def _print(directory: Path) -> bool:
    found = addresses(directory)
    if found is None:
        print(f"no stack runs in {directory}; make stack starts one", file=sys.stderr)
        return False
    print("\n".join(environment(found)))
    return True


def _wanted(options: argparse.Namespace) -> Wanted:
    parts = tuple(options.parts.split(","))
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise UnavailableError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return Wanted(parts, options.brokers, durable=not options.forgetful, way=options.way)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    named = argparse.ArgumentParser(add_help=False)
    default = Path(os.environ.get("HEADRACE_STACK") or Path(tempfile.gettempdir()) / f"headrace-stack-{os.geteuid()}")
    named.add_argument("--directory", type=Path, default=default, help="where it lives (HEADRACE_STACK; %(default)s)")
    started = argparse.ArgumentParser(add_help=False)
    started.add_argument("--parts", default="kafka,postgres", help=f"of {','.join(PARTS)} (%(default)s)")
    started.add_argument("--brokers", type=int, default=1, choices=(1, 3), help="Kafka brokers (%(default)s)")
    started.add_argument("--way", choices=("auto", "docker", "local"), default="local", help="(%(default)s)")
    started.add_argument("--forgetful", action="store_true", help="for tests: starts faster, never syncs to disk")
    verbs.add_parser("up", parents=[named, started], help="start the parts; print where they answer")
    down = verbs.add_parser("down", parents=[named], help="stop them")
    down.add_argument("--remove", action="store_true", help="and delete what they kept")
    verbs.add_parser("status", parents=[named], help="print where they answer")
    fetch = verbs.add_parser("fetch", parents=[named], help="fetch the JVM parts into the cache")
    fetch.add_argument(
        "--install", action="store_true", help="and install what that takes, where it is Debian and root"
    )
    fetch.add_argument("what", nargs="*", default=["jvm", "dovecot"], help="of jvm, dovecot (which is only installed)")
    inner = verbs.add_parser("run", parents=[named, started], help="run the parts in this process, until stopped")
    inner.add_argument("--leased", action="store_true", help="end when nobody holds the lease any more")
    inner.add_argument("--tell", type=int, help="descriptor to report to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
