"""The stream of ``headrace listen``: deliveries as the HTTP API tells of them, followed until it ends."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headrace.cli import output
from headrace.cli.door import running
from headrace.cli.reading import directory
from headrace.cli.watching import Event, read_stream
from headrace.errors import UnavailableError

_PATH: Final = "/v1/deliveries/watch"


def follow(last: int, store: Path | None, url: str | None, api_key: str | None, *, as_json: bool) -> None:
    """Print deliveries as they come, beginning with the ``last`` that came before.

    :raises UnavailableError: nobody serves the store, or the stream ended.
    """
    found = url if url is not None else asyncio.run(running(directory(store)))
    if found is None:
        raise UnavailableError(
            f"no process runs on {directory(store)} that anything could be delivered to; start `headrace dev`"
        )

    def take(event: Event) -> None:
        said: dict[str, Any] = json.loads(event.data)
        if event.type == "listening":
            output.note(f"headrace: listening at {found}; Ctrl-C ends it")
        elif event.type == "missed":
            output.note(f"headrace: {said['missed']} came too fast to be shown")
        elif event.type == "delivery":
            output.line(said) if as_json else output.text(told(said))
            sys.stdout.flush()

    read_stream(found, _PATH, {"last": last}, api_key, take=take)


def told(said: Mapping[str, Any]) -> str:
    """A delivery as a line for people."""
    size = f"{said['bytes']} B {said['digest']}" if said["bytes"] is not None else "body not read"
    if said["method"] == "GET":
        size = "GET"
    cells = (said["time"], said["name"], said["status"], _became(said), size, f"{said['ms']:g} ms")
    widths = (24, 16, 3, 40, 0, 0)
    return "  ".join(f"{output.plain(cell):<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _became(said: Mapping[str, Any]) -> str:
    if said["reason"] is not None:
        return f"refused: {said['reason']}"
    parts = [
        f"{one['account']} {one['source']}: hint {'added' if one['added'] else 'redundant'}"
        + (f" ({one['kind']})" if one["kind"] != "changed" else "")
        for one in said["hints"]
    ]
    parts += [f"{said['events']} events" if said["events"] != 1 else "1 event"] if said["door"] == "webhooks" else []
    parts += [f"dropped: {reason}" for reason in said["dropped"]]
    return ", ".join(parts) or "taken, leads to nothing"
