"""Becomes another program that cannot outlive whoever started it. Run as a file: it must start fast and alone.

``python -I -S leash.py PARENT_PID SIGNAL UID:GID PROGRAM [ARGUMENT…]``. When the parent's *thread* that started this
ends, the kernel sends SIGNAL (prctl(2), PR_SET_PDEATHSIG); elsewhere than on Linux there is no such leash. UID:GID
``-`` keeps the user.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, signal: int, owner: str, command: list[str]) -> None:
    """Drop privileges if asked to, put the leash on, become ``command``."""
    if owner != "-":
        uid, gid = map(int, owner.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which takes a leash off.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before the leash was on
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the whole point


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
