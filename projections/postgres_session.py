"""A connection of the processor's own, made anew where it has broken."""

import threading
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from headrace.projections.postgres_connection import Address, Session

# What only connections that fold are told.
_SETTINGS: Final = (
    # The log is the truth. A commit that a crash of the database takes back took state and next_offset back together,
    # and the fold repeats it exactly; so nobody need wait for the disk. Readers who bring a token wait for the tables.
    ("synchronous_commit", "off"),
    # Statements here look up keys in indexes, whatever today's statistics say: a plan made while a table was empty
    # would read all of it for ever.
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
)


class ProcessorSession:
    """For one thread at a time: whoever uses it holds ``lock``. ``patience``: how many seconds to wait for another's
    lock; a transaction of this session that is idle twice as long is ended by the server. That may be sooner than the
    brokers have taken its verdicts, or say that they have not: others must not wait for the lock so long, and the batch
    is folded and published again. ``broken`` is called when the connection is let go of."""

    def __init__(self, address: Address, patience: float, broken: Callable[[], object]) -> None:
        self.lock: Final = threading.Lock()
        self._address: Final = address
        self._patience: Final = patience
        self._broken: Final = broken
        self._open: Session | None = None

    def connection(self) -> Session:
        """The connection, a new one where the last has broken.

        :raises psycopg.Error: there is none to be had.
        """
        if self._open is None or self._open.closed:
            connection = self._address.connect("processor")
            try:
                for name, value in (
                    *_SETTINGS,
                    ("lock_timeout", f"{self._patience * 1_000:.0f}ms"),
                    ("idle_in_transaction_session_timeout", f"{self._patience * 2_000:.0f}ms"),
                ):
                    connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            except BaseException:
                connection.close()
                raise
            self._open = connection
        return self._open

    def drop(self) -> None:
        """Let go of it. Harmless when there is none."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self._broken()

    def undo(self) -> None:
        """End the transaction, if there still is one and a connection to say so on.

        After an error the connection is let go of, for the server rolls back what is left of it: of a pipeline it skips
        all that follows the statement that failed, and psycopg counts as prepared what it was told to prepare there.
        """
        if self._open is None:
            return
        status = self._open.info.transaction_status
        try:
            if status == TransactionStatus.INTRANS:
                self._open.execute("ROLLBACK")
            elif status != TransactionStatus.IDLE:
                self.drop()
        except psycopg.Error:
            self.drop()
