"""Who was acknowledged before another sent stands before it, as far as attempts and records can be told apart."""

from typing import Any

import pytest

from headrace.schemas.refs import Position
from tests.chaos.evidence import Landed
from tests.chaos.history import OK, Operation
from tests.chaos.writes import check_order


def attempt(name: str, invoked: int, **told: Any) -> Operation:
    """An answered one, which took 5 ns."""
    return Operation("c", "propose", "t", "a", name, {}, invoked, invoked + 5, OK, told)


@pytest.mark.parametrize(
    ("log", "good"),
    [
        (["p", "e", "p"], True),
        (["p", "p", "e", "p"], True),  # Kafka's client put the first one there twice
        (["p", "p", "e"], False),  # nobody can have sent the second one before the event was acknowledged
    ],
)
def test_what_was_sent_again_stands_behind_what_was_acknowledged_meanwhile(log: list[str], good: bool) -> None:
    attempts = {
        ("t", "a", "p"): [attempt("p", 0), attempt("p", 20)],
        ("t", "a", "e"): [attempt("e", 10, partition=0, offset=log.index("e"))],
    }
    landed = [Landed(Position(0, n), ("t", "a", name), "type", "source") for n, name in enumerate(log)]
    assert [one.rule for one in check_order(landed, attempts)] == ([] if good else ["order"])
