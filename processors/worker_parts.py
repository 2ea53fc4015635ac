"""What a worker works with: the log, the tables, the verdicts' topic, the journal. Opened together, closed together."""

import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

import faust
from faust.auth import Credentials

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.kinds import installed_kinds, installed_schemas, schema_registry_at
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_topic import Topic
from headrace.places import Places
from headrace.processors.decode import read_opening
from headrace.processors.engine import Engine
from headrace.processors.fold_group import fold_group, tables_id
from headrace.processors.group_fold import GroupFold
from headrace.processors.journal import Journal
from headrace.processors.verdict_topic import GROUP as DELIVERY_GROUP
from headrace.processors.verdict_topic import PublishedVerdict, VerdictTopic, address_of, prepare
from headrace.projections.postgres import PostgresTables
from headrace.schemas.registry import Registry


class WorkerParts:
    """``places`` name a log in Kafka and a database.

    Workers that fold into the same tables make up one group; those of other tables, of a database elsewhere or a schema
    beside, are another, which folds the whole log as well. So the group's name holds which database and schema it is.

    :raises BadInputError: the log's address is none, or that of the schema registry.
    :raises UnavailableError: the database does not answer.
    """

    def __init__(self, places: Places) -> None:
        log_url, db_url = places.log_url, places.db_url
        assert log_url is not None
        assert db_url is not None
        self.address: Final = KafkaAddress.parse(log_url)
        self.verdicts: Final = address_of(self.address)
        self._url: Final = log_url
        self._db_url: Final = db_url
        self._schema: Final = places.db_schema
        self._opened: Final = ExitStack()
        self._confluent: Final = self._opened.enter_context(schema_registry_at(places))
        tables = tables_id(db_url, places.db_schema)
        self.group: Final = fold_group(tables)
        self.delivery_group: Final = f"{DELIVERY_GROUP}.{tables}"
        self._log: KafkaLog | None = None
        self._topic: VerdictTopic | None = None
        self._kept: Topic | None = None
        self._journal: Journal | None = None
        self._fold: tuple[Engine, KafkaLog] | None = None
        self._log_id: bytes | None = None
        self.journalled = 0
        """Rows that this worker added to the journal."""
        self.foreign = 0
        """Messages of the verdicts' topic that are none of this log's verdicts."""

    def open(self) -> None:
        """Open everything, and see that it fits together.

        :raises NotFoundError: there is no such log.
        :raises HaltError: log, topic and tables cannot be used as they are; the message says what to change.
        :raises UnavailableError: brokers or database do not answer, or the log is not opened yet.
        """
        kinds, registry = installed_kinds(), installed_schemas(self._confluent, register=False)
        log = self._log = self._opened.enter_context(KafkaLog.open(self._url, writer=False))
        described = log.describe()
        if described.log_id is None or 0 in described.ends:
            raise UnavailableError(
                f"{self.address} is not opened yet: its creation was interrupted; finish it with `headrace log create`"
            )
        self._log_id, self._kept = described.log_id, Topic(self.address)
        read_opening(log, registry)
        tables = PostgresTables(self._db_url, registry, kinds, schema=self._schema, migrating=False)
        self._opened.enter_context(tables)
        prepare(self.address, described.partitions)
        self._topic = self._opened.enter_context(VerdictTopic(self.verdicts))
        self._journal = Journal(self._db_url, self._schema)
        self._opened.callback(self._journal.close)
        engine = Engine(registry, kinds, tables, schemas=self._schemas, publish=self._topic.publish)
        self._fold = engine, log

    def _schemas(self) -> Registry:
        return installed_schemas(self._confluent, register=False)

    def fold(self, ended: Callable[[HeadraceError | None], object]) -> GroupFold:
        """The fold, not started."""
        assert self._fold is not None
        engine, log = self._fold
        return GroupFold(self.address, log, engine, group=self.group, ended=ended)

    def take(self, verdicts: Sequence[PublishedVerdict | None]) -> None:
        """Write into the journal what was read from the verdicts' topic. ``None`` is what could not be read.

        :raises UnavailableError: the database does not answer: take the same again.
        """
        assert self._journal is not None
        ours = [one for one in verdicts if one is not None and one.log_id == self._log_id]
        self.journalled += self._journal.write(ours)
        self.foreign += len(verdicts) - len(ours)

    def ends(self) -> tuple[int, ...]:
        """Where the log's partitions end now.

        :raises LogMismatchError: it is another log now, or has more partitions.
        :raises UnavailableError: the brokers do not answer.
        """
        assert self._log is not None
        return self._log.describe().ends

    def check(self) -> None:
        """See that the log still is the one that was opened, and kept as it must be.

        :raises HaltError: it is not.
        :raises UnavailableError: the brokers do not answer.
        """
        assert self._log is not None
        assert self._kept is not None
        described = self._log.describe()
        if described.log_id != self._log_id:
            raise HaltError(f"{self.address} is another log now; restore the one it was, or start on the new one anew")
        self._kept.verify(closed=True)

    @property
    def published(self) -> int:
        """Messages published to the verdicts' topic, repetitions included."""
        return self._topic.published if self._topic is not None else 0

    def close(self) -> None:
        """Let go of everything. Harmless when repeated."""
        self._opened.close()


def credentials(address: KafkaAddress) -> Credentials | None:
    """What Faust's own client signs in with: that which the address says for every client.

    :raises UnavailableError: a certificate or the password cannot be read.
    """
    settings = address.settings()
    protocol = settings.get("security.protocol", "plaintext")
    context = None
    if protocol.endswith("ssl"):
        try:
            context = ssl.create_default_context(cafile=settings.get("ssl.ca.location"))
            if "ssl.certificate.location" in settings:
                context.load_cert_chain(settings["ssl.certificate.location"], settings.get("ssl.key.location"))
        except (OSError, ssl.SSLError) as error:
            raise UnavailableError(
                f"the certificates of {address} cannot be read ({error}); check ssl.ca.location,"
                " ssl.certificate.location and ssl.key.location"
            ) from error
    if protocol.startswith("sasl"):
        return faust.SASLCredentials(
            username=settings["sasl.username"],
            password=settings["sasl.password"],
            mechanism=settings["sasl.mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
