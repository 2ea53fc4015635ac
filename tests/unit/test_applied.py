"""Whoever tells of a commit is not hurt by those who are told."""

import asyncio
import logging

import pytest

from headrace.errors import UnavailableError
from headrace.processors.applied import Applied


def test_a_listener_that_raises_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    signal, called = Applied(), list[str]()

    def broken() -> None:
        called.append("broken")
        raise ZeroDivisionError("of whoever listens")

    with signal.listening(broken), signal.listening(lambda: called.append("whole")):
        signal.advance(0, 1)
        signal.pause(0, UnavailableError("away"))
    assert sorted(called) == ["broken", "broken", "whole", "whole"]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_of_an_event_loop_that_has_closed_nobody_waits_any_more(caplog: pytest.LogCaptureFixture) -> None:
    signal, loop = Applied(), asyncio.new_event_loop()
    waiting = signal.wait_async(0, 0, 30)

    async def begin() -> None:
        waiting.send(None)

    try:
        loop.run_until_complete(begin())
        loop.close()
        with caplog.at_level(logging.DEBUG):
            signal.advance(0, 1)
        assert caplog.records == []
    finally:
        waiting.close()
