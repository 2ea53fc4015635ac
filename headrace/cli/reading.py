"""A store opened for reading, also while another process writes it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from headrace.cli import output
from headrace.cli.options import Place
from headrace.errors import BadInputError, NotFoundError, UnavailableError
from headrace.log.kafka_address import KafkaAddress
from headrace.places import Places
from headrace.projections.port import Tables
from headrace.projections.sqlite import FILE as TABLES_FILE
from headrace.schemas.refs import Position, Token
from headrace.settings import load_settings
from headrace.store import LOG_FILE, Store, default_directory

SERVER_FILE: Final = "server.json"
"""Where the process that runs on a store says where it answers; named here too, for the API need not be imported."""
_MOVING: Final = 1_000
"""Records that tables which other machines fold may be behind, just now."""


def directory(store: Path | None) -> Path:
    """The store's place: as given (or by ``HEADRACE_STORE``), else the default one."""
    return store if store is not None else default_directory()


@contextmanager
def reading(store: Path | None) -> Generator[Store, None, None]:
    """The store, read-only. Says on stderr when the tables are behind the log and nobody is folding them.

    :raises NotFoundError: there is none.
    :raises UnavailableError: its tables are missing, or cannot be read now.
    """
    place = directory(store)
    places = load_settings(place).places
    if places.db_url is None and (place / LOG_FILE).exists() and not (place / TABLES_FILE).exists():
        raise UnavailableError(
            f"the store at {place} has no tables; `headrace dev --store {place}` folds them again from the log"
        )
    with opened_store(place, places, writer=False) as opened:
        behind = lag(opened)
        if behind > _MOVING if places.shared else behind and not (place / SERVER_FILE).exists():
            folds = "headrace worker" if places.shared else f"headrace dev --store {place}"
            output.note(f"headrace: the tables are {behind} records behind the log; `{folds}` folds them")
        yield opened


def opened_store(place: Path, places: Places, *, writer: bool, fold: bool = True) -> Store:
    """The store, open. Of one in Kafka ``fold`` says whether this process folds it, and makes what is not there.

    :raises NotFoundError: there is none; how one is made.
    """
    own = fold or not places.shared
    try:
        return Store(place, writer=writer, places=places, fold=own, make=own)
    except NotFoundError:
        if places.log_url is None:
            raise
        raise NotFoundError(
            f"there is no log at {KafkaAddress.parse(places.log_url)}; `headrace log create` makes one"
        ) from None


def nothing_at(place: Path, places: Places) -> bool:
    """Whether there is no store. Of one in Kafka only the brokers know."""
    return not places.shared and not (place / LOG_FILE).exists()


def no_store(place: Path) -> NotFoundError:
    """There is none, and how one is made."""
    return NotFoundError(f"there is no store at {place}; `headrace dev --store {place}` makes one")


def rows(tables: Tables, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of one ``SELECT`` on a store's tables, or on replayed ones.

    :raises UnavailableError: the tables are incomplete or damaged.
    """
    try:
        with tables.snapshot() as reader:
            return reader.rows(sql, parameters)
    except apsw.Error as error:
        raise UnavailableError(
            f"the tables cannot be read ({error}); stop headrace, delete {TABLES_FILE} in the store's directory, and"
            " `headrace dev` folds it again from the log"
        ) from error


def lag(store: Store) -> int:
    """How many records of the log are not in the tables yet."""
    folded = {row["partition"]: row["next_offset"] for row in rows(store.tables, "SELECT * FROM partitions")}
    return sum(end - folded.get(partition, 0) for partition, end in enumerate(store.log.describe().ends))


def checked(store: Store, place: Place) -> Position:
    """The place's position, if it is one of this log.

    :raises NotFoundError: the log has no such position, or the token is of another log or another history.
    """
    described, position = store.log.describe(), place.position
    if position.partition >= described.partitions:
        raise NotFoundError(f"there is no partition {position.partition}; this log has 0 to {described.partitions - 1}")
    end = described.ends[position.partition]
    if position.offset >= end:
        raise NotFoundError(
            f"there is no offset {position.offset} in partition {position.partition};"
            f" its last one is {position.partition}:{end - 1}"
        )
    if place.token is not None:
        _check_token(store, place.token, described.log_id)
    return position


def _check_token(store: Store, token: Token, log_id: bytes | None) -> None:
    found = rows(
        store.tables,
        "SELECT chain FROM events WHERE partition = :partition AND offset = :offset",
        partition=token.partition,
        offset=token.offset,
    )
    if token.log_id != log_id or not found or found[0]["chain"][:8] != token.check:
        raise NotFoundError("this token is of another log, or of a history that this log does not have")


def selected(tenant: str | None, account: str | None, **equal: str | None) -> tuple[str, dict[str, Any]]:
    """A ``WHERE`` clause over what was asked for, and its parameters."""
    wanted = {"tenant": tenant, "account": account, **equal}
    asked = {name: value for name, value in wanted.items() if value is not None}
    clause = " AND ".join(f"{name} = :{name}" for name in asked)
    return (f"WHERE {clause}" if clause else ""), asked


def one_account(found: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """The one row among the accounts'.

    :raises NotFoundError: there is none.
    :raises BadInputError: several accounts have one; the message says how to choose.
    """
    if not found:
        raise NotFoundError(f"there is no {what}; `ls` shows what there is")
    if len(found) > 1:
        accounts = ", ".join(sorted(f"--tenant {row['tenant']} --account {row['account']}" for row in found)[:5])
        raise BadInputError(f"{len(found)} accounts have a {what}; say which one: {accounts}")
    return found[0]


def log_id(store: Store) -> bytes:
    """The log's id."""
    found = store.log.describe().log_id
    if found is None:
        raise UnavailableError(f"the log at {store.directory} is not opened yet; `headrace dev` finishes making it")
    return found
