"""Several people of several tenants at all providers at once, as one process has them: a store that is served, whatever
syncs it, and the providers' APIs, token endpoints and notifications as they are, at doubles."""

import json
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from unittest.mock import patch
from urllib.parse import parse_qsl, unquote

import httpx

from headrace.api.server import BackgroundServer
from headrace.producers.connections import key_of
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.graph import Graph
from headrace.producers.oauth import OAuthApp
from headrace.producers.provider import Connected
from headrace.producers.schedule import Pace, SourceKey
from headrace.producers.source_host import SourceHost
from headrace.producers.source_syncs import Access, ProviderSetup, SourceSyncs
from headrace.projections import known, queries
from headrace.settings import load_settings
from headrace.store import Store
from tests.doubles.gmail import METADATA, GmailDouble
from tests.doubles.google_calendar import READ, GoogleCalendarDouble
from tests.doubles.google_calendar_desk import ADDRESS as OWNER
from tests.doubles.google_calendar_desk import at as hour
from tests.doubles.graph import BASE as GRAPH_BASE
from tests.doubles.graph import GraphDouble
from tests.doubles.graph_calendar import DAY, CalendarDouble
from tests.doubles.graph_push import CLIENT_ID, SubscriptionsDouble
from tests.doubles.http import Faulty, Grant, Reply, Request, transport
from tests.doubles.oauth import CLIENT, SECRET, AuthorizationServer
from tests.providers.gmail_parts import BASE as GMAIL_BASE
from tests.providers.gmail_parts import provider
from tests.providers.google_calendar_parts import BASE as CALENDAR_BASE
from tests.providers.graph_parts import ONE as MICROSOFT
from tests.providers.graph_parts import Published, delivery
from tests.providers.test_gmail_push import ONE, Certificates, wrapped

AUTH: Final = "auth.test"
PATIENCE: Final = 20.0
PUBLIC: Final = "https://headrace.example"
APP: Final = OAuthApp("the provider", f"https://{AUTH}/authorize", f"https://{AUTH}/token", CLIENT, SECRET, {})
PACE: Final = Pace(period=3_600.0, first_retry=0.05, longest_retry=0.05, refused_retry=0.05)


class Given(Grant):
    """A grant that holds for the tokens that an authorization server gave."""

    def __init__(self, server: AuthorizationServer, *scopes: str) -> None:
        super().__init__(scopes)
        self._server = server

    def takes(self, request: Request) -> bool:
        return request.headers.get("authorization", "").removeprefix("Bearer ") in self._server.access


class Person:
    """Somebody at a provider. ``add`` has a message or an event written; ``push`` is what the provider then sends."""

    def __init__(self, world: "World", provider: str, account: str, tenant: str) -> None:
        self.provider, self.account, self.tenant = provider, account, tenant
        self.address: Final = OWNER if provider == "google_calendar" else f"{account}@example.com"
        self.server: Final = AuthorizationServer()
        self.faulty: Faulty
        self.add: Callable[[], object]
        self._world = world
        now = int(time.time() * 1_000)
        settings = {"address": self.address}
        if provider == "gmail":
            mails = GmailDouble(Given(self.server, METADATA), address=self.address)
            mails.now = now
            self.faulty, self.add = Faulty(mails), mails.receive
        elif provider == "google_calendar":
            settings = {"calendar": OWNER}
            self.calendar = GoogleCalendarDouble(Given(self.server, READ))
            self.calendar.now = now
            self.faulty, self.add = Faulty(self.calendar), lambda: self.calendar.insert(**hour(9))
        else:
            graph = GraphDouble(
                Given(self.server, "Mail.ReadBasic", "Calendars.Read", "User.Read"), address=self.address
            )
            graph.now = now
            self.subscriptions = SubscriptionsDouble(graph, world.shake, f"sub-of-{account}")
            self.faulty, self.add = Faulty(graph), graph.receive
            if provider == "graph calendar":
                events = CalendarDouble(graph)
                settings["follow"] = "calendar"
                self.add = lambda: events.book(now + DAY)
        self.connected: Final = Connected(
            tenant, account, f"{provider.replace(' ', '_')}/1", provider.partition(" ")[0], settings
        )
        self.key: Final[SourceKey] = key_of(self.connected)

    def connect(self) -> None:
        """She has consented an hour ago: the token has just ended."""
        grant = self.server.issue()
        self._world.tokens.update((grant["access_token"], grant["refresh_token"]))
        grant["expires_at"] = time.time() - 1
        self._world.store.connections.add(self.connected, grant)

    def push(self) -> int:
        """Her provider notifies; what it is answered. It has to have been told to."""
        world = self._world
        if self.provider == "gmail":
            body = wrapped({"emailAddress": self.address, "historyId": 1}, messageId=str(secrets.randbelow(2**62)))
            return world.deliver("gmail", json.dumps(body).encode(), {"Authorization": f"Bearer {world.google()}"})
        if self.provider == "google_calendar":
            said = list[int]()

            def endpoint(message: Mapping[str, str]) -> int:
                said.append(world.deliver("google_calendar", b"", message))
                return said[-1]

            if not any(channel.waiting for channel in self.calendar.push.channels.values()):
                self.calendar.push.announce(OWNER)
            self.calendar.push.deliver(endpoint)
            return said[-1]
        [one] = self.subscriptions.kept
        return world.deliver("graph", json.dumps({"value": [self.subscriptions.notify(one)]}).encode(), {})

    @property
    def asked(self) -> int:
        """How many requests her provider got."""
        return len(self.faulty.asked)

    def events(self) -> int:
        """How many facts of her messages or events are on the log, and had an effect."""
        with self._world.store.tables.snapshot() as reader:
            rows = queries.account_events(reader, (self.tenant, self.account), after=-1, limit=1_000)
        return sum(row["disposition"] == "applied" for row in rows)

    def watched(self) -> bool:
        """Whether her provider was told to notify."""
        return bool(self._world.store.connections.watches(self.key))

    def fresh(self) -> bool:
        """Whether a sync of hers was ever completed."""
        with self._world.store.tables.snapshot() as reader:
            row = known.source(reader, *self.key)
        return row is not None and row.synced_offset >= 0


