"""What is made once before processes can share it: the log in Kafka, and the tables in PostgreSQL."""

from pathlib import Path
from typing import Any

from headrace.cli.reading import directory
from headrace.errors import BadInputError
from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas, schema_registry_at
from headrace.log.kafka import KafkaLog
from headrace.producers.opening import check_key, open_log
from headrace.producers.vault_postgres import make_vault
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_migrations import migrate
from headrace.settings import load_settings
from headrace.store import KEY_FILE


def migrated(store: Path | None) -> tuple[list[str], str]:
    """Migrate; what was run, and where.

    :raises BadInputError: no database is set.
    :raises HaltError: a newer release made the tables, or this role may not change them.
    """
    places = load_settings(directory(store)).places
    if places.db_url is None:
        raise BadInputError(
            "there is no database to migrate: set HEADRACE_DB_URL, as postgresql://user@host:5432/database. Tables in"
            " the store's directory need no migrating"
        )
    address = Address(places.db_url, places.db_schema)
    ran = migrate(address, installed_kinds())
    make_vault(address)
    return ran, address.named


def created(store: Path | None, partitions: int) -> dict[str, Any]:
    """Make the log in Kafka, or finish making it; what it is.

    :raises BadInputError: no log is set, or there is one with another number of partitions.
    :raises LogMismatchError: it was made with another master key.
    :raises HaltError: the topic is there and cannot be a log; or the schema registry refuses a schema.
    :raises UnavailableError: the brokers, or the schema registry, do not answer.
    """
    settings = load_settings(directory(store))
    if settings.log_url is None:
        raise BadInputError(
            "there is no log to create: set HEADRACE_LOG_URL, as kafka://host:9092/headrace.events. The log in the"
            " store's directory is made by `headrace dev`"
        )
    key_file = settings.places.key_file or settings.store / KEY_FILE
    with schema_registry_at(settings.places) as confluent, KafkaLog.create(settings.log_url, partitions) as log:
        new = log.describe().log_id is None
        if new:
            settings.store.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys = Keys.at(key_file, create=new)  # to a log that is there no new key may be made
        log_id = open_log(log, installed_schemas(confluent), installed_kinds(), key_id=keys.id)
        check_key(log, keys.id)
        return {"log_id": log_id.hex(), "partitions": log.describe().partitions, "key_file": str(key_file)}
