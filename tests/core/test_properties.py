"""The invariants of the fold, on every history that hypothesis can think of."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given

from headrace.log.port import Stored
from tests.core import properties
from tests.core.histories import histories


@pytest.mark.parametrize("check", properties.PROPERTIES, ids=lambda check: check.__name__)
@given(records=histories())
def test_of_every_history(check: Callable[[Sequence[Stored]], None], records: list[Stored]) -> None:
    check(records)
