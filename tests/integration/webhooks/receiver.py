"""A real store with the webhook router in front, and deliveries to make to it."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from headrace.log.port import Stored
from headrace.producers.delivery import Limits
from headrace.producers.endpoint import webhook_router
from headrace.producers.signatures import Endpoint, sign
from headrace.schemas.envelope import Envelope, from_headers
from headrace.schemas.refs import ActorRef, Position
from headrace.store import Store
from tests.integration.stores import read_log

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SECOND = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
STRANGER = "whsec_" + base64.b64encode(bytes(32)).decode()
NOW = 1_700_000_000
PERSONAL = "ann@personal.example"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SINGLE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
PATH = "/v1/webhooks/standard"
ENDPOINTS = {
    "default": Endpoint("default", "t1", "webhook/default", ActorRef("user", "ann"), (SECRET, SECOND)),
    "crm": Endpoint("crm", "t2", "webhook/crm", ActorRef("system", "crm"), (SECOND,)),
}

Headers = list[tuple[bytes, bytes]]


class Delivery(NamedTuple):
    """A request to be made."""

    body: bytes
    headers: Headers
    path: str = PATH


class Receiver:
    """A store with a router in front, and what a test asks of both."""

    def __init__(self, store: Store, limits: Limits = Limits(), app: FastAPI | None = None) -> None:  # noqa: B008
        self.store = store
        self.metrics = CollectorRegistry()
        self.app = app or FastAPI()
        if app is None:
            router = webhook_router(store, ENDPOINTS, self.metrics, clock=lambda: NOW, limits=limits)
            self.app.include_router(router)

    def client(self) -> httpx.AsyncClient:
        """A client without a network between."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    def post(self, *deliveries: Delivery) -> list[httpx.Response]:
        """Make the requests, all at once."""

        async def run() -> list[httpx.Response]:
            async with self.client() as client:
                return await asyncio.gather(
                    *(client.post(one.path, content=one.body, headers=one.headers) for one in deliveries)
                )

        return asyncio.run(run())

    def ends(self) -> tuple[int, ...]:
        """Where the log ends, by partition."""
        return self.store.log.describe().ends

    def counted(self) -> dict[str, float]:
        """Every counter that is not zero, as ``endpoint/reason``."""
        return {
            "/".join([sample.labels["endpoint"], sample.labels.get("reason", "accepted")]): sample.value
            for metric in self.metrics.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.value
        }

    def applied(self, positions: Sequence[Position]) -> list[str]:
        """What the fold made of the records, once it has them."""
        for position in positions:
            assert self.store.applied.wait(position.partition, position.offset, 20)
        with self.store.tables.snapshot() as reader:
            sql = "SELECT disposition FROM events WHERE partition = :p AND offset = :o"
            return [reader.rows(sql, {"p": p, "o": o})[0]["disposition"] for p, o in positions]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Rows of the tables."""
        with self.store.tables.snapshot() as reader:
            return [dict(row) for row in reader.rows(sql, {})]


def event(**changes: Any) -> dict[str, Any]:
    """A good CloudEvent with some attributes changed; ``...`` takes one out."""
    good: dict[str, Any] = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "mailer",
        "type": "mail.received",
        "subject": "mail.thread/t-1",
        "account": "ann-1",
        "time": "2026-11-21T18:15:00+01:00",
        "data": {"message": "<m1@x>", "sender": PERSONAL, "labels": ["INBOX"], "content": {"subject": "Hi"}},
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def signed(
    body: bytes,
    content_type: str = SINGLE,
    *more: tuple[bytes, bytes],
    secret: str = SECRET,
    at: int = NOW,
    webhook_id: str = "msg_1",
    path: str = PATH,
) -> Delivery:
    """A delivery with its signature."""
    made = sign(secret, webhook_id, at, body)
    headers = [(name.encode(), value.encode()) for name, value in made.items()]
    return Delivery(body, [*headers, (b"content-type", content_type.encode()), *more], path)


def told(value: Any, *more: tuple[bytes, bytes], **options: Any) -> Delivery:
    """A signed delivery of one event, or of a list as a batch."""
    return signed(json.dumps(value).encode(), BATCH if isinstance(value, list) else SINGLE, *more, **options)


def positions(response: httpx.Response) -> list[Position]:
    """Where the events of an accepted delivery are."""
    assert response.status_code == 202, response.text
    answer = response.json()
    assert set(answer) == {"accepted", "positions"}
    assert answer["accepted"] == len(answer["positions"])
    return [Position(**place) for place in answer["positions"]]


def stored(store: Store, places: Sequence[Position]) -> list[Stored]:
    """The records at these positions, read by another reader than the writer."""
    with read_log(store) as log:
        return [log.read(partition, offset, 1)[0] for partition, offset in places]


def envelope(record: Stored) -> Envelope:
    """A record's envelope."""
    return from_headers(dict(record.headers))


def without(delivery: Delivery, name: bytes) -> Delivery:
    """One header fewer."""
    return delivery._replace(headers=[(n, v) for n, v in delivery.headers if n != name])


def replaced(delivery: Delivery, name: bytes, value: bytes) -> Delivery:
    """One header changed after signing."""
    return delivery._replace(headers=[(n, value if n == name else v) for n, v in delivery.headers])


GOOD = told(event())
