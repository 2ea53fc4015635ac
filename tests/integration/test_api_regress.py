"""Tables that go back (a database that crashed comes back with a little less, and is folded on): whoever brings a token
never sees less than it says, and nothing comes twice."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, repeat
from typing import Any, Final

import httpx
import pytest

from headrace.processors.replay import replay
from headrace.projections.port import Reader, Tables
from headrace.schemas.refs import Token
from tests.integration.api_desk import WAIT, Desk, problem, received, serving
from tests.integration.stores import fresh_tables

ENTITY: Final = "/v1/accounts/{}/entities/mail.thread/t1"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


class WentBack:
    """Tables whose snapshots are of an earlier time, one after the other as ``script`` says, until :meth:`heal`."""

    def __init__(self, now: Tables, then: Tables, script: Iterator[bool]) -> None:
        self._now, self._then, self._script = now, then, script
        self._guard: Final = threading.Lock()
        self.asked: Final = threading.Semaphore(0)
        """Released whenever somebody saw the earlier time."""
        self.resume, self.load, self.commit = now.resume, now.load, now.commit

    def heal(self) -> None:
        """From now on everything is there again."""
        with self._guard:
            self._script = repeat(False)

    @contextmanager
    def snapshot(self) -> Generator[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        with self._guard:
            back = next(self._script)
        with (self._then if back else self._now).snapshot() as reader:
            yield reader
        if back:
            self.asked.release()


class Earlier:
    """Makes the API see tables of an earlier time."""

    def __init__(self, desk: Desk, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self._desk, self._patch, self._stack = desk, patch, stack

    def __call__(self, account: str, next_offset: int, script: Iterator[bool]) -> WentBack:
        """As they were when this offset of the account's partition was next."""
        store = self._desk.store
        then: Tables = self._stack.enter_context(closing(fresh_tables(store.kinds)))
        until = {store.intake.partition("local", account): next_offset}
        replay(store.log, store.registry, store.kinds, then, until=until)
        back = WentBack(store.tables, then, script)
        self._patch.setattr(store, "tables", back)
        return back


@pytest.fixture
def earlier(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Earlier]:
    with ExitStack() as stack:
        yield Earlier(desk, monkeypatch, stack)


def read(desk: Desk, account: str, after: str, wait: float, **params: Any) -> httpx.Response:
    headers = {"Prefer": f"wait={wait:g}"}
    return desk.http.get(ENTITY.format(account), params={"after": after, **params}, headers=headers)


def offset(position: str) -> int:
    return Token.parse(position).offset


@pytest.mark.parametrize("back", [(True,), (False, True), (True, True, False, True)], ids=str)
def test_a_read_with_a_token_waits_again(desk: Desk, earlier: Earlier, back: tuple[bool, ...]) -> None:
    account = f"again-{len(back)}"
    desk.thread(account)
    before = desk.entity(account, "mail.thread", "t1").json()
    desk.tell(account, "mail.read", "t1", {})
    after = desk.entity(account, "mail.thread", "t1").json()["position"]
    earlier(account, offset(before["position"]) + 1, chain(back, repeat(False)))
    for _ in range(len(back)):
        shown = read(desk, account, after, WAIT).json()
        assert offset(shown["position"]) >= offset(after)
        assert shown["state"]["unread"] is False


def test_a_read_waits_for_tables_that_come_back_and_no_longer_than_it_likes(desk: Desk, earlier: Earlier) -> None:
    desk.thread("late")
    before = desk.entity("late", "mail.thread", "t1").json()
    desk.tell("late", "mail.read", "t1", {})
    after = desk.entity("late", "mail.thread", "t1").json()["position"]
    back = earlier("late", offset(before["position"]) + 1, repeat(True))
    for wait in (0, 1):
        late = read(desk, "late", after, wait)
        assert problem(late, 503, "unavailable")["detail"].startswith("the tables did not reach")
        assert late.headers["retry-after"]
    with ThreadPoolExecutor(2) as others:
        asked = [others.submit(read, desk, "late", after, WAIT, **more) for more in ({}, {"at": after})]
        for _ in range(6):
            assert back.asked.acquire(timeout=WAIT)
        assert not any(one.done() for one in asked)
        back.heal()
        shown = [one.result().json() for one in asked]
    assert [one["state"]["unread"] for one in shown] == [False, False]
    without = desk.entity("late", "mail.thread", "t1").json()
    assert without["state"]["unread"] is False


def test_whoever_watches_sees_nothing_twice(desk: Desk, earlier: Earlier) -> None:
    begin = desk.thread("watch")["position"]
    for number in range(3):
        desk.tell("watch", "mail.labelled", "t1", {"added": [f"l{number}"]}, event_id=f"l{number}")
    with (
        httpx.Client(base_url=desk.http.base_url, timeout=WAIT) as http,
        http.stream("GET", "/v1/accounts/watch/watch", params={"after": begin}) as answer,
    ):
        seen = (line.partition(": ")[2] for line in answer.iter_lines() if line.startswith("id: "))
        assert next(seen) == begin
        shown = [offset(next(seen)) for _ in range(3)]
        back = earlier("watch", offset(begin) + 2, repeat(True))
        desk.tell("watch", "mail.labelled", "t1", {"added": ["l3"]}, event_id="l3")
        for _ in range(2):
            assert back.asked.acquire(timeout=WAIT)
        back.heal()
        desk.tell("watch", "mail.labelled", "t1", {"added": ["l4"]}, event_id="l4")
        shown += [offset(next(seen)) for _ in range(2)]
    assert shown == list(range(offset(begin) + 1, offset(begin) + 6))


def test_a_verdict_is_told_only_from_tables_that_hold_the_proposal(desk: Desk, earlier: Earlier) -> None:
    shown = desk.thread("told")
    first = desk.propose("told", "p1", shown["basis"])
    assert first.status_code == 201
    # The tables go back to where they had the first proposal with this id, and not what was said under it since.
    earlier("told", first.json()["offset"] + 1, chain((True,), repeat(False)))
    second = desk.propose("told", "p1", shown["basis"], data={})
    assert second.status_code == 202, second.text
    assert second.json()["proposal"] == "p1"
    assert problem(desk.propose("told", "p1", shown["basis"], data={}), 409, "conflicting_id")


def test_an_answer_reads_what_the_reviewer_had_read(desk: Desk, earlier: Earlier) -> None:
    shown = desk.thread("review")
    desk.propose("review", "p1", shown["basis"])
    desk.tell("review", "mail.received", "t2", received("<2@x>"))
    position = desk.entity("review", "mail.thread", "t2").json()["position"]
    earlier("review", offset(shown["position"]) + 1, chain((True, True), repeat(False)))
    headers = {"Prefer": f"wait={WAIT:g}"}
    answer = desk.http.post("/v1/accounts/review/proposals/p1/approve", json={"read": position}, headers=headers)
    assert problem(answer, 409, "not-waiting")["current"]["verdict"] == "accepted"
