"""The served OpenAPI document is exact: whatever is sent, each answer is one that the document promises."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from headrace.producers.connections import key_of
from headrace.producers.hints import Hints
from headrace.producers.provider import Connected, Delivery
from headrace.settings import LOCAL_TENANT, VERBS, ApiKey, HookSection, load_settings, new_key
from tests.integration.api_desk import HOUR, WAIT, Desk, meeting, serving

EXPLORER: Final = Path(__file__).with_name("api_explorer.py")
DEEP: Final = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
SIGNED: Final = ("/v1/webhooks/", "/v1/notifications/")
KEY, DIGEST = new_key()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("store")
    keys = (ApiKey(name="tester", sha256=DIGEST, tenant=LOCAL_TENANT, verbs=VERBS),)
    (directory / "hook").write_text("k" * 32)
    hooks = {"nylas": HookSection(preset="nylas", secret_files=(Path("hook"),))}
    settings = load_settings(directory, port=0).model_copy(update={"api_keys": keys, "hooks": hooks})
    with serving(directory, settings=settings) as served:
        served.http.headers["Authorization"] = f"Bearer {KEY}"
        yield served


def delivered(desk: Desk) -> str:
    """The token of a delivery, the last record on the partition of the account ``a``; another account's, for nothing
    syncs here."""
    partition = desk.store.intake.partition(LOCAL_TENANT, "a")
    names = (f"d{number}" for number in range(1_000))
    other = next(name for name in names if desk.store.intake.partition(LOCAL_TENANT, name) == partition)
    source = Connected(LOCAL_TENANT, other, "imap/1", "imap", {"hook": "nylas/g-1"})
    desk.store.connections.add(source, {})
    body = json.dumps({"data": {"grant_id": "g-1"}}).encode()
    hints = Hints(desk.store.log, desk.store.tables, desk.store.applied, desk.store.intake)
    assert hints.append(key_of(source), Delivery("POST", (), (), body, 0.0, "nylas"), "d-1")
    assert desk.store.applied.wait(partition, desk.store.log.describe().ends[partition] - 1, WAIT)
    position: str = desk.http.get("/v1/accounts/a/entities").json()["position"]
    return position


def test_every_answer_is_one_that_the_document_promises(desk: Desk) -> None:
    shown = desk.thread("a")
    desk.tell("a", "calendar.created", "c1", meeting("work", 0, HOUR))
    assert desk.propose("a", "p1", shown["basis"]).status_code == 201
    assert desk.propose("a", "p2", shown["basis"]).status_code == 409
    seen = desk.entity("a", "calendar.event", "c1").json()["basis"]
    answer = {"responses": [{"who": "bob@example.org", "response": "declined"}], "etag": "2"}
    desk.tell("a", "calendar.responded", "c1", answer)
    move = {"entity": {"kind": "calendar.event", "id": "c1"}, "type": "calendar.move", "data": {"start": 0, "end": 1}}
    for name in ("waiting", "doubtful"):
        assert desk.propose("a", name, seen, **move).json()["verdict"] == "needs_review"
    claim = {"entity": {"kind": "mail.thread", "id": "t9"}, "until": 2**52}
    assert desk.http.post("/v1/accounts/a/claims", json=claim, headers={"Idempotency-Key": "held"}).status_code == 201
    position = delivered(desk)
    url = str(desk.http.base_url).rstrip("/")
    asked = [url, KEY, position, *(["60"] if DEEP else ["12", "20261121"])]
    ran = subprocess.run(
        [sys.executable, str(EXPLORER), *asked], capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2_000:]
    said = json.loads(ran.stdout)
    assert not said["failures"], "\n\n".join(said["failures"][:5])
    assert said["checks"]["response_schema_conformance"] > 300
    assert said["checks"]["ignored_auth"] > 300
    statuses = {(label, status) for label, status, _ in said["statuses"]}
    paths = desk.http.get("/openapi.json").json()["paths"]
    served = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method in operations
        if not path.startswith(SIGNED) and not path.endswith("/watch")
    }
    assert {label for label, status in statuses if 200 <= status < 300} == served, said["statuses"]
    assert ("POST /v1/accounts/{account}/proposals", 409) in statuses
    assert ("GET /v1/accounts/{account}/entities/{kind}/{id}", 404) in statuses
    assert not [status for _, status in statuses if status >= 500]


def test_every_operation_names_its_answers_and_its_key(desk: Desk) -> None:
    document = desk.http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1/") and not path.startswith(SIGNED):
                assert operation["security"] == [{"key": []}], path
                for status in ("401", "403", "404", "405", "421", "422", "500", "503"):
                    assert list(operation["responses"][status]["content"]) == ["application/problem+json"], path
                assert ("413" in operation["responses"]) is (method != "get"), path
