"""A library that repeats itself is heard now and then, and nothing else is kept back."""

import logging

import pytest

from headrace.processors.sparing import Sparing, spare


def test_one_in_ten_seconds_of_each_place(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    logger = logging.getLogger("a-library-of-the-test.conn")
    sparing = Sparing(10.0, lambda: now)
    logger.addFilter(sparing)
    try:
        with caplog.at_level(logging.INFO):
            for tenth in range(301):
                now = tenth / 10
                logger.error("broker %d is away", 1)
            logger.error("another place says: broker %d", 2)
            logger.info("fine")
            logger.info("fine")
    finally:
        logger.removeFilter(sparing)
    first, *later = [record.getMessage() for record in caplog.records]
    assert first == "broker 1 is away"
    assert later == [
        *["broker 1 is away (and 99 more like this)"] * 3,
        "another place says: broker 2",
        "fine",
        "fine",
    ]


def test_it_is_put_on_every_logger_of_the_library() -> None:
    ours = [logging.getLogger(name) for name in ("lib-of-a-test", "lib-of-a-test.conn", "lib-of-a-test2")]
    spare("lib-of-a-test")
    assert [len(logger.filters) for logger in ours] == [1, 1, 0]
