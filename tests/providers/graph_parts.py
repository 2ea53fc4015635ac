"""A mailbox and a calendar at the double, the sources that follow them, and the desk where their events land."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC
from typing import Any, Final
from urllib.parse import unquote

import pytest

from headrace.producers.graph import Encryption, Graph
from headrace.producers.graph_api import GraphApi
from headrace.producers.graph_calendar import GraphCalendarSource
from headrace.producers.graph_folders import Folder, Folders
from headrace.producers.graph_mail import GraphMailSource
from headrace.producers.graph_notification import microsoft_keys
from headrace.producers.graph_thread import Mailbox, Reading, read_message
from headrace.producers.oidc import GoogleKeys
from headrace.producers.provider import Connected, Delivery, Received, Watch
from headrace.producers.provider_http import ProviderHttp
from headrace.producers.refusal import RefusedError
from tests.doubles.desk import ACCOUNT, SOURCE, TENANT, Desk, desk
from tests.doubles.graph import BASE, BASIC, READ, GraphDouble
from tests.doubles.graph_calendar import DAY, CalendarDouble
from tests.doubles.graph_people import ADDRESS, START, Mail
from tests.doubles.graph_push import CLIENT_ID, Certificate, Signer, SubscriptionsDouble
from tests.doubles.http import Faulty, Grant, Reply, Request, transport

EVERYTHING: Final = Request("GET", "", (), {"prefer": 'IdType="ImmutableId"', "host": "graph.test"}, b"")


class Box:
    """All of it together."""

    def __init__(self, at: Desk, http: ProviderHttp, double: GraphDouble, faulty: Faulty, *, texts: bool) -> None:
        self.desk, self.http, self.double, self.faulty = at, http, double, faulty
        self.names: Final = Mailbox(ADDRESS, at.pseudonym)
        self.source: Final = GraphMailSource(GraphApi(http), self.names, texts=texts)

    def sync(self, *, full: bool = False) -> list[str]:
        """The types of what a sync put on the log, all of it effective."""
        found = self.desk.found(self.source, full=full)
        assert {fact.disposition for fact in found} <= {"applied"}
        return [fact.type for fact in found]

    def state(self, thread: str) -> dict[str, Any]:
        return self.desk.states("mail.thread")[self.names.entity(thread)]

    def asked(self, end: str) -> int:
        """How many requests so far went to a path with this in it."""
        return sum(end in request.path for request in self.faulty.asked)

    @property
    def reading(self) -> Reading:
        folders = [Folder(one.id, one.parent, one.hidden) for one in self.double.folders.values()]
        words = {f"F-{name}": name for name in ("inbox", "sentitems", "deleteditems", "junkemail", "drafts", "outbox")}
        return Reading(self.names, Folders(folders, {**words, "F-archive": "archive"}))

    def read(self, mail: Mail) -> Any:
        every = frozenset(self.double.shown(mail, frozenset(), EVERYTHING)) | frozenset(_ALL)
        return read_message(self.double.shown(mail, every, EVERYTHING), self.names)

    def agree(self) -> None:
        """The tables hold what the mailbox shows."""
        states, reading = self.desk.states("mail.thread"), self.reading
        shown: set[str] = set()
        there: set[str] = set()
        for thread in self.double.threads:
            mails = [self.read(mail) for mail in self.double.of(thread)]
            wanted = reading.picture(mails)
            if wanted.deleted:
                continue
            there |= {one.key for one in reading.mail(mails)}
            entity = self.names.entity(thread)
            shown.add(entity)
            state = states[entity]
            held = (sorted(state["labels"]), state["unread"], state["trashed"], state["deleted"])
            assert held == (sorted(wanted.labels), wanted.unread, wanted.trashed, False), thread
            assert wanted.archived is None or state["archived"] == wanted.archived
        assert {entity for entity, state in states.items() if not state["deleted"]} == shown
        told: list[str] = []
        deleted: set[str] = set()
        for fact in self.desk.applied():
            if fact.type == "mail.deleted":
                deleted.add(fact.entity)
            if fact.type in {"mail.received", "mail.sent"} and not (
                fact.entity in deleted and fact.body["message"] in told
            ):
                told.append(fact.body["message"])
        assert len(told) == len(set(told)), "a message was told twice"
        assert {self.desk.pseudonym(key) for key in there} <= set(told)
        assert self.desk.idle("mail.thread") == []


_ALL: Final = (
    "conversationId", "conversationIndex", "parentFolderId", "internetMessageId", "isRead", "isDraft", "categories",
    "flag", "createdDateTime", "receivedDateTime", "sentDateTime", "subject", "from", "toRecipients",
)  # fmt: skip


@contextmanager
def box(*, texts: bool = False, page: int = 1000) -> Generator[Box]:
    """With the least permission that the content needs."""
    double = GraphDouble(Grant([READ if texts else BASIC, "User.Read"]), page=page)
    faulty = Faulty(double)
    with (
        desk("mail.thread") as at,
        ProviderHttp(BASE, double.grant.tokens(), transport=transport(faulty)) as http,
    ):
        yield Box(at, http, double, faulty, texts=texts)


class Diary:
    """A calendar, and all of it together."""

    def __init__(self, at: Desk, http: ProviderHttp, graph: GraphDouble, faulty: Faulty) -> None:
        self.desk, self.http, self.graph, self.faulty = at, http, graph, faulty
        self.double: Final = CalendarDouble(graph)
        self.now = START
        self.source: Final = GraphCalendarSource(
            GraphApi(http), ADDRESS, at.pseudonym, calendar=None, zone=UTC, clock=lambda: self.now / 1000
        )

    def sync(self, *, full: bool = False) -> list[str]:
        """The types of what a sync put on the log, all of it effective."""
        found = self.desk.found(self.source, full=full)
        assert {fact.disposition for fact in found} <= {"applied"}
        return [fact.type for fact in found]

    def states(self) -> dict[str, dict[str, Any]]:
        """What is not removed, by the id of the event at Graph."""
        names = {self.desk.pseudonym(event): event for event in self.double.events}
        states = [one for one in self.desk.states("calendar.event").values() if not one["removed"]]
        found = {names.get(str(one["resource"]), str(one["resource"])): one for one in states}
        assert len(found) == len(states), "an event is on the log twice"
        return found

    def agree(self) -> None:
        """The tables hold what the calendar shows from a month ago to half a year ahead."""
        start, end = self.now - 20 * DAY, self.now + 180 * DAY
        states = self.states()
        for event in self.double.events.values():
            ones = self.double.happens(event, start, end)
            if not ones:
                continue
            state = states[event.id]
            master = event.cancelled and event.every
            wanted = sorted({one.start for one in ones if master or not one.cancelled or not event.every})
            held = [one["start"] for one in state["occurrences"] if one["start"] < end and one["end"] > start]
            assert held == wanted, event
            assert state["status"] == ("cancelled" if event.cancelled else "confirmed")
            assert state["etag"] == f'W/"CK{event.version}"'
            assert {one["who"]: one["response"] for one in state["attendees"]} == {
                self.desk.pseudonym(who): ANSWERS[answer] for who, answer in event.attendees.items()
            }
            endless = bool(event.every) and not event.count
            assert (state["unbounded_from"] is not None) >= endless
        for name in states.keys() - self.double.events.keys():
            # Out of the window, it may have gone while Graph forgot the link.
            times = [one for one in states[name]["occurrences"] if one["start"] < end and one["end"] > start]
            assert not times, "an event that is gone is still on the log"
        assert self.desk.idle("calendar.event") == []


ANSWERS: Final = {"none": "needs-action", "accepted": "accepted", "declined": "declined"}


@contextmanager
def diary(*more: str, page: int = 1000) -> Generator[Diary]:
    """With the least permission, and ``more``."""
    graph = GraphDouble(Grant(["Calendars.Read", "User.Read", *more]), page=page)
    faulty = Faulty(graph)
    with (
        desk("calendar.event") as at,
        ProviderHttp(BASE, graph.grant.tokens(), transport=transport(faulty)) as http,
    ):
        yield Diary(at, http, graph, faulty)


NOW: Final = 1_795_000_000.0
ENDPOINT: Final = "https://headrace.example/v1/notifications/graph"
ONE: Final = Signer("one")
TWO: Final = Signer("two")
CERTIFICATE: Final = Certificate("c-1")
OLD: Final = Certificate("c-0")
BOTH: Final = Encryption("c-1", CERTIFICATE.text, {"c-1": CERTIFICATE.key, "c-0": OLD.key})


class Published:
    """Microsoft's keys."""

    def __init__(self, *signers: Signer) -> None:
        self.asked, self.signers = 0, list(signers)
        self.reply: Reply | None = None
        self.now = 0.0
        self.keys: GoogleKeys = microsoft_keys(transport=transport(self), clock=lambda: self.now)

    def answer(self, request: Request) -> Reply:
        assert str(request.path) == "/common/discovery/keys"
        self.asked += 1
        return self.reply or Reply.json(200, {"keys": [signer.jwk for signer in self.signers] + [{"kty": "EC"}]})


