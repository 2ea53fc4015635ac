"""A client made from the served OpenAPI document, run as a process of its own by ``test_api_schema.py``: it leaves
sockets to the collector, which the suite does not forgive.

``python api_explorer.py URL KEY TOKEN EXAMPLES [SEED]`` prints one JSON object: ``failures``, ``statuses``
(label, status, how often) and ``checks``. Streams are not asked for, they do not end; webhooks and notifications
are not, they are signed.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import schemathesis
import schemathesis.transport.requests
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.engine import Status, events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{50}\Z")
ID: Final = re.compile(r"[A-Za-z0-9._~:+=-]{1,200}\Z")
SOUND: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
FRESH: Final = "idempotency-key"
MEANT: Final = frozenset(
    {
        "unknown_basis",
        "malformed",
        "expired",
        "unknown-position",
        "bad-input",
        "bad-number",
        "bad-text",
        "too-deep",
        "nothing-to-check",
    }
)
"""Valid by the document and refused for what they say: the reason is in the problem's type."""


class Real:
    """What exists, to be put in the place of what was made up, wherever that is of the right form: the account ``a``
    with thread ``t1``, proposals ``p1``, ``p2``, ``waiting`` and ``doubtful``, claim ``held``."""

    def __init__(self, token: str) -> None:
        self._token: Final = token
        self._led = 0
        self._claimed = 0

    def path(self, found: Mapping[str, Any], label: str, turn: int) -> dict[str, Any]:
        """Path parameters."""
        values = {
            "account": ("a", "a", "b"),
            "kind": ("mail.thread",),
            "id": ("INBOX",) if "scopes" in label else ("t1", "t1", "none"),
            "container": ("mail.label",),
            "proposal": {"approve": ("waiting",), "dismiss": ("doubtful",)}.get(
                label.rpartition("/")[2], ("p1", "p2", "none")
            ),
            "claim": ("held", "none"),
        }
        return {
            name: values[name][turn % len(values[name])]
            if (SOUND if name in ("kind", "container") else ID).match(str(value))
            else value
            for name, value in found.items()
        }

    def query(self, found: Mapping[str, Any], turn: int) -> dict[str, Any]:
        """Query parameters. Nothing is synced here, so most of what asks for a live check is let off it."""
        return {
            name: self._token if TOKEN.match(str(value)) else value
            for name, value in found.items()
            if (name, value) != ("verify", "live") or turn % 4 == 0
        }

    def body(self, found: Any) -> Any:
        """A body, or a part of it."""
        if isinstance(found, list):
            return [self.body(one) for one in found]
        if not isinstance(found, dict):
            return self._token if isinstance(found, str) and TOKEN.match(found) else found
        changed = {name: self.body(value) for name, value in found.items()}
        if SOUND.match(str(changed.get("kind"))) and ID.match(str(changed.get("id", "@"))):
            changed |= {"kind": "calendar.event"}
        if "until" in changed:
            self._claimed += 1  # most are led to what nobody holds, and to a time that is to come
            if self._claimed % 4:
                changed |= {"until": 2**52, "entity": {"kind": "calendar.event", "id": f"free-{self._claimed}"}}
        if SOUND.match(str(changed.get("type"))) and isinstance(changed.get("data", {}), dict):
            self._led += 1  # most are led to a booking that can be accepted, some to one that cannot, some are left
            if self._led % 4:
                changed |= {"type": "calendar.book", "data": {"calendar": "work", "start": 0, "end": self._led}}
                if self._led % 4 < 3:
                    changed |= {"absent": True, "basis": self._token, "reads": [], "concerns": [], "expires_at": None}
        return changed


def explore(url: str, key: str, real: Real, examples: int, seed: int | None) -> dict[str, Any]:
    """Ask for everything in the document, and hold each answer against it."""
    settings: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {key}"},
        "generation": {"max-examples": examples},
        "continue-on-failure": True,
    }
    config = SchemathesisConfig.from_dict(settings | ({"seed": seed} if seed is not None else {}))
    whole = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
    schema = whole.exclude(path_regex="/watch$|/webhooks/|/notifications/")
    turn = 0

    def map_case(context: Any, case: Any) -> Any:
        nonlocal turn
        turn += 1
        case.path_parameters = real.path(case.path_parameters or {}, case.operation.label, turn)
        case.query = real.query(case.query or {}, turn)
        if case.meta is None or case.meta.generation.mode.is_positive:
            case.body = real.body(case.body)
            if turn % 2:  # one that was used before is refused
                case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != FRESH}
        return case

    def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
        return not _is_meant(failure, response)

    schema.hook(map_case)
    schema.hook(filter_failure)
    failures, statuses, checks = list[str](), Counter[tuple[str, int]](), Counter[str]()
    for event in from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            failures.append(str(getattr(event, "info", None) or getattr(event, "exception", None)))
        if isinstance(event, events.ScenarioFinished):
            failures += _failures(event.recorder, statuses, checks)
    counted = [[label, status, count] for (label, status), count in sorted(statuses.items())]
    return {"failures": failures, "statuses": counted, "checks": checks}


def _is_meant(failure: Any, response: Any) -> bool:
    """Whether it is no failure at all: valid and refused for what it says, or called invalid without being so (steps
    that follow a link are, now and then)."""
    if isinstance(failure, RejectedPositiveData):
        return str(response.json().get("type", "")).rpartition(":")[2] in MEANT
    return isinstance(failure, AcceptedNegativeData) and "positive test case" in str(failure)


def _failures(recorder: Any, statuses: Counter[tuple[str, int]], checks: Counter[str]) -> Iterator[str]:
    for case_id, interaction in recorder.interactions.items():
        if interaction.response is not None:
            statuses[recorder.cases[case_id].value.operation.label, interaction.response.status_code] += 1
    for case_id, found in recorder.checks.items():
        for check in found:
            checks[check.name] += 1
            if check.status == Status.FAILURE:
                response = recorder.interactions[case_id].response
                answer = response.content[:500] if response is not None else b""
                yield f"{check.failure_info.failure}\n{answer!r}\n{check.failure_info.code_sample[:500]}"


def _none_counted(_: object) -> int:
    return 0


if __name__ == "__main__":
    # niquests, which caldav brings, puts its own fork in urllib3's place; there connections cannot be counted so.
    setattr(schemathesis.transport.requests, "_count_opened_connections", _none_counted)  # noqa: B010 - it is private
    url_, key_, token_, examples_, *seed_ = sys.argv[1:]
    found = explore(url_, key_, Real(token_), int(examples_), int(seed_[0]) if seed_ else None)
    sys.stdout.write(json.dumps(found))
