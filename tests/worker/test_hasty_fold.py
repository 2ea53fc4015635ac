"""Clients of Kafka's that are no help: one gives partitions and their first records in one call, another says that a
topic is unknown."""

import pytest
from confluent_kafka import Consumer, KafkaError, Message

from headrace.errors import LogMismatchError, NotFoundError, UnavailableError
from headrace.log.kafka import KafkaLog
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


class Unknowing:
    """A message that says that nobody knows the topic."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)

    def partition(self) -> int:
        return 0


def told_once(monkeypatch: pytest.MonkeyPatch, *answers: Exception) -> list[Exception]:
    """The next consumers are told once that the topic is unknown, and who looks at the log then is answered so; what is
    left of the answers."""
    left, told, describe = list(answers), list[None](), KafkaLog.describe

    class Doubtful(Consumer):
        def poll(self, timeout: float | None = None) -> Message | None:
            if told:
                return super().poll(timeout or 0.1)
            told.append(None)
            monkeypatch.setattr(KafkaLog, "describe", answered)
            return Unknowing()  # type: ignore[return-value]  # pyright: ignore

    def answered(log: KafkaLog) -> object:
        if left:
            raise left.pop(0)
        return describe(log)

    monkeypatch.setattr(group_fold, "Consumer", Doubtful)
    return left


@pytest.mark.parametrize(
    "answers", [[UnavailableError("nobody answers")], [NotFoundError("not known yet"), NotFoundError("not known yet")]]
)
def test_a_topic_that_a_broker_does_not_know_for_a_moment_is_no_reason_to_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, answers: list[Exception]
) -> None:
    site.facts(5)
    left = told_once(monkeypatch, *answers)
    fold = site.fold()
    fold.start()
    until(lambda: not left)
    site.facts(5, seed="g")
    site.wait_folded()
    assert fold.failure is None
    site.check_tables()
