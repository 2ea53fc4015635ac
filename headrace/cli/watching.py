"""The stream of ``headrace watch``: server-sent events of the HTTP API, followed until they end."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import quote

import httpx

from headrace.cli import output
from headrace.cli.door import refused, running
from headrace.cli.interrupts import heeded
from headrace.cli.reading import directory
from headrace.errors import UnavailableError
from headrace.schemas.refs import Token

_SILENCE_SECONDS: Final = 45.0
"""Three heartbeats of the server: longer silence is a dead connection."""


class Watch(NamedTuple):
    """What to follow; ``None`` leaves it open."""

    account: str
    entity: str | None
    kind: str | None
    after: str | None

    def parameters(self) -> dict[str, str]:
        """As the API's query."""
        asked = {"entity": self.entity, "kind": self.kind, "after": self.after}
        return {name: value for name, value in asked.items() if value is not None}


def follow(asked: Watch, store: Path | None, url: str | None, api_key: str | None, *, as_json: bool) -> None:
    """Print records as they come.

    :raises UnavailableError: nobody serves the store, or the stream ended; the message says how to go on behind it.
    """
    found = url if url is not None else asyncio.run(running(directory(store)))
    if found is None:
        raise UnavailableError(
            f"no process runs on {directory(store)}; start `headrace dev`, or follow with `headrace log tail -f`"
        )
    path = f"/v1/accounts/{quote(asked.account, safe='')}/watch"
    last: str | None = asked.after

    def take(event: Event) -> None:
        nonlocal last
        last = event.id or last
        _print(event, asked.account, as_json=as_json)

    read_stream(found, path, asked.parameters(), api_key, take=take, go_on=lambda: _go_on(last))


def read_stream(
    url: str,
    path: str,
    parameters: Mapping[str, Any],
    api_key: str | None,
    *,
    take: Callable[["Event"], object],
    go_on: Callable[[], str] = str,
) -> NoReturn:
    """Give every event of a stream to ``take``, until it ends; ``go_on`` says how to go on from there.

    :raises UnavailableError: it ended, or nobody answers any more.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with (
            httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(10.0, read=_SILENCE_SECONDS)) as client,
            client.stream("GET", path, params=parameters) as response,
            heeded() as check,
        ):
            if not response.is_success:
                response.read()
                raise refused(response)
            for event in events(response.iter_lines()):
                check()
                take(event)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"{url} does not answer any more ({error or type(error).__name__}){go_on()}") from None
    raise UnavailableError(f"{url} has ended the stream: the process stopped{go_on()}")


class Event(NamedTuple):
    """One server-sent event."""

    type: str
    id: str
    data: str


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Server-sent events out of their lines (HTML Living Standard, 9.2.6)."""
    said: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            said[name] = f"{said[name]}\n{value}" if name == "data" and name in said else value
            continue
        if "data" in said:
            yield Event(said.get("event", "message"), said.get("id", ""), said["data"])
        said = {}


def _print(event: Event, account: str, *, as_json: bool) -> None:
    said: dict[str, Any] = json.loads(event.data)
    if event.type == "stopped":
        raise UnavailableError(f"the processor has stopped: {said.get('detail')}")
    if event.type == "position":
        at = _position(said["position"])
        output.note(f"headrace: watching {account}, from {at} on; Ctrl-C ends it")
    elif event.type == "record":
        output.line({"position": _position(said["token"]), **said}) if as_json else _print_record(said)


def _print_record(said: Mapping[str, Any]) -> None:
    entity = f"{said['entity']['kind']}/{said['entity']['id']}" if said["entity"] else None
    about = f"{said['proposal']}: " if said["proposal"] else ""
    became = f"{about}{said['disposition']}" + (f" ({said['note']})" if said["note"] else "")
    cells = (_position(said["token"]), output.time(said["log_time"]), entity, said["type"], said["actor"], became)
    output.columns(cells)


def _position(token: str) -> str:
    at = Token.parse(token)
    return f"{at.partition}:{at.offset}"


def _go_on(last: str | None) -> str:
    return f"; go on behind what you have seen with --after {last}" if last is not None else ""
