"""Deliveries as providers make them, to be played to a running headrace: of the shape that each documents, named after
what is connected here, and signed where the secret is known here.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError
from headrace.producers.connections import Watched, hook_of
from headrace.producers.delivery import SINGLE
from headrace.producers.endpoint import PATH as WEBHOOKS
from headrace.producers.hook_signature import sign as sign_hook
from headrace.producers.hooks import EMAILENGINE, NYLAS, Hook, hook
from headrace.producers.notifications import PATH
from headrace.producers.provider import Connected
from headrace.producers.signatures import sign
from headrace.schemas.envelope import rfc3339
from headrace.settings import Settings, webhook_endpoints
from headrace.sourcing import hooks_of

_EXPIRED: Final = (
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjdkNjgwZDhjNzBkNDRlOTQ3MTMzY2JkNDk5ZWJjMWE2MWMzZDVhYmMiLCJ0eXAiOiJKV1QifQ."
    "eyJhdWQiOiJodHRwczovL2V4YW1wbGUuY29tIiwiYXpwIjoiMTEzNzc0MjY0NDYzMDM4MzIxOTY0IiwiZW1haWwiOiJwdXNoQGV4YW1wbGUuY29tIi"
    "wiZXhwIjoxNTUwMTg1OTM1LCJpYXQiOjE1NTAxODIzMzUsImlzcyI6Imh0dHBzOi8vYWNjb3VudHMuZ29vZ2xlLmNvbSJ9.Zm9yZ2Vk"
)
"""Of the form of those that Google signs, run out in February 2019; nobody signed it."""


class Playing(NamedTuple):
    """What a fixture is made of: the settings, what is connected, and what was asked for."""

    settings: Settings
    connected: Sequence[Connected]
    watches: Sequence[Watched]
    account: str | None
    endpoint: str | None
    secret_file: Path | None

    def watch(self, provider: str) -> Watched | None:
        """The first watch of a provider (of the account that was asked for)."""
        wanted = (one for one in self.watches if self.account in (None, one.source.account))
        return next((one for one in wanted if one.provider == provider), None)


class Request(NamedTuple):
    """A delivery to be made. ``taken``: whether it should be; ``note`` says why not, or what it will do."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    taken: bool
    note: str
    method: str = "POST"
    query: Mapping[str, str] = {}


class Fixture(NamedTuple):
    """One that can be played."""

    told: str
    proof: str
    make: Callable[[Playing], Request]


def _gmail(playing: Playing) -> Request:
    found = next((one for one in playing.connected if one.provider == "gmail" and _asked(playing, one)), None)
    data = {"emailAddress": found.settings["address"] if found is not None else "ann@example.com", "historyId": 1006196}
    body = {
        "message": {
            "data": _base64(json.dumps(data).encode()),
            "messageId": "7514282652270598",
            "publishTime": "2023-04-24T11:31:42.877Z",
        },
        "subscription": "projects/p/subscriptions/gmail",
    }
    note = "only Google can sign it: it goes with a token that ran out in 2019, and must be refused"
    headers = {"Authorization": f"Bearer {_EXPIRED}", "Content-Type": "application/json"}
    return Request(f"{PATH}/gmail", headers, _json(body), taken=False, note=note)


def _google_calendar(playing: Playing, state: str = "exists") -> Request:
    watched = playing.watch("google_calendar")
    channel = watched.watch.id if watched is not None else "01234567-89ab-cdef-0123456789ab"
    headers = {
        "X-Goog-Channel-ID": channel,
        "X-Goog-Channel-Token": watched.watch.secret if watched is not None else "recorded",
        "X-Goog-Resource-ID": watched.watch.details["resource"] if watched is not None else "recorded",
        "X-Goog-Resource-URI": "https://www.googleapis.com/calendar/v3/calendars/primary/events?alt=json",
        "X-Goog-Resource-State": state,
        "X-Goog-Message-Number": "1" if state == "sync" else str(int(time.time())),
    }
    known = watched is not None or state == "sync"
    note = "" if known else "no calendar is watched here: it names a channel that nobody made, and must be refused"
    return Request(f"{PATH}/google_calendar", headers, b"", taken=known, note=note)


