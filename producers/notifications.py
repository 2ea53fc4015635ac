"""``POST /v1/notifications/{provider}``: what providers and hooks send. Each is verified by its provider's module, or
as its hook is configured, and answered once a hint is on the log; what changed is read later, by a sync.

A delivery that is turned away leaves a counter behind and nothing else. See ``docs/sources.md``.
"""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter

from headrace.errors import AppendUnknownError, BadInputError, HeadraceError
from headrace.producers.connections import Connections, Watched
from headrace.producers.deliveries import Deliveries, Hinted, Noting
from headrace.producers.delivery import Limits, read_body
from headrace.producers.endpoint import PROBLEM, RETRY_SECONDS, UNKNOWN, Problem
from headrace.producers.hints import Hints
from headrace.producers.hooks import Hook
from headrace.producers.provider import Answer, Delivery, Hint, Provider, Watch
from headrace.producers.refusal import NOTIFICATION_REFUSALS, REFUSALS, RefusedError
from headrace.producers.schedule import SourceKey

PATH: Final = "/v1/notifications"
DOOR: Final = "notifications"
"""What deliveries that come by these routes are noted under."""
_NO_SNIFF: Final = {"X-Content-Type-Options": "nosniff"}
"""Handshakes repeat what they are asked: no browser may take that for a page."""
_COMPARES: Final = ("missed", "removed")
_WATCHES: Final = ("reauthorize", "removed")


class Due(NamedTuple):
    """A source that a delivery says something of; ``delivery`` is what is kept of it."""

    source: SourceKey
    hint: Hint
    delivery: Delivery


class _Taken(NamedTuple):
    """A delivery that was let in: what it leads to, and how it is answered."""

    due: tuple[Due, ...]
    answer: Answer
    dropped: tuple[str, ...] = ()


