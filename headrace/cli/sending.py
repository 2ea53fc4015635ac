"""Events to be sent: read, built, signed and delivered."""

import json
import secrets
import sys
import time as clock
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.cli import output
from headrace.cli.door import IN_PROCESS, Door, body, open_door, refused
from headrace.cli.options import Subject
from headrace.cli.reading import directory, nothing_at
from headrace.errors import BadInputError, HeadraceError, NotFoundError
from headrace.producers.delivery import BATCH, SINGLE
from headrace.producers.endpoint import DEFAULT_ENDPOINT, PATH
from headrace.producers.signatures import sign
from headrace.settings import load_settings, webhook_endpoints

_AT_ONCE: Final = 100
_SOURCE: Final = "cli"


class Webhook(NamedTuple):
    """The endpoint to deliver to, and the secret that signs."""

    name: str
    secret: str


def webhook(store: Path | None, name: str | None, secret_file: Path | None, *, remote: bool) -> Webhook:
    """The endpoint named, or the only one there is, with its secret from a file or from the store.

    :raises NotFoundError: the store has no such endpoint.
    :raises BadInputError: there are several, or the secret is not known here.
    """
    if secret_file is not None:
        return Webhook(name or DEFAULT_ENDPOINT, secret_file.read_text(encoding="utf-8").strip())
    place = directory(store)
    settings = load_settings(place)
    if remote and nothing_at(place, settings.places):
        raise BadInputError("with --url the webhook's secret is not known here: give it with --secret-file")
    known = webhook_endpoints(settings)
    chosen = name or (DEFAULT_ENDPOINT if DEFAULT_ENDPOINT in known else next(iter(known)) if len(known) == 1 else None)
    if chosen is None:
        raise BadInputError(f"there are several webhook endpoints: choose one with --endpoint {' | '.join(known)}")
    if chosen not in known:
        raise NotFoundError(f"there is no webhook endpoint {chosen!r}; there are {', '.join(known)}")
    return Webhook(chosen, known[chosen].secrets[0])


def built(
    type_: str,
    subject: Subject,
    account: str,
    data: str | None,
    content: str | None,
    *,
    event_id: str | None,
    time: str | None,
    concerns: Sequence[str],
) -> dict[str, Any]:
    """One CloudEvent out of options."""
    said = object_of(data, "--data") if data is not None else {}
    if content is not None:
        said["content"] = object_of(content, "--content")
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id or f"cli-{secrets.token_hex(8)}",
        "source": _SOURCE,
        "type": type_,
        "subject": str(subject),
        "account": account,
        "datacontenttype": "application/json",
        "data": said,
    }
    if time is not None:
        event["time"] = time
    if concerns:
        event["concerns"] = ",".join(concerns)
    return event


def object_of(text: str, where: str) -> dict[str, Any]:
    """A JSON object given as text, or as ``@FILE``.

    :raises BadInputError: it is none.
    """
    try:
        read = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        value = json.loads(read)
    except OSError as error:
        raise BadInputError(f"{where}: {text[1:]} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInputError(f'{where} is not JSON ({error}); quote it as \'{{"name": "value"}}\'') from None
    if not isinstance(value, dict):
        raise BadInputError(f'{where} must be a JSON object, as \'{{"name": "value"}}\'')
    return value


def read_text(file: Path | None, what: str) -> str:
    """All of a file; of stdin for ``-`` or ``None``.

    :raises BadInputError: there is nothing to read; the message says what to give.
    """
    if file is not None and str(file) != "-":
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if sys.stdin.isatty() and file is None:
        raise BadInputError(
            f"there is no {what}: name a FILE, pipe it in, or see --help for the options that build one"
        )
    return sys.stdin.read()


def read_events(file: Path | None) -> list[dict[str, Any]]:
    """CloudEvents in a file or on stdin: one object, an array, or one object a line.

    :raises BadInputError: it is none of that; the message names the line.
    """
    text = read_text(file, "event")
    if not text.strip():
        raise BadInputError(
            "there is no event to send: it is empty; send CloudEvents 1.0 JSON, or build one with --type"
        )
    try:
        value = json.loads(text)
    except ValueError:
        value = [_event_line(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    events = value if isinstance(value, list) else [value]
    if not events:
        raise BadInputError("there is no event to send: the array is empty")
    wrong = next((number for number, event in enumerate(events, 1) if not isinstance(event, dict)), None)
    if wrong is not None:
        raise BadInputError(f"event {wrong} is no JSON object: send CloudEvents 1.0 JSON")
    return events


def _event_line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise BadInputError(f"line {number} is not JSON ({error})") from None


class Delivery:
    """Sends events in order, in signed batches; ``where`` tells afterwards where they went."""

    def __init__(self, store: Path | None, url: str | None, webhook_: Webhook) -> None:
        self._store: Final = store
        self._url: Final = url
        self._webhook: Final = webhook_
        self.where = ""

    async def send(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """Each event's position, ``PARTITION:OFFSET``, once the log has them all.

        :raises HeadraceError: one was refused, or nothing answers; the message says how many are on the log.
        """
        positions: list[str] = []
        place = directory(self._store)
        made = self._url is None and nothing_at(place, load_settings(place).places)
        async with open_door(self._store, self._url, None, make=True) as door:
            self.where = door.where
            if made and door.where == IN_PROCESS:
                output.note(f"headrace: made a new store at {place}")
            for start in range(0, len(events), _AT_ONCE):
                try:
                    positions += await self._deliver(door, events[start : start + _AT_ONCE])
                except HeadraceError as error:
                    if start == 0:
                        raise
                    told = (
                        f"{error}; the first {start} of {len(events)} events are on the log, sending all again is safe"
                    )
                    raise type(error)(told) from error
        return positions

    async def _deliver(self, door: Door, batch: Sequence[Mapping[str, Any]]) -> list[str]:
        alone = len(batch) == 1
        raw = json.dumps(batch[0] if alone else list(batch), ensure_ascii=False).encode("utf-8", "surrogateescape")
        headers = sign(self._webhook.secret, f"msg_{secrets.token_hex(16)}", int(clock.time()), raw)
        headers["content-type"] = SINGLE[0] if alone else BATCH
        response = await door.ask("POST", f"{PATH}/{self._webhook.name}", content=raw, headers=headers)
        if not response.is_success:
            raise refused(response)
        return [f"{place['partition']}:{place['offset']}" for place in body(response)["positions"]]
