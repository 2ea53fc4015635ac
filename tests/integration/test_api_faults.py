"""What goes wrong over HTTP, and what is said about it: problems everywhere, nothing of our insides in them."""

import http.client
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from headrace.api.operations import READY_LAG
from headrace.errors import (
    AppendUnknownError,
    HaltError,
    HeadraceError,
    LogClosedError,
    UnavailableError,
)
from headrace.processors.applied import Applied
from headrace.schemas.envelope import Envelope
from tests.integration.api_desk import ANN, WAIT, Desk, problem, serving

PATH: Final = "/v1/accounts/a/proposals"
JSON: Final = {"Content-Type": "application/json", "Idempotency-Key": "p1"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 422, "bad-input"),
        (b"{", 400, "not-json"),
        (b"nonsense", 400, "not-json"),
        (b"\xff\xfe", 400, "not-utf8"),
        (b'{"basis": "\xe4"}', 400, "not-utf8"),
        (b'{"basis": NaN}', 400, "bad-number"),
        (b'{"basis": 1e999}', 400, "bad-number"),
        (b'{"basis": 99999999999999999999}', 400, "bad-number"),
        (b'{"basis": "\\ud800"}', 400, "bad-text"),
        (b'{"basis": "\\u0000"}', 400, "bad-text"),
        (b'{"basis": "a", "basis": "b"}', 400, "duplicate-key"),
        (b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "too-deep"),
        (b'{"data":' * 40 + b"1" + b"}" * 40, 400, "too-deep"),
        (b"[]", 422, "bad-input"),
        (b"null", 422, "bad-input"),
        (b'"text"', 422, "bad-input"),
        (b"{}", 422, "bad-input"),
    ],
)
def test_bodies_that_cannot_be_used(desk: Desk, content: bytes, status: int, kind: str) -> None:
    ends = desk.store.log.describe().ends
    problem(desk.http.post(PATH, content=content, headers=JSON), status, kind)
    assert desk.store.log.describe().ends == ends


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "text/json"]
)
def test_other_media_types(desk: Desk, media: str) -> None:
    headers = JSON | {"Content-Type": media}
    problem(desk.http.post(PATH, content=b"{}", headers=headers), 415, "content-type")


def test_media_type_parameters_are_fine_and_encodings_are_not(desk: Desk) -> None:
    headers = JSON | {"Content-Type": "Application/JSON; charset=utf-8"}
    problem(desk.http.post(PATH, content=b"{}", headers=headers), 422, "bad-input")
    problem(desk.http.post(PATH, content=b"{}", headers=JSON | {"Content-Encoding": "gzip"}), 415, "content-encoding")


def test_large_bodies_are_not_taken_whatever_they_say(desk: Desk) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 32_768

    problem(desk.http.post(PATH, content=b" " * (1024 * 1024 + 1), headers=JSON), 413, "too-large")
    problem(desk.http.post(PATH, content=chunks(), headers=JSON), 413, "too-large")
    problem(desk.http.post(PATH, content=b" " * (1024 * 1024 - 2) + b"{}", headers=JSON), 422, "bad-input")
    url = desk.http.base_url
    connection = http.client.HTTPConnection(str(url.host), url.port, timeout=20)
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(10**15))
    connection.endheaders()
    answer = connection.getresponse()  # before a byte of it was sent
    assert (answer.status, json.load(answer)["type"]) == (413, "urn:headrace:problem:too-large")
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "no-such-route"),
        ("GET", "/v2/accounts", 404, "no-such-route"),
        ("GET", "/docs", 404, "no-such-route"),
        ("GET", "/v1/accounts/a/entities/mail.thread/a/b/c", 404, "no-such-route"),
        ("PUT", "/v1/accounts/a/entities/mail.thread/t", 405, "method-not-allowed"),
        ("DELETE", "/v1/log", 405, "method-not-allowed"),
        ("BREW", "/v1/log", 405, "method-not-allowed"),
        ("GET", "/v1/accounts/ann@example.org/entities", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities/NoKind/t", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities/mail.thread/%FF%FE", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities/mail.thread/%00", 422, "bad-input"),
        ("GET", f"/v1/accounts/a/entities/mail.thread/{'x' * 201}", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities/no.kind/t", 404, "no-such-kind"),
        ("GET", "/v1/accounts/a/entities/no.kind/t/events", 404, "no-such-kind"),
        ("GET", "/v1/accounts/a/entities?limit=0", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities?limit=1001", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities?limit=x", 422, "bad-input"),
        ("GET", "/v1/accounts/a/entities/mail.thread/t/events?cursor=99999999999999999999", 422, "bad-input"),
        ("GET", "/v1/accounts/a/scopes/calendar/c?from=yesterday", 422, "bad-input"),
        ("GET", "/v1/accounts/a/scopes/calendar/c?from=2026-11-21T17:00:00", 422, "bad-input"),
        ("GET", "/v1/accounts/a/scopes/calendar/c?to=99999999999999999999", 422, "bad-input"),
        ("GET", "/v1/accounts/a/proposals?verdict=maybe", 422, "bad-input"),
        ("GET", "/v1/accounts/a/proposals/none", 404, "no-such-proposal"),
        ("GET", "/v1/accounts/a/watch?entity=nonsense", 422, "bad-input"),
        ("GET", "/v1/quarantine?cursor=x", 422, "bad-input"),
    ],
)
def test_every_error_is_a_problem(desk: Desk, method: str, path: str, status: int, kind: str) -> None:
    answer = desk.http.request(method, path)
    problem(answer, status, kind)
    if status == 405:
        assert answer.headers["allow"] == "GET"


