"""One suite per port; every adapter passes it unchanged."""

import pytest

pytest.register_assert_rewrite("tests.contract.log_conformance", "tests.contract.tables_conformance")
