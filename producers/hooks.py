"""Hooks: services that watch mailboxes for somebody (Nylas, EmailEngine, one's own) and send signed JSON when one
changes. What such a delivery says of the change is not taken: it is a hint for the sources that are connected as that
service's account, and a sync reads the truth.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError
from headrace.producers.connections import HOOK_NAME, MOST_HOOK_ACCOUNT_CHARS
from headrace.producers.delivery import MEBIBYTE, content_encoding, decompressed
from headrace.producers.hook_signature import Scheme, secret_key, verify
from headrace.producers.provider import Answer, Delivery, Hint
from headrace.producers.refusal import RefusedError
from headrace.producers.strict_json import parse_json

_FIELD: Final = re.compile(r"[^.\s]{1,100}(?:\.[^.\s]{1,100}){0,15}\Z")
_CHALLENGE: Final = re.compile(r"[!-~]{1,512}\Z")
_MOST_DELIVERY_CHARS: Final = 200
NYLAS: Final = "nylas"
EMAILENGINE: Final = "emailengine"
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # https://developer.nylas.com/docs/v3/notifications: of a message or an event the grant stands in the object, of a
    # grant beside it. A GET with a challenge comes before there is a secret.
    NYLAS: {
        "header": "x-nylas-signature",
        "encoding": "hex",
        "account": ("data.object.grant_id", "data.grant_id"),
        "delivery": "id",
        "challenge": "challenge",
    },
    # https://learn.emailengine.app: signed with the service secret; the event's id is the same on every attempt.
    EMAILENGINE: {
        "header": "x-ee-wh-signature",
        "encoding": "base64url",
        "account": ("account",),
        "delivery_header": "x-ee-wh-event-id",
    },
}
"""What is known of services, by name: settings of a hook."""


class Hook(NamedTuple):
    """A configured hook. ``account`` are the fields, dotted (``data.object.grant_id``), that may name the service's
    account: the first that is there does. ``delivery`` or ``delivery_header`` is where the service's own id of a
    delivery is; ``challenge`` the query parameter that a GET has answered. ``secrets`` are keys, several while one is
    being replaced, none before a service that asks for the handshake first has given its one.
    """

    name: str
    scheme: Scheme
    account: tuple[str, ...]
    secrets: tuple[bytes, ...]
    delivery: str | None = None
    delivery_header: str | None = None
    challenge: str | None = None

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Hook({self.name!r}, {self.scheme!r}, {len(self.secrets)} secrets)"

    def checked(self) -> "Hook":
        """Itself, when it can be used.

        :raises BadInputError: it cannot; the message says which part.
        """
        if not HOOK_NAME.match(self.name):
            raise BadInputError(f"the hook {self.name[:60]!r}: name it in a-z 0-9 _ -, at most 63")
        try:
            self.scheme.checked()
        except BadInputError as error:
            raise BadInputError(f"the hook {self.name}: {error}") from None
        fields = (*self.account, *((self.delivery,) if self.delivery is not None else ()))
        if not self.account or not all(map(_FIELD.match, fields)):
            raise BadInputError(
                f'the hook {self.name}: say which field names the account, as account = ["data.grant_id"]'
            )
        if not self.secrets and self.challenge is None:
            raise BadInputError(f"the hook {self.name} has no secret: give it secret_files")
        return self

    def handshake(self, query: Sequence[tuple[str, str]]) -> Answer:
        """What a GET is answered: the challenge, and nothing else.

        :raises RefusedError: ``no_handshake``, none is asked for here; ``not_notification``, it is no challenge.
        """
        if self.challenge is None:
            raise RefusedError("no_handshake", "deliveries come by POST; nothing is to be asked for here")
        said = [value for name, value in query if name == self.challenge]
        if len(said) != 1 or not _CHALLENGE.match(said[0]):
            raise RefusedError("not_notification", f"a handshake has one {self.challenge}, in visible ASCII")
        return Answer(HTTPStatus.OK, said[0].encode(), "text/plain")

    def receive(self, delivery: Delivery, *, most: int = MEBIBYTE) -> Hint:
        """Verify a delivery and say which account it names (the hint's ``watch``); ``most`` bytes are decompressed.

        :raises RefusedError: it is forged, expired, or nothing of this service's.
        """
        if not self.secrets:
            raise RefusedError("keys_unavailable", "this hook has no secret yet: give it the service's secret_files")
        verify(self.scheme, self.secrets, delivery.headers, delivery.body, delivery.received_at)
        return self.read(delivery, most=most)

    def read(self, delivery: Delivery, *, most: int = MEBIBYTE) -> Hint:
        """What :meth:`receive` gives, of a delivery that was verified before.

        :raises RefusedError: it is nothing of this service's.
        """
        body = decompressed(delivery.body, content_encoding(delivery.headers), most)
        said = parse_json(body)
        names = (_text(_at(said, field), MOST_HOOK_ACCOUNT_CHARS) for field in self.account)
        account = next((name for name in names if name is not None), None)
        if account is None:
            raise RefusedError("not_notification", f"the delivery names no account at {' or '.join(self.account)}")
        return Hint(account, self._id(delivery, said))

    def _id(self, delivery: Delivery, said: Any) -> str | None:
        if self.delivery is not None:
            return _text(_at(said, self.delivery), _MOST_DELIVERY_CHARS)
        if self.delivery_header is not None:
            wanted = self.delivery_header.encode()
            found = [value for name, value in delivery.headers if name == wanted]
            return _text(found[0].decode("latin-1"), _MOST_DELIVERY_CHARS) if len(found) == 1 else None
        return None


def hook(name: str, settings: Mapping[str, Any], secrets: Sequence[str]) -> Hook:
    """A hook of these settings, which go before those of their ``preset``.

    :raises BadInputError: they cannot be used; the message says which.
    """
    preset = settings.get("preset")
    if preset is not None and preset not in PRESETS:
        raise BadInputError(f"the hook {name}: there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    known = {**(PRESETS[preset] if preset is not None else {}), **settings}
    if "header" not in known:
        raise BadInputError(f"the hook {name}: say which header has the signature, or name a preset")
    scheme = Scheme(**{field: known[field] for field in Scheme._fields if field in known})
    lower = {field: value.lower() for field in ("header", "timestamp_header") if (value := known.get(field))}
    delivery_header = known.get("delivery_header")
    made = Hook(
        name,
        scheme._replace(**lower),
        tuple(known.get("account", ())),
        tuple(map(secret_key, secrets)),
        known.get("delivery"),
        delivery_header.lower() if delivery_header is not None else None,
        known.get("challenge"),
    )
    return made.checked()


def _at(said: Any, field: str) -> Any:
    for name in field.split("."):
        said = said.get(name) if isinstance(said, dict) else None
    return said


def _text(value: Any, most: int) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and 0 < len(value) <= most else None