def notification_router(
    providers: Mapping[str, Provider],
    connections: Callable[[], Connections],
    hints: Hints,
    registry: CollectorRegistry,
    *,
    hooks: Mapping[str, Hook] | None = None,
    deliveries: Deliveries | None = None,
    clock: Callable[[], float] = time.time,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> APIRouter:
    """The routes for ``providers`` and ``hooks``, by name. One per ``registry``: refusals count in
    ``headrace_notifications_refused_total{provider,reason}``, hints in
    ``headrace_notifications_hints_total{provider,added}``. ``connections`` is asked when there is
    a notification; ``deliveries`` is told of each; ``clock`` gives epoch seconds.

    :raises BadInputError: a hook has a provider's name.
    """
    door = _Door(
        providers,
        connections,
        hints,
        registry,
        hooks=hooks or {},
        deliveries=deliveries or Deliveries(),
        clock=clock,
        limits=limits,
    )
    router = APIRouter(tags=["notifications"])

    async def deliver(request: Request, provider: str) -> Response:
        return await door.deliver(request, provider)

    async def handshake(request: Request, provider: str) -> Response:
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
    router.add_api_route(
        f"{PATH}/{{provider}}",
        handshake,
        methods=["GET"],
        summary="Answer a hook's handshake",
        description="What a service asks before it delivers, such as Nylas' challenge. Leads to nothing.",
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
        hooks: Mapping[str, Hook],
        deliveries: Deliveries,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        if both := providers.keys() & hooks.keys():
            raise BadInputError(f"{min(both)} is a provider's name: give the hook another one")
        self._providers: Final = dict(providers)
        self._hooks: Final = dict(hooks)
        self._connections: Final = connections
        self._hints: Final = hints
        self._deliveries: Final = deliveries
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
        noting = Noting()
        label = name if name in self._providers or name in self._hooks else UNKNOWN
        try:
            taken = await self._take(request, name, noting)
        except RefusedError as refused:
            response = self._problem(label, refused)
            self._note(noting, request, label, response.status_code, refused.reason)
            return response
        for reason in taken.dropped:
            self._refused.labels(name, reason).inc()
        answer = taken.answer
        self._note(noting, request, label, answer.status, dropped=taken.dropped)
        return Response(answer.body, answer.status, _NO_SNIFF, media_type=answer.content_type)

    def _note(
        self,
        noting: Noting,
        request: Request,
        name: str,
        status: int,
        reason: str | None = None,
        *,
        dropped: tuple[str, ...] = (),
    ) -> None:
        method = request.method
        self._deliveries.put(noting, door=DOOR, name=name, method=method, status=status, reason=reason, dropped=dropped)

    async def _take(self, request: Request, name: str, noting: Noting) -> _Taken:
        provider, hook = self._providers.get(name), self._hooks.get(name)
        if provider is None and hook is None:
            raise RefusedError("unknown_endpoint", "no such provider is set up here: correct the URL, or set it up")
        query = tuple(request.query_params.multi_items())
        if request.method != "POST":
            if hook is None:
                raise RefusedError("no_handshake", "deliveries come by POST; nothing is to be asked for here")
            return _Taken((), hook.handshake(query))
        noting.body = body = await read_body(request, self._limits)
        headers = tuple((bytes(key), bytes(value)) for key, value in request.scope["headers"])
        delivery = Delivery(request.method, headers, query, body, self._clock(), name)
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self._limits.waiting)
        taken = await run_sync(self._verified, provider, hook, delivery, limiter=self._threads)
        for due in taken.due:
            await self._hint(name, due, noting)
        return taken

    def _verified(self, provider: Provider | None, hook: Hook | None, delivery: Delivery) -> _Taken:
        """What a delivery comes to, in a thread."""
        try:
            if provider is not None:
                return self._of_provider(provider, delivery)
            assert hook is not None
            return self._of_hook(hook, delivery)
        except RefusedError:
            raise
        except HeadraceError:
            raise RefusedError(
                "log_unavailable", "it cannot be verified now: send the same notification again later"
            ) from None

    def _of_provider(self, provider: Provider, delivery: Delivery) -> _Taken:
        looked_up: dict[str, Watched] = {}
        connections = self._connections()

        def watch(id_: str) -> Watch | None:
            found = connections.find_watch(provider.name, id_)
            if found is None:
                return None
            looked_up[id_] = found
            return found.watch

        received = provider.receive(delivery, watch)
        due: list[Due] = []
        for hint in dict.fromkeys(received.hints):
            watched = looked_up.get(hint.watch) or connections.find_watch(provider.name, hint.watch)
            if watched is None:
                raise RefusedError("unknown_watch", "what this names is watched no more: stop its watch")
            kept = delivery._replace(body=received.parts.get(hint, delivery.body))
            due.append(Due(watched.source, hint, kept))
        return _Taken(tuple(due), received.answer, received.dropped)

    def _of_hook(self, hook: Hook, delivery: Delivery) -> _Taken:
        hint = hook.receive(delivery, most=self._limits.decompressed)
        sources = self._connections().hooked(hook.name, hint.watch)
        if not sources:
            raise RefusedError(
                "unknown_account",
                f"connect a source as this account: headrace source add … --set hook={hook.name}/ACCOUNT",
            )
        signature = hook.scheme.header.encode()
        kept = delivery._replace(headers=tuple(one for one in delivery.headers if one[0] != signature))
        return _Taken(tuple(Due(source, hint, kept) for source in sources), Answer(HTTPStatus.OK))

    async def _hint(self, name: str, due: Due, noting: Noting) -> None:
        try:
            await run_sync(put_due, self._connections(), due, limiter=self._threads)
            added = await self._hints.put(due.source, due.delivery, due.hint.delivery)
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
        noting.hints.append(Hinted(due.source, due.hint.kind, added))
        self._hinted.labels(name, "yes" if added else "no").inc()

    def _problem(self, label: str, refused: RefusedError) -> Response:
        self._refused.labels(label, refused.reason).inc()
        status, title = refused.refusal
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        elif status == 405:
            headers["Allow"] = "POST"
        problem = Problem(
            type=f"urn:headrace:notification:{refused.reason}",
            title=title,
            status=status,
            detail=str(refused),
            reason=refused.reason,
        )
        return JSONResponse(problem.model_dump(), status, headers, PROBLEM)


def put_due(connections: Connections, due: Due) -> None:
    """Keep what a hint asks for besides a sync; before the hint is kept."""
    compare, watch = due.hint.kind in _COMPARES, due.hint.kind in _WATCHES
    if compare or watch:
        connections.put_due(due.source, compare=compare, watch=watch)


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
