"""What each provider's answers may hold: the bounds that they differ in."""

from typing import Any

import pytest

from headrace.errors import UnavailableError
from headrace.producers.answers import Answers
from headrace.producers.gmail_api import GMAIL
from headrace.producers.google_calendar_api import CALENDAR
from headrace.producers.graph_api import GRAPH


@pytest.mark.parametrize(
    ("answers", "read", "usable", "unusable"),
    [
        (GMAIL, "number", [0, "0", 2**64 - 1, str(2**64 - 1)], [-1, "-1", True, 1.0, "", "\u0663", 2**64, str(2**64)]),
        (CALENDAR, "number", [0, 2**63 - 1, str(2**63 - 1)], [2**63, str(2**63), None, "0" * 21]),
        (GMAIL, "identifier", ["a_-Z9", "a" * 64], ["", "a" * 65, "a/b", "a\n", 7, None]),
        (CALENDAR, "identifier", ["!~/", "a" * 1_024], ["", "a" * 1_025, "a b", "a\n", "\u00e9", None]),
        (GRAPH, "identifier", ["A_=+/-9", "a" * 180], ["", "a" * 181, "a.b", "a\n", None]),
        (GMAIL, "some", [[]], [None, {}, "a"]),
        (CALENDAR, "some", [[], None], [{}, "a"]),
        (GRAPH, "some", [[], None], [{}, "a"]),
        (GRAPH, "items", [[]], [None, {}, "a"]),
        (GRAPH, "optional", [{}, None], [[], "a"]),
        (GRAPH, "text", ["a"], ["", None, 7]),
        (GRAPH, "optional_text", ["a", "", None], [7, []]),
    ],
)
def test_what_is_usable(answers: Answers, read: str, usable: list[Any], unusable: list[Any]) -> None:
    for value in usable:
        getattr(answers, read)({"field": value}, "field")
    for value in unusable:
        with pytest.raises(UnavailableError, match="answers without a usable field; it is asked again later"):
            getattr(answers, read)({"field": value}, "field")


def test_what_is_missing_or_empty() -> None:
    assert GMAIL.some({}, "field") == CALENDAR.some({}, "field") == GRAPH.some({}, "field") == []
    assert CALENDAR.optional_text({"field": ""}, "field") is None
    assert GRAPH.optional_text({"field": ""}, "field", empty=True) == ""
    assert list(CALENDAR.texts({"field": ["", "a\0\ud800"]}, "field", empty=True)) == ["", "a\ufffd\ufffd"]
    with pytest.raises(UnavailableError, match=r"^Gmail answers without a usable field;"):
        list(GMAIL.texts({"field": ["a", ""]}, "field"))
    with pytest.raises(UnavailableError, match=r"^Graph answers without a usable object;"):
        GRAPH.text([], "field")
