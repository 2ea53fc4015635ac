"""The whole API with every endpoint that takes deliveries set up: Gmail, Google Calendar, Graph, hooks of three kinds,
and signed webhooks. What is sent goes through the raw ASGI interface, so that nothing tidies it up on its way."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from urllib.parse import urlencode

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from headrace.api.app import create_app
from headrace.producers.connections import key_of
from headrace.producers.gmail import watch_id
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.graph import Graph
from headrace.producers.hook_signature import Scheme
from headrace.producers.hook_signature import sign as sign_hook
from headrace.producers.provider import Connected, Watch
from headrace.producers.signatures import sign
from headrace.producers.source_syncs import ProviderSetup
from headrace.settings import load_settings
from headrace.store import Store
from tests.doubles.gmail import ADDRESS
from tests.doubles.graph_push import CLIENT_ID
from tests.providers.gmail_parts import provider
from tests.providers.graph_parts import ONE as MICROSOFT
from tests.providers.graph_parts import Published
from tests.providers.test_gmail_push import ONE, Certificates, wrapped

KEYS: Final = {"nylas": "n" * 32, "mail": "m" * 32, "stamped": "s" * 32}
SECRET: Final = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET: Final = "whsec_" + base64.b64encode(bytes(32)).decode()
SCHEMES: Final = {
    "nylas": Scheme("x-nylas-signature"),
    "mail": Scheme("x-ee-wh-signature", "base64url"),
    "stamped": Scheme("x-signature", "base64", "sha512", "v0=", "x-time", 60),
}
SETTINGS: Final = f"""
[hooks.nylas]
preset = "nylas"
secret_files = ["nylas", "spare"]
[hooks.mail]
preset = "emailengine"
secret_files = ["mail"]
[hooks.stamped]
header = "X-Signature"
encoding = "base64"
algorithm = "sha512"
prefix = "v0="
timestamp_header = "X-Time"
tolerance_s = 60
account = ["who.id", "who"]
secret_files = ["stamped"]
[[webhooks]]
name = "default"
tenant = "local"
source = "webhook/default"
secrets = ["{SECRET}"]
[[webhooks]]
name = "other"
tenant = "elsewhere"
source = "webhook/other"
secrets = ["{OTHER_SECRET}"]
"""
GRANT: Final = "e0ff2a6c-8f4d-4b21-9f6c-4f0a3d2f6b11"
FIRST: Final = Connected("local", "ann", "imap/1", "imap", {"hook": f"nylas/{GRANT}"})
SECOND: Final = Connected("local", "ann", "caldav/1", "caldav", {"hook": f"nylas/{GRANT}"})
SOURCES: Final = (
    Connected("local", "bob", "gmail/1", "gmail", {"address": ADDRESS}),
    Connected("local", "cid", "google_calendar/1", "google_calendar", {"calendar": "cid@example.com"}),
    Connected("local", "dan", "graph/1", "graph", {"address": "dan@example.com"}),
    Connected("local", "eve", "imap/2", "imap", {"hook": "mail/eve@example.com"}),
    Connected("local", "fay", "imap/3", "imap", {"hook": "stamped/17"}),
    FIRST,
    SECOND,
)
WATCHES: Final = {
    "gmail": [Watch(watch_id(ADDRESS), "", 0, {})],
    "google_calendar": [Watch(f"c-{n}", f"secret-{n}", 0, {"resource": f"res-{n}"}) for n in (1, 2)],
    "graph": [Watch(f"sub-{n}", f"state-{n}", 0, {}) for n in (1, 2)],
}

RawHeaders = Sequence[tuple[bytes, bytes]]


class Sent(NamedTuple):
    """A request to be made; ``chunks`` without a stated length where there are several; ``broken``: the connection ends
    before the last one."""

    path: str
    headers: RawHeaders
    body: bytes = b""
    method: str = "POST"
    query: bytes = b""
    chunks: int = 1
    broken: bool = False


class Answered(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        """Of a problem."""
        return json.loads(self.body)["reason"] if self.status >= 400 else None


class Doors:
    """A store with all sources connected, and the app in front."""

    def __init__(self, store: Store, app: FastAPI) -> None:
        self.store, self.app = store, app
        self.metrics: CollectorRegistry = app.state.context.metrics.registry
        for one in SOURCES:
            store.connections.add(one, {"password": "x"})
            for watch in WATCHES.get(one.provider, ()):
                store.connections.put_watch(key_of(one), one.provider, watch)

    def ask(self, sent: Sent) -> Answered:
        """Make a request."""
        step = max(1, -(-len(sent.body) // sent.chunks))
        parts = [sent.body[at : at + step] for at in range(0, len(sent.body), step)] or [b""]
        messages = [
            {"type": "http.request", "body": part, "more_body": number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        if sent.broken:
            messages[-1]["more_body"] = True
        stated = [(b"content-length", str(len(sent.body)).encode())] if sent.chunks == 1 else []
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": sent.method, "scheme": "http",
            "path": sent.path, "raw_path": sent.path.encode(), "query_string": sent.query, "root_path": "",
            "headers": [(b"host", b"localhost"), *sent.headers, *stated], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }  # fmt: skip
        came: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            came.append(message)

        asyncio.run(self.app(scope, receive, send))
        body = b"".join(message.get("body", b"") for message in came if message["type"] == "http.response.body")
        headers = {name.decode(): value.decode() for name, value in came[0]["headers"]}
        return Answered(came[0]["status"], headers, body)

    def ends(self) -> tuple[int, ...]:
        """Where the log ends."""
        return self.store.log.describe().ends

    def counted(self) -> dict[str, float]:
        """Every counter of deliveries that is not zero, as ``name/label/label``."""
        return {
            "/".join([sample.name, *sample.labels.values()]): sample.value
            for metric in self.metrics.collect()
            for sample in metric.samples
            if sample.name.startswith(("headrace_notifications", "headrace_webhook"))
            and sample.name.endswith("_total")
            and sample.value
        }

    def records(self, account: str, type_: str) -> int:
        """How many of a type an account has on the log."""
        partition = self.store.intake.partition("local", account)
        found = self.store.log.read(partition, 0, self.ends()[partition])
        key = f"local/{account}".encode()
        return sum(one.key == key and dict(one.headers)["ce_type"] == type_.encode() for one in found)


@contextmanager
def doors(directory: Path) -> Generator[Doors]:
    """On a fresh store."""
    directory.mkdir(parents=True)
    for name, key in {**KEYS, "spare": "z" * 40}.items():
        (directory / name).write_text(key + "\n")
    (directory / "headrace.toml").write_text(SETTINGS)
    certificates, published = Certificates(ONE), Published(MICROSOFT)
    setups = {
        "gmail": ProviderSetup(provider(certificates.keys), "https://x/"),
        "google_calendar": ProviderSetup(GoogleCalendar(), "https://x/"),
        "graph": ProviderSetup(Graph(client_id=CLIENT_ID, keys=published.keys), "https://x/"),
    }
    with ExitStack() as opened:
        store = opened.enter_context(Store(directory, writer=True, partitions=2))
        opened.callback(certificates.keys.close)
        opened.callback(published.keys.close)
        opened.enter_context(patch("headrace.sourcing.setups_of", return_value=setups))
        yield Doors(store, create_app(store, load_settings(directory)))


def raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """As ASGI has them."""
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def google_token(**claims: Any) -> str:
    """One of Google's, that holds now."""
    now = int(time.time())
    said: dict[str, Any] = {"iat": now - 60, "exp": now + 3_000, **claims}
    return ONE.token(**said)


