"""``headrace worker`` that comes to its end in a bad order.

``deaf``: the consumer is stopped when its thread listens no more. ``never``: letting go takes for ever.
"""

import asyncio
import sys
import threading
from typing import Any, Final

from mode.threads import QueueServiceThread

from headrace.cli.main import run
from headrace.processors import worker
from headrace.processors.verdict_consumer import GatheringTransport
from headrace.processors.worker import WorkerApp

_PATIENCE: Final = 30


def deaf() -> None:
    """The thread has not quite gone, and something is left to commit."""
    consumer: Any = GatheringTransport.Consumer
    makes, stops, thread_stops = consumer.__init__, consumer.on_stop, QueueServiceThread.on_thread_stop
    listens_no_more, may_go = threading.Event(), threading.Event()

    def __init__(self: Any, *args: Any, **named: Any) -> None:  # noqa: N807 - it stands in for one
        makes(self, *args, **{**named, "commit_interval": 3_600.0})

    async def on_thread_stop(self: QueueServiceThread) -> None:
        await thread_stops(self)
        listens_no_more.set()
        assert await asyncio.to_thread(may_go.wait, _PATIENCE)

    async def on_stop(self: Any) -> None:
        assert await asyncio.to_thread(listens_no_more.wait, _PATIENCE)
        try:
            await stops(self)
        finally:
            may_go.set()

    consumer.__init__, consumer.on_stop = __init__, on_stop
    QueueServiceThread.on_thread_stop = on_thread_stop  # type: ignore[method-assign]


def never() -> None:
    """Something at the end waits for what never comes."""

    async def on_shutdown(self: WorkerApp) -> None:
        await asyncio.Event().wait()

    WorkerApp.on_shutdown = on_shutdown  # type: ignore[method-assign]
    worker.GRACE_SECONDS = 1.0  # type: ignore[misc]


ENDS: Final = {"deaf": deaf, "never": never}

if __name__ == "__main__":
    ENDS[sys.argv[1]]()
    sys.exit(run(["worker", "--json"]))
