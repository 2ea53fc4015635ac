"""``POST /v1/webhooks/standard/{endpoint}``: signed CloudEvents in, 2xx once the log has all of them.

The order of the checks is part of the door: what costs nothing comes first, nothing is parsed before the signature
holds, and nothing is written before every event of a batch is good. See ``docs/webhooks.md``.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, Field

from headrace.errors import AppendUnknownError, BadInputError, HeadraceError, LogClosedError
from headrace.log.port import Record
from headrace.producers.cloud_events import CloudEvent, Translation, read_events, trace_parent
from headrace.producers.deliveries import Deliveries, Noting
from headrace.producers.delivery import (
    BATCH,
    SINGLE,
    Limits,
    content_encoding,
    decompressed,
    is_batch,
    read_body,
)
from headrace.producers.intake import TooLongError
from headrace.producers.refusal import REFUSALS, RefusedError
from headrace.producers.signatures import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    Endpoint,
    read_signed,
    secret_key,
    verify,
)
from headrace.producers.strict_json import parse_json
from headrace.schemas.envelope import SOURCE_NAME, rfc3339
from headrace.schemas.refs import ACTOR_KINDS, OPAQUE_ID, Position, parse_id
from headrace.store import Store

PATH: Final = "/v1/webhooks/standard"
DOOR: Final = "webhooks"
"""What deliveries that come by these routes are noted under."""
DEFAULT_ENDPOINT: Final = "default"
ENDPOINT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
UNKNOWN: Final = "(unknown)"
"""The counter's ``endpoint`` label for requests to endpoints that do not exist: senders choose no label."""
RETRY_SECONDS: Final = 5
PROBLEM: Final = "application/problem+json"
_MAX_SOURCE_CHARS: Final = 135
"""So that a slash and what a CloudEvent says of its source still fit behind it."""


