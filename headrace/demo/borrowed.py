"""A log and tables of the demo's own, on the Kafka and the PostgreSQL that the settings name."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from confluent_kafka.admin import AdminClient
from psycopg import sql

from headrace.errors import BadInputError
from headrace.log.kafka_address import KafkaAddress
from headrace.places import Places
from headrace.producers.vault_postgres import vault_schema
from headrace.projections.postgres_connection import Address, translated
from headrace.settings import load_settings

_SECONDS: Final = 20


@contextmanager
def borrowed(*, keep: bool) -> Generator[Places]:
    """Places that nobody uses, removed at the end unless ``keep``.

    :raises BadInputError: the settings name no Kafka and PostgreSQL.
    """
    settings = load_settings()
    if settings.log_url is None or settings.db_url is None:
        raise BadInputError(
            "the demo needs a Kafka and a PostgreSQL: set HEADRACE_LOG_URL and HEADRACE_DB_URL (it makes a topic and a"
            " schema of its own there and removes them). In a checkout `make demo-kafka` starts both for it"
        )
    name = secrets.token_hex(4)
    given = urlsplit(settings.log_url)
    places = Places(urlunsplit(given._replace(path=f"/headrace.demo.{name}")), settings.db_url, f"headrace_demo_{name}")
    try:
        yield places
    finally:
        if not keep:
            _remove(places)


def _remove(places: Places) -> None:
    assert places.log_url is not None
    assert places.db_url is not None
    address = Address(places.db_url, places.db_schema)
    with translated(address.named, "removed"), address.connect("demo") as connection:
        for schema in (address.schema, vault_schema(address)):
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
    log = KafkaAddress.parse(places.log_url)
    admin = AdminClient({**log.settings(), "log_level": 0})
    made = [topic for topic in admin.list_topics(timeout=_SECONDS).topics if topic.startswith(log.topic)]
    for future in admin.delete_topics(made).values() if made else ():
        future.result(_SECONDS)
