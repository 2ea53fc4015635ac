"""Deliveries, many at once: over connections that stay open, each sending the next when the last was answered."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

CONNECTIONS: Final = 32


class Load(NamedTuple):
    """``seconds`` for all of them; each one's own are the ``samples``."""

    seconds: float
    samples: list[float]

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return len(self.samples) / self.seconds


def deliver(port: int, path: str, token: str, bodies: Sequence[bytes]) -> Load:
    """Send all of these.

    :raises RuntimeError: one was not taken.
    """
    return asyncio.run(_deliver(port, path, token, bodies))


async def _deliver(port: int, path: str, token: str, bodies: Sequence[bytes]) -> Load:
    left, samples = iter(bodies), list[float]()

    async def sending() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in left:
            head = (
                f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            begun = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            samples.append(time.perf_counter() - begun)
            if b" 204 " not in answer.partition(b"\r\n")[0]:
                raise RuntimeError(f"a delivery was answered with {answer[:200]!r}")
        writer.close()
        await writer.wait_closed()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as together:
        for _ in range(CONNECTIONS):
            together.create_task(sending())
    return Load(time.perf_counter() - begun, samples)
