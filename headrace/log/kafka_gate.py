"""Many pass at once, or one alone: ordinary appends share the gate, an opening or a closing has it to itself."""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Gate:
    """A lock that many may share. Who wants it alone keeps later sharers waiting, so that it gets its turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def shared(self) -> Generator[None, None, None]:
        """Together with others."""
        with self._changed:
            while self._alone or self._waiting:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Generator[None, None, None]:
        """Once everybody inside has left, and nobody else until done."""
        with self._changed:
            self._waiting += 1
            try:
                while self._alone or self._inside:
                    self._changed.wait()
            finally:
                self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
