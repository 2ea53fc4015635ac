"""The worker: a Faust app that folds its share of the log, and whose agent takes on the verdicts.

``headrace worker`` runs it; so does plain ``faust -A headrace.processors.worker worker -l info``. Faust owns the
process: start, crash and stop, timers, the web server, and the agent on the verdicts' topic. The fold is
:class:`headrace.processors.group_fold.GroupFold`, in a thread and a consumer group of its own. Beside it run the syncs
of the sources whose accounts it folds: :mod:`headrace.worker_sources`, a
:class:`headrace.processors.companion.Companion`.

==============  ====================================================================================================
exit code 0     it was told to stop (SIGTERM, SIGINT) and has
1               wrong settings, a bug, or it could not stop within its time
3               there is no such log
5               something did not answer when it started; start it again
6               it must not judge this log: starting it again does not help
==============  ====================================================================================================
"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, cast

import faust
from aiohttp.web import TCPSite
from faust.types._env import WEB_PORT as _FAUST_PORT
from faust.web.drivers import aiohttp as aiohttp_driver
from mode import CrashingSupervisor

from headrace.errors import BadInputError, HaltError, HeadraceError, NotFoundError, UnavailableError
from headrace.processors import companion, interpreter
from headrace.processors.companion import Companion, CompanionService
from headrace.processors.fold_service import STOP_SECONDS, FoldService
from headrace.processors.group_fold import SESSION_SECONDS
from headrace.processors.sparing import spare
from headrace.processors.verdict_consumer import GatheringTransport
from headrace.processors.verdict_topic import read_message
from headrace.processors.worker_health import LOOK_SECONDS, WorkerHealth
from headrace.processors.worker_parts import WorkerParts, credentials
from headrace.settings import Settings, load_settings

FAILED: Final = 1
NOT_FOUND: Final = 3
UNAVAILABLE: Final = 5
HALTED: Final = 6
CHECK_SECONDS: Final = 30.0
"""How often the log is checked: whether it is the one it was, and kept as it must be."""
_JOIN_SECONDS: Final = 5.0
"""How long a rebalance of Faust's own consumer is waited for before the worker stops."""
GRACE_SECONDS: Final = STOP_SECONDS + companion.STOP_SECONDS + _JOIN_SECONDS + 12.0
"""How long stopping may take, whatever the reason; then the process ends as it is, which loses nothing."""
_RETRY_SECONDS: Final = 0.2
_RETRY_AT_MOST_SECONDS: Final = 5.0
_TAKEN: Final = 500
_WITHIN_SECONDS: Final = 0.1
_log: Final = logging.getLogger("headrace.worker")


def exit_code(error: HeadraceError | None) -> int:
    """What the process's exit code says of why it ended."""
    kinds = ((HaltError, HALTED), (UnavailableError, UNAVAILABLE), (NotFoundError, NOT_FOUND))
    return next((code for kind, code in kinds if isinstance(error, kind)), FAILED)


class _Web(aiohttp_driver.Web):
    """Faust's web server, on a free port where none is named: Faust's own settings do not allow 0."""

    def _new_transport_tcp(self) -> TCPSite:
        conf, app = self.app.conf, cast("WorkerApp", self.app)
        free = app.free_port and conf.web_port == _FAUST_PORT
        return TCPSite(self._runner, conf.web_bind, 0 if free else conf.web_port, ssl_context=conf.web_ssl_context)

    @property
    def listens_on(self) -> tuple[str, int]:
        """Address and port, once it does."""
        host, port = self._runner.addresses[0][:2]
        return str(host), int(port)


