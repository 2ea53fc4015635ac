"""The delivery journal: every verdict that somebody may have to act on, written down once.

This is where delivery begins. For now it writes what it would act on; who carries it out reads the journal or takes its
place on the verdicts' topic, where messages come at least once (:mod:`headrace.processors.verdict_topic`).
"""

import contextlib
from collections.abc import Sequence
from typing import Final

import psycopg

from headrace.processors.verdict_topic import PublishedVerdict
from headrace.projections.postgres_connection import Address, Session, translated

REPEATED: Final = frozenset({"duplicate", "conflicting_id"})
"""What is said of a proposal that was sent again; nothing changes for the first one."""
_WRITE: Final = """
INSERT INTO delivery_journal (tenant, account, proposal, "partition", "offset", verdict, text)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])
ON CONFLICT DO NOTHING
"""


class Journal:
    """Rows of the table ``delivery_journal`` beside the tables. For one thread at a time; connects when it must."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self._address: Final = Address(conninfo, schema)
        self._session: Session | None = None

    def write(self, verdicts: Sequence[PublishedVerdict]) -> int:
        """Write down what is not there yet; how many rows that were.

        :raises UnavailableError: the database does not answer, or only its answer got lost: write the same again.
        :raises HaltError: the table is missing, or this role may not write to it.
        """
        acted_on = [one for one in verdicts if one.verdict not in REPEATED]
        if not acted_on:
            return 0
        columns = [
            [getattr(one, name) for one in acted_on]
            for name in ("tenant", "account", "proposal", "partition", "offset", "verdict", "text")
        ]
        try:
            with translated(self._address.named, "written"):
                if self._session is None or self._session.closed:
                    self._session = self._address.connect("journal")
                return self._session.execute(_WRITE, columns).rowcount
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection. Harmless when repeated."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(psycopg.Error):
                session.close()