def gmail(body: bytes | None = None, **claims: Any) -> Sent:
    """A push."""
    headers = {"Authorization": f"Bearer {google_token(**claims)}", "Content-Type": "application/json"}
    return Sent("/v1/notifications/gmail", raw(headers), body if body is not None else _json(wrapped()))


def google_calendar(body: bytes = b"", **changes: str) -> Sent:
    """A channel's notification; ``changes`` of headers without their X-Goog-."""
    said = {"Channel-ID": "c-1", "Channel-Token": "secret-1", "Resource-ID": "res-1", "Resource-State": "exists"}
    said |= {"Message-Number": "10", **{name.replace("_", "-"): value for name, value in changes.items()}}
    return Sent("/v1/notifications/google_calendar", raw({f"X-Goog-{name}": one for name, one in said.items()}), body)


def graph(body: bytes | None = None, **changes: Any) -> Sent:
    """A change notification."""
    item = {"subscriptionId": "sub-1", "clientState": "state-1", "changeType": "updated", "resource": "x", **changes}
    said = body if body is not None else _json({"value": [item]})
    return Sent("/v1/notifications/graph", raw({"Content-Type": "application/json"}), said)


def hook(
    name: str,
    body: bytes | None = None,
    *,
    key: str | None = None,
    at: float | None = None,
    more: Mapping[str, str] | None = None,
) -> Sent:
    """A hook's delivery."""
    said = body if body is not None else _json(HOOK_BODIES[name])
    now = int(at if at is not None else time.time())
    signed = sign_hook(SCHEMES[name], (key or KEYS[name]).encode(), said, now)
    return Sent(f"/v1/notifications/{name}", raw({"Content-Type": "application/json", **signed, **(more or {})}), said)


def standard(body: bytes | None = None, *, secret: str = SECRET, at: float | None = None, **changes: Any) -> Sent:
    """A signed webhook."""
    event = {
        "specversion": "1.0", "id": "e-1", "source": "x", "type": "mail.received", "subject": "mail.thread/t-1",
        "account": "gus", "data": {"message": "<m1@x>", "sender": "bob@x", "labels": ["INBOX"]}, **changes,
    }  # fmt: skip
    said = body if body is not None else _json(event)
    signed = sign(secret, "msg_1", int(at if at is not None else time.time()), said)
    return Sent("/v1/webhooks/standard/default", raw({"Content-Type": "application/cloudevents+json", **signed}), said)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


HOOK_BODIES: Final[dict[str, Any]] = {
    "nylas": {
        "specversion": "1.0", "type": "message.updated", "source": "/google/emails/realtime", "id": "d-1", "time": 1,
        "data": {"application_id": "a", "object": {"grant_id": GRANT, "id": "m", "subject": "Hi", "object": "message"}},
    },
    "mail": {"account": "eve@example.com", "event": "messageNew", "path": "INBOX", "data": {"id": "x"}},
    "stamped": {"who": {"id": 17}},
}  # fmt: skip
GOOD: Final[Mapping[str, Callable[[], Sent]]] = {
    "gmail": gmail,
    "google_calendar": google_calendar,
    "graph": graph,
    "nylas": lambda: hook("nylas"),
    "mail": lambda: hook("mail"),
    "stamped": lambda: hook("stamped"),
    "standard": standard,
}
"""A delivery of each endpoint that is taken."""
TAKEN: Final = {
    "gmail": 204,
    "google_calendar": 204,
    "graph": 202,
    "nylas": 200,
    "mail": 200,
    "stamped": 200,
    "standard": 202,
}


def challenge(name: str, **query: str) -> Sent:
    """A GET."""
    return Sent(f"/v1/notifications/{name}", (), method="GET", query=urlencode(query).encode())