class World:
    """``people`` are those who were connected."""

    def __init__(self, directory: Path, opened: ExitStack) -> None:
        certificates, published = Certificates(ONE), Published(MICROSOFT)
        opened.callback(certificates.keys.close)
        opened.callback(published.keys.close)
        self.people: Final[list[Person]] = []
        self.graph: Final = Graph(client_id=CLIENT_ID, keys=published.keys)
        self.setups: Final = {
            "gmail": ProviderSetup(provider(certificates.keys), GMAIL_BASE, _access),
            "google_calendar": ProviderSetup(GoogleCalendar(), CALENDAR_BASE, _access),
            "graph": ProviderSetup(self.graph, GRAPH_BASE, _access),
        }
        self.pushed: Final[list[str]] = []
        """The proofs that notifications came with."""
        self.tokens: Final[set[str]] = set()
        """Every token that somebody was ever given."""
        self.slowest = 0.0
        """How long the slowest notification took to be answered, in seconds."""
        self.store: Final = opened.enter_context(Store(directory, writer=True, partitions=4))
        opened.enter_context(patch("headrace.sourcing.setups_of", return_value=self.setups))
        server = opened.enter_context(BackgroundServer(self.store, load_settings(directory, port=0)))
        self.http: Final = opened.enter_context(httpx.Client(base_url=server.url, timeout=60))

    def person(self, provider: str, account: str, tenant: str = "local") -> Person:
        """Somebody who is not connected yet."""
        made = Person(self, provider, account, tenant)
        self.people.append(made)
        return made

    def host(self, pace: Pace = PACE) -> SourceHost:
        """What syncs them, not entered."""
        connections = self.store.connections
        way = httpx.MockTransport(self._handle)
        syncs = SourceSyncs(self.store, connections, self.setups, PUBLIC, transport=way)
        return SourceHost(self.store, connections, syncs, lambda _: None, pace=pace, look_seconds=0.05)

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once it is so."""
        deadline = time.monotonic() + PATIENCE
        partition, at = 0, 0
        while not condition():
            assert time.monotonic() < deadline, [
                (one.account, one.events(), one.asked, one.watched()) for one in self.people
            ]
            partition = (partition + 1) % 4
            at = self.store.applied.next_offset(partition)
            self.store.applied.wait(partition, at, 0.02)

    def deliver(self, to: str, body: bytes, headers: Mapping[str, str]) -> int:
        """A notification comes in; the status of the answer."""
        began = time.monotonic()
        answer = self.http.post(f"/v1/notifications/{to}", content=body, headers=dict(headers))
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.pushed.extend(
            value for name, value in headers.items() if name in {"Authorization", "X-Goog-Channel-Token"}
        )
        return answer.status_code

    def google(self) -> str:
        """A token of Google's that holds now."""
        now = int(time.time())
        return ONE.token(iat=now - 60, exp=now + 3_000)

    def shake(self, token: str) -> tuple[int, str | None, bytes]:
        """Graph's handshake with the endpoint."""
        answer = self.graph.receive(delivery(b"", (("validationToken", unquote(token)),)), lambda _: None).answer
        return answer.status, answer.content_type, answer.body

    def _handle(self, request: httpx.Request) -> httpx.Response:
        """Every request of every sync: to a token endpoint, or to whoever's API the token is for."""
        if request.url.host == AUTH:
            token = dict(parse_qsl(request.read().decode())).get("refresh_token", "")
            whose = next(one for one in self.people if one.server.knows(token))
            answer = transport(whose.server).handle_request(request)
            said = json.loads(answer.read())
            self.tokens.update(said[name] for name in ("access_token", "refresh_token") if name in said)
            return answer
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = next((one for one in self.people if shown in one.server.given), None)
        if found is None:
            return transport(_Nobody()).handle_request(request)
        return transport(found.faulty).handle_request(request)


def _access(_: Mapping[str, str]) -> Access:
    return Access(APP, "mail")


class _Nobody:
    def answer(self, request: Request) -> Reply:
        """Whose token it is cannot be said."""
        return Reply.json(401, {"error": f"no token of anybody's at {request.path}"})


@contextmanager
def world(directory: Path) -> Generator[World]:
    """On a fresh store; nobody is connected."""
    directory.mkdir(parents=True)
    with ExitStack() as opened:
        yield World(directory, opened)
