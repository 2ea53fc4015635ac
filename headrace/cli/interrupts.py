"""Ctrl-C, while something is followed."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heeded() -> Generator[Callable[[], None]]:
    """Ctrl-C raises KeyboardInterrupt, as ever. Python drops an exception that comes while an object is being finalised
    (a generator that is let go, for one); so whoever loops calls what this gives once a turn, and it raises what got
    lost. In the main thread."""
    interrupted = False

    def interrupt(_: int, __: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
