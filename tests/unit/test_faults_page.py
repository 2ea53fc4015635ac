"""``docs/faults.md`` has all faults, and every test it names is there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "faults.md"
FAULTS: Final = 48
_ROW: Final = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")
_NOT: Final = "not covered: "


def rows() -> list[tuple[int, str]]:
    """Number and tests of every row."""
    return [(int(number), tests) for number, _, _, tests in _ROW.findall(PAGE.read_text(encoding="utf-8"))]


def test_every_fault_is_there_once_and_in_order() -> None:
    assert [number for number, _ in rows()] == list(range(1, FAULTS + 1))


def test_every_row_names_tests_or_says_why_not() -> None:
    for number, tests in rows():
        if tests.startswith(_NOT):
            assert len(tests) > len(_NOT) + 20, f"row {number} does not say why it is not covered"
        else:
            parts = tests.split("<br>")
            assert [_TEST.fullmatch(part) for part in parts].count(None) == 0, f"row {number} names what is no test"
            assert len(set(parts)) == len(parts), f"row {number} names a test twice"


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:tests|docs|headrace|processors)/[\w/]+\.(?:py|md))", PAGE.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_test_that_is_named_is_collected() -> None:
    named = sorted({name for _, tests in rows() for name in _TEST.findall(tests)})
    assert len(named) > FAULTS
    line = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist", *named]
    asked = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stdout[-3_000:] + asked.stderr[-2_000:]


def test_a_test_that_is_not_there_would_be_noticed() -> None:
    line = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist"]
    wrong = "tests/unit/test_faults_page.py::test_that_nobody_wrote"
    asked = subprocess.run([*line, wrong], cwd=ROOT, capture_output=True, text=True, check=False)
    assert asked.returncode != 0
    assert "test_that_nobody_wrote" in asked.stdout + asked.stderr
