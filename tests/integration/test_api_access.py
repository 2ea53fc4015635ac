"""Who may do what: keys, verbs, tenants, and which web pages may not."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from headrace.api.app import create_app
from headrace.errors import BadInputError
from headrace.log.port import Record
from headrace.settings import VERBS, ApiKey, Settings, Verb, load_settings, new_key
from tests.integration.api_desk import Desk, problem, serving
from tests.integration.stores import open_store

HOLDERS: Final[dict[str, tuple[str, frozenset[Verb]]]] = {
    "everything": ("acme", VERBS),
    "reader": ("acme", frozenset({"read"})),
    "agent": ("acme", frozenset({"read", "propose"})),
    "reviewer": ("acme", frozenset({"read", "review"})),
    "stranger": ("other", VERBS),
    "late": ("acme", VERBS),
}
SIGNED: Final = ("/v1/webhooks/", "/v1/notifications/")
KEYS: Final = {name: new_key() for name in HOLDERS}


def _settings(directory: Path) -> Settings:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    keys = tuple(
        ApiKey(
            name=name,
            sha256=KEYS[name][1],
            tenant=tenant,
            verbs=verbs,
            expires_at=yesterday if name == "late" else None,
        )
        for name, (tenant, verbs) in HOLDERS.items()
    )
    return load_settings(directory, port=0).model_copy(update={"api_keys": keys})


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("keyed")
    with serving(directory, settings=_settings(directory)) as desk:
        desk.http.headers["Authorization"] = f"Bearer {KEYS['everything'][0]}"
        desk.tenant = "acme"
        yield desk


@pytest.fixture(scope="module")
def open_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("open")) as desk:
        yield desk


def _as(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name][0]}"}


def _operations(desk: Desk) -> list[tuple[str, str]]:
    """Every operation under /v1 that asks who is there, from the served document, streams left out."""
    paths = desk.http.get("/openapi.json").json()["paths"]
    found = [
        (method.upper(), path)
        for path, operations in paths.items()
        for method in operations
        if path.startswith("/v1/") and not path.startswith(SIGNED) and not path.endswith("/watch")
    ]
    assert len(found) > 15
    return found


def _filled(path: str, thing: str, account: str = "shared") -> str:
    values = {"account": account, "kind": "mail.thread", "container": "mail.label"}
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], thing), path)


def _body(desk: Desk, path: str, basis: str, thing: str) -> dict[str, Any] | None:
    entity = {"kind": "mail.thread", "id": thing}
    if path.endswith("/proposals"):
        return {"entity": entity, "basis": basis, "type": "mail.archive"}
    if path.endswith("/claims"):
        return {"entity": entity, "until": 2**52}
    return {"read": basis} if path.endswith("/approve") else None


def test_another_tenants_things_look_like_what_never_was(keyed: Desk) -> None:
    shown = keyed.thread("shared", "thing")
    entity = {"kind": "mail.thread", "id": "thing"}
    assert keyed.propose("shared", "thing", shown["basis"], entity=entity).status_code == 201
    claim = {"entity": entity, "until": 2**52}
    taken = keyed.http.post("/v1/accounts/shared/claims", json=claim, headers={"Idempotency-Key": "thing"})
    assert taken.status_code == 201
    reference = keyed.http.get("/v1/accounts/shared/entities/mail.thread/thing", headers=_as("stranger"))
    basis = problem(reference, 404, "no-such-entity")["position"]
    for method, path in _operations(keyed):
        if method == "GET" and _filled(path, "thing") == _filled(path, "phantom"):
            continue  # a list, which below is seen to be empty
        answers: list[tuple[int, str]] = []
        for thing in ("thing", "phantom"):
            headers = _as("stranger") | {"Idempotency-Key": f"k-{thing}"}
            body = _body(keyed, path, basis, thing)
            answer = keyed.http.request(method, _filled(path, thing), json=body, headers=headers)
            text = re.sub(
                r'"(position|token|basis|log_time|offset|time|submitted_at|until)":("[^"]*"|\d+)', "", answer.text
            )
            answers.append((answer.status_code, text.replace(thing, "…")))
        assert answers[0] == answers[1], (method, path)
        if not path.endswith(("/events", "/claims")) and "scopes" not in path:
            assert answers[0][0] in (404, 422), (method, path, answers)
    after = keyed.entity("shared", "mail.thread", "thing").json()
    assert after["claim"] == taken.json()["claim"]
    assert [intent["proposal"] for intent in after["intents"]] == ["thing"]
    for path in ("entities", "scopes/mail.label/INBOX", "sources"):
        assert "thing" not in keyed.http.get(f"/v1/accounts/shared/{path}", headers=_as("stranger")).text
    everything = keyed.http.get("/v1/accounts/shared/scopes/mail.label/INBOX").text
    assert "thing" in everything
    assert keyed.http.get("/v1/quarantine", headers=_as("stranger")).json()["records"] == []


def test_every_operation_needs_a_key(keyed: Desk) -> None:
    wrong = (
        b"",
        b"Bearer",
        f"Bearer {KEYS['late'][0]}".encode(),
        f"Bearer {KEYS['everything'][0]}x".encode(),
        f"Bearer {hashlib.sha256(KEYS['everything'][0].encode()).hexdigest()}".encode(),
        f"Basic {KEYS['everything'][0]}".encode(),
        b"Bearer \xff\xfe",
    )
    seen = set[str]()
    basis = keyed.thread("locked")["basis"]
    for method, path in _operations(keyed):
        for said in wrong:
            body = _body(keyed, path, basis, "thing")
            headers = httpx.Headers([(b"Authorization", said), (b"Idempotency-Key", b"x")])
            answer = keyed.http.request(method, _filled(path, "thing"), json=body, headers=headers)
            problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            seen.add(answer.text)
    assert len(seen) == 1
    problem(keyed.http.get("/v1/accounts/a/watch", headers={"Authorization": ""}), 401, "unauthorized")
    problem(keyed.http.get("/metrics", headers={"Authorization": ""}), 401, "unauthorized")
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        assert keyed.http.get(path, headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("reader", "GET", "/v1/accounts", 200),
        ("reader", "GET", "/v1/log", 403),
        ("reader", "GET", "/v1/quarantine", 403),
        ("reader", "GET", "/metrics", 403),
        ("everything", "GET", "/v1/log", 200),
        ("everything", "GET", "/metrics", 200),
        ("reader", "POST", "/v1/accounts/verbs/proposals", 403),
        ("reviewer", "POST", "/v1/accounts/verbs/proposals", 403),
        ("agent", "POST", "/v1/accounts/verbs/proposals", 201),
        ("reader", "POST", "/v1/accounts/verbs/claims", 403),
        ("agent", "POST", "/v1/accounts/verbs/proposals/x/approve", 403),
        ("agent", "POST", "/v1/accounts/verbs/proposals/x/dismiss", 403),
        ("reviewer", "POST", "/v1/accounts/verbs/proposals/x/approve", 404),
        ("reviewer", "POST", "/v1/accounts/verbs/proposals/x/dismiss", 404),
        ("reader", "POST", "/v1/accounts/verbs/proposals/x/withdraw", 403),
        ("agent", "POST", "/v1/accounts/verbs/proposals/x/withdraw", 404),
        ("reviewer", "POST", "/v1/accounts/verbs/proposals/x/withdraw", 404),
        ("reviewer", "DELETE", "/v1/accounts/verbs/claims/x", 403),
    ],
)
def test_a_key_does_what_its_verbs_say(keyed: Desk, who: str, method: str, path: str, status: int) -> None:
    name = f"t-{who}-{status}"
    basis = keyed.thread("verbs", name)["basis"]
    body = _body(keyed, path, basis, name)
    answer = keyed.http.request(method, path, json=body, headers=_as(who) | {"Idempotency-Key": f"k-{name}"})
    assert answer.status_code == status, answer.text
    if status == 403:
        problem(answer, 403, "forbidden")


def test_actor_and_source_come_from_the_key(keyed: Desk) -> None:
    basis = keyed.thread("who")["basis"]
    body = {"entity": {"kind": "mail.thread", "id": "t1"}, "basis": basis, "type": "mail.archive"}
    headers = _as("agent") | {"Idempotency-Key": "p1"}
    assert keyed.http.post("/v1/accounts/who/proposals", json=body, headers=headers).status_code == 201
    withdrawn = keyed.http.post("/v1/accounts/who/proposals/p1/withdraw", headers=_as("reviewer"))
    assert withdrawn.json()["finding"]["by"] == "user/reviewer"
    events = keyed.http.get("/v1/accounts/who/entities/mail.thread/t1/events").json()["events"]
    assert [(one["actor"], one["source"]) for one in events[1:]] == [
        ("agent/agent", "api/agent"),
        ("user/reviewer", "api/reviewer"),
    ]


def test_what_was_set_aside_is_told_to_its_tenant_and_what_has_none_to_nobody(keyed: Desk) -> None:
    partition = keyed.store.intake.partition("acme", "poison")
    keyed.put(Record(partition, b"acme/poison", (), b"no record"))
    keyed.put(Record(partition, b"nobody", (), b"no record either"))
    (own,) = keyed.http.get("/v1/quarantine").json()["records"]
    assert (own["account"], own["partition"], own["bytes"]) == ("poison", partition, len(b"no record"))
    assert keyed.http.get("/v1/quarantine", headers=_as("stranger")).json()["records"] == []


def test_without_keys_everything_set_aside_is_shown_in_pages(open_desk: Desk) -> None:
    for key in (b"local/a", b"nobody", b"else/where"):
        partition = open_desk.store.intake.partition("local", "a")
        open_desk.put(Record(partition, key, (), b"no record"))
    whole = open_desk.http.get("/v1/quarantine").json()
    assert (len(whole["records"]), whole["next"]) == (3, None)
    paged, cursor = list[Any](), None
    while not paged or cursor is not None:
        params = {"limit": "1"} | ({"cursor": cursor} if cursor is not None else {})
        page = open_desk.http.get("/v1/quarantine", params=params).json()
        paged += page["records"]
        cursor = page["next"]
    assert paged == whole["records"]


def test_an_agent_takes_back_its_own_only(keyed: Desk) -> None:
    shown = keyed.thread("mine")
    assert keyed.propose("mine", "p1", shown["basis"]).status_code == 201
    answer = keyed.http.post("/v1/accounts/mine/proposals/p1/withdraw", headers=_as("agent"))
    assert "only the agent that made it" in problem(answer, 409, "not-waiting")["detail"]
    claim = {"entity": {"kind": "mail.thread", "id": "t1"}, "until": 2**52}
    keyed.http.post("/v1/accounts/mine/claims", json=claim, headers={"Idempotency-Key": "c1"})
    answer = keyed.http.delete("/v1/accounts/mine/claims/c1", headers=_as("agent"))
    assert "agent/everything's" in problem(answer, 409, "claimed")["detail"]
    assert keyed.http.delete("/v1/accounts/mine/claims/c1").json()["claim"] is None


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1:80", "", "[::2]:1", "127.0.0.1.evil"]
)
def test_without_keys_only_loopback_names_are_answered(open_desk: Desk, host: str) -> None:
    for method, path in (("GET", "/v1/accounts"), ("GET", "/health/live"), ("POST", "/v1/accounts/a/proposals")):
        problem(open_desk.http.request(method, path, headers={"Host": host}), 421, "not-loopback")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:99", "127.1.2.3:5"])
def test_loopback_names_are_answered(open_desk: Desk, host: str) -> None:
    assert open_desk.http.get("/v1/accounts", headers={"Host": host}).status_code == 200


def test_without_keys_no_other_sites_page_changes_anything(open_desk: Desk) -> None:
    shown = open_desk.thread("page")
    assert open_desk.propose("page", "p1", shown["basis"]).status_code == 201
    own = f"http://{open_desk.http.base_url.netloc.decode()}"
    path = "/v1/accounts/page/proposals/p1/withdraw"
    for origin in ("https://evil.example", "null", "http://localhost:1", f"{own}.evil.example"):
        problem(open_desk.http.post(path, headers={"Origin": origin}), 403, "other-site")
    read = open_desk.http.get("/v1/accounts", headers={"Origin": "https://evil.example"})
    assert not [name for name in read.headers if name.startswith("access-control")]
    preflight = open_desk.http.options(
        path, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    problem(preflight, 405, "method-not-allowed")
    assert open_desk.http.post(path, headers={"Origin": own}).status_code == 200


def test_notifications_need_no_key_of_ours(open_desk: Desk, keyed: Desk) -> None:
    for one in (open_desk, keyed):
        headers = {"Host": "tunnel.example", "Authorization": "Bearer somebody-elses"}
        answer = one.http.post("/v1/notifications/caldav", headers=headers, content=b"{}")
        assert problem(answer, 400, "not_notification")["reason"] == "not_notification"


def test_webhooks_come_in_by_any_name(open_desk: Desk) -> None:
    answer = open_desk.http.post("/v1/webhooks/standard", headers={"Host": "tunnel.example"}, content=b"{}")
    assert answer.status_code == 401
    assert "signature" in answer.text.lower() or "webhook" in answer.text


def test_an_unsafe_address_is_refused(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True, partitions=2) as store:
        with pytest.raises(BadInputError, match="without API keys"):
            create_app(store, load_settings(tmp_path, host="0.0.0.0"))
        with (
            pytest.raises(BadInputError, match="without API keys"),
            serving(tmp_path / "other", settings=load_settings(tmp_path / "other", host="0.0.0.0", port=0)),
        ):
            pytest.fail("it must not start")
        create_app(store, _settings(tmp_path).model_copy(update={"host": "0.0.0.0"}))
    with open_store(tmp_path, writer=False) as reading, pytest.raises(BadInputError, match="open for writing"):
        create_app(reading, load_settings(tmp_path))


def test_two_apps_on_one_store_do_not_share_anything(tmp_path: Path) -> None:
    with open_store(tmp_path, writer=True, partitions=2) as store:
        one, two = (create_app(store, load_settings(tmp_path)) for _ in range(2))
        assert one.state.context is not two.state.context
        assert one.state.context.metrics.registry is not two.state.context.metrics.registry
