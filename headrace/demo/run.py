"""``headrace demo``: three races, with a real CalDAV server, signed webhooks and the HTTP API, on the embedded store or
on Kafka and PostgreSQL."""

import shlex
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import httpx

from headrace.api.server import BackgroundServer
from headrace.demo.acts import Stage, calendar_race, mail_race, phantom
from headrace.demo.borrowed import borrowed
from headrace.demo.caldav_server import CaldavServer
from headrace.demo.people import Agent, CalendarApp, Mailbox
from headrace.demo.timeline import Timeline
from headrace.errors import BadInputError
from headrace.places import EMBEDDED, Places
from headrace.processors.audit import verify
from headrace.projections.sqlite import FILE as TABLES_FILE
from headrace.settings import DEFAULT_WEBHOOK, load_settings, webhook_endpoints
from headrace.store import LOG_FILE, Store

_EXPECTED: Final = {"accepted": 3, "superseded": 3}
_TOLD: Final = (
    "Three races between an AI agent and the person it works for, on a real CalDAV server, signed webhooks and the HTTP"
    " API. A position is partition:offset: where a record is on the log. The times are the story's."
)
_QUESTION: Final = "SELECT id, verdict, finding FROM proposals"
MISMATCH: Final = 6


def run_demo(*, store: Path | None, as_json: bool, on_kafka: bool = False) -> int:
    """Play the races; with ``store`` the store is kept there. The exit code: 0, or 6 if something is not as told.

    :raises BadInputError: ``store`` already holds a store; or ``on_kafka``, and the settings name no Kafka.
    :raises UnavailableError: the CalDAV server is not installed or does not start.
    """
    if store is not None and (store / LOG_FILE).exists():
        raise BadInputError(f"{store} already holds a store; give the demo a directory of its own")
    timeline = Timeline(as_json=as_json)
    own = borrowed(keep=store is not None) if on_kafka else nullcontext(EMBEDDED)
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as work, own as places:
        timeline.open(_TOLD)
        directory = store if store is not None else Path(work) / "store"
        with Store(directory, writer=True, places=places) as opened:
            verdicts = _play(opened, Path(work), timeline)
            verified = verify(opened.log, opened.tables, opened.registry, opened.kinds).verified
    counts = {name: verdicts.count(name) for name in _EXPECTED}
    timeline.close({**counts, "verified": verified}, _look_further(store, places))
    return 0 if verified and counts == _EXPECTED else MISMATCH


def _play(store: Store, work: Path, timeline: Timeline) -> list[str]:
    settings = load_settings(store.directory, host="127.0.0.1", port=0)
    secret = webhook_endpoints(settings)[DEFAULT_WEBHOOK].secrets[0]
    with (
        BackgroundServer(store, settings) as server,
        CaldavServer(work / "caldav", username="ann") as caldav,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        mailbox = Mailbox(http, secret, store.applied)
        stage = Stage(mailbox, CalendarApp(caldav, store), Agent(http), timeline)
        for act in (mail_race, calendar_race, phantom):
            act(stage)
    return stage.verdicts


def _look_further(store: Path | None, places: Places) -> list[tuple[str, str]]:
    if store is None:
        on = " --on kafka" if places.shared else ""
        return [
            ("keep the store:", f"headrace demo{on} --store ./demo"),
            ("a server to talk to:", "headrace dev --store ./mine"),
        ]
    look = [
        ("why the first draft was refused:", f"headrace audit explain demo-1 --account ann --store {store}"),
        ("the log itself:", f"headrace log ls --store {store}"),
        ("fold it again and compare:", f"headrace audit verify --store {store}"),
    ]
    if places.log_url is not None:
        where = f"export HEADRACE_LOG_URL={shlex.quote(places.log_url)} HEADRACE_DB_SCHEMA={places.db_schema}"
        asked = _QUESTION.replace(" proposals", f" {places.db_schema}.proposals")
        return [("first, where it is:", where), *look, ("ask it in SQL:", f"psql \"$HEADRACE_DB_URL\" -c '{asked}'")]
    return [*look, ("ask it in SQL:", f"sqlite3 {store / TABLES_FILE} '{_QUESTION}'")]
