"""Apache Kafka in KRaft mode: one or three brokers, each broker and controller in one process.

Three brokers replicate three times with two in sync, so any one of them may die without losing what was acknowledged.
"""

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.errors import BadInputError, UnavailableError
from infra.stack.artifacts import fetched
from infra.stack.child import Child
from infra.stack.java import QUICK, java
from infra.stack.ports import answers, kept_ports

_TRIES: Final = 3
_FORMAT_SECONDS: Final = 60.0
_START_SECONDS: Final = 60.0
_ASK_SECONDS: Final = 1.0
_HEAP: Final = "-Xmx1g"
_LOGGING: Final = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class Door(NamedTuple):
    """One more listener of every broker, at a port that is chosen here.

    ``protocol`` is its security protocol, ``settings`` are the listener's own, without the prefix. ``way`` says, of a
    broker's number and its port, at which port of 127.0.0.1 clients are told to find it: that of a proxy, for instance.
    """

    protocol: str = "PLAINTEXT"
    settings: Mapping[str, str] = {}
    way: Callable[[int, int], int] | None = None


class KafkaCluster:
    """``brokers`` brokers with everything they keep in ``directory``; started again there, they go on.

    ``doors`` are listeners by name, besides the plain one that the brokers and this code use. ``settings`` are added to
    every broker's. ``quick`` is for tests: brokers that start fast and are not the fastest afterwards.
    """

    def __init__(
        self,
        directory: Path,
        *,
        brokers: int = 1,
        doors: Mapping[str, Door] | None = None,
        settings: Mapping[str, str] | None = None,
        quick: bool = False,
        heap: str = _HEAP,
    ) -> None:
        if brokers not in (1, 3):
            raise BadInputError(f"a cluster of {brokers} brokers is not offered: take 1 or 3")
        self.directory: Final = directory
        self.brokers: Final[list[Child]] = []
        self._count: Final = brokers
        self._doors: Final = dict(doors or {})
        self._more: Final = dict(settings or {})
        self._quick: Final = QUICK if quick else ()
        self._heap: Final = heap
        self._ports: list[int] = []
        self._controllers: list[int] = []
        self._behind: dict[str, list[int]] = {}
        self._found_at: dict[str, list[int]] = {}

    @property
    def bootstrap(self) -> str:
        """``host:port[,host:port]`` of the plain listener."""
        return _addresses(self._ports)

    def bootstrap_at(self, door: str) -> str:
        """``host:port[,host:port]`` of one of the ``doors``."""
        return _addresses(self._found_at[door])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the brokers and return when every one has joined.

        :raises UnavailableError: Java or the jars are missing, or they do not come up; the message says which.
        """
        failure: UnavailableError | None = None
        for _ in range(_TRIES):
            # Another process may take a port between our looking and Kafka's binding: then that broker ends.
            self._prepare()
            try:
                for broker in self.brokers:
                    broker.start()
                self.wait_ready()
            except UnavailableError as error:
                failure = error
                self.stop(0)
                (self.directory / "ports").unlink()
            else:
                return
        raise failure or UnavailableError("Kafka does not come up")

    def wait_ready(self) -> None:
        """Return when every broker that runs answers and knows every other that runs.

        :raises UnavailableError: that takes too long, or one has ended.
        """
        running = [(broker, port) for broker, port in zip(self.brokers, self._ports, strict=True) if broker.running]
        for broker, port in running:
            broker.wait_ready(partial(answers, port), _START_SECONDS)
        for broker, port in running:
            admin = AdminClient(
                {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0, "log.connection.close": False}
            )
            broker.wait_ready(partial(_sees, admin, len(running)), _START_SECONDS)

    def stop(self, timeout: float = 15.0) -> None:
        """End every broker, politely and after ``timeout`` seconds by force. Harmless when repeated."""
        for broker in self.brokers:
            broker.ask_to_stop()  # all at once: one that is left alone waits for a quorum
        deadline = time.monotonic() + timeout
        for broker in self.brokers:
            broker.stop(max(0.0, deadline - time.monotonic()))

    def _prepare(self) -> None:
        """Give every broker its ports, its settings and, the first time, its formatted storage."""
        self.directory.mkdir(parents=True, exist_ok=True)
        ports = kept_ports(self.directory / "ports", (2 + len(self._doors)) * self._count)
        self._ports, self._controllers, *others = (
            ports[at : at + self._count] for at in range(0, len(ports), self._count)
        )
        self._behind = dict(zip(self._doors, others, strict=True))
        for name, door in self._doors.items():
            behind = self._behind[name]
            self._found_at[name] = [door.way(*one) for one in enumerate(behind, 1)] if door.way else behind
        (self.directory / "log4j2.properties").write_text(_LOGGING, encoding="ascii")
        self.brokers[:] = [self._broker(node) for node in range(1, self._count + 1)]
        if not (self.directory / "cluster").exists():
            cluster = _uuid()
            drafts = [self._format(node, cluster) for node in range(1, self._count + 1)]
            for draft in drafts:
                draft.start()
            for draft in drafts:
                draft.finish(_FORMAT_SECONDS)
            (self.directory / "cluster").write_text(cluster, encoding="ascii")

    def _broker(self, node: int) -> Child:
        settings = self._settings(node)
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.directory / f"broker-{node}.properties").write_text(text, encoding="utf-8")
        logging = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        options = [self._heap, *self._quick, "-XX:+UseSerialGC" if self._count > 1 else "-XX:+UseG1GC", logging]
        return Child(
            f"Kafka broker {node}",
            [java(), *options, "-cp", self._classpath(), "kafka.Kafka", self.directory / f"broker-{node}.properties"],
            self.directory / f"broker-{node}.log",
        )

    def _format(self, node: int, cluster: str) -> Child:
        mode = ["--standalone"] if self._count == 1 else []
        properties = self.directory / f"broker-{node}.properties"
        tool: list[str | Path] = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster]
        return Child(
            f"Kafka's storage tool for broker {node}",
            [java(), *QUICK, "-XX:+UseSerialGC", "-cp", self._classpath(), *tool, "--config", properties, *mode],
            self.directory / f"format-{node}.log",
        )

    def _settings(self, node: int) -> dict[str, str]:
        count, least = str(self._count), str(max(1, self._count - 1))
        plain, controller = self._ports[node - 1], self._controllers[node - 1]
        own = {"PLAINTEXT": plain, **{name: behind[node - 1] for name, behind in self._behind.items()}}
        told = {**own, **{name: found[node - 1] for name, found in self._found_at.items()}}
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"}
        protocols |= {name: door.protocol for name, door in self._doors.items()}
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            **self._quorum(),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": _listeners({**own, "CONTROLLER": controller}),
            "advertised.listeners": _listeners(told),
            "listener.security.protocol.map": ",".join(f"{name}:{one}" for name, one in protocols.items()),
            "log.dirs": str(self.directory / f"data-{node}"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": count,
            "min.insync.replicas": least,
            "offsets.topic.replication.factor": count,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": count,
            "transaction.state.log.min.isr": least,
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": count,
            "share.coordinator.state.topic.min.isr": least,
            "share.coordinator.state.topic.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            # How soon a killed broker may come back: one broker must not wait for itself to be given up.
            "broker.session.timeout.ms": "6000" if self._count > 1 else "1500",
            "broker.heartbeat.interval.ms": "2000" if self._count > 1 else "500",
            "log.cleaner.dedupe.buffer.size": "8388608",
            **{
                f"listener.name.{name.lower()}.{setting}": value
                for name, door in self._doors.items()
                for setting, value in door.settings.items()
            },
            **self._more,
        }

    def _quorum(self) -> dict[str, str]:
        if self._count == 1:
            return {"controller.quorum.bootstrap.servers": _addresses(self._controllers)}
        voters = [f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._controllers, 1)]
        return {"controller.quorum.voters": ",".join(voters)}

    def _classpath(self) -> str:
        return f"{fetched('broker')}/*"


def _addresses(ports: list[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _listeners(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def _sees(admin: AdminClient, brokers: int) -> bool:
    try:
        return len(admin.list_topics(timeout=_ASK_SECONDS).brokers) >= brokers
    except KafkaException:
        return False


def _uuid() -> str:
    """As ``kafka-storage random-uuid`` makes them: 16 bytes, URL-safe base64 without padding, not beginning with -."""
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text
