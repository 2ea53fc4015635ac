"""Which providers there are: the built-in ones, and those that installed packages bring.

A package brings a provider with an entry point in the group ``headrace.providers``: its name (small letters, digits,
``_``), and a function that sets it up. That function is given what ``[providers.NAME]`` of ``headrace.toml`` says and
the store's directory, which names of files are relative to. It gives a
:class:`headrace.producers.source_syncs.ProviderSetup`, or ``None`` where the section must be there and is not; where
that cannot be used it raises BadInputError.
"""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

from headrace.errors import BadInputError, HaltError
from headrace.producers.source_syncs import ProviderSetup

GROUP: Final = "headrace.providers"
BUILT_IN: Final[Mapping[str, str | None]] = {
    "caldav": None,
    "gmail": "[google] with topic, audience and service_account",
    "google_calendar": "[google]",
    "graph": "[microsoft]",
    "imap": None,
}
"""With what has to be in ``headrace.toml`` for them."""
_NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,62}$")

Bring = Callable[[Mapping[str, Any], Path], ProviderSetup | None]


def names() -> tuple[str, ...]:
    """Of all there are, set up or not.

    :raises HaltError: two claim one name, or one cannot be a name.
    """
    return tuple(sorted({*BUILT_IN, *_points()}))


def brought(sections: Mapping[str, Mapping[str, Any]], directory: Path) -> dict[str, ProviderSetup]:
    """Those that packages bring and that are set up, by name.

    :raises BadInputError: a section cannot be used, or is for a provider that nobody brings.
    :raises HaltError: two claim one name, or one cannot be loaded.
    """
    points = _points()
    for name in sections:
        if name not in points:
            raise BadInputError(
                f"[providers.{name}] in headrace.toml: no installed package brings a provider of that name; install"
                f" it, or take the section out{_whose(name)}"
            )
    found: dict[str, ProviderSetup] = {}
    for name, point in points.items():
        try:
            bring: Bring = point.load()
        except Exception as error:
            raise HaltError(f"the provider {name!r} ({point.value}) cannot be loaded: {error!r}") from error
        setup = bring(sections.get(name, {}), directory)
        if setup is None:
            continue
        if setup.provider.name != name:
            raise HaltError(f"the entry point {name!r} brings a provider that calls itself {setup.provider.name!r}")
        found[name] = setup
    return found


def wanted_section(name: str) -> str | None:
    """What has to be in ``headrace.toml`` for a provider that is not set up; ``None`` where there is none of that
    name."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    return f"[providers.{name}]" if name in _points() else None


def _points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        if point.name in BUILT_IN or point.name in found:
            raise HaltError(f"two providers are called {point.name!r}, one of them {point.value}: uninstall one")
        if not _NAME.match(point.name):
            raise HaltError(f"{point.name!r} ({point.value}) is no name of a provider: small letters, digits and _")
        found[point.name] = point
    return found


def _whose(name: str) -> str:
    section = BUILT_IN.get(name)
    return f". {name} is headrace's own and is set up in {section}" if section is not None else ""
