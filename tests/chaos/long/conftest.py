"""Left out, unless somebody asks for this directory by name: these take minutes, and the short form is beside it."""

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a path is left out; ``None`` leaves that to others."""
    if collection_path.name.startswith("test_") and not _is_asked_for(config):
        return True
    return None


def _is_asked_for(config: pytest.Config) -> bool:
    named = [(config.invocation_params.dir / word.partition("::")[0]).resolve() for word in config.args]
    return any(path == _HERE or _HERE in path.parents for path in named)
