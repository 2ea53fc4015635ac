"""For whoever runs headrace: deliveries of providers, hooks and webhooks as they come, and one of them run again."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from headrace.api.context import Administers, Context, Here, answer
from headrace.api.guards import StrictRoute
from headrace.api.principals import Principal
from headrace.api.problems import documented
from headrace.api.streams import streamed, waking
from headrace.errors import NotFoundError
from headrace.log.port import Log, Stored
from headrace.producers.deliveries import KEPT, Seen
from headrace.producers.redelivery import Redelivery
from headrace.schemas.envelope import rfc3339
from headrace.schemas.refs import Position, Token, parse_account_key

_AT_ONCE: Final = 100


class AgainBody(BaseModel):
    """Which delivery to run again."""

    model_config = ConfigDict(extra="forbid")

    position: Annotated[
        str,
        Field(
            pattern=r"^([0-9]{1,9}:[0-9]{1,18}|[A-Za-z0-9_-]{50})$",
            description="of a source.notified: PARTITION:OFFSET, or its token",
        ),
    ]
    dry_run: bool = Field(default=False, description="only say what it would come to")


class AgainModel(BaseModel):
    """What a stored delivery comes to, read again."""

    source: str
    account: str
    to: str = Field(description="the provider or hook that it was sent to")
    delivery: str | None = Field(description="the provider's own id of it")
    received_at: str
    bytes: int = Field(ge=0, description="of what is kept of its body")
    kinds: list[str] = Field(description="changed, missed, reauthorize, removed; none: it says nothing to anybody")
    watched: bool = Field(description="whether what it names is watched still")
    added: bool | None = Field(description="whether a hint was added; false: one waits already; null: a dry run")


def router(redelivery: Redelivery) -> APIRouter:
    """The routes."""
    made = APIRouter(prefix="/v1/deliveries", tags=["operations"], route_class=StrictRoute)

    @made.get(
        "/watch",
        response_class=EventSourceResponse,
        responses=documented()
        | {200: {"description": "A stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def watch_deliveries(
        *,
        here: Here,
        principal: Administers,
        last: Annotated[int, Query(ge=0, le=KEPT, description="begin with so many that came before")] = 0,
    ) -> Response:
        """Deliveries of providers, hooks and signed webhooks to this process as they come: what became of each.

        The first event is ``listening``; then come ``delivery``s, and ``missed`` where some came too fast to be shown.
        With API keys, those taken for another tenant are left out. None of it is kept but the last 500, in memory.
        """
        return streamed(_stream(here, principal, last))

    @made.post("", response_model=AgainModel, responses=documented(400, 413, 415))
    async def run_again(*, here: Here, principal: Administers, body: AgainBody) -> Response:
        """Read a stored delivery again, as today's code does, and give its source a hint.

        Who sent it is not verified again: what showed that is not kept.
        """
        stored = await here.ask(lambda log: _stored(log, principal, body.position))
        found = await to_thread.run_sync(lambda: redelivery.run(stored, dry_run=body.dry_run), limiter=here.appending)
        return answer(
            AgainModel(
                source=found.source.source,
                account=found.source.account,
                to=found.to,
                delivery=found.delivery_id,
                received_at=rfc3339(int(found.received_at * 1_000)),
                bytes=found.size,
                kinds=list(found.kinds),
                watched=found.watch,
                added=found.added,
            )
        )

    return made


def _stored(log: Log, principal: Principal, text: str) -> Stored:
    """The record, if it is the principal's tenant's.

    :raises NotFoundError: there is none; another tenant's looks the same.
    """
    token = Token.parse(text) if ":" not in text else None
    at = Position(token.partition, token.offset) if token is not None else Position(*map(int, text.split(":")))
    described = log.describe()
    none = NotFoundError("no delivery is kept there; `headrace log ls` lists what is: a delivery is a source.notified")
    if at.partition >= described.partitions or at.offset >= described.ends[at.partition]:
        raise none
    if token is not None and token.log_id != described.log_id:
        raise none
    found = log.read(at.partition, at.offset, 1)
    if not found or found[0].key is None:
        raise none
    if not principal.operator and parse_account_key(found[0].key)[0] != principal.tenant:
        raise none
    return found[0]


async def _stream(here: Context, principal: Principal, last: int) -> AsyncIterator[ServerSentEvent]:
    deliveries, closing, changed = here.deliveries, here.closing, asyncio.Event()
    with waking(here, changed, here.deliveries.listening):
        number = max(0, deliveries.number - last)
        yield ServerSentEvent(json.dumps({"kept": KEPT, "seen": deliveries.number}), event="listening")
        while not closing.closed:
            found = deliveries.after(number)
            if found and last == 0 and found[0].number > number + 1:
                missed = found[0].number - number - 1
                yield ServerSentEvent(json.dumps({"missed": missed}), event="missed")
            for one in found[:_AT_ONCE]:
                number = one.number
                shown = shown_to(principal, one)
                if shown is not None:
                    yield ServerSentEvent(json.dumps(shown), event="delivery", id=str(one.number))
            last = 0
            if deliveries.number <= number and not closing.closed:
                await changed.wait()
                changed.clear()


def shown_to(principal: Principal, seen: Seen) -> dict[str, Any] | None:
    """What a principal may see of a delivery: nothing, where it was another tenant's."""
    hints = [one for one in seen.hints if principal.operator or one.source.tenant == principal.tenant]
    others = (seen.hints and not hints) or seen.tenant not in (None, principal.tenant)
    if others and not principal.operator:
        return None
    return {
        "number": seen.number,
        "time": rfc3339(seen.at),
        "door": seen.door,
        "name": seen.name,
        "method": seen.method,
        "status": seen.status,
        "reason": seen.reason,
        "dropped": list(seen.dropped),
        "hints": [
            {"account": one.source.account, "source": one.source.source, "kind": one.kind, "added": one.added}
            for one in hints
        ],
        "events": seen.events,
        "bytes": seen.size,
        "digest": seen.digest,
        "ms": round(seen.ms, 1),
    }
