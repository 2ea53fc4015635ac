"""The distributed product with all it stands on: brokers, PostgreSQL, API processes and workers, all killable."""

import secrets
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import conninfo_to_dict

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.places import Places
from headrace.projections.postgres import PostgresTables
from headrace.store import KEY_FILE
from infra.stack.child import Child
from infra.stack.kafka import Door, KafkaCluster
from infra.stack.postgres import PostgresServer
from tests.chaos.history import Operation
from tests.chaos.processes import Api, Part, headrace, tell_family
from tests.chaos.stages import Fault, Seen, patiently, revived, seen, wait_caught_up
from tests.chaos.stand_in import command
from tests.chaos.tenants import Login, write_settings
from tests.chaos.verdict_messages import check_topic
from tests.proxy import FaultProxy, kafka_answers, kafka_messages

PARTITIONS: Final = 4
_DELIVERY_MS: Final = 4_000
_MAKING_SECONDS: Final = 120.0
_KILLED: Final = (0.1, 1.5)
_STOPPED: Final = (0.3, 3.0)


class Distributed:
    """``apis`` times ``headrace serve`` and ``workers`` times ``headrace worker`` on brokers and a PostgreSQL of their
    own. They reach both by way of ``kafka_ways`` and ``postgres_way``, which are proxies."""

    def __init__(
        self,
        directory: Path,
        who: Sequence[Login],
        *,
        brokers: int = 1,
        apis: int = 2,
        workers: int = 2,
        broker_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory: Final = directory
        self.past: Final[list[Operation]] = []
        self.may_repeat: Final = True
        self.stops: Final[list[threading.Event]] = []
        self.ended: Final[list[str]] = []
        self.kafka_ways: Final[list[FaultProxy]] = []
        self._who: Final = list(who)
        self._stack: Final = ExitStack()
        self._count: Final = (apis, workers)
        self.kafka: Final = KafkaCluster(
            directory / "kafka",
            brokers=brokers,
            doors={"CHAOS": Door(way=self._way)},
            settings=broker_settings,
            heap="-Xmx512m",
        )
        self.postgres: Final = PostgresServer(directory / "postgres")
        self.topic: Final = f"chaos-{secrets.token_hex(4)}"
        self.apis: list[Api] = []
        self.workers: list[Part] = []
        self.postgres_way: FaultProxy
        self._started: ExitStack

    def _way(self, _node: int, port: int) -> int:
        proxy = FaultProxy("127.0.0.1", port, split=kafka_messages, answers=kafka_answers)
        self.kafka_ways.append(self._stack.enter_context(proxy))
        return proxy.port

    def __enter__(self) -> Self:
        with ExitStack() as started:
            started.callback(self._stack.close)
            started.enter_context(self.kafka)
            started.enter_context(self.postgres)
            self.postgres_way = started.enter_context(FaultProxy("127.0.0.1", self.postgres.port))
            self._make()
            started.callback(self.stop)
            self.apis = [self.api(f"api-{number}") for number in range(self._count[0])]
            self.workers = [self.worker(f"worker-{number}") for number in range(self._count[1])]
            for part in (*self.workers, *self.apis):
                part.child.start()  # all at once: most of starting is importing
            for api in self.apis:
                api.start()
            self._started = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.stops:
            one.set()
        self._started.close()

    def stop(self) -> None:
        """Stop the product's processes: all are told at once."""
        parts = [*self.apis, *self.workers]
        for part in parts:
            part.child.ask_to_stop()
        for part in parts:
            part.child.stop(20.0)

    # -- settings -------------------------------------------------------------------------------------------------

    @property
    def log_url(self) -> str:
        """The log, by way of the proxies."""
        return self._log_at(self.kafka.bootstrap_at("CHAOS"))

    def _log_at(self, servers: str) -> str:
        replicas = len(self.kafka.brokers)
        return (
            f"kafka://{servers}/{self.topic}?replication.factor={replicas}"
            f"&delivery.timeout.ms={_DELIVERY_MS}&request.timeout.ms={_DELIVERY_MS - 1_000}"
        )

    @property
    def db_url(self) -> str:
        """The tables, by way of the proxy; not encrypted, so that it can tell a COMMIT."""
        found = conninfo_to_dict(self.postgres.dsn)
        where = f"127.0.0.1:{self.postgres_way.port}/{found['dbname']}"
        return f"postgresql://{found['user']}:{found['password']}@{where}?sslmode=disable&gssencmode=disable"

    @property
    def environment(self) -> dict[str, str]:
        """What a process of headrace's finds its way by."""
        return {
            "HEADRACE_LOG_URL": self.log_url,
            "HEADRACE_DB_URL": self.db_url,
            "HEADRACE_KEY_FILE": str(self.directory / "first" / KEY_FILE),
            "HEADRACE_WORKER_PORT": "0",
        }

    @property
    def places(self) -> Places:
        """Where the parts are, past the proxies."""
        return Places(self._log_at(self.kafka.bootstrap), self.postgres.dsn)

    def _make(self) -> None:
        """The log and the tables, by the commands for that."""
        write_settings(self.directory / "first", self._who)
        self.make_log()
        self._ask("migrate")

    def make_log(self) -> None:
        """A new log in the topic, as ``headrace log create`` makes it."""
        self._ask("log", "create", "--partitions", str(PARTITIONS))

    def _ask(self, *words: str) -> None:
        line = headrace(*words, "--store", self.directory / "first")
        made = Child(" ".join(words[:2]), line, self.directory / "make.log", environment=self.environment)
        made.start()
        made.finish(_MAKING_SECONDS)

    def api(self, name: str, trap: str = "") -> Api:
        """An API process, not started; with a trap of :mod:`tests.chaos.stand_in` in it, if one is named."""
        return Api(*self._words(name, trap, "serve", "--port", "0"))

    def worker(self, name: str, trap: str = "") -> Part:
        """A worker, not started; with a trap of :mod:`tests.chaos.stand_in` in it, if one is named."""
        return Part(*self._words(name, trap, "worker", "--log-level", "warn"))

    def _words(self, name: str, trap: str, verb: str, *more: str) -> tuple[Path, list[str], dict[str, str]]:
        directory = self.directory / name
        write_settings(directory, self._who)
        words: tuple[str | Path, ...] = (verb, "--store", directory, *more)
        return directory, command(trap, *words) if trap else headrace(*words), self.environment

    # -- as a stage -----------------------------------------------------------------------------------------------

    @property
    def urls(self) -> Sequence[str]:
        """See :class:`tests.chaos.stages.Stage`."""
        return [api.url for api in self.apis]

    @property
    def faults(self) -> Sequence[Fault]:
        """See :class:`tests.chaos.stages.Stage`."""
        return [
            *self.faults_of(self.apis, "API"),
            *self.faults_of(self.workers, "worker"),
            *self.broker_faults(),
            *self.postgres_faults(),
            *self.network_faults(),
        ]

    @staticmethod
    def faults_of(parts: Sequence[Part], what: str) -> list[Fault]:
        """Each of them killed, and each stopped."""
        return [
            fault
            for part in parts
            for fault in (
                Fault(f"kill -9 of {what}", part.kill, part.start, _KILLED, last=True),
                Fault(f"SIGSTOP of {what}", part.pause, part.resume, _STOPPED),
            )
        ]

    def broker_faults(self) -> list[Fault]:
        """Each broker killed, and each stopped."""

        def back(broker: Child) -> Callable[[], None]:
            def start() -> None:
                broker.start()
                patiently(self.kafka.wait_ready)

            return start

        def tell(broker: Child, what: Callable[[Child], None]) -> Callable[[], None]:
            return lambda: what(broker) if broker.running else None

        return [
            fault
            for broker in self.kafka.brokers
            for fault in (
                Fault("kill -9 of a broker", broker.kill, back(broker), _KILLED),
                Fault("SIGSTOP of a broker", tell(broker, Child.pause), tell(broker, Child.resume), _STOPPED),
            )
        ]

    def leader_killed(self) -> Fault:
        """The broker that leads partition 0 is killed, whichever that is then."""
        dead: list[Child] = []

        def strike() -> None:
            dead.append(self.kafka.brokers[self.leader() - 1])
            dead[-1].kill()

        def mend() -> None:
            dead[-1].start()
            patiently(self.kafka.wait_ready)

        return Fault("kill -9 of a partition's leader", strike, mend, (2.0, 5.0))

    def leader(self) -> int:
        """The number of the broker that leads partition 0."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap, "log_level": 0})
        found = admin.describe_topics(TopicCollection([self.topic]))[self.topic].result(30)
        number: int = found.partitions[0].leader.id
        return number

    def postgres_faults(self) -> list[Fault]:
        """PostgreSQL killed with everything below it, and stopped."""
        return [
            Fault("kill -9 of PostgreSQL", self.kill_postgres, self.start_postgres, _KILLED),
            Fault(
                "SIGSTOP of PostgreSQL", self._to_postgres(signal.SIGSTOP), self._to_postgres(signal.SIGCONT), _STOPPED
            ),
        ]

    def kill_postgres(self) -> None:
        """SIGKILL for the postmaster; what is below it notices and ends."""
        assert self.postgres.server is not None
        self.postgres.server.kill()

    def start_postgres(self) -> None:
        """Start it where it was."""
        patiently(self.postgres.restart)

    def _to_postgres(self, number: signal.Signals) -> Callable[[], None]:
        def tell() -> None:
            assert self.postgres.server is not None
            tell_family(self.postgres.server.pid, number)

        return tell

    def network_faults(self) -> list[Fault]:
        """What the network does to those in between."""
        brokers, tables = self.kafka_ways, self.postgres_way

        def each(act: Callable[[FaultProxy], object], proxies: Sequence[FaultProxy]) -> Callable[[], None]:
            def to_each() -> None:
                for proxy in proxies:
                    act(proxy)

            return to_each

        found: list[Fault] = []
        for name, proxies in (("brokers", brokers), ("PostgreSQL", [tables])):
            heal = each(FaultProxy.heal, proxies)
            found += [
                Fault(f"connections to {name} reset", each(FaultProxy.break_links, proxies), heal, (0.0, 0.1)),
                Fault(f"{name} cut off", each(FaultProxy.cut, proxies), heal, _STOPPED),
                Fault(f"nothing heard of {name}", each(FaultProxy.blackhole, proxies), heal, _STOPPED),
                Fault(f"{name} slow", each(lambda proxy: proxy.delay(0.05), proxies), heal, _STOPPED),
            ]
        return found

    def folded(self) -> dict[int, int]:
        """How far the tables are, asked past the proxies."""
        with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
            rows = connection.execute('SELECT "partition", next_offset FROM headrace.partitions').fetchall()
        return {int(partition): int(offset) for partition, offset in rows}

    def revive(self) -> None:
        """See :class:`tests.chaos.stages.Stage`."""
        self.ended.extend(revived([*self.workers, *self.apis]))

    def see(self, history: Sequence[Operation]) -> Seen:
        """See :class:`tests.chaos.stages.Stage`. Everything goes on running."""
        registry, kinds = installed_schemas(), installed_kinds()
        log_url, db_url = self.places.log_url, self.places.db_url
        assert log_url is not None
        assert db_url is not None
        with (
            KafkaLog.open(log_url, writer=False) as log,
            PostgresTables(db_url, registry, kinds, migrating=False) as tables,
        ):
            wait_caught_up(log, tables, tend=self.revive)
            found = seen(history, log, tables)
            return Seen(found.evidence, [*found.findings, *check_topic(log_url, found.evidence)])