class WorkerApp(faust.App):
    """Faust's app with the parts that a worker needs. With ``port`` 0 its web server takes a free one."""

    def __init__(self, parts: WorkerParts, beside: Companion | None, *, port: int, **more: Any) -> None:
        self.parts: Final = parts
        self.beside: Final = beside
        self.free_port: Final = not port
        self.failure: HeadraceError | None = None
        """Why it ends, if it was not told to."""
        self.joined: Final = threading.Event()
        """Faust's own consumer is in its group, and no rebalance is under way."""
        self.announce: Callable[[str], object] = lambda url: _log.info("metrics and health at %s", url)
        self.fold_service: Final = FoldService(parts.fold, self._halted)
        self._companions: Final = (
            [CompanionService(beside, lambda: self.fold_service.fold)] if beside is not None else []
        )
        self.health: WorkerHealth | None = None
        super().__init__(parts.delivery_group, web_port=port or _FAUST_PORT, **more)

    def _new_web(self) -> _Web:
        return _Web(self)

    def _new_transport(self) -> GatheringTransport:
        return GatheringTransport(self.conf.broker_consumer, self)

    def _halted(self, error: HeadraceError) -> None:
        self.failure = self.failure or error

    async def on_first_start(self) -> None:
        """Open everything. Of directories, which Faust would make here for its tables, none are needed."""
        try:
            await asyncio.to_thread(self.parts.open)
        except HeadraceError as error:
            self._halted(error)
            raise

    def on_init_dependencies(self) -> Iterable[Any]:
        """The fold before everything else: it need not wait for Faust's own consumer."""
        return [self.fold_service, *self._companions, *super().on_init_dependencies(), _Announcement(self)]

    async def on_stop(self) -> None:
        """What appends first, and then the fold: both have work at hand."""
        for one in self._companions:
            await one.stop()
        await self.fold_service.stop()
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Let go of everything."""
        await super().on_shutdown()
        await asyncio.to_thread(self.parts.close)

    @property
    def url(self) -> str:
        """Where the web server answers, once it does."""
        web = self.web
        assert isinstance(web, _Web)
        host, port = web.listens_on
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Announcement(faust.Service):
    """Last of the app's services: tells where it answers once the web server does."""

    def __init__(self, app: WorkerApp) -> None:
        self._app = app
        super().__init__()

    async def on_start(self) -> None:
        interpreter.prepare()
        spare("aiokafka")
        await look(self._app)
        if self._app.conf.web_enabled:
            self._app.announce(self._app.url)


class Worker(faust.Worker):
    """The process: its signals and its exit code."""

    app: WorkerApp  # pyright: ignore[reportIncompatibleVariableOverride] - narrower, and set by Faust alone
    _told: int = 0
    _deadline: threading.Timer | None = None

    async def stop(self) -> None:
        """Stop, for whatever reason, in bounded time."""
        self._begin_to_end()
        await super().stop()

    def _begin_to_end(self) -> None:
        if self._deadline is None:
            self._deadline = threading.Timer(GRACE_SECONDS, self._give_up)
            self._deadline.daemon = True
            self._deadline.start()

    def _give_up(self) -> None:
        _log.critical("stopping took longer than %g s: ending as it is; nothing is lost by that", GRACE_SECONDS)
        faulthandler.dump_traceback(sys.stderr)
        os._exit(_told_why(self.app.failure))

    async def _stop_on_signal(self, signal: signal.Signals) -> None:
        """Not in the middle of a rebalance: Faust and its consumer would wait for each other until somebody gave up."""
        await asyncio.to_thread(self.app.joined.wait, _JOIN_SECONDS)
        await super()._stop_on_signal(signal)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        self._told += 1
        if self._told > 1:
            os._exit(128 + signal)  # at once: what is not committed is folded again
        self._begin_to_end()
        super()._schedule_shutdown(signal)

    def execute_from_commandline(self) -> NoReturn:
        """Run until told to stop; exits with the code of why it ended."""
        try:
            super().execute_from_commandline()
        except SystemExit as ended:
            failure = self.app.failure
            if failure is None:
                raise
            raise SystemExit(_told_why(failure)) from ended
        raise SystemExit(0)


def _told_why(failure: HeadraceError | None) -> int:
    """The exit code; the last line of the process says what it stands for."""
    if failure is not None:
        sys.stderr.write(f"headrace: {failure}\n")
        sys.stderr.flush()
    return exit_code(failure)


def create_app(settings: Settings, beside: Companion | None = None, *, port: int | None = None) -> WorkerApp:
    """The app for these settings; ``port`` before theirs. ``beside`` is what runs beside the fold.

    :raises BadInputError: they name no log in Kafka, or no database.
    :raises UnavailableError: the database does not answer, or a file that the log's address names cannot be read.
    """
    if settings.log_url is None or settings.db_url is None:
        raise BadInputError(
            "a worker folds a log in Kafka into PostgreSQL: set HEADRACE_LOG_URL and HEADRACE_DB_URL (a log in a file"
            " is folded by `headrace dev`)"
        )
    parts = WorkerParts(settings.places)
    app = WorkerApp(
        parts,
        beside,
        broker=[f"kafka://{server}" for server in parts.address.servers.split(",")],
        broker_credentials=credentials(parts.address),
        broker_client_id=parts.address.client["client.id"],
        broker_session_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=1.0,
        broker_check_crcs=True,
        consumer_auto_offset_reset="earliest",
        autodiscover=False,
        store="memory://",
        topic_allow_declare=False,  # the verdicts' topic is made and checked by headrace
        topic_disable_leader=True,
        stream_wait_empty=False,  # what was not acknowledged comes again
        worker_redirect_stdouts=False,
        web_bind=settings.host,
        web_host=settings.host,
        port=settings.worker_port if port is None else port,
        Worker=Worker,
    )
    _watch_rebalances(app)
    _add_agent(app)
    _add_timers(app)
    _add_pages(app)
    return app


