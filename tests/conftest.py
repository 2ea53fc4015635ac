"""How much hypothesis tries (``HYPOTHESIS_PROFILE=deep`` looks twenty times longer), and what the tests of behaviour
run on (``--on kafka``)."""

import os

from hypothesis import settings

from tests.on import (
    places_of_stores,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_terminal_summary,
    pytest_testnodedown,
    stores_of_module,
    stores_of_test,
)
from tests.stack.parts import kafka_bootstrap, postgres_dsn

__all__ = (
    "kafka_bootstrap",
    "places_of_stores",
    "postgres_dsn",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "stores_of_module",
    "stores_of_test",
)

settings.register_profile("default", deadline=None, max_examples=100, print_blob=True)
settings.register_profile("deep", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
