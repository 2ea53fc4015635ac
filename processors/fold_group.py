"""Which consumer group folds into which tables."""

import hashlib
from typing import Final

from headrace.processors.group_fold import GROUP
from headrace.projections.postgres_connection import Address, translated

_WHERE: Final = """
SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()
"""


def tables_id(db_url: str, db_schema: str) -> str:
    """12 hexadecimal digits that tell these tables from any others, however they are reached.

    :raises UnavailableError: the database does not answer.
    """
    address = Address(db_url, db_schema)
    with translated(address.named, "asked who it is"), address.connect("worker") as connection:
        found = connection.execute(_WHERE).fetchone()
    return hashlib.sha256(f"{found}/{db_schema}".encode()).hexdigest()[:12]


def fold_group(tables: str) -> str:
    """The group of those who fold into the tables with this id. Others' tables are another group's, which folds the
    whole log as well."""
    return f"{GROUP}.{tables}"