class Place(BaseModel):
    """Where an event stands in the log."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Accepted(BaseModel):
    """The log has all events of the delivery; their places are in the order of the body."""

    accepted: int = Field(ge=0)
    positions: list[Place]


class Problem(BaseModel):
    """Why a delivery was refused (RFC 9457). Nothing of it was written, unless ``reason`` is ``outcome_unknown``."""

    type: str
    title: str
    status: int
    detail: str
    reason: str


def webhook_router(
    store: Store,
    endpoints: Mapping[str, Endpoint],
    registry: CollectorRegistry,
    *,
    deliveries: Deliveries | None = None,
    clock: Callable[[], float] = time.time,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> APIRouter:
    """The routes for ``endpoints`` (by name; ``default`` also answers on the bare path). One per ``registry``.

    ``deliveries`` is told of each delivery; ``clock`` gives epoch seconds. Refusals count in
    ``headrace_webhook_refused_total{endpoint,reason}``, events that the log took in
    ``headrace_webhook_accepted_events_total{endpoint}``.

    :raises BadInputError: an endpoint cannot be used; the message says what to mend in its configuration.
    """
    door = _Door(store, endpoints, registry, deliveries or Deliveries(), clock=clock, limits=limits)
    router = APIRouter(tags=["webhooks"])

    async def deliver_default(request: Request) -> Response:
        return await door.deliver(request, DEFAULT_ENDPOINT)

    async def deliver(request: Request, endpoint: str) -> Response:
        return await door.deliver(request, endpoint)

    async def handshake_default() -> Response:
        return door.handshake(DEFAULT_ENDPOINT)

    async def handshake(endpoint: str) -> Response:
        return door.handshake(endpoint)

    doors: list[tuple[str, Callable[..., Any]]] = [(PATH, deliver_default), (f"{PATH}/{{endpoint}}", deliver)]
    for path, answer in doors:
        router.add_api_route(
            path,
            answer,
            methods=["POST"],
            status_code=202,
            summary="Deliver signed CloudEvents",
            description="Standard Webhooks 1.0.0 signature (v1) over the raw body; CloudEvents 1.0 JSON, one or many.",
            response_model=Accepted,
            responses=_responses(sorted({refusal.status for refusal in REFUSALS.values()})),
            openapi_extra=_REQUEST,
        )
    handshakes: list[tuple[str, Callable[..., Any]]] = [
        (PATH, handshake_default),
        (f"{PATH}/{{endpoint}}", handshake),
    ]
    for path, answer in handshakes:
        router.add_api_route(
            path,
            answer,
            methods=["OPTIONS"],
            summary="CloudEvents webhook handshake",
            response_class=Response,
            responses={200: {"description": "Deliveries are welcome here.", "content": {}}, **_responses([404])},
        )
    return router


class _Door:
    """What all endpoints share."""

    def __init__(
        self,
        store: Store,
        endpoints: Mapping[str, Endpoint],
        registry: CollectorRegistry,
        deliveries: Deliveries,
        *,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        for name, endpoint in endpoints.items():
            _check_endpoint(name, endpoint)
        self._store: Final = store
        self._endpoints: Final = dict(endpoints)
        self._keys: Final = {name: tuple(map(secret_key, one.secrets)) for name, one in endpoints.items()}
        self._translation: Final = Translation(store.intake, store.registry, frozenset(store.kinds))
        self._deliveries: Final = deliveries
        self._clock: Final = clock
        self._limits: Final = limits
        self._waiting = 0
        self._refused: Final = Counter(
            "headrace_webhook_refused", "Webhook deliveries turned away.", ["endpoint", "reason"], registry=registry
        )
        self._accepted: Final = Counter(
            "headrace_webhook_accepted_events",
            "Events from webhooks that are on the log.",
            ["endpoint"],
            registry=registry,
        )

    async def deliver(self, request: Request, name: str) -> Response:
        """Take a delivery, or refuse it and count that."""
        noting = Noting()
        label = name if name in self._endpoints else UNKNOWN
        try:
            positions = await self._take(request, self._endpoint(name), noting)
        except RefusedError as refused:
            response = self._problem(name, refused)
            self._note(noting, request, label, response.status_code, refused.reason)
            return response
        noting.events = len(positions)
        self._note(noting, request, label, 202)
        self._accepted.labels(name).inc(len(positions))
        places = [Place(partition=position.partition, offset=position.offset) for position in positions]
        accepted = Accepted(accepted=len(places), positions=places)
        return Response(accepted.model_dump_json(), 202, media_type="application/json")

    def _note(self, noting: Noting, request: Request, name: str, status: int, reason: str | None = None) -> None:
        self._deliveries.put(noting, door=DOOR, name=name, method=request.method, status=status, reason=reason)

    def handshake(self, name: str) -> Response:
        """CloudEvents webhooks 1.0.2, §4.2. Every origin may deliver, at any rate: the signature decides."""
        try:
            self._endpoint(name)
        except RefusedError as refused:
            return self._problem(name, refused)
        headers = {"Allow": "OPTIONS, POST", "WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "*"}
        return Response(status_code=200, headers=headers)

    def _endpoint(self, name: str) -> Endpoint:
        found = self._endpoints.get(name)
        if found is None:
            raise RefusedError(
                "unknown_endpoint", "no webhook endpoint has this name: correct the URL, or configure it"
            )
        return found

    async def _take(self, request: Request, endpoint: Endpoint, noting: Noting) -> list[Position]:
        noting.tenant = endpoint.tenant
        headers: list[tuple[bytes, bytes]] = request.scope["headers"]
        now = self._clock()
        signed = read_signed(headers, now)
        noting.body = body = await read_body(request, self._limits)
        verify(signed, self._keys[endpoint.name], body)
        webhook_id = signed.id.decode()
        delivery = _Delivery(
            endpoint,
            body,
            content_encoding(headers),
            is_batch(headers),
            rfc3339(int(now * 1000)),
            webhook_id if OPAQUE_ID.match(webhook_id) else None,
            trace_parent(request.headers.get("traceparent")),
        )
        if self._waiting >= self._limits.waiting:
            raise RefusedError("busy", "too many deliveries wait for the log: try again later")
        self._waiting += 1
        try:
            # A limiter of its own: these threads are bounded above, and never taken from those that serve reads.
            return await run_sync(self._append, delivery, limiter=anyio.CapacityLimiter(1))
        finally:
            self._waiting -= 1

    def _append(self, delivery: "_Delivery") -> list[Position]:
        """Everything from the verified body to the log, in a thread."""
        body = decompressed(delivery.body, delivery.encoding, self._limits.decompressed)
        events = read_events(parse_json(body), batch=delivery.batch, max_events=self._limits.events)
        records = [self._record(delivery, event) for event in events]
        if not records:
            return []
        try:
            return self._store.log.append(records)
        except AppendUnknownError:
            raise RefusedError(
                "outcome_unknown", "some events may be on the log: send the same delivery again, that is safe"
            ) from None
        except HeadraceError as error:
            # Senders are not told what went wrong here, but where the log has gone they have to know.
            gone = self._store.log.describe().successor if isinstance(error, LogClosedError) else None
            then = "send the same delivery again later" if gone is None else f"this log is closed; it goes on at {gone}"
            raise RefusedError("log_unavailable", f"nothing was written: {then}") from None

    def _record(self, delivery: "_Delivery", event: CloudEvent) -> Record:
        endpoint = delivery.endpoint
        incoming = self._translation.translate(endpoint.tenant, event)
        try:
            return self._store.intake.event(
                endpoint.tenant,
                incoming.account,
                incoming.event,
                source=f"{endpoint.source}/{incoming.source}",
                actor=endpoint.actor,
                observed_at=delivery.observed_at,
                correlation=delivery.correlation,
                traceparent=incoming.traceparent or delivery.traceparent,
            )
        except TooLongError as error:
            raise RefusedError("schema", f"{event.where}: {error}") from None
        except BadInputError:
            message = f"{event.where}: data does not fit the schema of {event.type}, or an attribute is too long"
            raise RefusedError("schema", message) from None

    def _problem(self, name: str, refused: RefusedError) -> Response:
        self._refused.labels(name if name in self._endpoints else UNKNOWN, refused.reason).inc()
        status, title = refused.refusal
        headers: dict[str, str] = {}
        if status == 401:
            headers["WWW-Authenticate"] = "StandardWebhooks"
        elif status == 503:
            headers["Retry-After"] = str(RETRY_SECONDS)
        problem = Problem(
            type=f"urn:headrace:webhook:{refused.reason}",
            title=title,
            status=status,
            detail=str(refused),
            reason=refused.reason,
        )
        return JSONResponse(problem.model_dump(), status, headers, PROBLEM)


class _Delivery(NamedTuple):
    """A delivery whose signature holds."""

    endpoint: Endpoint
    body: bytes
    encoding: str | None
    batch: bool
    observed_at: str
    correlation: str | None
    traceparent: str | None


def _check_endpoint(name: str, endpoint: Endpoint) -> None:
    where = f"webhook endpoint {name!r}"
    if not ENDPOINT_NAME.match(name) or endpoint.name != name:
        raise BadInputError(f"{where}: name it as its key, in a-z 0-9 _ -, at most 63")
    parse_id(endpoint.tenant, f"{where}: tenant")
    parse_id(endpoint.actor.id, f"{where}: actor id")
    if endpoint.actor.kind not in ACTOR_KINDS:
        raise BadInputError(f"{where}: the actor's kind must be one of {', '.join(sorted(ACTOR_KINDS))}")
    if not SOURCE_NAME.match(endpoint.source) or len(endpoint.source) > _MAX_SOURCE_CHARS:
        raise BadInputError(
            f"{where}: the source must be 1 to {_MAX_SOURCE_CHARS} of A-Z a-z 0-9 . _ ~ : / + = -,"
            f" such as webhook/{name}"
        )
    if not endpoint.secrets:
        raise BadInputError(f"{where}: give it a secret; without one anybody could write events")


def _responses(statuses: list[int]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI, from the table of refusals."""
    titles: dict[int, list[str]] = {}
    for reason, refusal in REFUSALS.items():
        titles.setdefault(refusal.status, []).append(f"`{reason}`: {refusal.title}")
    schema = Problem.model_json_schema()
    return {
        status: {"description": ". ".join(titles[status]), "content": {PROBLEM: {"schema": schema}}}
        for status in statuses
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"in": "header", "required": True, "name": name, "description": description, "schema": {"type": "string"}}


_REQUEST: Final[dict[str, Any]] = {
    "parameters": [
        _header(ID_HEADER, "The same on every retry."),
        _header(TIME_HEADER, "Epoch seconds of this attempt."),
        _header(SIGNATURE_HEADER, "`v1,` and base64, parted by spaces."),
    ],
    "requestBody": {
        "required": True,
        "content": {
            **{one: {"schema": {"type": "object", "title": "CloudEvent"}} for one in SINGLE},
            BATCH: {"schema": {"type": "array", "title": "CloudEvents", "items": {"type": "object"}}},
        },
    },
}
