"""What is said of commits may get lost (a worker that dies in between) or be made up: the tables decide what is
answered."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

import httpx
import pytest

from headrace.processors.applied import Applied
from headrace.projections.port import Reader, Tables
from tests.integration.api_desk import WAIT, Desk, serving

READS: Final = 50


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


class Unheard(Applied):
    """Hears of nothing. Whoever waits is told that the time is up, once the real one has it."""

    def __init__(self, real: Applied) -> None:
        super().__init__()
        self._real = real

    async def wait_async(self, partition: int, offset: int, timeout: float) -> bool:
        assert await self._real.wait_async(partition, offset, WAIT)
        return False


class Looked:
    """Tables that count who looks."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.looked = 0

    def snapshot(self) -> AbstractContextManager[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        self.looked += 1
        return self._tables.snapshot()


@pytest.fixture
def unheard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From when it is asked for, no commit is heard of."""
    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "applied", Unheard(desk.store.applied))
        yield


def test_a_verdict_that_nobody_heard_of_is_told(desk: Desk, request: pytest.FixtureRequest) -> None:
    shown = desk.thread("verdict")
    request.getfixturevalue("unheard")
    answer = desk.propose("verdict", "p1", shown["basis"])
    assert (answer.status_code, answer.json()["verdict"]) == (201, "accepted")
    withdrawn = desk.http.post("/v1/accounts/verdict/proposals/p1/withdraw", json={})
    assert (withdrawn.status_code, withdrawn.json()["outcome"]) == (200, "withdrawn")


def test_a_claim_that_nobody_heard_of_is_told(desk: Desk, request: pytest.FixtureRequest) -> None:
    until = desk.thread("claim")["log_time"] + 1_000_000
    request.getfixturevalue("unheard")
    new = {"entity": {"kind": "mail.thread", "id": "t1"}, "until": until}
    held = desk.http.post("/v1/accounts/claim/claims", json=new, headers={"Idempotency-Key": "c1"})
    assert (held.status_code, held.json()["claim"]["claim"]) == (201, "c1")
    released = desk.http.delete("/v1/accounts/claim/claims/c1", headers={"Content-Type": "application/json"})
    assert (released.status_code, released.json()["claim"]) == (200, None)


def test_a_read_with_a_token_that_nobody_heard_of_is_answered(desk: Desk, request: pytest.FixtureRequest) -> None:
    position = desk.thread("token")["position"]
    request.getfixturevalue("unheard")
    assert desk.entity("token", "mail.thread", "t1", after=position).json()["position"] == position


def test_a_proposal_that_is_waited_for_and_nobody_heard_of_is_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    shown, asked = desk.thread("late"), threading.Event()

    class Asked(Unheard):
        async def wait_async(self, partition: int, offset: int, timeout: float) -> bool:
            asked.set()
            return await super().wait_async(partition, offset, timeout)

    real = desk.store.applied
    monkeypatch.setattr(desk.store, "applied", Asked(real))
    found: list[httpx.Response] = []

    def look() -> None:
        with httpx.Client(base_url=desk.http.base_url, timeout=60) as http:
            found.append(http.get("/v1/accounts/late/proposals/p1", headers={"Prefer": f"wait={WAIT:g}"}))

    looking = threading.Thread(target=look)
    looking.start()
    assert asked.wait(WAIT)
    assert desk.propose("late", "p1", shown["basis"]).status_code == 201
    looking.join(WAIT)
    assert found[0].json()["verdict"] == "accepted"


def test_whoever_watches_does_not_run_after_a_position_that_nobody_reached(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = desk.thread("forged")["position"]
    partition, tables = desk.store.intake.partition("local", "forged"), Looked(desk.store.tables)
    monkeypatch.setattr(desk.store, "tables", tables)
    with (
        httpx.Client(base_url=desk.http.base_url, timeout=WAIT) as http,
        http.stream("GET", "/v1/accounts/forged/watch", params={"after": position}) as answer,
    ):
        seen = (line for line in answer.iter_lines() if line.startswith("id: "))
        next(seen)
        before = desk.store.applied.next_offset(partition)
        desk.store.applied.advance(partition, 10**12)
        for _ in range(READS):
            assert desk.entity("forged", "mail.thread", "t1").status_code == 200
        desk.store.applied.advance(partition, before)
        assert tables.looked < READS + 10
        desk.tell("forged", "mail.read", "t1", {})
        next(seen)
