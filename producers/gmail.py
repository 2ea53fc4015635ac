"""Gmail: a mailbox watched through Cloud Pub/Sub, and read through the Gmail API.

A push says that a mailbox changed (https://developers.google.com/gmail/api/guides/push), and who pushes is shown by a
token that Google signs (https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions).
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from headrace.errors import BadInputError
from headrace.producers.gmail_api import GmailApi
from headrace.producers.gmail_source import GmailSource
from headrace.producers.gmail_thread import Mailbox
from headrace.producers.oidc import GoogleKeys, SignedBy, bearer, verify
from headrace.producers.provider import Answer, Connected, Delivery, Hint, Received, Watch
from headrace.producers.provider_http import GrantError, ProviderHttp, StatusError
from headrace.producers.refusal import RefusedError
from headrace.producers.strict_json import parse_json

NAME: Final = "gmail"
SCOPES: Final[Mapping[str, str]] = {
    "headers": "https://www.googleapis.com/auth/gmail.metadata",
    "text": "https://www.googleapis.com/auth/gmail.readonly",
}
"""The one scope that each setting of ``content`` needs."""
_RENEW_MS: Final = 24 * 3_600_000
"""Gmail asks for a renewal once a day; a watch ends after seven."""
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_TOPIC: Final = re.compile(r"projects/[^/\s]+/topics/[^/\s]+\Z")
_MOST_ADDRESS_CHARS: Final = 320
_MESSAGE_ID_HEADER: Final = b"x-goog-pubsub-message-id"


class Gmail:
    """The :class:`headrace.producers.provider.Provider`.

    ``topic`` is where Gmail publishes (``projects/P/topics/T``); ``audience`` and ``service_account`` (an address) are
    what its push subscription is set to show. A connected source's settings: ``address`` of the mailbox, and
    ``content``, ``headers`` (the default) or ``text``.
    """

    def __init__(self, *, topic: str, audience: str, service_account: str, keys: GoogleKeys) -> None:
        if not _TOPIC.match(topic):
            raise BadInputError("Gmail's topic must be projects/PROJECT/topics/TOPIC; copy its full name from Pub/Sub")
        self._topic: Final = topic
        self._wanted: Final = SignedBy(audience, service_account)
        self._keys: Final = keys

    @property
    def name(self) -> str:
        """See :class:`headrace.producers.provider.Provider`."""
        return NAME

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> GmailSource:
        """See :class:`headrace.producers.provider.Provider`.

        :raises BadInputError: its settings cannot be used.
        """
        address, content = _address(connected), connected.settings.get("content", "headers")
        if content not in SCOPES:
            raise BadInputError(f"content of a Gmail source is one of {', '.join(SCOPES)}; correct its settings")
        return GmailSource(GmailApi(http), Mailbox(address, pseudonym), address, texts=content == "text")

    def watch(
        self,
        connected: Connected,
        http: ProviderHttp,
        address: str,  # noqa: ARG002 - not for Gmail to know
        last: Watch | None,  # noqa: ARG002
        now: int,
    ) -> Watch:
        """See :class:`headrace.producers.provider.Provider`. Renewing is watching again, under the same id. Where the
        notifications go (``address``) is a setting of the Pub/Sub subscription.

        ``details["renew_at"]`` is when to renew, in epoch milliseconds: every day.
        """
        mailbox = _address(connected)
        api = GmailApi(http)
        said, _ = api.profile()
        if said.lower() != mailbox.lower():
            raise BadInputError("the grant is for another mailbox than the source's address: connect the source again")
        try:
            expires_at = api.watch(self._topic)
        except GrantError:
            raise
        except StatusError as error:
            raise _unwatchable(error) from None
        return Watch(watch_id(said), "", expires_at, {"renew_at": str(min(expires_at, now + _RENEW_MS))})

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:  # noqa: ARG002 - it has but one
        """See :class:`headrace.producers.provider.Provider`: Gmail publishes nothing more of this mailbox."""
        GmailApi(http).stop()

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:
        """See :class:`headrace.producers.provider.Provider`. Answered 204, which acknowledges the message; any refusal
        has Pub/Sub send it again for as long as the subscription keeps it."""
        verify(bearer(delivery.headers), self._keys, self._wanted, delivery.received_at)
        address, message = _pushed(delivery)
        found = watch(watch_id(address))
        if found is None:
            raise RefusedError("unknown_watch", "no mailbox of this address is watched: connect it, or stop its watch")
        return Received((Hint(found.id, message),), Answer(HTTPStatus.NO_CONTENT))

    def read(self, delivery: Delivery) -> tuple[Hint, ...]:
        """See :class:`headrace.producers.provider.Rereads`."""
        address, message = _pushed(delivery)
        return (Hint(watch_id(address), message),)


def watch_id(address: str) -> str:
    """What a mailbox's watch is found by: its notifications name nothing but the address."""
    return "gmail:" + hashlib.sha256(address.strip().lower().encode("utf-8", "replace")).hexdigest()[:32]


def _address(connected: Connected) -> str:
    address = connected.settings.get("address", "")
    if "@" not in address:
        raise BadInputError("a Gmail source needs the address of its mailbox; connect it again and give the address")
    return address


def _unwatchable(error: StatusError) -> BadInputError:
    if error.status == HTTPStatus.NOT_FOUND:
        return BadInputError("Gmail does not find the Pub/Sub topic; create it, and name it in full")
    return BadInputError(
        f"Gmail refuses to watch ({error.status}): the topic must be in the app's own project, let"
        " gmail-api-push@system.gserviceaccount.com publish, and no other topic of the project may watch this mailbox"
    )


def _pushed(delivery: Delivery) -> tuple[str, str | None]:
    """The mailbox's address, and the message's id (unique in its topic).

    The body is Pub/Sub's envelope around the data in base64 or, where the subscription unwraps, the data itself.
    """
    said = parse_json(delivery.body)
    if not isinstance(said, dict):
        raise _no_notification("a JSON object")
    message = said.get("message")
    if isinstance(message, dict):
        message_id: Any = message.get("messageId", message.get("message_id"))
        if message_id is None:
            raise _no_notification("its messageId")
        said = parse_json(_data(message.get("data")))
    else:
        named = [value for name, value in delivery.headers if name == _MESSAGE_ID_HEADER]
        message_id = named[0].decode("latin-1") if named else None
    if message_id is not None and not (isinstance(message_id, str) and _MESSAGE_ID.match(message_id)):
        raise _no_notification("a messageId of letters and digits")
    if not isinstance(said, dict):
        raise _no_notification("data that is a JSON object")
    address, history = said.get("emailAddress"), said.get("historyId")
    if not isinstance(address, str) or not 3 <= len(address) <= _MOST_ADDRESS_CHARS or "@" not in address:
        raise _no_notification("an emailAddress")
    digits = isinstance(history, str) and history.isascii() and history.isdigit()
    if not digits and (isinstance(history, bool) or not isinstance(history, int) or history < 0):
        raise _no_notification("a historyId")
    return address, message_id


def _data(data: object) -> bytes:
    """Base64 in either alphabet (RFC 4648, sections 4 and 5), padded or not."""
    if not isinstance(data, str) or not data.isascii():
        raise _no_notification("data in base64")
    text = data.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise _no_notification("data in base64") from None


def _no_notification(lacks: str) -> RefusedError:
    return RefusedError("not_notification", f"a Gmail notification has {lacks}: push Gmail's topic here, and no other")