def test_every_method_of_a_path_is_named(desk: Desk) -> None:
    for path, methods in (("accounts/a/proposals", "GET, POST"), ("webhooks/standard", "OPTIONS, POST")):
        answer = desk.http.put(f"/v1/{path}", headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


Fail = Callable[[HeadraceError | Exception], None]


@pytest.fixture
def failing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Makes every append fail with an exception."""

    def fail(error: Exception) -> None:
        def append(_: Any) -> NoReturn:
            raise error

        monkeypatch.setattr(desk.store, "log", _Failing(desk.store.log, append))

    return fail


class _Failing:
    def __init__(self, log: Any, append: Callable[[Any], Any]) -> None:
        self._log, self.append = log, append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize(
    ("error", "kind", "retry"),
    [
        (AppendUnknownError("the disk did not say"), "outcome-unknown", "1"),
        (UnavailableError("the disk is full; free some"), "unavailable", "1"),
        (LogClosedError("the log moved to kafka://there"), "log-closed", None),
        (HaltError("judging is unsafe"), "halted", "1"),
    ],
)
def test_an_outage_of_the_log_is_503(
    desk: Desk, failing: Fail, error: HeadraceError, kind: str, retry: str | None
) -> None:
    basis = desk.thread("outage", kind)["basis"]
    failing(error)
    answer = desk.propose("outage", "p1", basis, entity={"kind": "mail.thread", "id": kind})
    detail = problem(answer, 503, kind)["detail"]
    assert str(error) in detail
    assert ("same Idempotency-Key" in detail) is (kind == "outcome-unknown")
    assert answer.headers.get("retry-after") == retry


def test_a_proposal_whose_append_nobody_answered_is_sent_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    basis, log = desk.thread("unsure")["basis"], desk.store.log

    def append(records: Any) -> NoReturn:
        log.append(records)  # it landed, and the answer got lost
        raise AppendUnknownError("the brokers did not say")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "log", _Failing(log, append))
        problem(desk.propose("unsure", "p1", basis), 503, "outcome-unknown")
    again = desk.propose("unsure", "p1", basis)
    assert (again.status_code, again.json()["verdict"], again.json()["duplicate"]) == (201, "accepted", True)
    assert [one["proposal"] for one in desk.entity("unsure", "mail.thread", "t1").json()["intents"]] == ["p1"]


def test_while_no_append_is_answered_everything_can_be_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    basis, log, answered = desk.thread("stuck")["basis"], desk.store.log, threading.Event()
    waiting = threading.Semaphore(0)

    def append(records: Any) -> Any:
        waiting.release()
        assert answered.wait(WAIT)
        return log.append(records)

    with monkeypatch.context() as patch, ThreadPoolExecutor(60) as agents:
        patch.setattr(desk.store, "log", _Failing(log, append))
        asked = [agents.submit(desk.propose, "stuck", f"p{number}", basis) for number in range(60)]
        for _ in asked:
            assert waiting.acquire(timeout=WAIT)
        assert desk.entity("stuck", "mail.thread", "t1").json()["intents"] == []
        answered.set()
        statuses = sorted(one.result().status_code for one in asked)
    assert statuses == [201] + [409] * 59


class Waiting:
    """Who waits for the fold, and a way to wait for that."""

    def __init__(self, applied: Applied, patch: pytest.MonkeyPatch) -> None:
        self._changed: Final = threading.Condition()
        self._waiting: Final = set[Callable[[], object]]()
        self._come = 0
        self._add, self._remove = applied.add, applied.remove
        patch.setattr(applied, "add", self._added)
        patch.setattr(applied, "remove", self._removed)

    def until_come(self, many: int) -> None:
        """So many have begun to wait."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._come >= many, WAIT), self._come

    def until_left(self, many: int) -> None:
        """So many wait still."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._waiting) == many, WAIT), len(self._waiting)

    def _added(self, listener: Callable[[], object]) -> None:
        self._add(listener)
        with self._changed:
            self._waiting.add(listener)
            self._come += 1
            self._changed.notify_all()

    def _removed(self, listener: Callable[[], object]) -> None:
        self._remove(listener)
        with self._changed:
            self._waiting.discard(listener)
            self._changed.notify_all()


def test_clients_who_vanish_while_they_wait_for_a_verdict_leave_nothing_behind(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis, path = desk.thread("gone")["basis"], "/v1/accounts/gone/proposals"
    new = {"entity": {"kind": "mail.thread", "id": "t1"}, "basis": basis, "type": "mail.archive"}
    waiting, clients = Waiting(desk.store.applied, monkeypatch), list[http.client.HTTPConnection]()
    url = desk.http.base_url
    with desk.fold_stalled():
        for number in range(20):
            for method, where, body in (("POST", path, json.dumps(new)), ("GET", f"{path}/p{number}", None)):
                one = http.client.HTTPConnection(str(url.host), url.port, timeout=WAIT)
                headers = JSON | {"Idempotency-Key": f"p{number}", "Prefer": "wait=2"}
                one.request(method, where, body, headers if body is not None else {"Prefer": "wait=30"})
                clients.append(one)
        waiting.until_come(40)
        for one in clients:
            one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, not a goodbye
            one.close()
        waiting.until_left(20)  # who proposed had two seconds, and the verdict never came
        desk.go_on()
        waiting.until_left(0)
    again = [{"Idempotency-Key": f"p{number}", "Prefer": f"wait={WAIT:g}"} for number in range(20)]
    verdicts = [desk.http.post(path, json=new, headers=headers).json() for headers in again]
    assert sorted(one["verdict"] for one in verdicts) == ["accepted"] + ["superseded"] * 19
    assert {one["duplicate"] for one in verdicts} == {True}


def test_a_bug_is_told_without_its_insides_and_logged(
    desk: Desk, failing: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    basis = desk.thread("bug")["basis"]
    failing(ZeroDivisionError("secret of the house"))
    with caplog.at_level(logging.ERROR, "headrace.api"):
        answer = desk.propose("bug", "p1", basis)
    assert "secret" not in json.dumps(problem(answer, 500, "internal"))
    assert "secret of the house" in caplog.text
    assert desk.http.get("/health/live").status_code == 200


def test_once_the_processor_has_stopped_everybody_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as desk:
        shown = desk.thread("a")
        assert desk.http.get("/health/ready").json() == {"status": "ok", "lag": 0}
        with desk.fold_stalled():
            desk.store.applied.fail(HaltError("a kind's code raised; mend it"))
            assert "a kind's code raised" in problem(desk.http.get("/health/ready"), 503, "halted")["detail"]
            answer = desk.propose("a", "p1", shown["basis"])
            told = problem(answer, 503, "halted")["detail"]
            assert "on the log" in told
            assert "a kind's code raised" in told
        assert desk.http.get("/health/live").status_code == 200
        assert desk.entity("a", "mail.thread", "t1").status_code == 200


def test_readiness_tells_how_far_the_fold_is_behind(desk: Desk) -> None:
    desk.thread("behind")
    reads = [Envelope(f"r{number}", "test", "mail.read", ANN, "mail.thread", "t1") for number in range(READY_LAG + 1)]
    records = [desk.store.intake.record("local", "behind", envelope, {}) for envelope in reads]
    with desk.fold_stalled():
        *_, almost = desk.store.log.append(records[:-1])
        assert desk.http.get("/health/ready").json() == {"status": "ok", "lag": READY_LAG}
        (last,) = desk.store.log.append(records[-1:])
        answer = desk.http.get("/health/ready")
        assert problem(answer, 503, "catching-up")["lag"] == READY_LAG + 1
        assert answer.headers["retry-after"]
    assert last.offset == almost.offset + 1
    assert desk.store.applied.wait(last.partition, last.offset, WAIT)
    assert desk.http.get("/health/ready").json() == {"status": "ok", "lag": 0}


def test_metrics_count_by_route_and_name_nobody(desk: Desk) -> None:
    shown = desk.thread("counted-account")
    desk.propose("counted-account", "p1", shown["basis"])
    for _ in range(3):
        desk.http.request("MADEUP", "/v1/log")
    text = desk.http.get("/metrics").text
    assert 'headrace_http_requests_total{method="POST",route="/v1/accounts/{account}/proposals",status="201"}' in text
    assert 'method="other"' in text
    assert "MADEUP" not in text
    assert 'headrace_verdicts_total{verdict="accepted"}' in text
    assert "headrace_fold_lag_records 0.0" in text
    assert "counted-account" not in text
