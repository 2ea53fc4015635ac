"""The invariants of the fold, on every history that hypothesis can think of."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings

from headrace.log.port import Stored
from tests.core import properties
from tests.core.histories import histories

SHARE = 1
"""Of the profile's examples: each of these folds a whole history several times."""


@pytest.mark.parametrize("check", properties.PROPERTIES, ids=lambda check: check.__name__)
def test_of_every_history(check: Callable[[Sequence[Stored]], None]) -> None:
    profile = settings()

    @settings(profile, max_examples=max(1, profile.max_examples // SHARE))
    @given(records=histories())
    def holds(records: list[Stored]) -> None:
        check(records)

    holds()
