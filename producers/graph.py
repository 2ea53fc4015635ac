"""Microsoft Graph: an Outlook mailbox or calendar, watched by a subscription, and read by delta queries.

A notification says that something changed (https://learn.microsoft.com/graph/change-notifications-delivery-webhooks);
what shows who sends it is ``clientState``, a secret of each subscription, and, where notifications bring the changed
resource along, a token that Microsoft signs.
"""

import html
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import tzinfo
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.event import Source
from headrace.producers.graph_api import GRAPH, GraphApi, moment, segment, text
from headrace.producers.graph_calendar import GraphCalendarSource
from headrace.producers.graph_mail import GraphMailSource
from headrace.producers.graph_notification import Item, Proof, decrypted, is_secret, kept_part, read_batch, read_item
from headrace.producers.graph_thread import Mailbox
from headrace.producers.oidc import GoogleKeys
from headrace.producers.provider import Answer, Connected, Delivery, Hint, Received, Watch
from headrace.producers.provider_http import ProviderHttp, StatusError
from headrace.producers.refusal import RefusedError
from headrace.schemas.envelope import rfc3339

NAME: Final = "graph"
SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    "mail headers": ("User.Read", "Mail.ReadBasic"),
    "mail text": ("User.Read", "Mail.Read"),
    "calendar": ("User.Read", "Calendars.Read"),
}
"""The delegated permissions that each setting of ``follow`` (and ``content``) needs, besides offline_access."""
_RESOURCES: Final = {"mail": "me/messages", "calendar": "me/events"}
_BROUGHT: Final = {"mail": "id,isDraft", "calendar": "id,type"}
"""What a notification is asked to bring along: nobody's words."""
_MINUTE_MS: Final = 60_000
_PLAIN_MS: Final = 10_080 * _MINUTE_MS
_RICH_MS: Final = 1_440 * _MINUTE_MS
"""The longest that subscriptions to Outlook's resources live, without and with resource data
(https://learn.microsoft.com/graph/api/resources/subscription)."""
_MARGIN_MS: Final = 10 * _MINUTE_MS
"""So much less is asked: clocks differ, and Graph refuses a minute too much."""
_MOST_TOKEN_CHARS: Final = 4_096


class Encryption(NamedTuple):
    """The certificate that Graph encrypts resource data for: its id (any name), itself in base64 of DER, and the
    private keys by certificate id, those of earlier certificates too until the last of their subscriptions ended."""

    id: str
    certificate: str
    keys: Mapping[str, RSAPrivateKey]

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Encryption({self.id!r})"


