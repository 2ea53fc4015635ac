"""``headrace log redeliver``: a stored delivery run again, through the HTTP API."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.cli import output
from headrace.cli.door import body, open_door, refused
from headrace.cli.options import Place


async def run_again(
    place: Place, store: Path | None, url: str | None, api_key: str | None, *, dry_run: bool
) -> Mapping[str, Any]:
    """What the delivery at a position came to.

    :raises NotFoundError: there is no such record, or its source is not connected any more.
    :raises BadInputError: there is no delivery in it; the message says why.
    """
    token, position = place.token, place.position
    named = token.encode() if token is not None else f"{position.partition}:{position.offset}"
    async with open_door(store, url, api_key) as door:
        answer = await door.ask("POST", "/v1/deliveries", json={"position": named, "dry_run": dry_run})
        if not answer.is_success:
            raise refused(answer)
        return body(answer)


def print_told(done: Mapping[str, Any], *, dry_run: bool) -> None:
    """For people."""
    output.fields(
        {
            "delivery": done["delivery"],
            "sent to": done["to"],
            "received": done["received_at"],
            "bytes": done["bytes"],
            "says": ", ".join(done["kinds"]) or "nothing",
            "watched": "yes" if done["watched"] else "no more: replaced since",
        }
    )
    whose = f"{done['source']} of {done['account']}"
    if not done["kinds"]:
        output.text("there is nothing to do")
    elif dry_run:
        output.text(f"a hint for {whose} would be given")
    elif done["added"]:
        output.text(f"a hint for {whose} was added: it will be synced")
    else:
        output.text(f"{whose} waits for a sync already: no hint was added")
