"""The sources of a worker: beside the fold, it syncs those whose accounts it folds.

Folding never waits for it, nor depends on it. A worker that lacks what syncing takes says so once, folds on, and looks
again every now and then:

==========================  ========================================================================================
the log's master key        ``HEADRACE_KEY_FILE``, or ``keys/master`` in ``HEADRACE_STORE``
the right to append         Write on the log's topic
the sources' grants         a database role that is a member of ``headrace_processor`` and ``headrace_connector``
the providers' apps         ``[google]`` and ``[microsoft]`` in ``headrace.toml``, with the files they name
==========================  ========================================================================================
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily, Metric

from headrace.errors import HeadraceError
from headrace.keys import Keys
from headrace.processors.group_fold import GroupFold
from headrace.processors.worker import WorkerApp, create_app
from headrace.settings import Settings
from headrace.store import KEY_FILE, Store

if TYPE_CHECKING:
    from headrace.producers.source_host import SourceHost

_RETRY_SECONDS: Final = 15.0
"""How often a worker that cannot sync looks whether it can now."""
_log: Final = logging.getLogger("headrace.sync")


def worker_app(settings: Settings, *, port: int | None = None) -> WorkerApp:
    """The worker with everything that runs in it. Raises what :func:`headrace.processors.worker.create_app` does."""
    return create_app(settings, WorkerSources(settings), port=port)


class WorkerSources:
    """The :class:`headrace.processors.companion.Companion` that syncs sources. Its log, tables and connections are its
    own, so that no trouble of theirs is the fold's."""

    def __init__(self, settings: Settings, *, retry_seconds: float = _RETRY_SECONDS) -> None:
        self._settings: Final = settings
        self._retry_seconds: Final = retry_seconds
        self._host: SourceHost | None = None
        self._told: str | None = None
        self._stopping: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, fold: GroupFold) -> None:
        """See :class:`headrace.processors.companion.Companion`."""
        self._thread = threading.Thread(target=self._run, args=(fold,), name="headrace-worker-sources", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """See :class:`headrace.processors.companion.Companion`."""
        self._stopping.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def collect(self) -> Iterator[Metric]:
        """See :class:`headrace.processors.companion.Companion`."""
        host = self._host
        told = "1 if this worker syncs the sources of its accounts, 0 if it cannot."
        yield GaugeMetricFamily("headrace_worker_syncs_sources", told, value=int(host is not None))
        if host is not None:
            yield from host.figures.collect()

    def _run(self, fold: GroupFold) -> None:
        while not self._stopping.is_set():
            try:
                with self._opened(fold) as host:
                    self._host = host
                    if self._told is not None:
                        _log.warning("this worker syncs sources now")
                    self._told = None
                    self._stopping.wait()
            except HeadraceError as error:
                self._tell(error)
            except Exception:  # noqa: BLE001 - a bug here must not end the fold
                _log.critical("this worker syncs no sources any more, because of a bug", exc_info=True)
                return
            finally:
                self._host = None
            self._stopping.wait(self._retry_seconds)

    @contextmanager
    def _opened(self, fold: GroupFold) -> Generator["SourceHost"]:
        places = self._settings.places
        Keys.at(places.key_file or self._settings.store / KEY_FILE, create=False)  # before anything is connected to
        # What providers are asked through takes memory and a second, which a worker that only folds should not pay.
        from headrace.sourcing import host_of  # noqa: PLC0415

        with (
            Store(self._settings.store, writer=True, places=places, fold=False, make=False) as store,
            host_of(store, self._settings, fold) as host,
        ):
            yield host

    def _tell(self, error: HeadraceError) -> None:
        """Once for each reason."""
        if str(error) != self._told:
            self._told = str(error)
            _log.warning(
                "this worker folds, and syncs no sources: %s. To sync, a worker needs the log's master key"
                " (HEADRACE_KEY_FILE), Write on the log's topic, and a role in headrace_connector; it looks again by"
                " itself, see docs/worker.md",
                error,
            )
