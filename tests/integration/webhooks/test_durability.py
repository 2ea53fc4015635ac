"""2xx is answered once the log has every event, and not before."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest

from headrace.errors import AppendUnknownError, BadInputError, LogClosedError, UnavailableError
from headrace.log.port import Log, Record
from headrace.producers.delivery import Limits
from headrace.schemas.refs import Position
from tests.integration.webhooks.receiver import (
    BATCH,
    GOOD,
    PATH,
    Receiver,
    envelope,
    event,
    positions,
    signed,
    stored,
    told,
)


class Wrapped:
    """A real log whose appends go through ``append``."""

    def __init__(self, log: Log, append: Callable[[Sequence[Record]], list[Position]]) -> None:
        self._log = log
        self.append = append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def put_before(
    receiver: Receiver, patch: pytest.MonkeyPatch, append: Callable[[Sequence[Record]], list[Position]]
) -> None:
    """Let the router's appends go through ``append``; the fold goes on reading the real log."""
    patch.setattr(receiver.store, "log", Wrapped(receiver.store.log, append))


@pytest.mark.parametrize("failure", [UnavailableError, LogClosedError, BadInputError])
def test_a_log_that_refuses_is_a_503(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def append(records: Sequence[Record]) -> list[Position]:
        raise failure("personal")

    ends = receiver.ends()
    with monkeypatch.context() as patch:
        put_before(receiver, patch, append)
        [response] = receiver.post(GOOD)
    assert (response.status_code, response.json()["reason"]) == (503, "log_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert "personal" not in response.text
    assert receiver.ends() == ends
    assert receiver.counted() == {"default/log_unavailable": 1}
    assert receiver.applied(positions(receiver.post(GOOD)[0])) == ["applied"]


@pytest.mark.parametrize("landed", [0, 1, 2])
def test_after_an_unknown_outcome_sending_again_is_safe(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, landed: int
) -> None:
    real = receiver.store.log

    def append(records: Sequence[Record]) -> list[Position]:
        real.append(records[:landed])
        raise AppendUnknownError("who knows")

    batch = told([event(), event(id="e-2", data={"message": "<m2@x>", "sender": "x"})])
    with monkeypatch.context() as patch:
        put_before(receiver, patch, append)
        [response] = receiver.post(batch)
    assert (response.status_code, response.json()["reason"]) == (503, "outcome_unknown")
    assert int(response.headers["retry-after"]) > 0
    again = receiver.applied(positions(receiver.post(batch)[0]))
    assert again == ["duplicate"] * landed + ["applied"] * (2 - landed)
    assert [row["messages"] for row in receiver.rows("SELECT messages FROM threads")] == [2]


def test_nothing_is_answered_before_the_log_has_it(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = threading.Event(), threading.Event()
    real = receiver.store.log

    def append(records: Sequence[Record]) -> list[Position]:
        entered.set()
        assert release.wait(20)
        return real.append(records)

    async def run() -> tuple[httpx.Response, httpx.Response]:
        async with receiver.client() as client:
            waiting = asyncio.create_task(client.post(PATH, content=GOOD.body, headers=GOOD.headers))
            assert await asyncio.to_thread(entered.wait, 20)
            # Meanwhile the door answers others, so the event loop is free: this one is refused unsigned.
            other = await client.post(PATH, content=b"{}")
            assert not waiting.done()
            assert receiver.ends() == ends
            release.set()
            return await waiting, other

    ends = receiver.ends()
    put_before(receiver, monkeypatch, append)
    answer, other = asyncio.run(run())
    assert other.status_code == 401
    assert [envelope(one).id for one in stored(receiver.store, positions(answer))] == ["e-1"]


def test_too_many_deliveries_at_once_are_told_to_come_again(shared: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(shared.store, Limits(waiting=2))
    entered, release = threading.Semaphore(0), threading.Event()
    real = receiver.store.log

    def append(records: Sequence[Record]) -> list[Position]:
        entered.release()
        assert release.wait(20)
        return real.append(records)

    async def run() -> list[httpx.Response]:
        async with receiver.client() as client:

            def post() -> Awaitable[httpx.Response]:
                return client.post(PATH, content=GOOD.body, headers=GOOD.headers)

            waiting = [asyncio.ensure_future(post()) for _ in range(2)]
            for _ in waiting:
                assert await asyncio.to_thread(entered.acquire, timeout=20)
            refused = await post()
            release.set()
            return [*await asyncio.gather(*waiting), refused, await post()]

    put_before(receiver, monkeypatch, append)
    *taken, refused, later = asyncio.run(run())
    assert [one.status_code for one in (*taken, later)] == [202, 202, 202]
    assert (refused.status_code, refused.json()["reason"]) == (503, "busy")
    assert "retry-after" in refused.headers


def test_thirty_two_deliveries_at_once_are_all_durable(receiver: Receiver) -> None:
    deliveries = [
        told([event(id=f"e-{n}-{m}", account=f"a-{n % 5}", subject=f"mail.thread/t-{n}") for m in range(3)])
        for n in range(32)
    ]
    answers = [positions(answer) for answer in receiver.post(*deliveries)]
    found = [[envelope(one).id for one in stored(receiver.store, places)] for places in answers]
    assert found == [[f"e-{n}-{m}" for m in range(3)] for n in range(32)]
    assert len({place for places in answers for place in places}) == 96
    assert set(receiver.applied([place for places in answers for place in places])) == {"applied"}


def test_a_mebibyte_of_events_is_taken_in_a_second(receiver: Receiver) -> None:
    text = "é" * 300
    batch = [
        event(id=f"e-{n}", data={"message": f"<{n}@x>", "sender": "x", "content": {"text": text}}) for n in range(1_000)
    ]
    body = json.dumps(batch, ensure_ascii=False).encode()
    assert 800_000 < len(body) < 1024 * 1024
    before = time.process_time()
    [response] = receiver.post(signed(body, BATCH))
    spent = time.process_time() - before
    assert len(positions(response)) == 1_000
    assert spent < 5
