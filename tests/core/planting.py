"""Plants a bug in a function while a test looks on: a piece of its source is replaced, and it runs so everywhere."""

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Generator
from pkgutil import resolve_name
from types import CodeType
from typing import Any


def _compiled(function: Callable[..., Any], source: str) -> CodeType:
    names: dict[str, Any] = {}
    exec(compile(source, f"<planted in {function.__qualname__}>", "exec"), dict(function.__globals__), names)
    planted: CodeType = names[function.__name__].__code__
    return planted


@contextlib.contextmanager
def planted(name: str, sound: str, bug: str) -> Generator[None]:
    """The function of this name (``processors.core.fold:step``) with the one place that reads ``sound`` reading
    ``bug``, as long as the context lasts."""
    function: Any = resolve_name(f"headrace.{name}")
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
