"""What a message says, in plain text, from the MIME tree that Gmail shows (messages.get, ``format=full``)."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_MOST_CHARS: Final = 100_000
_MOST_PARTS: Final = 200
_PARTS_DEEP: Final = 20
_TAG: Final = re.compile(r"<(?:style|script)\b.*?</(?:style|script)\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_UNKEPT: Final = re.compile("[\0\ud800-\udfff]")


def plain_text(payload: Mapping[str, Any]) -> str | None:
    """The first ``text/plain`` part, else the first ``text/html`` one without its tags; at most 100,000 characters.

    Gmail gives the text of a part in UTF-8, whatever the message came in. Attachments are not looked at.
    """
    html: str | None = None
    for mime_type, data in _parts(payload, _PARTS_DEEP, [_MOST_PARTS]):
        if mime_type == "text/plain":
            return data
        if html is None:
            html = data
    return _TAG.sub(" ", html) if html is not None else None


def _parts(part: object, deep: int, left: list[int]) -> Iterator[tuple[str, str]]:
    """Texts in the order of the message; a part of another shape than Gmail's is passed over."""
    if not isinstance(part, Mapping) or not deep or not left[0]:
        return
    left[0] -= 1
    mime_type, body, parts = part.get("mimeType"), part.get("body"), part.get("parts")
    if mime_type in ("text/plain", "text/html") and not part.get("filename") and isinstance(body, Mapping):
        data = _decoded(body.get("data"))
        if data:
            yield str(mime_type), data
    if isinstance(parts, list):
        for one in parts:
            yield from _parts(one, deep - 1, left)


def _decoded(data: object) -> str | None:
    if not isinstance(data, str):
        return None
    try:
        raw = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
    except (ValueError, binascii.Error):
        return None
    return _UNKEPT.sub("\ufffd", raw.decode("utf-8", "replace"))[:_MOST_CHARS]
