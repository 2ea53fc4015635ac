"""Where a store's parts are: on this machine, or where the addresses say."""

from pathlib import Path
from typing import Final, NamedTuple

from headrace.errors import BadInputError

KAFKA: Final = "kafka"
_POSTGRES: Final = ("postgresql", "postgres")


class Places(NamedTuple):
    """``None`` is the embedded default: a file in the store's directory.

    :ivar log_url: ``kafka://…``, see :mod:`headrace.log.kafka_address`.
    :ivar db_url: ``postgresql://…`` (libpq's address), where the tables are.
    :ivar db_schema: which schema of that database.
    :ivar key_file: the master key, the same for every process on the log.
    :ivar schema_registry_url: see :mod:`headrace.schemas.confluent_address`; without one every record names its schema
        by its fingerprint.
    """

    log_url: str | None = None
    db_url: str | None = None
    db_schema: str = "headrace"
    key_file: Path | None = None
    schema_registry_url: str | None = None

    def checked(self) -> "Places":
        """These, if they fit together.

        :raises BadInputError: an address is none, or a log that many processes write has tables that one process keeps.
        """
        if self.log_url is not None and _scheme(self.log_url) != KAFKA:
            raise BadInputError(
                "HEADRACE_LOG_URL is no address of a log: write kafka://host:port/topic, or leave it out for the"
                " file in the store's directory"
            )
        if self.db_url is not None and _scheme(self.db_url) not in _POSTGRES:
            raise BadInputError(
                "HEADRACE_DB_URL is no address of a database: write postgresql://user@host:5432/database, or leave it"
                " out for the file in the store's directory"
            )
        if self.log_url is not None and self.db_url is None:
            raise BadInputError(
                "a log in Kafka is folded by many processes, and their tables are in PostgreSQL: set HEADRACE_DB_URL"
                " too, as postgresql://user@host:5432/database"
            )
        return self

    @property
    def shared(self) -> bool:
        """Whether many processes write the log."""
        return self.log_url is not None


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


EMBEDDED: Final = Places()
