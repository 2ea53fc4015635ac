"""``POST /v1/notifications/{provider}``: what providers send. Each is verified by its provider's module, and answered
once a hint is on the log; what changed is read later, by a sync.

A delivery that is turned away leaves a counter behind and nothing else. See ``docs/sources.md``.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter

from headrace.errors import AppendUnknownError, HeadraceError
from headrace.producers.connections import Connections, Watched
from headrace.producers.delivery import Limits, read_body
from headrace.producers.endpoint import PROBLEM, RETRY_SECONDS, UNKNOWN, Problem
from headrace.producers.hints import Hints
from headrace.producers.provider import Delivery, Hint, Provider, Received, Watch
from headrace.producers.refusal import NOTIFICATION_REFUSALS, REFUSALS, RefusedError
from headrace.producers.schedule import SourceKey

PATH: Final = "/v1/notifications"
_COMPARES: Final = ("missed", "removed")
_WATCHES: Final = ("reauthorize", "removed")


def notification_router(
    providers: Mapping[str, Provider],
    connections: Callable[[], Connections],
    hints: Hints,
    registry: CollectorRegistry,
    *,
    clock: Callable[[], float] = time.time,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> APIRouter:
    """The route for ``providers``, by name. One per ``registry``: refusals count in
    ``headrace_notifications_refused_total{provider,reason}``, hints in
    ``headrace_notifications_hints_total{provider,added}``. ``connections`` is asked when there is
    a notification; ``clock`` gives epoch seconds."""
    door = _Door(providers, connections, hints, registry, clock=clock, limits=limits)
    router = APIRouter(tags=["notifications"])

    async def deliver(request: Request, provider: str) -> Response:
        return await door.deliver(request, provider)

    router.add_api_route(
        f"{PATH}/{{provider}}",
        deliver,
        methods=["POST"],
        summary="Deliver a provider's notification",
        description="Verified as the provider documents. Answered as it expects, once a hint is on the log.",
        response_class=Response,
        responses=_responses(),
    )
    return router


class _Door:
    def __init__(
        self,
        providers: Mapping[str, Provider],
        connections: Callable[[], Connections],
        hints: Hints,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self._providers: Final = dict(providers)
        self._connections: Final = connections
        self._hints: Final = hints
        self._clock: Final = clock
        self._limits: Final = limits
        self._threads: anyio.CapacityLimiter | None = None
        self._refused: Final = Counter(
            "headrace_notifications_refused", "Notifications turned away.", ["provider", "reason"], registry=registry
        )
        self._hinted: Final = Counter(
            "headrace_notifications_hints",
            "Hints that notifications gave, and whether a record was added for them.",
            ["provider", "added"],
            registry=registry,
        )

    async def deliver(self, request: Request, name: str) -> Response:
        """Take a delivery, or refuse it and count that."""
        try:
            received = await self._take(request, name)
        except RefusedError as refused:
            return self._problem(name, refused)
        for reason in received.dropped:
            self._refused.labels(name, reason).inc()
        answer = received.answer
        return Response(answer.body, answer.status, media_type=answer.content_type)

    async def _take(self, request: Request, name: str) -> Received:
        provider = self._providers.get(name)
        if provider is None:
            raise RefusedError("unknown_endpoint", "no such provider is set up here: correct the URL, or set it up")
        body = await read_body(request, self._limits)
        headers = tuple((bytes(key), bytes(value)) for key, value in request.scope["headers"])
        query = tuple(request.query_params.multi_items())
        delivery = Delivery(request.method, headers, query, body, self._clock())
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self._limits.waiting)
        looked_up: dict[str, Watched] = {}
        received = await run_sync(self._verified, provider, delivery, looked_up, limiter=self._threads)
        for hint in dict.fromkeys(received.hints):
            await self._hint(name, hint, delivery, looked_up.get(hint.watch))
        return received

    def _verified(self, provider: Provider, delivery: Delivery, looked_up: dict[str, Watched]) -> Received:
        """What the delivery comes to; the watches that were looked up for that are in ``looked_up`` afterwards."""

        def watch(id_: str) -> Watch | None:
            found = self._connections().find_watch(provider.name, id_)
            if found is None:
                return None
            looked_up[id_] = found
            return found.watch

        try:
            return provider.receive(delivery, watch)
        except RefusedError:
            raise
        except HeadraceError:
            raise RefusedError(
                "log_unavailable", "it cannot be verified now: send the same notification again later"
            ) from None

    async def _hint(self, name: str, hint: Hint, delivery: Delivery, watched: Watched | None) -> None:
        try:
            source = await run_sync(self._due, name, hint, watched, limiter=self._threads)
            added = await self._hints.put(source, delivery, hint.delivery)
        except RefusedError:
            raise
        except AppendUnknownError:
            raise RefusedError(
                "outcome_unknown", "it may be on the log: send the same notification again, that is safe"
            ) from None
        except HeadraceError:
            raise RefusedError(
                "log_unavailable", "nothing was written: send the same notification again later"
            ) from None
        self._hinted.labels(name, "yes" if added else "no").inc()

    def _due(self, name: str, hint: Hint, watched: Watched | None) -> SourceKey:
        """Whose the hint is; what it asks for besides a sync is kept before the hint is."""
        connections = self._connections()
        watched = watched or connections.find_watch(name, hint.watch)
        if watched is None:
            raise RefusedError("unknown_watch", "what this names is watched no more: stop its watch")
        compare, watch = hint.kind in _COMPARES, hint.kind in _WATCHES
        if compare or watch:
            connections.put_due(watched.source, compare=compare, watch=watch)
        return watched.source

    def _problem(self, name: str, refused: RefusedError) -> Response:
        self._refused.labels(name if name in self._providers else UNKNOWN, refused.reason).inc()
        status, title = refused.refusal
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        problem = Problem(
            type=f"urn:headrace:notification:{refused.reason}",
            title=title,
            status=status,
            detail=str(refused),
            reason=refused.reason,
        )
        return JSONResponse(problem.model_dump(), status, headers, PROBLEM)


def _responses() -> dict[int | str, dict[str, Any]]:
    """For OpenAPI, from the tables of refusals."""
    titles: dict[int, list[str]] = {}
    for reason, refusal in {**REFUSALS, **NOTIFICATION_REFUSALS}.items():
        titles.setdefault(refusal.status, []).append(f"`{reason}`: {refusal.title}")
    schema = Problem.model_json_schema()
    said: dict[int | str, dict[str, Any]] = {
        status: {"description": ". ".join(found), "content": {PROBLEM: {"schema": schema}}}
        for status, found in sorted(titles.items())
    }
    for status in (200, 202, 204):
        said[status] = {"description": "As the provider expects.", "content": {}}
    return said
