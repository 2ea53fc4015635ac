"""What the stack starts ends: in bounded time when asked to, and with whoever started it."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.errors import UnavailableError
from infra.stack.child import Child

_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
_PARENT = """
import sys, time
from pathlib import Path
from infra.stack.child import Child
child = Child("a sleeper", ["sleep", "600"], Path(sys.argv[1]))
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


def python(tmp_path: Path, code: str) -> Child:
    return Child("a program", [sys.executable, "-c", code], tmp_path / "log")


def said(child: Child, text: str) -> bool:
    return text in child.log.read_text(encoding="utf-8")


def wait_ended(pid: int, seconds: float) -> bool:
    """Whether a process, not a child of ours, ends in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def test_who_ignores_being_told_is_ended_by_force(tmp_path: Path) -> None:
    child = python(tmp_path, _STUBBORN)
    child.start()
    child.wait_ready(lambda: said(child, "up"), 20)
    began = time.monotonic()
    child.stop(0.2)
    assert not child.running
    assert time.monotonic() - began < 10
    child.stop()


def test_a_paused_process_is_ended_as_well(tmp_path: Path) -> None:
    child = python(tmp_path, "import time; print('up', flush=True); time.sleep(600)")
    child.start()
    child.wait_ready(lambda: said(child, "up"), 20)
    child.pause()
    child.stop(10)
    assert not child.running


def test_who_ends_while_starting_is_quoted(tmp_path: Path) -> None:
    child = python(tmp_path, "print('cannot bind'); raise SystemExit(3)")
    child.start()
    with pytest.raises(UnavailableError, match=r"a program ended while starting: cannot bind \(all of it: .*log\)"):
        child.wait_ready(lambda: False, 20)


def test_who_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    child = python(tmp_path, "import time; time.sleep(600)")
    child.start()
    with pytest.raises(UnavailableError, match="does not answer after 0 s: it said nothing"):
        child.wait_ready(lambda: False, 0.1)
    assert not child.running


def test_a_program_that_should_end_well_and_does_not(tmp_path: Path) -> None:
    failing, slow = python(tmp_path, "raise SystemExit('no room')"), python(tmp_path, "import time; time.sleep(600)")
    failing.start()
    with pytest.raises(UnavailableError, match="failed: no room"):
        failing.finish(20)
    slow.start()
    with pytest.raises(UnavailableError, match="takes longer than"):
        slow.finish(0.1)
    assert not slow.running


def test_who_started_it_dies_and_it_dies_too(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, tmp_path / "log"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
        assert wait_ended(pid, 20)
