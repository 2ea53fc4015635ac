"""Watching over HTTP: in order, resumable without gap or double, and nothing is left behind when watchers go."""

import json
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from headrace.api.server import GRACE_SECONDS, BackgroundServer
from headrace.api.streams import HEARTBEAT_SECONDS
from headrace.errors import HaltError
from headrace.schemas.refs import Token
from headrace.settings import load_settings
from tests.integration.api_desk import WAIT, Desk, meeting, problem, received, serving
from tests.integration.stores import open_store

PATIENCE: Final = HEARTBEAT_SECONDS - 3
"""Shorter than a heartbeat: a stream that has nothing to say any more fails its test."""


class Sent(NamedTuple):
    """One server-sent event."""

    type: str
    id: str
    data: dict[str, Any]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


@contextmanager
def watching(desk: Desk, account: str, last: str | None = None, **params: str) -> Generator[Iterator[Sent]]:
    headers = {"Last-Event-ID": last} if last is not None else {}
    with (
        httpx.Client(base_url=desk.http.base_url, timeout=PATIENCE) as http,
        http.stream("GET", f"/v1/accounts/{account}/watch", params=params, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield _sent(answer.iter_lines())


def _sent(lines: Iterator[str]) -> Iterator[Sent]:
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Sent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


def _take(stream: Iterator[Sent], count: int) -> list[Sent]:
    return [next(stream) for _ in range(count)]


def test_records_come_in_log_order_as_they_are_folded(desk: Desk) -> None:
    shown = desk.thread("live")
    with watching(desk, "live") as stream:
        first = next(stream)
        assert (first.type, first.id, first.data["position"]) == ("position", shown["position"], shown["position"])
        desk.tell("live", "mail.labelled", "t1", {"added": ["x"]})
        assert desk.propose("live", "p1", shown["basis"]).status_code == 201
        records = _take(stream, 2)
    assert [(one.type, one.data["type"], one.data["disposition"]) for one in records] == [
        ("record", "mail.labelled", "applied"),
        ("record", "proposal.submitted", "accepted"),
    ]
    for one in records:
        assert one.id == one.data["token"]
        assert Token.parse(one.id).offset == one.data["offset"]


def test_whoever_comes_back_misses_nothing_and_sees_nothing_twice(desk: Desk) -> None:
    position = desk.thread("resume")["position"]
    total = 450
    teller = threading.Thread(
        target=lambda: [desk.tell("resume", "mail.read", "t1", {}, event_id=f"r{n}") for n in range(total)]
    )
    teller.start()
    seen, last, step = list[str](), position, 0
    while len(seen) < total:
        step += 1
        with watching(desk, "resume", last=last) as stream:
            for one in _take(stream, min(1 + 37 * step, 1 + total - len(seen))):
                last = one.id
                if one.type == "record":
                    seen.append(one.data["id"])
    teller.join()
    assert seen == [f"r{n}" for n in range(total)]
    assert step > 3
    with watching(desk, "resume", after=position) as stream:
        everything = _take(stream, 1 + total)
    assert [one.data["id"] for one in everything[1:]] == seen


def test_a_stream_begun_before_anything_happened_can_be_resumed(desk: Desk) -> None:
    with watching(desk, "early") as stream:
        start = next(stream)
    desk.tell("early", "mail.received", "t1", received(), event_id="e1")
    with watching(desk, "early", last=start.id) as stream:
        assert [one.data.get("id") for one in _take(stream, 2)] == [None, "e1"]


def test_a_stream_may_be_about_one_kind_or_entity(desk: Desk) -> None:
    position = desk.thread("some")["position"]
    desk.tell("some", "calendar.created", "c1", meeting("work", 0, 1), event_id="c1")
    desk.tell("some", "mail.received", "t2", received("<2@x>"), event_id="t2")
    desk.tell("some", "mail.read", "t1", {}, event_id="t1")
    expected = {
        ("kind", "calendar.event"): ["c1"],
        ("kind", "mail.thread"): ["t2", "t1"],
        ("entity", "mail.thread/t1"): ["t1"],
    }
    for (name, value), ids in expected.items():
        with watching(desk, "some", last=position, **{name: value}) as stream:
            assert [one.data["id"] for one in _take(stream, 1 + len(ids))[1:]] == ids


def test_positions_of_another_history_are_refused(desk: Desk) -> None:
    token = Token.parse(desk.thread("where")["position"])
    other = next(
        shown["position"]
        for shown in (desk.thread(f"where-{n}") for n in range(100))
        if Token.parse(shown["position"]).partition != token.partition
    )
    for wrong in (token._replace(check=bytes(8)).encode(), token._replace(log_id=bytes(16)).encode(), other):
        answer = desk.http.get("/v1/accounts/where/watch", headers={"Last-Event-ID": wrong})
        problem(answer, 422, "unknown-position")


def test_watchers_who_vanish_leave_nothing_behind(desk: Desk) -> None:
    sockets: list[socket.socket] = []
    before = _watchers(desk)
    for _ in range(50):
        one = socket.create_connection((desk.http.base_url.host, desk.http.base_url.port or 80), WAIT)
        one.sendall(b"GET /v1/accounts/gone/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one.recv(20).startswith(b"HTTP/1.1 200")
        sockets.append(one)
    assert _watchers(desk) >= 50
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, not a goodbye
        one.close()
    deadline = time.monotonic() + WAIT
    while _watchers(desk) > before:
        assert time.monotonic() < deadline
    desk.tell("gone", "mail.received", "t1", received())


def _watchers(desk: Desk) -> float:
    (line,) = (one for one in desk.http.get("/metrics").text.splitlines() if one.startswith("headrace_watchers "))
    return float(line.split()[1])


def test_a_stream_ends_with_what_stopped_the_processor(tmp_path: Path) -> None:
    with serving(tmp_path) as desk, watching(desk, "a") as stream:
        next(stream)
        desk.store.applied.fail(HaltError("a kind's code raised"))
        last = next(stream)
        assert (last.type, last.data["detail"]) == ("stopped", "a kind's code raised")
        assert list(stream) == []


def test_a_stream_ends_when_the_server_stops(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True, partitions=2) as store:
        rest = list[str]()
        assert all(store.applied.wait(partition, 0, 30) for partition in range(2))
        with (
            httpx.Client(timeout=WAIT) as http,
            ExitStack() as stack,
        ):
            with BackgroundServer(store, load_settings(tmp_path, port=0)) as server:
                answer = stack.enter_context(http.stream("GET", f"{server.url}/v1/accounts/a/watch"))
                lines = answer.iter_lines()
                assert next(lines).startswith("id: ")
                reading = threading.Thread(target=lambda: rest.extend(lines))
                reading.start()
                began = time.monotonic()
            assert time.monotonic() - began < GRACE_SECONDS
            reading.join(WAIT)
            assert not reading.is_alive()
        assert "event: position" in rest
