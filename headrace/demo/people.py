"""Who acts in the demo, each the way a real one would.

Agents over the HTTP API, mail by signed webhooks, the calendar by a real CalDAV client and a sync.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import httpx

from headrace.demo.caldav_server import CaldavServer
from headrace.errors import HeadraceError, UnavailableError
from headrace.processors.applied import Applied
from headrace.producers.caldav import CaldavSource
from headrace.producers.feed import Feed
from headrace.producers.signatures import sign
from headrace.producers.sync import Synced, run_sync
from headrace.schemas.refs import ActorRef
from headrace.store import Store

TENANT: Final = "local"
ACCOUNT: Final = "ann"
CALENDAR: Final = "Work"
_SOURCE: Final = "caldav/work"
_PATIENCE_SECONDS: Final = 30.0


class Seen(NamedTuple):
    """What an agent read: the answer's body, and the token to base a proposal on."""

    body: dict[str, Any]
    basis: str


class Mailbox:
    """A mail provider that tells headrace what happens by Standard Webhooks."""

    def __init__(self, http: httpx.Client, secret: str, applied: Applied) -> None:
        self._http, self._secret, self._applied, self._sent = http, secret, applied, 0

    def tells(self, event_type: str, thread: str, occurred_at: datetime, data: dict[str, Any]) -> str:
        """Deliver one CloudEvent, signed; returns its place on the log, once whoever reads next finds it."""
        self._sent += 1
        event = {
            "specversion": "1.0",
            "id": f"mail-{self._sent}",
            "source": "demo-mail",
            "type": event_type,
            "subject": f"mail.thread/{thread}",
            "time": occurred_at.isoformat(),
            "account": ACCOUNT,
            "data": data,
        }
        body = json.dumps(event).encode()
        headers = sign(self._secret, f"msg_{self._sent}", int(time.time()), body)
        answer = self._http.post(
            "/v1/webhooks/standard", content=body, headers={**headers, "content-type": "application/cloudevents+json"}
        )
        _expect(answer, 202)
        place = answer.json()["positions"][0]
        if not self._applied.wait(place["partition"], place["offset"], _PATIENCE_SECONDS):
            raise UnavailableError("the demo's own event was not folded in time; is this machine very busy? try again")
        return f"{place['partition']}:{place['offset']}"


class CalendarApp:
    """A person's calendar app on a real CalDAV server, and headrace's sync of that calendar."""

    def __init__(self, server: CaldavServer, store: Store) -> None:
        self._server = server
        self._url = server.make_calendar(CALENDAR)
        pseudonym = store.intake.pseudonyms(TENANT, ACCOUNT)
        self._source = CaldavSource(server.url, server.username, server.password, self._url, pseudonym=pseudonym)
        self._feed = Feed(
            store.log,
            store.tables,
            store.applied,
            store.intake,
            store.kinds,
            tenant=TENANT,
            account=ACCOUNT,
            source=_SOURCE,
            feeds=self._source.feeds,
            actor=ActorRef("user", "ann"),
        )
        self._store = store
        self.partition: Final = store.intake.partition(TENANT, ACCOUNT)

    def saves(self, uid: str, title: str, start: datetime, end: datetime, *, sequence: int = 0) -> str:
        """Save an event in the app, let headrace sync; returns where the change is on the log."""
        self._server.put_event(self._url, _ics(uid, title, start, end, sequence))
        self.sync()
        return self.head_of(uid)

    def sync(self) -> Synced:
        """What a notification or the next poll would start."""
        return run_sync(self._source, self._feed)

    def entity(self, uid: str) -> str:
        """The event's id on the log: a pseudonym of its iCalUID."""
        return self._store.intake.pseudonyms(TENANT, ACCOUNT)(uid)

    def head_of(self, uid: str) -> str:
        """Where the event's newest change is on the log."""
        sql = (
            "SELECT partition, head_offset FROM calendar_events"
            " WHERE tenant = :tenant AND account = :account AND id = :id"
        )
        with self._store.tables.snapshot() as reader:
            row = reader.rows(sql, {"tenant": TENANT, "account": ACCOUNT, "id": self.entity(uid)})[0]
        return f"{row['partition']}:{row['head_offset']}"


class Agent:
    """An AI agent that has the API and nothing else."""

    def __init__(self, http: httpx.Client) -> None:
        self._http, self._proposed = http, 0

    def reads(self, kind: str, entity: str) -> Seen:
        """Read an entity: its head is the basis."""
        answer = self._http.get(f"/v1/accounts/{ACCOUNT}/entities/{kind}/{entity}")
        _expect(answer, 200)
        return Seen(answer.json(), answer.json()["basis"])

    def finds_absent(self, kind: str, entity: str) -> Seen:
        """Look for an entity that does not exist: the position it was looked for at is the basis."""
        answer = self._http.get(f"/v1/accounts/{ACCOUNT}/entities/{kind}/{entity}")
        _expect(answer, 404)
        return Seen(answer.json(), answer.json()["position"])

    def reads_hours(self, calendar: str, start: datetime, end: datetime) -> Seen:
        """Read an interval of a calendar: the position it was read at is the basis."""
        answer = self._http.get(
            f"/v1/accounts/{ACCOUNT}/scopes/calendar/{calendar}",
            params={"from": milliseconds(start), "to": milliseconds(end)},
        )
        _expect(answer, 200)
        return Seen(answer.json(), answer.json()["position"])

    def proposes(self, body: dict[str, Any]) -> dict[str, Any]:
        """Propose, and wait for the verdict."""
        self._proposed += 1
        answer = self._http.post(
            f"/v1/accounts/{ACCOUNT}/proposals",
            json=body,
            headers={"Idempotency-Key": f"demo-{self._proposed}", "Prefer": "wait=10"},
        )
        if "verdict" not in answer.json():
            _expect(answer, 201)
        verdict: dict[str, Any] = answer.json()
        return verdict


def milliseconds(moment: datetime) -> int:
    """Epoch milliseconds UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _expect(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        raise HeadraceError(
            f"the demo's own server answered {answer.status_code} to {answer.request.method} {answer.request.url.path}:"
            f" {answer.text[:300]}; that is a bug in headrace, please report it"
        )


def _ics(uid: str, title: str, start: datetime, end: datetime, sequence: int) -> str:
    """One event as iCalendar (RFC 5545)."""
    lines = (
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//headrace//demo//EN",
        "BEGIN:VEVENT",
        f"UID:{uid}",
        f"DTSTAMP:{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
        f"DTSTART:{start:%Y%m%dT%H%M%SZ}",
        f"DTEND:{end:%Y%m%dT%H%M%SZ}",
        f"SEQUENCE:{sequence}",
        f"SUMMARY:{title}",
        "END:VEVENT",
        "END:VCALENDAR",
    )
    return "\r\n".join(lines) + "\r\n"