def connected(**settings_: str) -> Connected:
    return Connected(TENANT, ACCOUNT, SOURCE, "graph", {"address": ADDRESS, **settings_})


def delivery(body: object, query: tuple[tuple[str, str], ...] = ()) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery("POST", ((b"content-type", b"application/json"),), query, raw, NOW)


class Door:
    """The endpoint, its subscriptions at the double, and those that are known here."""

    def __init__(self, encryption: Encryption | None = None) -> None:
        self.published = Published(ONE)
        self.graph = Graph(client_id=CLIENT_ID, keys=self.published.keys, encryption=encryption)
        self.double = GraphDouble()
        self.double.now = int(NOW * 1000)
        self.subscriptions = SubscriptionsDouble(self.double, self.shake)
        self.faulty = Faulty(self.double)
        self.http = ProviderHttp(BASE, self.double.grant.tokens(), transport=transport(self.faulty))
        self.watches: dict[str, Watch] = {}

    def close(self) -> None:
        self.http.close()
        self.published.keys.close()

    def shake(self, token: str) -> tuple[int, str | None, bytes]:
        """As whatever serves the endpoint hands it on: the query decoded."""
        answer = self.graph.receive(delivery(b"", (("validationToken", unquote(token)),)), self.watches.get).answer
        return answer.status, answer.content_type, answer.body

    def watch(self, follow: str = "mail", *, last: Watch | None = None, address: str = ENDPOINT) -> Watch:
        made = self.graph.watch(connected(follow=follow), self.http, address, last, self.double.now)
        self.watches[made.id] = made
        return made

    def receive(self, *value: Any, tokens: list[str] | None = None) -> Received:
        body = {"value": list(value)} | ({"validationTokens": tokens} if tokens is not None else {})
        return self.graph.receive(delivery(body), self.watches.get)

    def refused(self, *value: Any, tokens: list[str] | None = None) -> tuple[str, int]:
        with pytest.raises(RefusedError) as caught:
            self.receive(*value, tokens=tokens)
        assert ADDRESS not in str(caught.value)
        return caught.value.reason, caught.value.refusal.status
