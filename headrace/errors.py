"""Every exception headrace raises. Refusals of proposals are values (see ``processors.core.verdicts``), not exceptions.

An exception means a bug, an outage or bad input at a door; its message says what to do next.
"""


class HeadraceError(Exception):
    """The root: catch this to catch everything headrace raises on purpose."""


class BadInputError(HeadraceError):
    """What a caller sent cannot be used. Nothing was written."""


class UndecodableError(BadInputError):
    """A record is no datum of the schema it names, or not of its form: the one reason to quarantine it."""


class NotFoundError(HeadraceError):
    """What a caller asked for is not there (or belongs to another tenant, which looks the same)."""


class UnavailableError(HeadraceError):
    """A part headrace needs does not answer now; trying again later may work."""


class AppendUnknownError(UnavailableError):
    """The log could not say whether records landed. Retry with the same ids: that is always safe."""


class LogClosedError(HeadraceError):
    """The log was closed because it moved; the message names its successor."""


class WriterLockedError(HeadraceError):
    """Another process has this store open for writing; the message names it."""


class HaltError(HeadraceError):
    """The processor must not go on: judging further could differ from what another replica judges."""


class LogMismatchError(HaltError):
    """The log is not the one the tables were folded from: replaced, truncated, or changed."""


class SchemaMissingError(HaltError):
    """A record names a schema version that this process does not have."""


class UnsupportedFoldError(HaltError):
    """The log asks for an entity kind or a fold version that this process does not have."""


class KindError(HaltError):
    """An entity kind's code raised. That is a bug in the kind, never a reason to skip a record."""


class FencedError(HeadraceError):
    """Another owner has moved this partition on; this one stops without having written anything."""
