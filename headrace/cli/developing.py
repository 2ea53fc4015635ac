"""The store, its fold, the HTTP API, the webhook endpoint and a calendar's sync, in one process until a signal."""

import hashlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

from headrace.api.server import serve
from headrace.cli import exits, output
from headrace.cli.reading import directory, opened_store
from headrace.errors import BadInputError
from headrace.log.kafka_address import KafkaAddress
from headrace.places import Places
from headrace.producers.endpoint import DEFAULT_ENDPOINT, PATH
from headrace.producers.feed import Feed
from headrace.producers.notifications import PATH as NOTIFICATIONS
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.sync import Synced, run_sync
from headrace.producers.sync_runner import SyncRunner
from headrace.projections.known import hinted
from headrace.projections.postgres_connection import Address
from headrace.schemas.refs import ActorRef, parse_id
from headrace.settings import LOCAL_TENANT, SECRET_FILE, Settings, load_settings, webhook_endpoints
from headrace.sourcing import host_of
from headrace.store import Store

PASSWORD_VARIABLE: Final = "HEADRACE_CALDAV_PASSWORD"  # noqa: S105 - where it is, not what it is


class CalendarSync(NamedTuple):
    """A calendar to keep in sync. ``url`` names the user; ``calendar`` is a name or path, ``None``: the URL's own."""

    url: str
    calendar: str | None
    account: str
    password_file: Path | None
    every_s: float


def run(
    store: Path | None,
    host: str | None,
    port: int | None,
    sync: CalendarSync | None,
    *,
    as_json: bool,
    fold: bool = True,
) -> int:
    """Serve until SIGINT or SIGTERM; then end within the server's grace period. Returns the exit code.

    Without ``fold`` others fold and have made everything; that takes a log in Kafka.

    :raises WriterLockedError: another process has the store open.
    :raises UnavailableError: the address cannot be listened on.
    :raises BadInputError: the settings cannot be used.
    """
    settings = load_settings(directory(store), host=host, port=port)
    if not fold and not settings.places.shared:
        raise BadInputError(
            "`headrace serve` needs a log that many processes write: set HEADRACE_LOG_URL and HEADRACE_DB_URL; for one"
            " process there is `headrace dev`"
        )
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "caldav", "niquests", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        signal.signal(signal.SIGTERM, _stop)
        with (
            opened_store(settings.store, settings.places, writer=True, fold=fold) as opened,
            _syncing(opened, sync),
            host_of(opened, settings) if fold else nullcontext(),
        ):
            successor = opened.log.describe().successor
            if successor is not None:
                output.note(f"headrace: this log is closed and takes nothing any more; it goes on at {successor}")
            serve(opened, settings, ready=lambda url: _ready(url, settings, sync, as_json=as_json))
    except KeyboardInterrupt:
        pass  # the way to end it
    output.note("headrace: stopped")
    return exits.OK


def _stop(_: int, __: FrameType | None) -> NoReturn:
    """SIGTERM ends it as Ctrl-C does: through every ``finally``, so that no lock or ``server.json`` stays behind."""
    raise KeyboardInterrupt


@contextmanager
def _syncing(store: Store, sync: CalendarSync | None) -> Generator[None, None, None]:
    if sync is None:
        yield
        return
    key, run_one = _calendar_sync(store, sync)

    def hints() -> list[SourceKey]:
        with store.tables.snapshot() as reader:
            return [SourceKey(*one) for one in hinted(reader)]

    runner = SyncRunner(run_one, hints, pace=Pace(period=sync.every_s))
    runner.keep([key])
    with store.applied.listening(runner.look):
        runner.start()
        try:
            yield
        finally:
            runner.stop()


class Calendar(NamedTuple):
    """What a :class:`CalendarSync` comes to. ``source`` is its name on the log: the same as long as the calendar is."""

    url: str
    username: str
    password: str
    calendar: str
    source: str