def _watch_rebalances(app: WorkerApp) -> None:
    async def revoked(*_: Any, **__: Any) -> None:
        app.joined.clear()

    async def assigned(*_: Any, **__: Any) -> None:
        app.joined.set()

    app.on_partitions_revoked.connect(revoked, weak=False)
    app.on_partitions_assigned.connect(assigned, weak=False)


def _add_agent(app: WorkerApp) -> None:
    name = app.parts.verdicts.topic
    topic = app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="journal", supervisor_strategy=CrashingSupervisor)
    async def journal(stream: Any) -> None:
        """Verdicts into the journal. Acknowledged once they are written; idempotent, as they come at least once."""
        events: list[Any]
        async for events in stream.noack_take(_TAKEN, within=_WITHIN_SECONDS):
            verdicts = [read_message(event.key, event.headers, event.value) for event in events]
            wait = _RETRY_SECONDS
            while True:
                try:
                    await asyncio.to_thread(app.parts.take, verdicts)
                    break
                except UnavailableError as error:
                    _log.error("the journal waits: %s", error)
                except HeadraceError as error:
                    await app.fold_service.halt(error)
                    raise
                await app.sleep(wait)
                if app.should_stop:
                    return
                wait = min(_RETRY_AT_MOST_SECONDS, 2 * wait)
            for event in events:
                await stream.ack(event)


def _add_timers(app: WorkerApp) -> None:
    async def looking() -> None:
        await look(app)

    async def checking() -> None:
        _health(app).checked(await _asked(app, app.parts.check))

    app.timer(interval=LOOK_SECONDS)(looking)
    app.timer(interval=CHECK_SECONDS)(checking)


async def look(app: WorkerApp) -> None:
    """See how far the log is, and whether it still is the one it was."""
    await _asked(app, lambda: _health(app).look(app.parts.ends()))


async def _asked(app: WorkerApp, ask: Callable[[], object]) -> HeadraceError | None:
    """Ask the brokers, beside the event loop. What they say may be that the worker must end."""
    try:
        await asyncio.to_thread(ask)
    except UnavailableError as error:
        _log.warning("the log cannot be asked now: %s", error)
        return error
    except HeadraceError as error:
        await app.fold_service.halt(error)
        return error
    return None


def _health(app: WorkerApp) -> WorkerHealth:
    if app.health is None:
        fold = app.fold_service.fold
        assert fold is not None
        parts = app.parts
        app.health = WorkerHealth(
            fold,
            {
                ("verdicts_published", "Messages published to the verdicts' topic."): lambda: parts.published,
                ("journal_rows", "Rows added to the delivery journal."): lambda: parts.journalled,
                ("journal_foreign", "Messages that are no verdicts of this log."): lambda: parts.foreign,
            },
            beside=app.beside,
        )
    return app.health


def _add_pages(app: WorkerApp) -> None:
    def answer(view: Any, found: list[str]) -> Any:
        said = {"status": "ok" if not found else "not ok", "reasons": found}
        return view.json(said, status=200 if not found else 503)

    async def metrics(view: Any, _: Any) -> Any:
        return view.bytes(_health(app).figures(), content_type="text/plain")

    async def live(view: Any, _: Any) -> Any:
        return answer(view, _health(app).ailing())

    async def ready(view: Any, _: Any) -> Any:
        return answer(view, _health(app).unready())

    app.page("/metrics")(metrics)
    app.page("/health/live")(live)
    app.page("/health/ready")(ready)


def __getattr__(name: str) -> Any:
    """``app`` for ``faust -A headrace.processors.worker``: made when it is asked for, from the environment."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The one place where this stage knows of those above it: Faust finds its app by its module's name.
    from headrace.worker_sources import worker_app  # noqa: PLC0415

    made = worker_app(load_settings())
    globals()["app"] = made
    return made
