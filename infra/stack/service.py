"""A process that runs parts of the stack for others, and how they find it, share it and stop it.

In its directory:

==============  =====================================================================================
``running``     locked as long as the service lives
``addresses``   JSON: where the parts answer, and the service's process id; there while they do
``lease``       a FIFO that users hold open for writing. The kernel closes it for a user that dies, so when the last
                one is gone the service notices, stops everything and removes the directory. A service without users
                (``up``) has none and runs until it is told to stop
==============  =====================================================================================

Beside it, ``NAME.turn`` is locked by who joins, and by the service while it leaves: nobody joins one that is leaving.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NamedTuple

from headrace.errors import UnavailableError
from infra.stack.docker import ComposeStack, engine_answers
from infra.stack.local import LocalStack

PARTS: Final = ("kafka", "postgres", "registry")
_START_SECONDS: Final = 1_800
"""Fetching what is not in the cache included."""
_STOP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_ROOT: Final = Path(__file__).resolve().parents[2]


class Wanted(NamedTuple):
    """What a service is to run. ``way``: ``docker``, ``local``, or ``auto``: Docker where an engine answers."""

    parts: tuple[str, ...] = ("kafka", "postgres")
    brokers: int = 1
    durable: bool = True
    way: str = "auto"


@contextmanager
def joined(directory: Path, wanted: Wanted) -> Generator[Mapping[str, str], None, None]:
    """The addresses of a service that all who join in ``directory`` share: the first starts it, and it ends, and the
    directory with it, when the last has left or died.

    :raises UnavailableError: it cannot be started; the message says why.
    """
    lease = directory / "lease"
    with _turn(directory):
        own(directory)
        held = _take(lease)
        if held is None:
            lease.unlink(missing_ok=True)
            os.mkfifo(lease, 0o600)
            # Held before the service starts, by way of a reader of our own: should we die meanwhile, it ends as well.
            reader = os.open(lease, os.O_RDONLY | os.O_NONBLOCK)
            held = os.open(lease, os.O_WRONLY)
            try:
                launch(directory, wanted, leased=True)
            except BaseException:
                os.close(held)
                raise
            finally:
                os.close(reader)
    try:
        yield addresses(directory) or {}
    finally:
        os.close(held)


def launch(directory: Path, wanted: Wanted, *, leased: bool) -> None:
    """Start a service in ``directory``, detached from this process; return once its parts answer.

    :raises UnavailableError: it does not come up; the message says why.
    """
    told, tell = os.pipe()
    options = ["--way", wanted.way, "--brokers", str(wanted.brokers), "--parts", ",".join(wanted.parts)]
    options += [] if wanted.durable else ["--forgetful"]
    options += ["--leased"] if leased else []
    with (directory / "service.log").open("ab") as log:
        service = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "infra.stack", "run", "--directory", directory, "--tell", str(tell), *options],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(tell,),
            start_new_session=True,
        )
    os.close(tell)
    with os.fdopen(told, "rb") as answer:
        readable, _, _ = select.select([answer], [], [], _START_SECONDS)
        said = answer.readline().decode() if readable else ""
    if said != "ready\n":
        service.terminate()
        service.wait(_STOP_SECONDS)
        raise UnavailableError(said.strip() or f"the local stack does not come up; see {directory / 'service.log'}")
    service.returncode = 0  # it lives on; nobody waits for it, and Popen need not warn of that


def run(directory: Path, wanted: Wanted, *, leased: bool, tell: int | None) -> None:
    """Be the service: start the parts, say so, run until told to stop or left alone, stop them.

    :raises UnavailableError: the parts do not come up, or another service runs in this directory.
    """
    with (directory / "running").open("w") as running, ExitStack() as leaving:
        wake = _stop_signals()
        lease = os.open(directory / "lease", os.O_RDONLY | os.O_NONBLOCK) if leased else None
        stack: ComposeStack | LocalStack | None = None
        try:
            try:
                _lock(running, directory)
                stack = _stack(directory, wanted, remove=leased)
                found = {"pid": os.getpid(), "addresses": dict(stack.start())}
            except UnavailableError as error:
                _tell(tell, str(error))
                raise
            _write(directory / "addresses", json.dumps(found))
            _tell(tell, "ready")
            _until_left(directory, lease, wake, leaving)
        finally:
            if stack is not None:
                (directory / "addresses").unlink(missing_ok=True)
                stack.stop()
                if leased:
                    shutil.rmtree(directory, ignore_errors=True)
                    directory.with_name(f"{directory.name}.turn").unlink(missing_ok=True)


def _lock(running: IO[str], directory: Path) -> None:
    try:
        fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UnavailableError(f"a stack runs in {directory} already; stop it first: make stack-down") from None


def _stack(directory: Path, wanted: Wanted, *, remove: bool) -> ComposeStack | LocalStack:
    if wanted.way == "docker" or (wanted.way == "auto" and engine_answers()):
        return ComposeStack(directory, wanted.parts, remove=remove)
    return LocalStack(directory, wanted.parts, brokers=wanted.brokers, durable=wanted.durable)


def _tell(descriptor: int | None, said: str) -> None:
    """One line to whoever waits for the start, if somebody does."""
    if descriptor is not None:
        os.write(descriptor, f"{' '.join(said.split())}\n".encode())
        os.close(descriptor)


def addresses(directory: Path) -> Mapping[str, str] | None:
    """Where the parts of the service in ``directory`` answer, ``None`` when none runs."""
    found = _read(directory)
    return None if found is None or not _runs(directory) else found["addresses"]


def halt(directory: Path) -> bool:
    """Stop the service in ``directory``; whether one ran.

    :raises UnavailableError: it does not end.
    """
    found = _read(directory)
    if found is None or not _runs(directory):
        return False
    os.kill(found["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _runs(directory):
        if time.monotonic() > deadline:
            raise UnavailableError(f"the stack's process {found['pid']} does not end; kill it")
        select.select([], [], [], _LOOK_SECONDS)
    return True


def own(directory: Path) -> None:
    """Make ``directory`` if need be. Others may pass through it (PostgreSQL runs as somebody else), not look around.

    :raises UnavailableError: it is somebody else's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise UnavailableError(f"{directory} belongs to another user; name another with --directory")
    directory.chmod(0o711)


