"""The vault in PostgreSQL."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from headrace.errors import HaltError
from headrace.producers.vault_postgres import PostgresVault, make_vault
from headrace.projections.postgres_connection import Address
from tests.contract.vault_conformance import VaultConformance


@pytest.fixture
def address(database: str, schema: str) -> Address:
    return Address(database, schema)


class TestPostgresVault(VaultConformance):
    @pytest.fixture
    def vault(self, address: Address) -> Iterator[PostgresVault]:
        make_vault(address)
        make_vault(address)
        with PostgresVault(address) as found:
            yield found

    @pytest.fixture
    def again(self, vault: PostgresVault, address: Address) -> Iterator[PostgresVault]:
        with PostgresVault(address) as found:
            yield found

    @pytest.fixture
    def impatient(self, vault: PostgresVault, address: Address) -> Iterator[PostgresVault]:
        with PostgresVault(address, patience_seconds=0.1) as found:
            yield found

    def test_it_goes_on_after_its_connection_broke(self, vault: PostgresVault, address: Address) -> None:
        vault.write("grant", "a", b"1")
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                (f"headrace vault {address.schema}",),
            )
            assert ended.fetchall() == [(True,)]
        assert vault.read("grant", "a") == b"1"

    def test_dropping_the_tables_leaves_it(self, vault: PostgresVault, address: Address) -> None:
        vault.write("grant", "a", b"1")
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(address.schema)))
        assert vault.read("grant", "a") == b"1"


def test_without_its_schema_it_says_what_to_run(address: Address) -> None:
    with pytest.raises(HaltError, match="run `headrace migrate`"):
        PostgresVault(address)
