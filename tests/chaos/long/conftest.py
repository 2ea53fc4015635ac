"""Left out, unless somebody asks for this directory by name: these take minutes, and the short form is beside it."""

import os
from pathlib import Path
from typing import Final

import pytest

_HERE: Final = Path(__file__).parent
_SECONDS: Final = 900.0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a path is left out; ``None`` leaves that to others."""
    if collection_path.name.startswith("test_") and not _is_asked_for(config):
        return True
    return None


def _is_asked_for(config: pytest.Config) -> bool:
    named = [(config.invocation_params.dir / word.partition("::")[0]).resolve() for word in config.args]
    return any(path == _HERE or _HERE in path.parents for path in named)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These may take as long as was asked for, and a while for what surrounds it."""
    minutes = float(os.environ.get("HEADRACE_CHAOS_MINUTES", "1"))
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(_SECONDS + 120 * minutes))
