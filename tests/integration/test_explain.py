"""Explanations: of every verdict, and of whatever went before it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import NotFoundError
from headrace.processors.core.verdicts import ROWS
from headrace.processors.explain import Explanation, explain
from tests.contract.rich_history import TENANT
from tests.integration.audited_store import REGISTRY, build
from tests.integration.stores import read_parts as opened


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's log and tables, folded and closed."""
    directory: Path = tmp_path_factory.mktemp("explain") / "store"
    build(directory)
    return directory


@pytest.fixture
def explained(original: Path) -> Callable[[str], Explanation]:
    """Explains a proposal of the account on partition 1."""

    def one(proposal: str) -> Explanation:
        with opened(original) as (log, tables), tables.snapshot() as reader:
            return explain(log, reader, REGISTRY, tenant=TENANT, account="a-4", proposal=proposal)

    return one


def test_every_proposal_and_every_verdict_is_explained(original: Path, explained: Callable[[str], Explanation]) -> None:
    with opened(original) as (_, tables), tables.snapshot() as reader:
        rows = reader.rows("SELECT * FROM proposals WHERE account = 'a-4'", {})
        verdicts = reader.rows("SELECT DISTINCT verdict FROM verdicts", {})
    assert {row["verdict"] for row in verdicts} == set(ROWS)
    for row in rows:
        found = explained(row["id"])
        assert (found.verdict, found.judged_at["offset"]) == (row["verdict"], row["judged_at"])
        assert found.rule == json.loads(row["finding"])
        assert found.history
        assert found.policy == "default"
        assert len(found.reads) == len(json.loads(row["reads"]))
        json.dumps(found.to_json())


def test_what_overtook_a_proposal(explained: Callable[[str], Explanation]) -> None:
    found = explained("p-3")
    (read,) = found.reads
    assert read["basis"]["event"]["id"] == "m-1"
    assert [(event["offset"], event["effect"], event["consequence"]) for event in read["between"]] == [
        (4, "accepted:mail.reply", "invalidate"),
        (8, "mail.labelled", "ignore"),
        (9, "mail.sent", "invalidate"),
    ]
    assert read["head_when_judged"]["id"] == "m-3"
    assert found.overtaken_by is not None
    assert (found.overtaken_by["id"], found.overtaken_by["offset"]) == ("p-1", 4)
    assert found.intent is None


def test_what_overtook_a_read_of_a_scope(explained: Callable[[str], Explanation]) -> None:
    absent, scope = explained("b-2").reads
    assert absent["between"] == []
    assert [event["id"] for event in scope["between"]] == ["k-2", "b-1"]
    narrow = explained("b-1").reads[1]
    assert narrow["between"] == []
    assert narrow["start"] is not None


def test_a_proposal_repeated_and_delivered(explained: Callable[[str], Explanation]) -> None:
    found = explained("p-1")
    assert [one["verdict"] for one in found.history] == ["accepted", "duplicate", "conflicting_id"]
    delivered = explained("dp-0").intent
    assert delivered is not None
    assert delivered["outcome"] == "succeeded"
    assert [step["type"] for step in delivered["steps"]] == ["delivery.attempted", "delivery.succeeded"]


def test_an_approved_proposal(explained: Callable[[str], Explanation]) -> None:
    found = explained("v-1")
    assert [(one["verdict"], one["by"]["type"]) for one in found.history] == [
        ("needs_review", "proposal.submitted"),
        ("accepted", "review.approved"),
    ]
    assert found.waived_to is not None


def test_a_proposal_that_could_not_be_read(explained: Callable[[str], Explanation]) -> None:
    found = explained("p-broken")
    assert found.verdict == "malformed"
    assert found.proposal["entity"] is None
    assert "Avro" in found.proposal["quarantined"]
    assert found.reads == []


def test_a_basis_of_another_log(explained: Callable[[str], Explanation]) -> None:
    (read,) = explained("p-foreign").reads
    assert (read["basis"]["known"], read["basis"]["event"], read["between"]) == (False, None, [])


def test_an_unknown_proposal_is_not_found(original: Path) -> None:
    with opened(original) as (log, tables), tables.snapshot() as reader:
        for tenant, account, proposal in ((TENANT, "a-4", "nope"), (TENANT, "a-9", "p-1"), ("other", "a-4", "p-1")):
            with pytest.raises(NotFoundError, match="no proposal"):
                explain(log, reader, REGISTRY, tenant=tenant, account=account, proposal=proposal)
