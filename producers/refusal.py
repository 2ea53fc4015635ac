"""Why a webhook delivery is turned away: one table, so that documents, tests and answers cannot differ.

A refused delivery leaves a counter behind and nothing else. Its message goes to whoever sent it and says what to do
next, in words of our own: nothing that stood in the delivery is repeated, for it may be personal.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from headrace.errors import HeadraceError


class Refusal(NamedTuple):
    """The HTTP status and the title of the problem (RFC 9457)."""

    status: int
    title: str


REFUSALS: Final[Mapping[str, Refusal]] = {
    "unknown_endpoint": Refusal(404, "No such webhook endpoint"),
    "missing_headers": Refusal(401, "Signature headers are missing"),
    "malformed_headers": Refusal(401, "Signature headers are malformed"),
    "stale": Refusal(401, "The signed time is too old"),
    "future": Refusal(401, "The signed time is in the future"),
    "forged": Refusal(401, "No signature matches"),
    "slow_body": Refusal(408, "The body did not arrive in time"),
    "incomplete_body": Refusal(400, "The body broke off"),
    "too_large": Refusal(413, "The body is too large"),
    "expands_too_far": Refusal(413, "The body is too large once decompressed"),
    "too_many_events": Refusal(413, "The batch has too many events"),
    "content_type": Refusal(415, "The content type is not taken here"),
    "content_encoding": Refusal(415, "The content encoding is not taken here"),
    "not_compressed": Refusal(400, "The body is not compressed as it says"),
    "not_utf8": Refusal(400, "The body is not UTF-8"),
    "not_json": Refusal(400, "The body is not JSON"),
    "too_deep": Refusal(400, "The JSON is nested too deeply"),
    "duplicate_key": Refusal(400, "A JSON object names a key twice"),
    "bad_number": Refusal(400, "A JSON number cannot be kept"),
    "bad_text": Refusal(400, "A JSON string is no text"),
    "not_cloudevent": Refusal(400, "Not a CloudEvent 1.0"),
    "unknown_type": Refusal(422, "The event type is unknown"),
    "unknown_kind": Refusal(422, "The entity kind is unknown"),
    "not_opaque": Refusal(422, "An id is missing or not opaque"),
    "bad_concerns": Refusal(422, "The concerns cannot be read"),
    "schema": Refusal(422, "The data does not fit the schema"),
    "busy": Refusal(503, "Too many deliveries at once"),
    "log_unavailable": Refusal(503, "The log does not take events now"),
    "outcome_unknown": Refusal(503, "The log cannot say whether it took the events"),
}
"""By reason: the ``reason`` label of the counter, and the end of the problem's ``type``."""

NOTIFICATION_REFUSALS: Final[Mapping[str, Refusal]] = {
    "missing_token": Refusal(401, "The bearer token is missing"),
    "malformed_token": Refusal(401, "The bearer token is malformed"),
    "wrong_issuer": Refusal(403, "The token is of another issuer"),
    "wrong_audience": Refusal(403, "The token is for another audience"),
    "wrong_sender": Refusal(403, "The token is another sender's"),
    "unknown_watch": Refusal(404, "Nothing here is watched by this name"),
    "unknown_account": Refusal(404, "No source is connected as this account"),
    "no_handshake": Refusal(405, "Nothing is to be asked for here"),
    "not_notification": Refusal(400, "Not a notification of this provider"),
    "keys_unavailable": Refusal(503, "The keys to verify with cannot be had now"),
}
"""What only the providers' endpoints say, besides the above."""

_ALL: Final[Mapping[str, Refusal]] = {**REFUSALS, **NOTIFICATION_REFUSALS}


class RefusedError(HeadraceError):
    """A delivery is turned away for ``reason``, a key of :data:`REFUSALS` or :data:`NOTIFICATION_REFUSALS`; the message
    says what to do next."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason

    @property
    def refusal(self) -> Refusal:
        """The table's row."""
        return _ALL[self.reason]
