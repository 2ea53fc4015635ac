"""``headrace send --fixture``: a provider's delivery, made."""

from pathlib import Path
from typing import Any, Final

from headrace.cli import exits, output
from headrace.cli.door import body, open_door
from headrace.cli.fixtures import FIXTURES, Playing, request_of
from headrace.cli.reading import directory, nothing_at, reading
from headrace.settings import load_settings


def print_list(*, as_json: bool) -> None:
    """What there is to play."""
    if as_json:
        output.document([{"fixture": name, "is": one.told, "proof": one.proof} for name, one in FIXTURES.items()])
        return
    output.table(("FIXTURE", "IS", "PROOF"), ((name, one.told, one.proof) for name, one in FIXTURES.items()))


async def play(
    name: str,
    store: Path | None,
    url: str | None,
    *,
    account: str | None,
    endpoint: str | None,
    secret_file: Path | None,
) -> dict[str, Any]:
    """Send a fixture; what was answered, and whether that was to be expected.

    :raises BadInputError: it cannot be made here; the message says what is missing.
    :raises UnavailableError: nothing answers.
    """
    place = directory(store)
    settings = load_settings(place)
    playing = Playing(settings, (), (), account, endpoint, secret_file)
    if not nothing_at(place, settings.places):
        with reading(store) as opened:
            playing = playing._replace(connected=opened.connections.all(), watches=opened.connections.watches())
    made = request_of(name, playing)
    async with open_door(store, url, None) as door:
        answer = await door.ask(
            made.method, made.path, content=made.body, headers=dict(made.headers), params=dict(made.query)
        )
        said = body(answer)
        return {
            "fixture": name,
            "to": f"{door.where}{made.path}",
            "status": answer.status_code,
            "reason": said.get("reason"),
            "detail": said.get("detail"),
            "taken": answer.is_success,
            "expected": answer.is_success == made.taken,
            "note": made.note or None,
        }


_SAID: Final = {True: "taken", False: "refused"}


def told(done: dict[str, Any], *, as_json: bool) -> int:
    """Print what :func:`play` gave; the exit code."""
    if as_json:
        output.document(done)
    else:
        if done["note"]:
            output.note(f"headrace: {done['note']}")
        why = f" ({done['reason']}): {done['detail']}" if done["reason"] else ""
        output.text(f"{done['fixture']} to {done['to']}: {done['status']}, {_SAID[done['taken']]}{why}")
    return exits.OK if done["expected"] else exits.ERROR
