"""For whoever runs headrace: is it alive, is it ready, what does the log hold, what was set aside."""

import logging
import time
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from headrace.api.context import Administers, Context, Here, Limit, answer
from headrace.api.guards import StrictRoute
from headrace.api.principals import authenticate, require
from headrace.api.problems import RETRY_SECONDS, ProblemError, documented
from headrace.api.responses import Health, LogModel, PartitionModel, Quarantine, QuarantinedModel
from headrace.errors import HeadraceError
from headrace.projections import freshness, queries
from headrace.projections.freshness import ProviderFreshness
from headrace.projections.port import Reader

router: Final = APIRouter(tags=["operations"], route_class=StrictRoute)
READY_LAG: Final = 1_000
"""Records the fold may be behind and still count as caught up: one batch."""
_log: Final = logging.getLogger("headrace.api")
_NO_STORE: Final = {"Cache-Control": "no-store"}


async def fold_lag(here: Context) -> int:
    """How many records of the log are not folded yet."""
    applied, ends = here.store.applied, (await here.describe()).ends
    return sum(max(0, end - applied.next_offset(partition)) for partition, end in enumerate(ends))


@router.get("/health/live", response_model=Health, responses=documented())
async def live() -> Response:
    """This process answers."""
    return answer(Health(status="ok"), headers=_NO_STORE)


@router.get("/health/ready", response_model=Health, responses=documented())
async def ready(here: Here) -> Response:
    """The fold runs and has caught up; 503 says what stopped it, or how far it is behind."""
    failure = here.store.applied.failure
    if failure is not None:
        raise ProblemError(503, "halted", str(failure))
    lag = await fold_lag(here)
    if lag > READY_LAG:
        raise ProblemError(
            503,
            "catching-up",
            f"the fold is {lag} records behind the log",
            headers={"Retry-After": str(RETRY_SECONDS)},
            members={"lag": lag},
        )
    return answer(Health(status="ok", lag=lag), headers=_NO_STORE)


@router.get(
    "/metrics",
    response_class=Response,
    responses=documented() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(here: Here, request: Request) -> Response:
    """Counters in Prometheus' text format. With API keys configured it takes one with the verb ``admin``."""
    require(authenticate(here.settings.api_keys, request.headers.get("authorization")), "admin")
    here.metrics.lag.set(await fold_lag(here))
    now = time.time_ns() // 1_000_000

    def query(reader: Reader) -> tuple[list[ProviderFreshness], int]:
        found = freshness.by_provider(reader, here.providers, now, freshness.max_staleness(reader, 0))
        return found, sum(one.held for one in freshness.held_accounts(reader))

    try:
        found, held = await here.read(query)
    except HeadraceError as error:  # the counters are told even so
        _log.warning("how fresh sources are cannot be told now: %s", error)
    else:
        here.metrics.fresh(found, now)
        here.metrics.held.set(held)
    return Response(generate_latest(here.metrics.registry), headers=_NO_STORE, media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/log", response_model=LogModel, responses=documented())
async def show_log(here: Here, principal: Administers) -> Response:  # noqa: ARG001 - who may is checked
    """The log: its id, where its partitions end, how far they are folded."""
    described = await here.describe()
    horizons = {one.partition: one for one in await here.read(queries.horizons)}
    partitions: list[PartitionModel] = []
    for partition, end in enumerate(described.ends):
        known = horizons.get(partition)
        folded, log_time = (known.next_offset, known.log_time) if known is not None else (0, 0)
        partitions.append(PartitionModel(partition=partition, end=end, folded=folded, log_time=log_time))
    log_id = described.log_id.hex() if described.log_id is not None else ""
    return answer(LogModel(log_id=log_id, successor=described.successor, partitions=partitions))


@router.get("/v1/quarantine", response_model=Quarantine, responses=documented())
async def show_quarantine(
    *,
    here: Here,
    principal: Administers,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,9}:\d{1,18}$", description="`next` of the page before")] = None,
) -> Response:
    """Records that were set aside, with the reason; of your tenant only."""
    partition, _, offset = (cursor or "0:-1").partition(":")
    tenant = None if principal.operator else principal.tenant
    found = await here.read(lambda reader: queries.quarantine(reader, tenant, (int(partition), int(offset)), limit + 1))
    last = found[limit - 1] if len(found) > limit else None
    names = tuple(QuarantinedModel.model_fields)
    page = Quarantine(
        records=[QuarantinedModel(**{name: row[name] for name in names}) for row in found[:limit]],
        next=f"{last['partition']}:{last['offset']}" if last is not None else None,
    )
    return answer(page)
