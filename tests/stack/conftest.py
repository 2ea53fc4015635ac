"""Parts of the stack for the tests of the stack."""

from tests.stack.parts import kafka_bootstrap, postgres_dsn, registry_url

__all__ = ("kafka_bootstrap", "postgres_dsn", "registry_url")
