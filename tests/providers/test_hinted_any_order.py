"""Nobody polls here: a source is synced when a notification has led to a hint, and only then. Notifications come late,
twice, in disorder, again after whatever was no 2xx, while a sync is under way or after it died. Once they have all been
taken and what is hinted was synced, the log has what the provider shows."""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import UnavailableError
from headrace.producers.google_calendar import GoogleCalendar
from headrace.producers.graph import Graph
from headrace.producers.hints import Hints
from headrace.producers.provider import Connected, Delivery, Provider, Watch
from headrace.producers.schedule import SourceKey
from headrace.projections import known
from tests.doubles.desk import ACCOUNT, SOURCE, TENANT, CrashError, Folding
from tests.doubles.graph_push import CLIENT_ID, SubscriptionsDouble
from tests.doubles.http import Fault, Reply, Request, replies
from tests.doubles.pubsub import PubSub
from tests.providers import gmail_parts, google_calendar_parts, graph_parts
from tests.providers.graph_parts import ONE as MICROSOFT
from tests.providers.graph_parts import Published
from tests.providers.people import PEOPLE
from tests.providers.test_gmail_push import NOW, ONE, Certificates

_ENDPOINT: Final = "https://headrace.example/v1/notifications"
_MOST: Final = 200
"""Deliveries and syncs until it is quiet, at the most."""


class Deliver(NamedTuple):
    """The provider notifies; what it is answered: ``taken``; ``down``, and nothing was taken; ``lost`` on its way."""

    which: int
    how: str


class Sync(NamedTuple):
    """If it is hinted. Things are done, and deliveries come in, between its requests."""

    crash: int | None
    fails: int | None
    pauses: list[int]
    meanwhile: list[Any]


class Hinted:
    """A provider that notifies, the door, and what stands behind it. ``deliver`` has it send something to an endpoint
    that answers a status; ``waits`` tells whether it has something to send."""

    def __init__(
        self,
        mine: Any,
        provider: Provider,
        connected: Connected,
        *,
        deliver: Callable[[Callable[[Delivery], int], int], None],
        waits: Callable[[], bool],
        do: Callable[[Any], None],
    ) -> None:
        self.mine, self.provider, self.connected = mine, provider, connected
        self._deliver, self.waits, self.do = deliver, waits, do
        self.watches: Final[dict[str, Watch]] = {}
        self.hints: Final = Hints(mine.desk.log, mine.desk.tables, Folding(mine.desk.fold), mine.desk.intake)
        self.key: Final = SourceKey(TENANT, ACCOUNT, SOURCE)

    def watch(self, now: int) -> None:
        made = self.provider.watch(self.connected, self.mine.http, f"{_ENDPOINT}/{self.provider.name}", None, now)
        assert made is not None
        self.watches[made.id] = made

    def deliver(self, step: Deliver) -> None:
        def endpoint(delivery: Delivery) -> int:
            if step.how == "down":
                return 503
            received = self.provider.receive(delivery, self.watches.get)
            for hint in received.hints:
                assert hint.watch in self.watches
                self.hints.append(self.key, delivery, hint.delivery)
            return received.answer.status if step.how == "taken" else 503

        self._deliver(endpoint, step.which)

    def hinted(self) -> bool:
        self.mine.desk.fold()
        with self.mine.desk.tables.snapshot() as reader:
            return tuple(self.key) in known.hinted(reader)

    def sync(self, step: Sync) -> None:
        if not self.hinted():
            return

        def between(what: Any) -> Fault:
            def done(_: Request) -> Reply | None:
                self.deliver(what) if isinstance(what, Deliver) else self.do(what)
                return None

            return done

        for pause, what in zip(step.pauses, step.meanwhile, strict=False):
            self.mine.faulty.plan(*[None] * pause, between(what))
        if step.fails is not None:
            self.mine.faulty.plan(*[None] * step.fails, replies(503))
        try:
            self.mine.desk.sync(self.mine.source, crash_after=step.crash)
        except (CrashError, UnavailableError):
            assert step.crash is not None or step.fails is not None or step.meanwhile
            # A start is on the log and no end: whoever ran it, or finds it when he comes, runs it again.
            self.hints.append(self.key)
        finally:
            self.mine.faulty.clear()

    def quiet(self) -> None:
        """All is taken, and what is hinted is synced."""
        for at in range(_MOST):
            if self.waits():
                self.deliver(Deliver(at, "taken"))
            elif self.hinted():
                self.mine.desk.sync(self.mine.source)
            else:
                return
        raise AssertionError("it never becomes quiet")


