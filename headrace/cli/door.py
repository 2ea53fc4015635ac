"""The way to the HTTP API: of the process that runs on the store, of any other by its URL, or in this very process."""

import json
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from headrace.cli import output
from headrace.cli.reading import SERVER_FILE, directory, no_store, nothing_at, opened_store
from headrace.errors import BadInputError, HeadraceError, NotFoundError, UnavailableError
from headrace.settings import load_settings
from headrace.store import Store

_PATIENCE_SECONDS: Final = 35.0
"""Longer than the server ever waits for a verdict."""
_OTHERS_SECONDS: Final = 5.0
"""How long others may take who fold the log: they may have a day's records before them, or be down."""
_KNOCK_SECONDS: Final = 2.0
IN_PROCESS: Final = "in process"


class Door(NamedTuple):
    """An open client, and where it leads: a URL, or :data:`IN_PROCESS`."""

    client: httpx.AsyncClient
    where: str

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request; whatever the answer says.

        :raises UnavailableError: no answer.
        """
        try:
            return await self.client.request(method, path, **request)
        except httpx.InvalidURL as error:
            raise BadInputError(f"{self.where} is no URL ({error}); write it as http://127.0.0.1:8416") from None
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"{self.where} does not answer ({_said(error)}); is `headrace dev` running?"
            ) from None


@asynccontextmanager
async def open_door(
    store: Path | None, url: str | None, api_key: str | None, *, make: bool = False
) -> AsyncGenerator[Door, None]:
    """The API: at ``url``; else of the process that runs on the store; else in this process, which opens the store for
    writing meanwhile (``make`` makes it, if there is none).

    :raises NotFoundError: there is no store.
    :raises WriterLockedError: another process has the store open, and does not answer.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    place = directory(store)
    found = url if url is not None else await running(place)
    if found is not None:
        if not found.startswith(("http://", "https://")):
            raise BadInputError(f"{found[:80]!r} is no URL; write it as http://127.0.0.1:8416")
        async with httpx.AsyncClient(base_url=found, headers=headers, timeout=_PATIENCE_SECONDS) as client:
            yield Door(client, found)
        return
    settings = load_settings(place)
    if not make and nothing_at(place, settings.places):
        raise no_store(place)
    from headrace.api.app import create_app  # noqa: PLC0415 - not needed where a process runs, and slow to import

    with opened_store(place, settings.places, writer=True, fold=False) as opened:
        transport = httpx.ASGITransport(create_app(opened, settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers, timeout=_PATIENCE_SECONDS
        ) as client:
            yield Door(client, IN_PROCESS)
        _folded(opened)


def _folded(store: Store) -> None:
    """Wait until the tables have what was appended, so that whoever reads the store next finds it.

    :raises HaltError: the fold has stopped.
    """
    shared = store.places.shared
    deadline = time.monotonic() + (_OTHERS_SECONDS if shared else _PATIENCE_SECONDS)
    for partition, end in enumerate(store.log.describe().ends):
        if not store.applied.wait(partition, end - 1, max(0.0, deadline - time.monotonic())):
            who = "`headrace worker` folds it" if shared else "the next process that opens the store goes on"
            output.note(f"headrace: it is on the log, but not folded yet; {who}")
            return


async def running(place: Path) -> str | None:
    """Where the process that runs on the store answers, ``None`` when none does.

    A process that was killed leaves its file behind, and on its port another store's may listen by now: so the process
    that is named must be alive, too.
    """
    try:
        said = json.loads((place / SERVER_FILE).read_text(encoding="utf-8"))
        url = str(said["url"])
        if not _alive(int(said["pid"])):
            return None
        async with httpx.AsyncClient(base_url=url, timeout=_KNOCK_SECONDS) as client:
            await client.get("/health/live")
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError):
        return None
    return url


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's
    except (ProcessLookupError, OverflowError):
        return False
    return True


def refused(response: httpx.Response) -> HeadraceError:
    """The exception that a problem (RFC 9457) stands for."""
    said = body(response)
    detail = said.get("detail") or said.get("title") or f"the answer was {response.status_code} and no explanation"
    reason = f" ({said['reason']})" if "reason" in said else ""
    message = f"{detail}{reason}"
    if response.status_code == HTTPStatus.NOT_FOUND:
        return NotFoundError(message)
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return BadInputError(f"{message}; give it with --api-key or HEADRACE_API_KEY" if "key" in message else message)
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status_code in (408, 429):
        return UnavailableError(message)
    return BadInputError(message)


def body(response: httpx.Response) -> Mapping[str, Any]:
    """The answer's JSON object, empty where it is none."""
    try:
        said = response.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _said(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
