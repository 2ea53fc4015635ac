"""Watching an account live: every record in log order as a server-sent event (HTML Living Standard, 9.2).

Each event's id is the token of its position, so that a client that comes back with ``Last-Event-ID`` misses nothing and
sees nothing twice. Streams hang on the one signal of the fold, not on a clock.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from headrace.api.context import AccountPath, AfterQuery, Context, Here, Reads, Seconds, account_horizon, reach_in
from headrace.api.events import event_record
from headrace.api.guards import StrictRoute
from headrace.api.problems import PREFIX, documented
from headrace.api.streams import streamed, waking
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.models import KindName, TokenText
from headrace.schemas.refs import parse_subject

router: Final = APIRouter(prefix="/v1/accounts/{account}", tags=["watch"], route_class=StrictRoute)
_RETRY_MS: Final = 1_000
_BATCH: Final = 200
_BEHIND_SECONDS: Final = 1.0
"""How often tables that are behind what was shown or said are looked at again."""


class Watch(NamedTuple):
    """What one stream is about. Empty ``kind`` or ``entity``: all."""

    tenant: str
    account: str
    partition: int
    kind: str
    entity: str


@router.get(
    "/watch",
    response_class=EventSourceResponse,
    responses=documented()
    | {200: {"description": "A stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def watch(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    seconds: Seconds,
    after: AfterQuery = None,
    last_event_id: Annotated[TokenText | None, Header(description="goes on behind this event")] = None,
    kind: Annotated[KindName | None, Query(description="of this entity kind only")] = None,
    entity: Annotated[str | None, Query(max_length=310, description="kind/id: about this entity only")] = None,
) -> Response:
    """Every record of an account from now on, or from behind ``Last-Event-ID`` or ``after=``, as it is folded.

    The first event is ``position`` (data: the token and log time that the stream starts from), then come ``record``s.
    ``stopped`` ends the stream when the processor has stopped. Comments keep the connection open.
    """
    start = last_event_id or after
    about_kind, about_id = parse_subject(entity) if entity is not None else (kind or "", "")
    watched = Watch(
        principal.tenant, account, here.store.intake.partition(principal.tenant, account), about_kind, about_id
    )
    reach = await reach_in(here, principal.tenant, account, start, seconds) if start is not None else None
    begin = await here.read(lambda reader: account_horizon(here, reader, principal.tenant, account), reach)
    if reach is not None:
        begin = begin._replace(next_offset=reach.token.offset + 1, chain=reach.token.check)
    return streamed(_stream(here, watched, begin))


async def _stream(here: Context, watched: Watch, begin: Horizon) -> AsyncIterator[ServerSentEvent]:
    applied, closing, changed = here.store.applied, here.closing, asyncio.Event()
    next_offset = begin.next_offset
    with waking(here, changed, here.store.applied.listening):
        position = {"position": begin.token.encode(), "log_time": begin.log_time}
        yield ServerSentEvent(json.dumps(position), event="position", id=begin.token.encode(), retry=_RETRY_MS)
        while not closing.closed:
            horizon, rows = await here.read(partial(_since, here, watched, next_offset))
            for row in rows:
                shown = event_record(horizon, row)
                yield ServerSentEvent(shown.model_dump_json(), event="record", id=shown.token)
            # Nothing new, whatever was said; or less than was shown (a database that crashed), which comes only once.
            behind = horizon.next_offset <= next_offset
            if not behind:
                next_offset = rows[-1]["offset"] + 1 if len(rows) == _BATCH else horizon.next_offset
            while (behind or applied.next_offset(watched.partition) <= next_offset) and not closing.closed:
                if applied.failure is not None:
                    said = {"type": PREFIX + "halted", "title": "Halted", "status": 503, "detail": str(applied.failure)}
                    yield ServerSentEvent(json.dumps(said), event="stopped")
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _BEHIND_SECONDS if behind else None)
                changed.clear()
                behind = False


def _since(here: Context, watched: Watch, next_offset: int, reader: Reader) -> tuple[Horizon, list[dict[str, Any]]]:
    horizon = account_horizon(here, reader, watched.tenant, watched.account)
    key, after = (watched.tenant, watched.account), next_offset - 1
    found = queries.account_events(reader, key, after=after, limit=_BATCH, kind=watched.kind, entity=watched.entity)
    return horizon, found