@contextmanager
def gmail(page: int) -> Generator[Hinted]:
    certificates = Certificates(ONE)
    with gmail_parts.box(page=page) as mine:
        pubsub = PubSub(mine.double)
        token = ONE.token()

        def deliver(endpoint: Callable[[Delivery], int], which: int) -> None:
            def pushed(message: Mapping[str, Any]) -> int:
                headers = ((b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json"))
                return endpoint(Delivery("POST", headers, (), json.dumps(message).encode(), NOW))

            pubsub.deliver(pushed, which)

        def do(act: Any) -> None:
            PEOPLE["gmail"].do(mine, act)
            mine.double.now += 1_000
            pubsub.changed()

        provider = gmail_parts.provider(certificates.keys)
        made = Hinted(
            mine, provider, gmail_parts.connected(), deliver=deliver, waits=lambda: bool(pubsub.waiting), do=do
        )
        made.watch(mine.double.now)
        pubsub.watched()
        yield made
    certificates.keys.close()


@contextmanager
def google_calendar(page: int) -> Generator[Hinted]:
    with google_calendar_parts.office(page=page) as mine:
        push = mine.double.push

        def deliver(endpoint: Callable[[Delivery], int], which: int) -> None:
            def posted(message: Mapping[str, str]) -> int:
                headers = tuple((name.lower().encode(), value.encode()) for name, value in message.items())
                return endpoint(Delivery("POST", headers, (), b"", time.time()))

            for channel in push.channels.values():
                channel.waiting[:] = channel.waiting[which % 3 :] + channel.waiting[: which % 3]
            push.deliver(posted)

        def do(act: Any) -> None:
            PEOPLE["google_calendar"].do(mine, act)

        def waits() -> bool:
            return any(channel.waiting for channel in push.channels.values())

        made = Hinted(mine, GoogleCalendar(), google_calendar_parts.connected(), deliver=deliver, waits=waits, do=do)
        made.watch(mine.double.now)
        made.hints.append(made.key)  # whoever connects a source has it synced
        yield made


@contextmanager
def graph(mine: Any, double: Any, what: Callable[[Any, Any], None], **follow: str) -> Generator[Hinted]:
    published = Published(MICROSOFT)
    provider = Graph(client_id=CLIENT_ID, keys=published.keys)
    connected, serial = graph_parts.connected(**follow), count()

    def shake(token: str) -> tuple[int, str | None, bytes]:
        query = (("validationToken", unquote(token)),)
        answer = provider.receive(graph_parts.delivery(b"", query), lambda _: None).answer
        return answer.status, answer.content_type, answer.body

    subscriptions = SubscriptionsDouble(double, shake)

    def deliver(endpoint: Callable[[Delivery], int], which: int) -> None:
        subscriptions.deliver(lambda body: endpoint(graph_parts.delivery(body)), which, 1 + next(serial) % 3)

    def do(act: Any) -> None:
        what(mine, act)
        subscriptions.changed()

    made = Hinted(mine, provider, connected, deliver=deliver, waits=lambda: bool(subscriptions.waiting), do=do)
    made.watch(double.now)
    made.hints.append(made.key)
    yield made
    published.keys.close()


@contextmanager
def graph_mail(page: int) -> Generator[Hinted]:
    with (
        graph_parts.box(page=page) as mine,
        graph(mine, mine.double, PEOPLE["graph mail"].do, follow="mail") as made,
    ):
        yield made


@contextmanager
def graph_calendar(page: int) -> Generator[Hinted]:
    with (
        graph_parts.diary(page=page) as mine,
        graph(mine, mine.graph, PEOPLE["graph calendar"].do, follow="calendar") as made,
    ):
        yield made


OPENED: Final[Mapping[str, Callable[[int], Any]]] = {
    "gmail": gmail,
    "google_calendar": google_calendar,
    "graph mail": graph_mail,
    "graph calendar": graph_calendar,
}
deliveries: Final = st.builds(Deliver, st.integers(0, 5), st.sampled_from(["taken", "taken", "down", "lost"]))


def drawn(data: st.DataObject, acts: st.SearchStrategy[Any]) -> Iterator[Any]:
    syncs = st.builds(
        Sync,
        st.one_of(st.none(), st.none(), st.integers(0, 4)),
        st.one_of(st.none(), st.none(), st.integers(0, 4)),
        st.lists(st.integers(0, 2), min_size=5, max_size=5),
        st.lists(st.one_of(acts, st.builds(Deliver, st.integers(0, 5), st.just("taken"))), max_size=5),
    )
    yield from data.draw(st.lists(st.one_of(acts, acts, deliveries, deliveries, syncs), max_size=30))


@pytest.mark.parametrize("name", OPENED)
@given(data=st.data(), page=st.sampled_from([1, 3, 1000]))
@settings(max_examples=settings().max_examples * 2 // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_notified_is_found(name: str, data: st.DataObject, page: int) -> None:
    with OPENED[name](page) as site:
        for step in drawn(data, PEOPLE[name].acts):
            match step:
                case Deliver():
                    site.deliver(step)
                case Sync():
                    site.sync(step)
                case _:
                    site.do(step)
        site.quiet()
        site.mine.agree()
        found = site.mine.desk.found(site.mine.source, full=True)
        assert [fact for fact in found if fact.disposition == "applied"] == []
