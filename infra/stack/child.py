"""One process of the stack: started on a leash, ready when it answers, stopped in bounded time, by its id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from headrace.errors import UnavailableError

_LEASH: Final = Path(__file__).with_name("leash.py")
_LOOK_SECONDS: Final = 0.02
_TAIL_BYTES: Final = 2_000


class Owner(NamedTuple):
    """The user a process runs as."""

    uid: int
    gid: int


class Child:
    """A process. Start it from a thread that lives as long as it should: the leash is tied to that thread.

    ``last_signal`` is what the kernel sends it should this process die.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        owner: Owner | None = None,
        environment: Mapping[str, str] | None = None,
        last_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name: Final = name
        self.log: Final = log
        self._command: Final = [str(word) for word in command]
        self._owner: Final = "-" if owner is None else f"{owner.uid}:{owner.gid}"
        self._environment: Final = None if environment is None else {**os.environ, **environment}
        self._last_signal: Final = last_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id.

        :raises UnavailableError: it was not started.
        """
        if self._process is None:
            raise UnavailableError(f"{self.name} is not running; start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return at once. Harmless while it runs."""
        if self.running:
            return
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(int(self._last_signal)), self._owner]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - programs of the stack with arguments of ours
                [*leash, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for whoever started it, who then stops it properly
            )

    def wait_ready(self, answers: Callable[[], bool], timeout: float) -> None:
        """Return once ``answers()`` is true.

        :raises UnavailableError: it ended before, or ``timeout`` seconds went by. It is stopped then.
        """
        deadline = time.monotonic() + timeout
        while not answers():
            if self._ended_within(_LOOK_SECONDS):
                raise UnavailableError(f"{self.name} ended while starting: {self.last_words()}")
            if time.monotonic() > deadline:
                self.stop(0)
                raise UnavailableError(f"{self.name} does not answer after {timeout:.0f} s: {self.last_words()}")

    def finish(self, timeout: float) -> None:
        """For a program that ends by itself: wait until it has, well.

        :raises UnavailableError: it failed, or takes longer than ``timeout`` seconds. It is stopped then.
        """
        if not self._ended_within(timeout):
            self.stop(0)
            raise UnavailableError(f"{self.name} takes longer than {timeout:.0f} s: {self.last_words()}")
        if self._process is not None and self._process.returncode != 0:
            raise UnavailableError(f"{self.name} failed: {self.last_words()}")

    def ask_to_stop(self, politely: signal.Signals = signal.SIGTERM) -> None:
        """Tell it to end, without waiting for it. Harmless when it has ended."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a stopped process handles nothing
            self._process.send_signal(politely)

    def stop(self, timeout: float = 10.0, *, politely: signal.Signals = signal.SIGTERM) -> None:
        """End it: ``politely``, and after ``timeout`` seconds by force. Harmless when repeated."""
        if timeout > 0:
            self.ask_to_stop(politely)
        if not self._ended_within(timeout):
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no time for anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it holds everything and does nothing, until :meth:`resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def last_words(self) -> str:
        """The end of what it wrote, and where the rest is."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{' | '.join(lines[-3:]) or 'it said nothing'} (all of it: {self.log})"

    def _ended_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
