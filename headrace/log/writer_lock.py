"""One writer process per store: an advisory lock that dies with its holder."""

import fcntl
import os
import sys
import weakref
from pathlib import Path
from typing import Final

from headrace.errors import UnavailableError, WriterLockedError


class WriterLock:
    """Held from construction to :meth:`release`.

    ``flock`` and not a pid file: the kernel drops it the moment the holder is gone, however it went, so nobody ever
    has to delete anything. The file's content (pid and what it is) only serves the message. Works between processes
    of one machine; a directory on a network file system is no place for a log.

    :raises WriterLockedError: another holder, in this process or another; the message names it.
    :raises UnavailableError: the lock file cannot be opened or locked.
    """

    def __init__(self, path: Path, what: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UnavailableError(f"cannot open {path} ({error.strerror}); check the directory") from error
        try:
            self._acquire(path, what)
        except BaseException:
            os.close(self._descriptor)
            raise
        _HELD.add(self)

    def _acquire(self, path: Path, what: str) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 500, 0).decode(errors="replace").strip()
            raise WriterLockedError(
                f"{path.parent} is open for writing by {holder or 'another process'}; append through that process "
                "(its HTTP API), open this log with writer=False to read, or stop that process first"
            ) from None
        except OSError as error:
            raise UnavailableError(f"cannot lock {path} ({error.strerror}); keep the log on a local disk") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"pid {os.getpid()}, {what} in {Path(sys.argv[0]).name or 'python'}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in. Harmless when repeated."""
        if self in _HELD:
            _HELD.discard(self)
            os.close(self._descriptor)


_HELD: Final[weakref.WeakSet[WriterLock]] = weakref.WeakSet()


def _forget_in_child() -> None:
    # A forked child inherits the open file and would keep the lock after its parent died. Closing the child's copy
    # leaves the parent's lock alone.
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