def _google_calendar_sync(playing: Playing) -> Request:
    return _google_calendar(playing, "sync")


def _graph_change(playing: Playing) -> Request:
    return _graph(playing, {"changeType": "updated", "resource": "Users/u/Messages/AAkALg1", "resourceData": {
        "@odata.type": "#Microsoft.Graph.Message", "@odata.etag": 'W/"CQAAABYA"', "id": "AAkALg1"}})  # fmt: skip


def _graph_missed(playing: Playing) -> Request:
    return _graph(playing, {"lifecycleEvent": "missed"})


def _graph(playing: Playing, said: Mapping[str, Any]) -> Request:
    watched = playing.watch("graph")
    item = {
        "subscriptionId": watched.watch.id if watched is not None else "7f105c7d-2dc5-4530-97cd-4e7ae6534c07",
        "subscriptionExpirationDateTime": rfc3339(watched.watch.expires_at if watched is not None else 0),
        "clientState": watched.watch.secret if watched is not None else "recorded",
        "tenantId": "84bd8158-6d4d-4958-8b9f-9d6445542f95",
        "id": secrets.token_hex(8),
        **said,
    }
    note = "" if watched is not None else "nothing is watched here: it names nobody's subscription, and must be refused"
    headers = {"Content-Type": "application/json"}
    return Request(f"{PATH}/graph", headers, _json({"value": [item]}), taken=watched is not None, note=note)


def _graph_validation(_: Playing) -> Request:
    query = {"validationToken": "Validation: Testing client application reachability for subscription"}
    return Request(f"{PATH}/graph", {"Content-Type": "text/plain"}, b"", taken=True, note="", query=query)


def _nylas(playing: Playing) -> Request:
    def body(account: str) -> dict[str, Any]:
        message = {
            "object": "message", "id": "18df98cadcc8534a", "thread_id": "18df98cadcc8534a", "grant_id": account,
            "subject": "Friday?", "from": [{"email": "bob@example.com", "name": "Bob"}], "date": int(time.time()),
            "folders": ["INBOX", "UNREAD"], "unread": True, "starred": False, "attachments": [],
        }  # fmt: skip
        return {
            "specversion": "1.0", "type": "message.created", "source": "/google/emails/realtime",
            "id": f"fixture-{secrets.token_hex(8)}", "time": int(time.time()), "webhook_delivery_attempt": 1,
            "data": {"application_id": "fixture", "object": message},
        }  # fmt: skip

    return _hooked(playing, NYLAS, "e0ff2a6c-8f4d-4b21-9f6c-4f0a3d2f6b11", body, {})


def _nylas_challenge(playing: Playing) -> Request:
    name = _hook(playing, NYLAS).name
    query = {"challenge": "bc609b38-c81f-47fb-a275-1d9bd61a968b"}
    return Request(f"{PATH}/{name}", {}, b"", taken=True, note="", method="GET", query=query)


def _emailengine(playing: Playing) -> Request:
    def body(account: str) -> dict[str, Any]:
        return {
            "serviceUrl": "http://127.0.0.1:3000", "account": account, "date": rfc3339(int(time.time() * 1_000)),
            "path": "INBOX", "specialUse": "\\Inbox", "event": "messageUpdated",
            "data": {"id": "AAAAAQAAAeE", "uid": 481, "changes": {"flags": {"added": ["\\Seen"], "value": ["\\Seen"]}}},
        }  # fmt: skip

    headers = {
        "X-EE-Wh-Id": "17",
        "X-EE-Wh-Attempts-Made": "1",
        "X-EE-Wh-Queued-Time": "0s",
        "X-EE-Wh-Event-Id": f"fixture-{secrets.token_hex(8)}",
    }
    return _hooked(playing, EMAILENGINE, "ann", body, headers)


