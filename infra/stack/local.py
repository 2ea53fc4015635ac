"""The parts as processes of this machine, put together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from infra.stack.kafka import KafkaCluster
from infra.stack.postgres import PostgresServer
from infra.stack.registry import SchemaRegistry


class LocalStack:
    """The named parts, each in a directory of its own below ``directory``.

    Processes are on a leash tied to the thread that calls :meth:`start`.
    """

    def __init__(self, directory: Path, parts: Sequence[str], *, brokers: int, durable: bool) -> None:
        self._kafka: KafkaCluster | None = None
        if "kafka" in parts:
            self._kafka = KafkaCluster(directory / "kafka", brokers=brokers, quick=not durable)
        self._postgres: Final = PostgresServer(directory / "postgres", durable=durable) if "postgres" in parts else None
        self._registry: SchemaRegistry | None = None
        if "registry" in parts:
            self._registry = SchemaRegistry(directory / "registry", quick=not durable)

    def start(self) -> Mapping[str, str]:
        """Start them; returns the parts' addresses by name once they answer.

        :raises UnavailableError: something is missing or does not come up.
        """
        addresses: dict[str, str] = {}
        try:
            if self._postgres is not None:
                self._postgres.start()
                addresses["postgres"] = self._postgres.dsn
            if self._kafka is not None:
                self._kafka.start()
                addresses["kafka"] = self._kafka.bootstrap
            if self._registry is not None:
                self._registry.start()
                addresses["registry"] = self._registry.url
        except BaseException:
            self.stop()
            raise
        return addresses

    def stop(self) -> None:
        """End them all, each in bounded time. Harmless when repeated."""
        for part in (self._registry, self._kafka, self._postgres):
            if part is not None:
                part.stop()
