"""Seeds, and the figures of all runs at the end.

``HEADRACE_CHAOS_SEED`` says which run this is, ``HEADRACE_CHAOS_FAULTS`` how many faults a random mix has,
``HEADRACE_CHAOS_MINUTES`` how long one of the long storms lasts. What a run did is printed as it ends (``-s``, or when
it fails).
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.chaos.run import Report

_PROPERTY = "chaos"
_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def seed() -> int:
    """Which run this is."""
    return int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))


@pytest.fixture(scope="session")
def faults() -> int:
    """How many faults a random mix has."""
    return int(os.environ.get("HEADRACE_CHAOS_FAULTS", "4"))


@pytest.fixture(scope="session")
def minutes() -> float:
    """How long a storm lasts."""
    return float(os.environ.get("HEADRACE_CHAOS_MINUTES", "1"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which tests fail: what they leave behind is wanted."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def chaos_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that every user may enter: PostgreSQL does not run as root. It stays behind when the test fails."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    directory.chmod(0o755)
    yield directory
    if request.node.stash.get(_FAILED, False):
        print(f"what is left of it: {directory}")
    else:
        shutil.rmtree(directory)


@pytest.fixture
def passed(request: pytest.FixtureRequest) -> Callable[[Report], Report]:
    """Print a report, count it, and see that nothing is wrong."""

    def take(report: Report) -> Report:
        print(f"\n{request.node.name}: {report}")
        outcomes = Counter[str]()
        for name, count in report.operations.items():
            outcomes[name.rpartition(" ")[2]] += count
        request.node.user_properties.append(
            (
                _PROPERTY,
                {
                    "runs": 1,
                    "faults": sum(report.faults.values()),
                    "operations": sum(outcomes.values()),
                    **outcomes,
                    "violations": len(report.violations),
                },
            )
        )
        assert report.violations == [], str(report)
        return report

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """All runs in one line."""
    total = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, figures in report.user_properties:
                    total.update(figures if name == _PROPERTY else {})
    if total:
        terminalreporter.section("chaos")
        terminalreporter.write_line(
            f"seed {os.environ.get('HEADRACE_CHAOS_SEED', '1')}: "
            + ", ".join(f"{count:,} {name}" for name, count in total.items())
        )
