"""Errors as problem details (RFC 9457), whatever raised them. Nothing of our insides is in them."""

import logging
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headrace.errors import (
    AppendUnknownError,
    BadInputError,
    FencedError,
    HaltError,
    HeadraceError,
    LogClosedError,
    NotFoundError,
    UnavailableError,
)

MEDIA_TYPE: Final = "application/problem+json"
PREFIX: Final = "urn:headrace:problem:"
RETRY_SECONDS: Final = 1
_log: Final = logging.getLogger("headrace.api")


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457. ``type`` is ``urn:headrace:problem:…``, or of a refused proposal ``urn:headrace:verdict:…``."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    errors: list[Fault] | None = None
    position: str | None = Field(default=None, description="token read at; the basis of what was absent")


class ProblemError(HeadraceError, HTTPException):
    """A request ends with this problem. ``kind`` is the end of its ``type``."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        HTTPException.__init__(self, status, detail, dict(headers or {}))
        self.kind: Final = kind
        self.members: Final = dict(members or {})

    def __str__(self) -> str:
        return self.detail


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """The answer with a problem of our own as its body."""
    found = ProblemDetails(
        type=PREFIX + kind, title=kind.replace("-", " ").capitalize(), status=status, detail=detail, **(members or {})
    )
    return problem_response(found, headers)


def problem_response(found: ProblemDetails, headers: Mapping[str, str] | None = None) -> Response:
    """The answer with this problem as its body."""
    body = found.model_dump_json(exclude_none=True)
    return Response(body, found.status, {"Cache-Control": "no-store", **(headers or {})}, MEDIA_TYPE)


_RETRY: Final = {"Retry-After": str(RETRY_SECONDS)}
_KINDS: Final[tuple[tuple[type[HeadraceError], int, str, Mapping[str, str]], ...]] = (
    (NotFoundError, 404, "not-found", {}),
    (BadInputError, 422, "bad-input", {}),
    (AppendUnknownError, 503, "outcome-unknown", _RETRY),
    (UnavailableError, 503, "unavailable", _RETRY),
    (LogClosedError, 503, "log-closed", {}),
    (HaltError, 503, "halted", _RETRY),
    (FencedError, 503, "halted", _RETRY),
)


def of_error(error: HeadraceError) -> Response | None:
    """The problem that an exception of ours stands for, ``None`` where it is a bug that it came so far."""
    for kind, status, name, headers in _KINDS:
        if isinstance(error, kind):
            detail = str(error)
            if kind is AppendUnknownError:
                detail += "; send the same request with the same Idempotency-Key again: that is always safe"
            return problem(status, name, detail, headers=headers)
    return None


def internal(error: BaseException) -> Response:
    """The answer to a bug: logged in full, and told as little as can be."""
    _log.error("a request failed on a bug", exc_info=error)
    return problem(500, "internal", "headrace failed on a bug; its log has the details")


async def _on_problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        return internal(error)
    return problem(error.status_code, error.kind, error.detail, headers=error.headers, members=error.members)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return internal(error)
    status, headers, detail = HTTPStatus(error.status_code), dict(error.headers or {}), str(error.detail)
    kind = {404: "no-such-route", 405: "method-not-allowed"}.get(status, status.phrase.lower().replace(" ", "-"))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request) or headers.get("Allow", "")
        detail = f"this resource takes {headers['Allow']}"
    elif status == HTTPStatus.NOT_FOUND:
        detail = "there is no such route; /openapi.json lists them all"
    return problem(status, kind, detail, headers=headers)


def _allowed(request: Request) -> str:
    """Every method of the path that was asked for (one route knows only its own)."""
    path = getattr(request.scope.get("route"), "path_format", "")
    return ", ".join(sorted(method.upper() for method in request.app.openapi()["paths"].get(path, ())))


async def _on_invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return internal(error)
    faults = [
        {"where": "/".join(str(part) for part in fault["loc"]), "message": fault["msg"]} for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['where']}: {fault['message']}" for fault in faults[:5])
    return problem(422, "bad-input", detail or "the request cannot be used", members={"errors": faults[:50]})


async def _on_ours(_: Request, error: Exception) -> Response:
    found = of_error(error) if isinstance(error, HeadraceError) else None
    return found if found is not None else internal(error)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HeadraceError, _on_ours)


STATUSES: Final[Mapping[int, str]] = {
    400: "The body is no JSON",
    401: "The API key is missing, unknown or has run out",
    403: "The API key lacks the verb, or the request comes from another site",
    404: "Not there, or another tenant's, which looks the same",
    405: "The method is not allowed here",
    409: "Something is so that this cannot be",
    410: "Too late",
    413: "The body is larger than 1 MiB",
    415: "The body is not application/json",
    421: "Without API keys headrace answers to loopback names only",
    422: "The request cannot be used",
    500: "A bug",
    503: "A part that is needed does not answer now",
}


def documented(*statuses: int, verdicts: Collection[int] = ()) -> dict[int | str, dict[str, Any]]:
    """For ``responses=``: these statuses, and those that every route has, as problems; ``verdicts`` are statuses that
    refused proposals have too."""
    always = (401, 403, 404, 405, 421, 422, 500, 503)
    ours, of_verdicts = {"$ref": "#/components/schemas/ProblemDetails"}, {"$ref": "#/components/schemas/VerdictProblem"}
    return {
        status: {
            "description": STATUSES[status],
            "content": {MEDIA_TYPE: {"schema": {"anyOf": [of_verdicts, ours]} if status in verdicts else ours}},
        }
        for status in sorted({*always, *statuses, *verdicts})
    }
