"""What stands before every route: no bug gets out unanswered, no other site's page gets in, no body is too large."""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.api import problems
from headrace.api.metrics import Metrics
from headrace.api.problems import ProblemError
from headrace.producers.refusal import RefusedError
from headrace.producers.strict_json import parse_json
from headrace.settings import is_loopback

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
WEBHOOKS: Final = ("/v1/webhooks/", "/v1/notifications/")
"""Webhooks guard themselves: they are signed, may be compressed, and count what they refuse."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_log: Final = logging.getLogger("headrace.api")


class Guards:
    """ASGI middleware, the outermost. With ``local_only`` (no API keys) it also keeps web pages of other sites out: a
    name that a hostile DNS server points at this machine is no loopback name, and a browser says where a request that
    changes something comes from."""

    def __init__(self, app: ASGIApp, *, local_only: bool, metrics: Metrics) -> None:
        self._app: Final = app
        self._local_only: Final = local_only
        self._metrics: Final = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification, 3.0."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 0, time.perf_counter()

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, told)
        except Exception as error:
            if status:
                _log.exception("a request failed on a bug after its answer had begun")
                raise
            await problems.internal(error)(scope, receive, told)
        finally:
            route = scope.get("route")
            template = getattr(route, "path_format", None) or getattr(route, "path", None) or "none"
            self._metrics.answered(scope["method"], template, status, time.perf_counter() - began)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(WEBHOOKS):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._foreign(scope["method"], headers) if self._local_only else None
        if refusal is None and scope["method"] not in _SAFE:
            body = await _body(headers, receive)
            refusal = body if isinstance(body, Response) else None
            if not isinstance(body, Response):
                receive = _replay(body, receive)
        await (refusal or self._app)(scope, receive, send)

    def _foreign(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not is_loopback(_name(host)):
            detail = "without API keys headrace answers to localhost and loopback addresses only: use one, or add keys"
            return problems.problem(421, "not-loopback", detail)
        origin = headers.get("origin")
        if method not in _SAFE and origin is not None and origin.partition("://")[2] != host:
            return problems.problem(403, "other-site", "a page of another site may not do this without an API key")
        return None


def _name(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _body(headers: Headers, receive: Receive) -> bytes | Response:
    """The whole body, or why it is not taken. Counted as it comes, whatever its length was said to be."""
    said = headers.get("content-length", "")
    too_large = problems.problem(413, "too-large", f"the body is larger than {MAX_BODY_BYTES} bytes: send less at once")
    if said.isdigit() and int(said) > MAX_BODY_BYTES:
        return too_large
    chunks, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return problems.problem(400, "incomplete", "the body broke off")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return too_large
        chunks.append(chunk)
        more = message.get("more_body", False)
    if size and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return problems.problem(415, "content-type", "send the body as application/json")
    if headers.get("content-encoding", "identity") != "identity":
        return problems.problem(415, "content-encoding", "send the body uncompressed")
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body that was read, then whatever comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class _StrictRequest(Request):
    async def json(self) -> object:
        try:
            return parse_json(await self.body(), max_depth=MAX_DEPTH)
        except RefusedError as error:
            kind = error.reason.replace("_", "-")
            raise ProblemError(error.refusal.status, kind, str(error)) from None


class StrictRoute(APIRoute):
    """A route whose JSON means one thing to everybody (see :mod:`headrace.producers.strict_json`)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See :class:`fastapi.routing.APIRoute`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict
