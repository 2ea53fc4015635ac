"""The checker passes a good run, and names what is planted in it: lies to clients, damage to the log and the tables."""

from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tests.chaos import damage, lies
from tests.chaos.checker import check
from tests.chaos.evidence import Evidence
from tests.chaos.lies import NothingToPlantIn
from tests.chaos.rehearsal import rehearsed
from tests.core.planting import planted

SEED: Final = 7
ACTS: Final = 200
LEAST: Final = 30
VERDICTS: Final = {"accepted", "superseded", "rejected", "needs_review", "duplicate", "expired"}
Plant = Callable[[Evidence], Evidence]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A run in which everything was as it should be."""
    return rehearsed(tmp_path_factory.mktemp("good") / "store", SEED, ACTS, is_rich)


def is_rich(evidence: Evidence) -> bool:
    """Whether there is something in it for every plant below."""
    try:
        return all(plant(evidence) is not evidence for plant, _ in PLANTED) and has_everything(evidence)
    except NothingToPlantIn:
        return False


def has_everything(evidence: Evidence) -> bool:
    """Whether every verdict came up that these clients bring about, and every fate of a record, all over the log."""
    verdicts = {row["verdict"] for row in evidence.tables["verdicts"]}
    became = {row["disposition"] for row in evidence.tables["events"]}
    spread = all(len(run) > LEAST for run in evidence.log)
    return spread and verdicts >= VERDICTS and became >= {"applied", "duplicate", "conflicting_id", "withdrawn"}


def test_a_good_run_is_good_and_has_everything_in_it(good: Evidence) -> None:
    assert check(good) == []
    assert len(good.history) > 2 * ACTS
    assert {one.kind for one in good.history} == {
        "event",
        "propose",
        "answer",
        "claim",
        "read",
        "scope",
        "lookup",
        "probe",
    }
    assert has_everything(good)


PLANTED: Final[Sequence[tuple[Plant, str]]] = (
    (lies.acknowledged_elsewhere, "acknowledged"),
    (damage.lost_after_acknowledgement, "acknowledged"),
    (damage.effect_lost, "acknowledged"),
    (lies.refused_and_landed, "refused"),
    (lies.never_sent, "phantom"),
    (damage.landed_twice, "repeated"),
    (damage.effect_doubled, "one effect"),
    (lies.reordered, "order"),
    (damage.byte_flipped, "chain"),
    (damage.chain_touched, "chain"),
    (lies.token_of_nowhere, "token"),
    (damage.behind, "lag"),
    (damage.record_without_row, "disposition"),
    (damage.state_touched, "fold"),
    (damage.entity_lost, "fold"),
    (damage.verdict_text_touched, "replay"),
    (lies.stale_read, "read"),
    (lies.read_of_the_future, "read"),
    (lies.lost_intent, "read"),
    (lies.scope_misses_one, "read"),
    (lies.regressed, "regressed"),
    (damage.verdict_missing, "verdict missing"),
    (damage.verdict_twice, "verdict twice"),
    (lies.told_another_verdict, "verdict told"),
    (lies.told_another_reason, "verdict told"),
    (lies.history_cut, "verdict told"),
    (lies.own_write_not_seen, "verdict told"),
    (damage.verdict_changed_by_nothing, "verdict changed"),
    (damage.accepted_though_superseded, "wrong acceptance"),
    (damage.refused_for_nothing, "spurious refusal"),
    (damage.superseded_by_another, "wrong verdict"),
    (damage.two_accepted, "two accepted"),
    (lies.failed_on_a_bug, "internal error"),
    (lies.token_taken_back, "token refused"),
    (damage.row_of_another_tenant, "tenant"),
    (damage.event_of_another_account, "tenant"),
    (lies.others_shown, "tenant"),
)


@pytest.mark.parametrize(("plant", "rule"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_what_is_planted_is_named(good: Evidence, plant: Plant, rule: str) -> None:
    found = check(plant(good))
    assert rule in {violation.rule for violation in found}, found[:5]


BUGS: Final = (
    ("processors.core.verdicts:_superseded", 'case.first_between("invalidate")', "None", "wrong acceptance"),
    ("processors.core.policy:_fits", "name.startswith(pattern[:-1])", "False", "spurious refusal"),
    ("processors.core.answers:submitted", "earlier=earlier", "earlier=None", "wrong verdict"),
    ("api.verdicts:told", 'judgement.verdict == "duplicate"', "False", "verdict told"),
    ("api.entities:_members", "intent.accepted_at", "row.head_offset", "read"),
)


@pytest.mark.parametrize(("where", "sound", "bug", "rule"), BUGS, ids=[where for where, *_ in BUGS])
def test_a_bug_in_the_product_is_found_by_running_it(
    where: str, sound: str, bug: str, rule: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with planted(where, sound, bug):
        evidence = rehearsed(tmp_path_factory.mktemp("bug") / "store", SEED, ACTS)
    assert rule in {violation.rule for violation in check(evidence)}
