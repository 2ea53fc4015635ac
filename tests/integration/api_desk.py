"""A store served over real HTTP, and short ways to make things happen in it. Tests keep apart by account."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from headrace.api.server import BackgroundServer
from headrace.log.framing import chain
from headrace.log.port import Record
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.producers.event import NewEvent
from headrace.schemas.envelope import rfc3339
from headrace.schemas.refs import ActorRef, EntityRef, Position, Token
from headrace.settings import Settings, load_settings
from headrace.store import Store
from tests.integration.stores import Stall, open_store

WAIT = 20.0
ANN = ActorRef("user", "ann")
HOUR = 3_600_000
MESSAGE = "<m1@example.org>"


def received(message: str = MESSAGE, **more: Any) -> dict[str, Any]:
    """The body of a ``mail.received``."""
    return {"message": message, "sender": "bob@example.org", "recipients": ["ann@example.org"], **more}


def meeting(calendar: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    """The body of a ``calendar.created`` or ``calendar.updated``."""
    return {
        "calendar": calendar,
        "uid": "u@example.org",
        "resource": "u.ics",
        "etag": "1",
        "status": "confirmed",
        "busy": True,
        "all_day": False,
        "occurrences": [{"start": start, "end": end}],
        **more,
    }


class Desk:
    """``http`` asks; :meth:`tell` is what a source would say."""

    def __init__(self, store: Store, http: httpx.Client, tenant: str = "local") -> None:
        self.store, self.http, self.tenant = store, http, tenant
        self._told = 0

    def put(self, record: Record) -> Position:
        """Append, and wait until the tables have it."""
        (position,) = self.store.log.append([record])
        assert self.store.applied.wait(position.partition, position.offset, WAIT)
        return position

    def tell(self, account: str, event_type: str, entity: str, body: dict[str, Any], **more: Any) -> Position:
        """A fact about a thread or a calendar event."""
        self._told += 1
        kind = "mail.thread" if event_type.startswith("mail.") else "calendar.event"
        event_id = more.pop("event_id", f"e-{time.monotonic_ns()}-{self._told}")
        new = NewEvent(event_type, kind, entity, event_id, body, **more)
        now = rfc3339(time.time_ns() // 1_000_000)
        return self.put(
            self.store.intake.event(self.tenant, account, new, source="webhook/test", actor=ANN, observed_at=now)
        )

    def entity(self, account: str, kind: str, entity: str, **params: Any) -> httpx.Response:
        """Read one."""
        return self.http.get(f"/v1/accounts/{account}/entities/{kind}/{entity}", params=params)

    def thread(self, account: str, entity: str = "t1") -> dict[str, Any]:
        """A thread with one message in it, as it is read."""
        self.tell(account, "mail.received", entity, received(labels=["INBOX"]), content={"subject": "Hi", "text": "?"})
        shown: dict[str, Any] = self.entity(account, "mail.thread", entity).json()
        return shown

    def propose(self, account: str, proposal: str, basis: str, /, **more: Any) -> httpx.Response:
        """Propose a reply in thread ``t1``, or what ``more`` says."""
        prefer = more.pop("prefer", f"wait={WAIT:g}")
        body = {
            "entity": {"kind": "mail.thread", "id": "t1"},
            "basis": basis,
            "type": "mail.reply",
            "data": {"in_reply_to": MESSAGE},
            "content": {"text": "a draft"},
            **more,
        }
        headers = {"Idempotency-Key": proposal, "Prefer": prefer}
        return self.http.post(f"/v1/accounts/{account}/proposals", json=body, headers=headers)

    def ref(self, account: str, kind: str, entity: str) -> EntityRef:
        """In this desk's tenant."""
        return EntityRef(self.tenant, account, kind, entity)

    @contextmanager
    def fold_stalled(self) -> Generator[None]:
        """The tables cannot be written until this ends, or :meth:`go_on`."""
        self._stall = Stall(self.store)
        try:
            yield
        finally:
            self.go_on()

    def go_on(self) -> None:
        """Let the tables be written again."""
        self._stall.end()

    def token_of(self, position: Position) -> Token:
        """The token of a record that may not be folded yet: what the fold will make of it."""
        log_id, value = self.store.log.describe().log_id, bytes(32)
        assert log_id is not None
        for stored in self.store.log.read(position.partition, 0, position.offset + 1):
            value = chain(value, stored)
        return Token(log_id, *position, value[:8])


@contextmanager
def serving(directory: Path, *, policy: Policy = DEFAULT_POLICY, settings: Settings | None = None) -> Generator[Desk]:
    """A fresh store of four partitions, served on a free port."""
    with (
        open_store(directory, writer=True, partitions=4, policy=policy) as store,
        BackgroundServer(store, settings or load_settings(directory, port=0)) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        for partition, end in enumerate(store.log.describe().ends):
            assert store.applied.wait(partition, end - 1, WAIT), "its openings are not folded"
        yield Desk(store, http)


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem in an answer, checked to be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"].rpartition(":")[2] == kind, body
    assert body["title"]
    assert body["detail"]
    return body
