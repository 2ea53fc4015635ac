"""Faust's consumer of the verdicts, asking brokers for many at once, and ending in bounded time.

Whoever proposed waits for the commit, and nobody for the journal. Fetched one by one, each verdict would be taken in
while its own batch is being committed, in the same process.

Where a worker crashes, its consumer's thread ends at the same time as the services that ask it something; one that asks
too late is never answered.
"""

import asyncio
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver

GATHER_MS: Final = 100
"""How long brokers gather verdicts, at the most, before they hand them over."""
_ENOUGH_BYTES: Final = 1 << 20
"""So much is handed over at once."""
COMMIT_SECONDS: Final = 5.0
"""How long the last commit may take; what is not committed is taken in again, and written once."""


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        # Faust has no settings for these two, and what it made reads them when it starts.
        consumer._fetch_min_bytes = _ENOUGH_BYTES
        consumer._fetch_max_wait_ms = GATHER_MS
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def on_stop(self) -> None:
        """Commit what was taken in, if the thread still answers."""
        try:
            await asyncio.wait_for(super().on_stop(), COMMIT_SECONDS)
        except TimeoutError:
            self.log.warning("the last verdicts taken in are not committed: they come again, and are written once")


class GatheringTransport(driver.Transport):
    """Faust's transport with that consumer."""

    Consumer = _Consumer
