"""What the process's exit code says: the same few numbers for every command."""

from collections.abc import Mapping
from typing import Final

from headrace.errors import (
    AppendUnknownError,
    HeadraceError,
    LogMismatchError,
    NotFoundError,
    UnavailableError,
    WriterLockedError,
)

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
STALE: Final = 4
UNAVAILABLE: Final = 5
MISMATCH: Final = 6
INTERRUPTED: Final = 130

MEANINGS: Final[Mapping[int, str]] = {
    OK: "it worked; of a proposal: it is accepted",
    ERROR: "it did not work; the message says what to do",
    USAGE: "the command line is wrong; nothing was done",
    NOT_FOUND: "there is no such store, entity, proposal, position or key",
    STALE: "the proposal is not accepted: superseded, expired, claimed, rejected, malformed, unknown_basis,"
    " conflicting_id, or not yet: needs_review, held",
    UNAVAILABLE: "something does not answer now (no process runs, the store is locked, no verdict in time); try again",
    MISMATCH: "log, tables and fold do not agree: something was changed behind headrace's back",
    INTERRUPTED: "stopped by Ctrl-C",
}


class StaleError(HeadraceError):
    """An answer came to a proposal that waits for none; the message says what it is by now."""


_BY_ERROR: Final[tuple[tuple[type[HeadraceError], int], ...]] = (
    (NotFoundError, NOT_FOUND),
    (StaleError, STALE),
    (WriterLockedError, UNAVAILABLE),
    (AppendUnknownError, UNAVAILABLE),
    (UnavailableError, UNAVAILABLE),
    (LogMismatchError, MISMATCH),
)


def of_error(error: HeadraceError) -> int:
    """The exit code for an exception."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ERROR)


def of_verdict(verdict: str) -> int:
    """The exit code for a proposal's current verdict: a script goes on only when the proposal is accepted."""
    return OK if verdict == "accepted" else STALE
