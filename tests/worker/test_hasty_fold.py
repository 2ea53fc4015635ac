"""A client that gives partitions and the first records of them in one call."""

import pytest
from confluent_kafka import Consumer, Message

from headrace.errors import LogMismatchError
from headrace.processors import group_fold
from tests.worker.site import Site, until


class Hasty(Consumer):
    """Such a one."""

    def poll(self, timeout: float | None = None) -> Message | None:
        """Whatever there is, however long that takes."""
        while (message := super().poll(0.1)) is None:
            pass
        return message


def test_nothing_is_judged_of_a_log_that_was_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = site.fold()
    fold.start()
    site.facts(5)
    site.wait_folded()
    assert fold.stop()
    before = site.folded()
    site.ask("UPDATE partitions SET log_id = %s WHERE partition = 2", bytes(16))
    site.facts(5, seed="g")
    monkeypatch.setattr(group_fold, "Consumer", Hasty)
    again = site.fold()
    again.start()
    until(lambda: not again.running)
    assert isinstance(again.failure, LogMismatchError), again.failure
    assert site.folded() == before
