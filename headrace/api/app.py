"""The whole HTTP API as one ASGI app."""

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI

from headrace.api import accounts, answers, claims, deliveries, entities, events, operations, problems, proposals, watch
from headrace.api.context import Context
from headrace.api.guards import Guards
from headrace.api.problems import ProblemDetails
from headrace.api.responses import VerdictProblem
from headrace.errors import BadInputError
from headrace.producers.endpoint import webhook_router
from headrace.settings import Settings, refuse_unsafe, webhook_endpoints
from headrace.sourcing import notifications_of
from headrace.store import Store

_REFS: Final = "#/components/schemas/{model}"


def create_app(store: Store, settings: Settings) -> FastAPI:
    """The app over an open store, which stays the caller's to close. ``app.state.context.closing.close()`` ends open
    streams before a server stops.

    :raises BadInputError: the store is open for reading only, or the settings are unsafe.
    """
    if not store.writer:
        raise BadInputError("the API needs a store that is open for writing: Store(directory, writer=True)")
    refuse_unsafe(settings)
    app = FastAPI(
        title="headrace",
        version=version("headrace"),
        description="An agent's output is accepted only if what it was based on is still the latest.",
        docs_url=None,
        redoc_url=None,
    )
    context = Context(store, settings)
    app.state.context = context
    problems.install(app)
    for part in (accounts, entities, events, proposals, answers, claims, watch, operations):
        app.include_router(part.router)
    registry, seen = context.metrics.registry, context.deliveries
    app.include_router(webhook_router(store, webhook_endpoints(settings), registry, deliveries=seen))
    notified = notifications_of(store, settings, registry, seen)
    app.include_router(notified.router)
    app.include_router(deliveries.router(notified.redelivery))
    app.add_middleware(Guards, local_only=not settings.api_keys, metrics=context.metrics)
    _describe(app, keyed=bool(settings.api_keys))
    return app


def _describe(app: FastAPI, *, keyed: bool) -> None:
    """Serve an OpenAPI document that names what every route can answer, problems included."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = made()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for model in (ProblemDetails, VerdictProblem):
            schema = model.model_json_schema(ref_template=_REFS, mode="serialization")
            for name, nested in schema.pop("$defs", {}).items():
                schemas.setdefault(name, nested)
            schemas[model.__name__] = schema
        if keyed:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations_ in document["paths"].items():
                if path.startswith("/v1/") and not path.startswith(("/v1/webhooks/", "/v1/notifications/")):
                    for operation in operations_.values():
                        operation["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
