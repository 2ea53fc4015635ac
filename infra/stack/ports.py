"""Free ports of 127.0.0.1 that stay free while a server is down and comes back."""

import random
import socket
from pathlib import Path
from typing import Final

from headrace.errors import UnavailableError

_LOWEST: Final = 15_000
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES: Final = 200


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nobody listens on.

    Taken from below the range that the kernel gives to outgoing connections: a broker that is killed and started again
    must find its port as it left it.

    :raises UnavailableError: there are none.
    """
    try:
        highest = int(_EPHEMERAL.read_text(encoding="ascii").split()[0]) - 1
    except (OSError, ValueError, IndexError):
        highest = 32_767
    if highest - _LOWEST < count:
        highest = 65_535
    found: list[int] = []
    for _ in range(_TRIES + count):
        port = random.randint(_LOWEST, highest)  # noqa: S311 - no secret
        if port not in found and _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise UnavailableError(f"no {count} free ports of 127.0.0.1 between {_LOWEST} and {highest}; stop what holds them")


def kept_ports(file: Path, count: int) -> list[int]:
    """The ports that ``file`` names if they are free still, else new ones, which it names from now on: who stops and
    starts again is found where it was.

    :raises UnavailableError: there are none.
    """
    try:
        ports = [int(word) for word in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        ports = []
    if len(ports) != count or not all(map(_is_free, ports)):
        ports = free_ports(count)
        file.write_text(" ".join(map(str, ports)), encoding="ascii")
    return ports


def answers(port: int) -> bool:
    """Whether somebody accepts connections at a port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of one that has just stopped, which the kernel still remembers, do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
