"""What runs in a worker beside the fold, as a service of its Faust app: started and stopped with the worker.

The fold comes first and depends on nothing of it: it is started without being waited for, what goes wrong with it stays
with it, and no health check asks for it.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from mode import Service
from prometheus_client.core import Metric

from headrace.processors.group_fold import GroupFold

STOP_SECONDS: Final = 8.0
"""How long it may take to end when the worker is told to stop; it goes first, so that what it has begun is folded."""


class Companion(Protocol):
    """Works on the partitions that a worker folds."""

    def start(self, fold: GroupFold) -> None:
        """Begin, in threads of its own; returns at once and raises nothing."""
        ...

    def stop(self, timeout: float) -> bool:
        """End; whether it has within ``timeout`` seconds."""
        ...

    def collect(self) -> Iterable[Metric]:
        """What it says of itself to Prometheus; returns at once."""
        ...


class CompanionService(Service):
    """``fold`` gives the worker's fold, which has been started before."""

    def __init__(self, companion: Companion, fold: Callable[[], GroupFold | None], **more: Any) -> None:
        self._companion: Final = companion
        self._fold: Final = fold
        super().__init__(**more)

    async def on_start(self) -> None:
        """Begin."""
        fold = self._fold()
        assert fold is not None
        self._companion.start(fold)

    async def on_stop(self) -> None:
        """End, within a bounded time."""
        if not await asyncio.to_thread(self._companion.stop, STOP_SECONDS):
            self.log.warning(
                "what runs beside the fold did not end within %g s; it ends with the process", STOP_SECONDS
            )