class Graph:
    """The :class:`headrace.producers.provider.Provider`.

    ``client_id`` is the app's. With ``encryption``, notifications bring the changed resource along: subscriptions live
    for a day instead of a week, Microsoft signs each delivery, and the drafts that somebody is writing start no sync.
    A connected source's settings: ``address`` (the person's primary one), ``follow``, ``mail`` (the default) or
    ``calendar``; of mail ``content``, ``headers`` (the default) or ``text``; of a calendar its id ``calendar`` (else
    the default one), and ``time_zone``, where the days of whole-day events are (else UTC).
    """

    def __init__(
        self,
        *,
        client_id: str,
        keys: GoogleKeys,
        encryption: Encryption | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client_id: Final = client_id
        self._clock: Final = clock
        self._keys: Final = keys
        self._encryption: Final = encryption

    @property
    def name(self) -> str:
        """See :class:`headrace.producers.provider.Provider`."""
        return NAME

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> Source:
        """See :class:`headrace.producers.provider.Provider`.

        :raises BadInputError: its settings cannot be used.
        """
        address, follow = _settings(connected)
        if follow == "calendar":
            calendar, zone = connected.settings.get("calendar"), _zone(connected.settings.get("time_zone", "UTC"))
            api = GraphApi(http)
            return GraphCalendarSource(api, address, pseudonym, calendar=calendar, zone=zone, clock=self._clock)
        content = connected.settings.get("content", "headers")
        if content not in ("headers", "text"):
            raise BadInputError("content of a Graph source is headers or text; correct its settings")
        return GraphMailSource(GraphApi(http), Mailbox(address, pseudonym), texts=content == "text")

    def watch(self, connected: Connected, http: ProviderHttp, address: str, last: Watch | None, now: int) -> Watch:
        """See :class:`headrace.producers.provider.Provider`. A subscription is renewed, which also answers
        ``reauthorizationRequired``, or made anew where it is gone or was made otherwise.

        ``details["renew_at"]`` is when to renew, in epoch milliseconds: halfway to its end.
        """
        _, follow = _settings(connected)
        api, wanted = GraphApi(http), self._wanted(follow, address)
        lifetime = _RICH_MS if self._encryption is not None else _PLAIN_MS
        until = now + lifetime - _MARGIN_MS
        if last is not None and last.details.get("made_as") == wanted["made_as"]:
            renewed = _renewed(api, last, until)
            if renewed is not None:
                return _watch(renewed, last.secret, wanted["made_as"], now)
        elif last is not None:
            _end(api, last.id)
        secret = secrets.token_urlsafe(32)
        body = {**wanted["body"], "expirationDateTime": rfc3339(until), "clientState": secret}
        return _watch(_made(api, body), secret, wanted["made_as"], now)

    def _wanted(self, follow: str, address: str) -> dict[str, Any]:
        resource, brought = _RESOURCES[follow], self._encryption
        body: dict[str, Any] = {
            "changeType": "created,updated,deleted",
            "notificationUrl": address,
            "lifecycleNotificationUrl": address,
            "resource": resource,
        }
        if brought is not None:
            body |= {
                "resource": f"{resource}?$select={_BROUGHT[follow]}",
                "includeResourceData": True,
                "encryptionCertificate": brought.certificate,
                "encryptionCertificateId": brought.id,
            }
        return {"body": body, "made_as": f"{body['resource']} {brought.id if brought is not None else '-'} {address}"}

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:  # noqa: ARG002 - its id says all
        """See :class:`headrace.producers.provider.Provider`."""
        _end(GraphApi(http), watch.id)

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:
        """See :class:`headrace.producers.provider.Provider`. Answered 202; a handshake 200.

        A delivery may bring notifications of several subscriptions: those that cannot be believed are dropped, and the
        others go on. Where none is left, all of it is refused, for the reason of the first.
        """
        token = [value for name, value in delivery.query if name == "validationToken"]
        if token:
            return _handshake(token)
        batch = read_batch(delivery.body)
        proof = Proof(batch.tokens, self._keys, self._client_id, delivery.received_at)
        hints: dict[Hint, bytes] = {}
        refusals: list[RefusedError] = []
        for said in batch.items:
            try:
                item = read_item(said)
                found = _believed(item, watch(item.subscription))
                if item.encrypted is None or self._is_news(item, item.encrypted, proof):
                    hints.setdefault(Hint(found.id, item.digest, item.kind), kept_part(said))
            except RefusedError as refused:
                refusals.append(refused)
        if len(refusals) == len(batch.items):
            raise next((one for one in refusals if one.reason == "keys_unavailable"), refusals[0])
        return Received(tuple(hints), Answer(HTTPStatus.ACCEPTED), tuple(one.reason for one in refusals), hints)

    def read(self, delivery: Delivery) -> tuple[Hint, ...]:
        """See :class:`headrace.producers.provider.Rereads`."""
        found = map(read_item, read_batch(delivery.body).items)
        return tuple(dict.fromkeys(Hint(item.subscription, item.digest, item.kind) for item in found))

    def _is_news(self, item: Item, content: Mapping[str, Any], proof: Proof) -> bool:
        """Whether a sync would find anything: a draft is no fact, until it is sent.

        :raises RefusedError: Graph does not vouch for what is brought along, or it cannot be read.
        """
        proof.check(item.tenant)
        key = self._encryption.keys.get(str(content.get("encryptionCertificateId"))) if self._encryption else None
        if key is None:
            raise RefusedError("forged", "the notification is encrypted for a certificate that is not known here")
        return decrypted(content, key).get("isDraft") is not True


def _settings(connected: Connected) -> tuple[str, str]:
    address, follow = connected.settings.get("address", ""), connected.settings.get("follow", "mail")
    if "@" not in address:
        raise BadInputError("a Graph source needs the address of its owner; connect it again and give the address")
    if follow not in _RESOURCES:
        raise BadInputError(f"follow of a Graph source is one of {', '.join(_RESOURCES)}; correct its settings")
    return address, follow


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInputError(
            "time_zone of a Graph source is a name such as Europe/Berlin; correct its settings"
        ) from None


def _handshake(token: list[str]) -> Received:
    """The token, decoded, as plain text and nothing else (section "notification URL validation" of the first link).

    It is whatever somebody wrote into a URL: escaped, a browser that ignores the content type still runs nothing.
    """
    if len(token) > 1 or not 0 < len(token[0]) <= _MOST_TOKEN_CHARS or not token[0].isprintable():
        raise RefusedError("not_notification", "a handshake brings one validationToken of printable text")
    return Received((), Answer(HTTPStatus.OK, html.escape(token[0], quote=False).encode(), "text/plain; charset=utf-8"))


def _believed(item: Item, found: Watch | None) -> Watch:
    right = is_secret(item.secret, found.secret if found is not None else "")
    if found is None:
        raise RefusedError("unknown_watch", "nothing here has this subscription: end it, or let it end")
    if not right:
        raise RefusedError("forged", "clientState is not the subscription's: send it from Graph")
    return found


def _watch(said: Mapping[str, Any], secret: str, made_as: str, now: int) -> Watch:
    until = moment(said, "expirationDateTime")
    if until is None:
        raise UnavailableError("Graph answers without a usable expirationDateTime; it is asked again later")
    details = {"made_as": made_as, "renew_at": str(now + max(0, until - now) // 2)}
    return Watch(GRAPH.identifier(said, "id"), secret, until, details)


def _renewed(api: GraphApi, last: Watch, until: int) -> dict[str, Any] | None:
    """The subscription, going on until then; ``None`` where it is no more."""
    try:
        return api.ask("PATCH", f"subscriptions/{segment(last.id)}", body={"expirationDateTime": rfc3339(until)})
    except StatusError as error:
        if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return None
        raise _unwatchable(error) from None


def _made(api: GraphApi, body: Mapping[str, Any]) -> dict[str, Any]:
    """A new subscription; one that this app has of the same, and that nobody here knows any more, makes way."""
    try:
        return api.ask("POST", "subscriptions", body=body)
    except StatusError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise _unwatchable(error) from None
    for said in list(api.listed("subscriptions", {})):
        if text(said, "notificationUrl") == body["notificationUrl"] and text(said, "resource") == body["resource"]:
            _end(api, GRAPH.identifier(said, "id"))
    try:
        return api.ask("POST", "subscriptions", body=body)
    except StatusError as error:
        raise _unwatchable(error) from None


def _end(api: GraphApi, subscription: str) -> None:
    try:
        api.ask("DELETE", f"subscriptions/{segment(subscription)}")
    except StatusError as error:
        if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise


def _unwatchable(error: StatusError) -> BadInputError:
    return BadInputError(
        f"Graph refuses to watch ({error.status}): the endpoint must answer its handshake from the internet over HTTPS,"
        " and no other subscription of the app may watch the same"
    )