def _standard(playing: Playing) -> Request:
    known = webhook_endpoints(playing.settings)
    name = playing.endpoint or next(iter(known))
    if name not in known:
        raise BadInputError(f"there is no webhook endpoint {name!r}; there are {', '.join(known)}")
    secret = known[name].secrets[0]
    if playing.secret_file is not None:
        secret = playing.secret_file.read_text(encoding="utf-8").strip()
    event = {
        "specversion": "1.0", "id": f"fixture-{secrets.token_hex(8)}", "source": "fixture", "type": "mail.received",
        "subject": "mail.thread/fixture", "account": playing.account or "fixture",
        "data": {
            "message": f"<{secrets.token_hex(8)}@example.com>", "sender": "bob@example.com",
            "recipients": ["ann@example.com"], "labels": ["INBOX"], "content": {"subject": "Friday?"},
        },
    }  # fmt: skip
    body = _json(event)
    headers = {"Content-Type": SINGLE[0], **sign(secret, f"msg_{secrets.token_hex(16)}", int(time.time()), body)}
    note = f"it puts an event on the log, in the account {event['account']}"
    return Request(f"{WEBHOOKS}/{name}", headers, body, taken=True, note=note)


def _hooked(
    playing: Playing,
    preset: str,
    recorded: str,
    made: Callable[[str], Mapping[str, Any]],
    headers: Mapping[str, str],
) -> Request:
    found = _hook(playing, preset)
    if not found.secrets:
        raise BadInputError(f"the hook {found.name} has no secret yet: give it secret_files, or --secret-file")
    accounts = [
        hooked[1]
        for one in playing.connected
        if _asked(playing, one) and (hooked := hook_of(one.settings)) is not None and hooked[0] == found.name
    ]
    body = _json(made(accounts[0] if accounts else recorded))
    signed = sign_hook(found.scheme, found.secrets[0], body, int(time.time()))
    note = "" if accounts else "no source is connected by this hook: it names nobody's account, and must be refused"
    headers = {"Content-Type": "application/json", **headers, **signed}
    return Request(f"{PATH}/{found.name}", headers, body, taken=bool(accounts), note=note)


def _hook(playing: Playing, preset: str) -> Hook:
    """The hook of a preset that is set up here, or one with the secret that is given."""
    names = [name for name, section in playing.settings.hooks.items() if section.preset == preset]
    name = playing.endpoint or (names[0] if names else None)
    if playing.secret_file is not None:
        key = playing.secret_file.read_text(encoding="utf-8").strip()
        return hook(name or preset, {"preset": preset}, [key])
    if name is None or name not in names:
        raise BadInputError(
            f"no hook of the preset {preset} is set up here: put [hooks.{preset}] into headrace.toml, or give the"
            " secret of another headrace's with --secret-file"
        )
    return hooks_of(playing.settings)[name]


def _asked(playing: Playing, connected: Connected) -> bool:
    return playing.account in (None, connected.account)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


_OF_WATCH: Final = "the watch's secret, where a source is connected"
_OF_HOOK: Final = "the hook's secret"
FIXTURES: Final[Mapping[str, Fixture]] = {
    "gmail": Fixture("a Pub/Sub push: a mailbox changed", "Google's: cannot be made here, so it is refused", _gmail),
    "google_calendar": Fixture("a channel's notification: a calendar changed", _OF_WATCH, _google_calendar),
    "google_calendar_sync": Fixture("a channel's first message", "none is needed", _google_calendar_sync),
    "graph": Fixture("a change notification: a message changed", _OF_WATCH, _graph_change),
    "graph_missed": Fixture("a lifecycle notification: some got lost", _OF_WATCH, _graph_missed),
    "graph_validation": Fixture("the handshake of a new subscription", "none is needed", _graph_validation),
    "nylas": Fixture("message.created", _OF_HOOK, _nylas),
    "nylas_challenge": Fixture("the handshake of a new webhook", "none is needed", _nylas_challenge),
    "emailengine": Fixture("messageUpdated: somebody read a message", _OF_HOOK, _emailengine),
    "standard": Fixture("a signed webhook with a mail.received", "the endpoint's secret", _standard),
}
"""By name."""


def request_of(name: str, playing: Playing) -> Request:
    """A fixture, ready to be sent.

    :raises BadInputError: there is none of this name, or what signs it is not known here.
    """
    if name not in FIXTURES:
        raise BadInputError(f"there is no fixture {name!r}; there are {', '.join(FIXTURES)}")
    return FIXTURES[name].make(playing)
