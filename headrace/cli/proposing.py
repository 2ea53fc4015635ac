"""A proposal read or built, submitted through the HTTP API, and answered."""

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from headrace.cli import output
from headrace.cli.door import IN_PROCESS, body, open_door, refused
from headrace.cli.options import Subject
from headrace.cli.proposals import why
from headrace.cli.reading import directory
from headrace.cli.sending import object_of, read_text
from headrace.errors import BadInputError, UnavailableError
from headrace.schemas.envelope import normal_time
from headrace.schemas.refs import Token
from headrace.settings import load_settings

_READ: Final = re.compile(
    r"(?:(absent|scope):)?([a-z0-9_.]+)/(.+?)(?:\[([^,\[\]]*),([^,\[\]]*)\])?@([A-Za-z0-9_-]{50})\Z"
)
_BESIDE: Final = ("id", "account")


def built(
    type_: str,
    subject: Subject,
    basis: str,
    data: str | None,
    content: str | None,
    *,
    absent: bool,
    reads: Sequence[str],
    expires: str | None,
) -> dict[str, Any]:
    """A proposal out of options.

    :raises BadInputError: one of them cannot be read; the message says which and how to write it.
    """
    Token.parse(basis)
    asked: dict[str, Any] = {
        "entity": {"kind": subject.kind, "id": subject.id},
        "basis": basis,
        "absent": absent,
        "type": type_,
        "data": object_of(data, "--data") if data is not None else {},
        "reads": [parse_read(text) for text in reads],
    }
    if content is not None:
        asked["content"] = object_of(content, "--content")
    if expires is not None:
        asked["expires_at"] = normal_time(expires)
    return asked


def parse_read(text: str) -> dict[str, Any]:
    """``[absent:|scope:]KIND/ID[FROM,TO]@TOKEN``.

    :raises BadInputError: it is not of that form.
    """
    found = _READ.match(text)
    if found is None or (found[4] is not None and found[1] != "scope"):
        raise BadInputError(
            f"--read {text[:80]!r} cannot be read; write KIND/ID@TOKEN, absent:KIND/ID@TOKEN, or"
            " scope:CONTAINER/ID[FROM,TO]@TOKEN"
        )
    Token.parse(found[6])
    read: dict[str, Any] = {"what": found[1] or "entity", "kind": found[2], "id": found[3], "basis": found[6]}
    if found[1] == "scope":
        read["start"], read["end"] = (normal_time(bound) if bound else None for bound in found.group(4, 5))
    return read


def read_proposal(file: Path | None) -> dict[str, Any]:
    """A proposal in a file or on stdin, as the HTTP API takes it, with ``id`` and ``account`` beside.

    :raises BadInputError: it is none.
    """
    text = read_text(file, "proposal")
    if not text.strip():
        raise BadInputError("there is no proposal: it is empty; give JSON, or build one with --type")
    asked = object_of(text, "the proposal")
    if not isinstance(asked.get("account"), str):
        raise BadInputError('the proposal names no account: add "account": "..." beside "entity", "basis" and "type"')
    return asked


async def submitted(
    asked: Mapping[str, Any],
    store: Path | None,
    url: str | None,
    api_key: str | None,
    *,
    wait: int | None = None,
    verify: str | None = None,
) -> Mapping[str, Any]:
    """What the log says of it: the verdict; without ``verdict`` where there was none in time.

    :raises HeadraceError: it was not taken at all.
    """
    proposal_id = asked.get("id") or f"cli-{secrets.token_hex(8)}"
    sent = {name: value for name, value in asked.items() if name not in _BESIDE}
    headers = {"Idempotency-Key": str(proposal_id)} | ({"Prefer": f"wait={wait}"} if wait is not None else {})
    params = {"verify": verify} if verify is not None else {}
    path = f"/v1/accounts/{quote(asked['account'], safe='')}/proposals"
    async with open_door(store, url, api_key) as door:
        if verify is not None and door.where == IN_PROCESS and not load_settings(directory(store)).places.shared:
            raise UnavailableError(
                "--verify has what is read synced first, and no process runs on this store that does: start `headrace"
                " dev`; nothing was proposed"
            )
        response = await door.ask("POST", path, json=sent, headers=headers, params=params)
    return verdict_in(response)


def verdict_in(response: httpx.Response) -> Mapping[str, Any]:
    """The verdict in an answer, accepted or not.

    :raises HeadraceError: the answer is no verdict.
    """
    said = body(response)
    if "verdict" in said or response.is_success:
        return said
    raise refused(response)


def print_verdict(said: Mapping[str, Any]) -> None:
    """The verdict as a screen, with what to do next."""
    token = Token.parse(said["token"]) if said.get("token") else None
    partition = token.partition if token is not None else "?"
    if not said.get("verdict"):
        output.fields(
            {"proposal": said["proposal"], "submitted": f"{partition}:{said['offset']}", "verdict": "none yet"}
        )
        output.note("headrace: it is on the log; ask again with `headrace proposal show`, or with a longer --wait")
        return
    output.fields(
        {
            "proposal": said["proposal"],
            "verdict": said["verdict"] + (" (submitted before: the first one's)" if said.get("duplicate") else ""),
            "why": why(said["verdict"], said["finding"]) or None,
            "submitted": f"{partition}:{said['submitted_at']}",
            "judged": f"{partition}:{said['offset']} at {output.time(said['log_time'])}",
            "outcome": said["outcome"],
        }
    )
    hint = _NEXT.get(said["verdict"])
    if hint is not None:
        output.note("headrace: " + hint.format(id=said["proposal"], account=said["account"]))


_NEXT: Final = {
    "superseded": "read the entity again and decide anew; `headrace audit explain {id} --account {account}` tells why",
    "expired": "read the entity again and decide anew",
    "needs_review": "a person decides: `headrace proposal approve {id} --account {account}`, or dismiss",
    "held": "it is judged again once its sources were synced; `headrace source doctor` tells what keeps them from it",
    "unknown_basis": "pass back the tokens that reads gave you",
}
