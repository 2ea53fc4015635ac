"""Server-sent events (HTML Living Standard, 9.2): streams that hang on a signal, not on a clock, and end with the
server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager
from typing import Final

from sse_starlette import EventSourceResponse, ServerSentEvent

from headrace.api.context import Context

HEARTBEAT_SECONDS: Final = 15
_SEND_SECONDS: Final = 30.0


def streamed(events: AsyncIterator[ServerSentEvent]) -> EventSourceResponse:
    """The answer that these are. Comments keep the connection open while none comes."""
    return EventSourceResponse(events, ping=HEARTBEAT_SECONDS, send_timeout=_SEND_SECONDS, sep="\n")


@contextlib.contextmanager
def waking(
    here: Context,
    changed: asyncio.Event,
    listening: Callable[[Callable[[], None]], AbstractContextManager[object]],
) -> Generator[None]:
    """While it lasts, ``changed`` is set whenever what is listened to changes, and when the server stops."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(changed.set)

    here.metrics.watchers.inc()
    here.closing.add(wake)
    try:
        with listening(wake):
            yield
    finally:
        here.closing.remove(wake)
        here.metrics.watchers.dec()
