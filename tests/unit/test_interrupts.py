"""A Ctrl-C that Python loses is not lost."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from headrace.cli.interrupts import heeded


class Dying:
    """Interrupted while it is finalised: whatever is raised then, Python drops."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1_000):
            pass


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


def let_go() -> None:
    one = Dying()
    del one
    gc.collect()


def test_one_that_is_dropped_comes_with_the_next_turn(dropped: list[Any]) -> None:
    with heeded() as check:
        check()
        let_go()
        assert [type(one.exc_value) for one in dropped] == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            check()


def test_others_come_at_once_and_afterwards_all_is_as_before() -> None:
    before: Callable[..., Any] | int | None = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), heeded():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
