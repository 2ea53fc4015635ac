"""Plants a bug in a function while a test looks on: a piece of its source is replaced, and it runs so everywhere."""

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any


def _compiled(function: Callable[..., Any], source: str) -> CodeType:
    names: dict[str, Any] = {}
    # Bytes that the source itself defines are looked up in the function's own module when they run.
    exec(compile(source, f"<planted in {function.__qualname__}>", "exec"), dict(function.__globals__), names)  # noqa: S102
    planted: CodeType = names[function.__name__].__code__
    return planted


@contextlib.contextmanager
def planted(function: Any, sound: str, bug: str) -> Iterator[None]:
    """``function`` with the one place that reads ``sound`` reading ``bug``, as long as the context lasts."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(sound) == 1, f"{function.__qualname__} does not say {sound!r} once; plant the bug anew"
    before: CodeType = function.__code__
    code = _compiled(function, source.replace(sound, bug))
    assert code.co_freevars == before.co_freevars
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = before