def _take(lease: Path) -> int | None:
    """Hold a running service's lease; ``None`` when no service reads it."""
    try:
        return os.open(lease, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # not there, or nobody at the other end
        return None


def _stop_signals() -> int:
    """A descriptor that becomes readable when this process is told to stop."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _woken)
    return reading


def _woken(_number: int, _frame: FrameType | None) -> None:
    """The descriptor tells; a handler of Python's own is what makes the system call it."""


def _until_left(directory: Path, lease: int | None, wake: int, leaving: ExitStack) -> None:
    """Return when told to stop, or left alone: then it is our turn until ``leaving`` is over."""
    waiting = select.poll()
    waiting.register(wake, select.POLLIN)
    if lease is not None:
        waiting.register(lease, 0)  # only that the last writer is gone is of interest, and that is always told
    while True:
        told = {descriptor for descriptor, _ in waiting.poll()}
        if wake in told:
            return
        # The last user is gone. Unless another has joined by the time it is our turn, leave.
        leaving.enter_context(_turn(directory))
        if lease in {descriptor for descriptor, _ in waiting.poll(0)}:
            return
        leaving.close()


@contextmanager
def _turn(directory: Path) -> Generator[None, None, None]:
    """Alone among those who join in ``directory`` and the service that leaves it."""
    file = directory.with_name(f"{directory.name}.turn")
    while True:
        with file.open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if file.exists() and file.stat().st_ino == os.fstat(turn.fileno()).st_ino:
                yield
                return
        # Whoever had the turn before took the file away.


def _runs(directory: Path) -> bool:
    try:
        with (directory / "running").open("r") as running:
            fcntl.flock(running, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read(directory: Path) -> Any:
    try:
        return json.loads((directory / "addresses").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _write(file: Path, text: str) -> None:
    draft = file.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def environment(found: Mapping[str, str]) -> Sequence[str]:
    """Addresses as lines for a shell: what the tests look for, and what headrace itself is given."""
    lines = [f"HEADRACE_TEST_{part.upper()}={address}" for part, address in found.items()]
    if "kafka" in found:
        replicas = min(3, found["kafka"].count(",") + 1)
        lines.append(f"HEADRACE_LOG_URL='kafka://{found['kafka']}/headrace.events?replication.factor={replicas}'")
    if "postgres" in found:
        lines.append(f"HEADRACE_DB_URL='{found['postgres']}'")
    if "registry" in found:
        lines.append(f"HEADRACE_SCHEMA_REGISTRY_URL='{found['registry']}'")
    return lines
