"""The fold as a service of a Faust app: started, watched and stopped with it.

Faust supervises and never owns correctness. What it can lose silently is watched here: a task that is cancelled ends
without a word, and a thread's end nobody hears of.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from mode import Service

from headrace.errors import HaltError, HeadraceError
from headrace.processors.group_fold import GroupFold

STOP_SECONDS: Final = 20.0
"""How long the batch at hand may take to be finished when the worker is told to stop."""


class FoldService(Service):
    """``make`` gives the fold, not started; it is told whom to call when that ends. ``halted`` is called with why when
    the worker must end."""

    def __init__(
        self,
        make: Callable[[Callable[[HeadraceError | None], object]], GroupFold],
        halted: Callable[[HeadraceError], object],
        **more: Any,
    ) -> None:
        self._make: Final = make
        self._halted: Final = halted
        self._fold: GroupFold | None = None
        self._over: Final = asyncio.Event()
        super().__init__(**more)

    @property
    def fold(self) -> GroupFold | None:
        """The fold, once it is there."""
        return self._fold

    async def on_start(self) -> None:
        """Make the fold and start it.

        :raises HeadraceError: it cannot be started; nothing was.
        """
        loop = asyncio.get_running_loop()

        def ended(_: HeadraceError | None) -> None:
            loop.call_soon_threadsafe(self._over.set)

        try:
            fold = await asyncio.to_thread(self._make, ended)
            await asyncio.to_thread(fold.start)
        except HeadraceError as error:
            self._halted(error)
            raise
        self._fold = fold

    @Service.task
    async def _watch(self) -> None:
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            if self.should_stop:
                raise
            await self.halt(HaltError("the task that watches the fold was cancelled: a bug; start the worker again"))
            raise
        if not self.should_stop:
            fold = self._fold
            failure = fold.failure if fold is not None else None
            await self.halt(failure or HaltError("the fold ended without a reason: a bug; start the worker again"))

    async def halt(self, error: HeadraceError) -> None:
        """End the worker, for a reason that is told."""
        self._halted(error)
        await self.crash(error)

    async def on_stop(self) -> None:
        """Finish the batch at hand, leave the group."""
        if self._fold is not None and not await asyncio.to_thread(self._fold.stop, STOP_SECONDS):
            self.log.error("the fold did not end within %g s; what it has not committed is folded again", STOP_SECONDS)
