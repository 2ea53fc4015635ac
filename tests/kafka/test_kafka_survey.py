"""What all ask at once is asked once, never answered with the past, and the topic is seen to be the same."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.errors import LogMismatchError, UnavailableError
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_survey import SAME_SECONDS, Survey
from headrace.log.kafka_topic import Topic, TopicState
from tests.contract.log_conformance import PATIENCE_SECONDS

ADDRESS = KafkaAddress.parse("kafka://127.0.0.1:1/log?request.timeout.ms=1000")
STATE = TopicState("one", 2, 1)


class Brokers(Topic):
    """Answers that a test decides on. While ``open`` is not set they are silent."""

    def __init__(self) -> None:
        super().__init__(ADDRESS)
        self.now = {0: 5, 1: 1}
        self.is_now = STATE
        self.asked = self.looked = 0
        self.takes_seconds = 0.0
        self.failure: UnavailableError | None = None
        self.sought = 0
        self.behind: list[dict[int, int]] = []
        self.asking = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def ends(self, partitions: Iterable[int], *, whole: bool = False) -> dict[int, int]:
        self.asked += 1
        now = self.behind.pop(0) if self.behind else self.now
        found = {partition: now[partition] for partition in partitions}
        self.asking.release()
        assert self.open.wait(PATIENCE_SECONDS)
        threading.Event().wait(self.takes_seconds)
        if self.failure is not None:
            raise self.failure
        return found

    def find_leaders(self) -> None:
        self.sought += 1

    def state(self) -> TopicState:
        self.looked += 1
        return self.is_now


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
def survey(brokers: Brokers) -> Survey:
    return Survey(ADDRESS, brokers, STATE, [0, 0])


def test_who_comes_meanwhile_shares_the_next_answer_and_none_gets_an_older(brokers: Brokers, survey: Survey) -> None:
    together = threading.Barrier(9)
    brokers.open.clear()

    def ask() -> dict[int, int]:
        together.wait(PATIENCE_SECONDS)
        return survey.ends()

    with ThreadPoolExecutor(9) as pool:
        early = pool.submit(survey.ends)
        assert brokers.asking.acquire(timeout=PATIENCE_SECONDS)
        brokers.now = {0: 6, 1: 1}  # after the first question was answered, before the others are asked
        late = [pool.submit(ask) for _ in range(8)]
        together.wait(PATIENCE_SECONDS)
        brokers.open.set()
        assert early.result(PATIENCE_SECONDS) == {0: 5, 1: 1}
        assert [one.result(PATIENCE_SECONDS) for one in late] == [{0: 6, 1: 1}] * 8
    assert survey.ends() == {0: 6, 1: 1}


def test_many_who_ask_cost_few_questions(brokers: Brokers, survey: Survey) -> None:
    brokers.takes_seconds = 0.002
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(survey.ends) for _ in range(400)]
        assert [one.result(PATIENCE_SECONDS) for one in asked] == [brokers.now] * 400
    assert brokers.asked < 200


def test_a_failure_is_told_to_all_who_asked_and_passes(brokers: Brokers, survey: Survey) -> None:
    brokers.failure = UnavailableError("silence")
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(survey.ends) for _ in range(8)]
        for one in asked:
            with pytest.raises(UnavailableError, match="silence"):
                one.result(PATIENCE_SECONDS)
    brokers.failure = None
    assert survey.ends() == brokers.now


def test_the_topic_is_looked_at_seldom(brokers: Brokers) -> None:
    now = 0.0
    survey = Survey(ADDRESS, brokers, STATE, [0, 0], lambda: now)
    for _ in range(100):
        survey.ends()
    assert brokers.looked == 0, "it was looked at when the log was opened"
    now = SAME_SECONDS
    for _ in range(100):
        survey.ends()
    assert brokers.looked == 1
    brokers.is_now = STATE._replace(partitions=3)
    assert survey.ends() == brokers.now
    now *= 2
    for _ in range(2):
        with pytest.raises(LogMismatchError, match="has 3 partitions and was made with 2"):
            survey.ends()


@pytest.mark.parametrize("said", [True, False], ids=["here", "elsewhere"])
def test_a_topic_that_is_shorter_than_it_was_is_looked_at_at_once(brokers: Brokers, said: bool) -> None:
    known = [0, 0] if said else [5, 1]
    survey = Survey(ADDRESS, brokers, STATE, known)
    if said:
        survey.ends()
        assert known == [5, 1]
    brokers.now, brokers.is_now = {0: 5, 1: 0}, STATE._replace(id="another")
    for _ in range(2):
        with pytest.raises(LogMismatchError, match="made again"):
            survey.ends()


def test_a_leader_of_the_past_is_not_believed(brokers: Brokers, survey: Survey) -> None:
    """It stood still while another one took over, and answers with how far it went then."""
    survey.ends()
    for partition, past in ((0, [{0: 3, 1: 1}]), (1, [{0: 5, 1: 0}, {0: 5, 1: 0}])):
        brokers.behind, brokers.sought = list(past), 0
        assert survey.ends() == brokers.now, partition
        assert brokers.sought == len(past)
    survey.reached(0, 9)  # as somebody read it
    brokers.behind, brokers.now = [brokers.now], {0: 9, 1: 1}
    assert survey.ends() == {0: 9, 1: 1}


def test_what_is_said_again_and_again_stands_and_is_asked_for_once(brokers: Brokers, survey: Survey) -> None:
    survey.ends()
    brokers.now, brokers.sought = {0: 3, 1: 1}, 0
    assert survey.ends() == {0: 3, 1: 1}
    tried = brokers.sought
    assert tried > 1
    brokers.now = {0: 4, 1: 1}
    assert survey.ends() == {0: 4, 1: 1}
    assert brokers.sought == tried
    brokers.behind = [{0: 3, 1: 1}]
    assert survey.ends() == {0: 4, 1: 1}
    assert brokers.sought == tried + 1
    brokers.now = {0: 6, 1: 1}
    survey.ends()
    brokers.behind, brokers.sought = [{0: 5, 1: 1}], 0
    assert survey.ends() == {0: 6, 1: 1}
    assert brokers.sought == 1