def calendar_of(sync: CalendarSync) -> Calendar:
    """The server, the user and the calendar that are meant.

    :raises BadInputError: the URL is none of a CalDAV server with a user's name.
    """
    parts = urlsplit(sync.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.username:
        raise BadInputError("--caldav needs a URL with the user's name in it, as https://ann@dav.example.com/ann/work/")
    if sync.password_file is not None:
        password = sync.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    else:
        password = os.environ.get(PASSWORD_VARIABLE) or unquote(parts.password or "")
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))
    calendar = sync.calendar or parts.path or "/"
    digest = hashlib.sha256(f"{url}\0{calendar}".encode()).hexdigest()[:12]
    return Calendar(url, unquote(parts.username), password, calendar, f"caldav/{digest}")


def _calendar_sync(store: Store, sync: CalendarSync) -> tuple[SourceKey, Callable[[SourceKey], Synced]]:
    """The calendar as a source, and what syncs it."""
    # The library takes half a second to import, which `dev` without a calendar should not pay.
    from headrace.producers.caldav import CaldavSource  # noqa: PLC0415

    account, found = parse_id(sync.account, "account"), calendar_of(sync)
    pseudonym = store.intake.pseudonyms(LOCAL_TENANT, account)
    source = CaldavSource(found.url, found.username, found.password, found.calendar, pseudonym=pseudonym)
    feed = Feed(
        store.log,
        store.tables,
        store.applied,
        store.intake,
        store.kinds,
        tenant=LOCAL_TENANT,
        account=account,
        source=found.source,
        feeds=source.feeds,
        actor=ActorRef("user", account),
    )
    return SourceKey(LOCAL_TENANT, account, found.source), lambda _: run_sync(source, feed)


def _elsewhere(places: Places) -> str:
    parts = [str(KafkaAddress.parse(places.log_url))] if places.log_url is not None else []
    parts += [Address(places.db_url, places.db_schema).named] if places.db_url is not None else []
    return "".join(f"\n  {part}" for part in parts)


def _ready(url: str, settings: Settings, sync: CalendarSync | None, *, as_json: bool) -> None:
    endpoints = webhook_endpoints(settings)
    secret_file = settings.store / SECRET_FILE
    if as_json:
        said: dict[str, Any] = {
            "url": url,
            "pid": os.getpid(),
            "store": str(settings.store),
            "webhooks": {name: f"{url}{PATH}/{name}" for name in endpoints},
            "webhook_secret_file": str(secret_file)
            if DEFAULT_ENDPOINT in endpoints and not settings.webhooks
            else None,
            "keys": len(settings.api_keys),
        }
        output.line(said)
    given = "" if settings.store == directory(None) else f" --store {settings.store}"
    keys = f"{len(settings.api_keys)} API keys" if settings.api_keys else "no API key needed from this machine"
    lines = [
        f"headrace runs on {settings.store}{_elsewhere(settings.places)}",
        f"  HTTP API   {url}/v1   ({keys}; {url}/openapi.json)",
        *(f"  webhooks   {url}{PATH}/{name}" for name in endpoints),
    ]
    lines += [f"  hook       {url}{NOTIFICATIONS}/{name}" for name in settings.hooks]
    if DEFAULT_ENDPOINT in endpoints and not settings.webhooks:
        lines.append(f"  secret     {secret_file}   (signs the webhooks, Standard Webhooks)")
    if sync is not None:
        lines.append(f"  calendar   synced every {sync.every_s:g} s into the account {sync.account}")
    lines += [
        "Try, in another terminal:",
        f"  headrace send{given} --account ann --subject mail.thread/t-1 --type mail.received \\",
        """    --data '{"message": "<1@example.com>", "sender": "bob@example.com"}'""",
        f"  headrace entity show{given} mail.thread/t-1",
        f"  headrace watch{given} --account ann",
        "Ctrl-C ends it.",
    ]
    output.note("\n".join(lines))
