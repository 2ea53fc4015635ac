"""The served OpenAPI document is exact: whatever is sent, each answer is one that the document promises.

Requests are made up from the document, valid and invalid ones, and then led to things that exist. Streams are not asked
for (they do not end) and webhooks are not (see tests/integration/webhooks).
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
import schemathesis.transport.requests
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from headrace.settings import LOCAL_TENANT, VERBS, ApiKey, load_settings, new_key
from tests.integration.api_desk import HOUR, Desk, meeting, serving

DEEP: Final = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{50}\Z")
ID: Final = re.compile(r"[A-Za-z0-9._~:+=-]{1,200}\Z")
SOUND: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
MEANT: Final = frozenset({"unknown_basis", "malformed", "expired", "unknown-position", "bad-input"})
"""Valid by the document and refused for what they say: the reason is in the problem's type."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    key, digest = new_key()
    settings = load_settings(tmp_path, port=0).model_copy(
        update={"api_keys": (ApiKey(name="tester", sha256=digest, tenant=LOCAL_TENANT, verbs=VERBS),)}
    )
    with serving(tmp_path, settings=settings) as served:
        served.http.headers["Authorization"] = f"Bearer {key}"
        yield served


class Real:
    """What exists, to be put in the place of what was made up, wherever that is of the right form."""

    def __init__(self, desk: Desk) -> None:
        shown = desk.thread("a")
        self.token: Final[str] = shown["position"]
        self._basis: Final[str] = shown["basis"]
        desk.tell("a", "calendar.created", "c1", meeting("work", 0, HOUR))
        assert desk.propose("a", "p1", self._basis).status_code == 201
        assert desk.propose("a", "p2", self._basis).status_code == 409

    def path(self, found: Mapping[str, Any], turn: int) -> dict[str, Any]:
        values = {
            "account": ("a", "a", "b"),
            "kind": ("mail.thread",),
            "id": ("t1", "t1", "INBOX", "none"),
            "container": ("mail.label",),
            "proposal": ("p1", "p2", "none"),
            "claim": ("c1", "none"),
        }
        sound = {name: SOUND if name in ("kind", "container") else ID for name in values}
        return {
            name: values[name][turn % len(values[name])] if sound[name].match(str(value)) else value
            for name, value in found.items()
        }

    def query(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.token if TOKEN.match(str(value)) else value for name, value in found.items()}

    def body(self, found: Any, turn: int) -> Any:
        if isinstance(found, list):
            return [self.body(one, turn) for one in found]
        if not isinstance(found, dict):
            return self._basis if isinstance(found, str) and TOKEN.match(found) else found
        changed = {name: self.body(value, turn) for name, value in found.items()}
        entity = changed.get("entity")
        if isinstance(entity, dict) and SOUND.match(str(entity.get("kind"))) and ID.match(str(entity.get("id"))):
            entity |= {"kind": "mail.thread", "id": "t1" if turn % 2 else str(entity["id"])}
        if SOUND.match(str(changed.get("type"))) and "basis" in changed:
            changed |= {"type": "mail.label"} | ({"data": {}} if isinstance(changed.get("data"), dict) else {})
        return changed


def test_every_answer_is_one_that_the_document_promises(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # niquests, which caldav brings, puts its own fork in urllib3's place; there connections cannot be counted so.
    monkeypatch.setattr(schemathesis.transport.requests, "_count_opened_connections", lambda _: 0)
    config = SchemathesisConfig.from_dict(
        {
            "headers": {"Authorization": desk.http.headers["Authorization"]},
            "generation": {"max-examples": 300 if DEEP else 20},
            **({} if DEEP else {"seed": 20261121}),
        }
    )
    schema = schemathesis.openapi.from_url(f"{desk.http.base_url}/openapi.json", config=config)
    schema = schema.exclude(path_regex="/watch$|/webhooks/")
    real, turn = Real(desk), 0

    def led(_: Any, case: Any) -> Any:
        nonlocal turn
        turn += 1
        case.path_parameters = real.path(case.path_parameters or {}, turn)
        case.query = real.query(case.query or {})
        case.body = real.body(case.body, turn)
        return case

    led.__name__ = "map_case"
    schema.hook(led)
    failures, statuses, checks = list[str](), Counter[tuple[str, int]](), Counter[str]()
    for event in from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            failures.append(str(getattr(event, "info", None) or getattr(event, "exception", None)))
        if isinstance(event, events.ScenarioFinished):
            failures += _failures(event.recorder, statuses, checks)
    assert not failures, "\n\n".join(failures[:5])
    assert checks["response_schema_conformance"] > 300
    assert checks["ignored_auth"] > 300
    served = {(operation.ok().label) for operation in schema.get_all_operations()}
    assert {label for label, status in statuses if 200 <= status < 300} == served
    assert statuses["POST /v1/accounts/{account}/proposals", 409] > 0
    assert statuses["GET /v1/accounts/{account}/entities/{kind}/{id}", 404] > 0
    assert not [status for _, status in statuses if status >= 500]


def _failures(recorder: Any, statuses: Counter[tuple[str, int]], checks: Counter[str]) -> Iterator[str]:
    for case_id, interaction in recorder.interactions.items():
        if interaction.response is not None:
            statuses[recorder.cases[case_id].value.operation.label, interaction.response.status_code] += 1
    for case_id, found in recorder.checks.items():
        for check in found:
            checks[check.name] += 1
            if check.status == Status.FAILURE:
                response = recorder.interactions[case_id].response
                told = str(response.json().get("type", "")).rpartition(":")[2] if response is not None else ""
                if check.name != "positive_data_acceptance" or told not in MEANT:
                    yield f"{check.failure_info.failure}\n{response.content[:500] if response else ''}\n{check.failure_info.code_sample[:500]}"
