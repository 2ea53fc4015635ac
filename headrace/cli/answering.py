"""Answers to proposals that wait, and withdrawals, through the HTTP API."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from headrace.cli import exits, output
from headrace.cli.door import Door, body, open_door, refused
from headrace.cli.proposals import account_of
from headrace.cli.proposing import print_verdict, verdict_in
from headrace.cli.reading import reading
from headrace.errors import BadInputError


class Answer(NamedTuple):
    """``verb`` is approve, dismiss or withdraw; ``read`` is an approval's, ``reason`` the others'."""

    verb: str
    proposal: str
    account: str | None
    wait_s: int
    read: str | None = None
    reason: str | None = None


def answered(answer: Answer, store: Path | None, url: str | None, api_key: str | None, *, as_json: bool) -> int:
    """Say it, print the proposal's verdict then, and return the exit code.

    :raises StaleError: the proposal waits for no such answer.
    :raises NotFoundError: there is no such proposal.
    """
    if answer.account is None:
        if url is not None:
            raise BadInputError("with --url the account is not known here: give it with --account")
        with reading(store) as opened:
            _, account = account_of(opened, answer.proposal, None, None)
        answer = answer._replace(account=account)
    said = asyncio.run(_say(answer, store, url, api_key))
    output.document(said) if as_json else print_verdict(said)
    if not said.get("verdict"):
        return exits.UNAVAILABLE
    return exits.of_verdict(said["verdict"]) if answer.verb == "approve" else exits.OK


async def _say(answer: Answer, store: Path | None, url: str | None, api_key: str | None) -> Mapping[str, Any]:
    path = f"/v1/accounts/{quote(answer.account or '', safe='')}/proposals/{quote(answer.proposal, safe='')}"
    async with open_door(store, url, api_key) as door:
        if answer.verb == "approve":
            sent = {"read": answer.read or await _judged(door, path)}
        else:
            sent = {"reason": answer.reason} if answer.reason is not None else {}
        headers = {"Prefer": f"wait={answer.wait_s}"}
        response = await door.ask("POST", f"{path}/{answer.verb}", json=sent, headers=headers)
    said = body(response)
    if response.status_code == HTTPStatus.CONFLICT and "verdict" not in said:
        raise exits.StaleError(str(said.get("detail")))
    return verdict_in(response)


async def _judged(door: Door, path: str) -> str:
    """The token of where the proposal was last judged."""
    response = await door.ask("GET", path)
    if not response.is_success:
        raise refused(response)
    return str(body(response)["token"])
