"""``--on kafka``: the tests of behaviour on a log in Kafka and tables in PostgreSQL, instead of files in a directory.

Two markers leave a test out of a run, each with the reason why:

- ``embedded``: it is about the files of the embedded store, or opens no store at all;
- ``shared``: it is about what only a log that many processes write can do.

What was left out is told at the end, one line a reason: nothing is left out silently.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.integration import stores

EMBEDDED: Final = "embedded"
KAFKA: Final = "kafka"
_LEFT_OUT: Final = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--on``."""
    parser.addoption(
        "--on",
        choices=(EMBEDDED, KAFKA),
        default=EMBEDDED,
        help="what the stores of the tests of behaviour are on (tests/integration)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The two markers."""
    config.addinivalue_line("markers", "embedded(reason): not with --on kafka")
    config.addinivalue_line("markers", "shared(reason): only with --on kafka")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for this run, and count it by reason."""
    marker = EMBEDDED if config.getoption("on") == KAFKA else "shared"
    kept, left_out, reasons = list[pytest.Item](), list[pytest.Item](), Counter[str]()
    for item in items:
        mark = item.get_closest_marker(marker)
        if mark is None:
            kept.append(item)
        else:
            left_out.append(item)
            (reason,) = mark.args  # a test that is left out says why
            reasons[reason] += 1
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
    config.stash[_LEFT_OUT] = dict(reasons)
    output: Any = getattr(config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(reasons)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of the run has ended: every one has left out the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was left out, and why."""
    left_out = config.stash.get(_LEFT_OUT, {})
    if left_out:
        terminalreporter.section(f"not run on {config.getoption('on')}")
    for reason, count in sorted(left_out.items()):
        terminalreporter.line(f"{count:4}  {reason}")


@pytest.fixture(scope="session")
def places_of_stores(request: pytest.FixtureRequest) -> Iterator[None]:
    """Puts :mod:`tests.integration.stores` on what ``--on`` says."""
    if request.config.getoption("on") != KAFKA:
        yield
        return
    with stores.on_kafka(request.getfixturevalue("kafka_bootstrap"), request.getfixturevalue("postgres_dsn")):
        yield


@pytest.fixture(scope="module")
def stores_of_module(places_of_stores: None) -> Iterator[None]:
    """Afterwards the stores that the module's fixtures made are removed."""
    with stores.removing():
        yield


@pytest.fixture
def stores_of_test(stores_of_module: None) -> Iterator[None]:
    """Afterwards the stores that the test made are removed."""
    with stores.removing():
        yield
