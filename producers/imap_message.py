"""What a mail header says (RFC 5322), read so that no message, however broken, stops anything."""

import email
import email.policy
import hashlib
import re
from collections.abc import Iterable
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import HeaderParser
from email.utils import getaddresses
from typing import Final, NamedTuple

from headrace.producers.imap_connection import Header

MOST_NAMED: Final = 32
_MOST_CHARS: Final = 100_000
_MOST_ADDRESSES: Final = 500
_MOST_ADDRESS_CHARS: Final = 8_000
_MOST_PARTS: Final = 200
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]{1,900}>")
_UNKEPT: Final = re.compile("[\0\ud800-\udfff]")
_TAG: Final = re.compile(r"<(?:style|script)\b.*?</(?:style|script)\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


class Mail(NamedTuple):
    """A message as its header names it.

    ``key`` is its Message-ID, or, where it has none, what stays the same of it wherever it is moved. ``names`` are the
    messages that it answers, nearest first; the last of them began the conversation.
    """

    key: str
    names: tuple[str, ...]
    answered: str | None
    senders: tuple[str, ...]
    recipients: tuple[str, ...]
    subject: str | None
    sender: str | None
    recipient_lines: tuple[str, ...]


def mail_of(header: Header) -> Mail:
    """Read a header."""
    fields = _fields(header.text)
    first = _MESSAGE_ID.search(fields.get("message-id", ""))
    said = fields.get("message-id", "").strip()
    key = first.group() if first else said[:900] or _likeness(fields, header.size)
    direct = _MESSAGE_ID.findall(fields.get("in-reply-to", ""))
    references = _MESSAGE_ID.findall(fields.get("references", ""))
    if len(references) > MOST_NAMED:
        references = [references[0], *references[1 - MOST_NAMED :]]
    names = [*direct[:1], *reversed(references)]
    return Mail(
        key,
        tuple(one for one in dict.fromkeys(names) if one != key),
        direct[0] if direct else references[-1] if references else None,
        _addresses(fields, "from"),
        _addresses(fields, "to", "cc", "bcc"),
        readable(fields["subject"]) if "subject" in fields else None,
        readable(fields["from"]) if "from" in fields else None,
        tuple(readable(fields[name]) for name in ("to", "cc", "bcc") if name in fields),
    )


def text_of(raw: bytes) -> str | None:
    """The first ``text/plain`` part, else the first ``text/html`` one without its tags; at most 100,000 characters.
    ``raw`` may be cut off anywhere."""
    try:
        html: str | None = None
        for number, part in enumerate(email.message_from_bytes(raw, policy=email.policy.compat32).walk()):
            if number >= _MOST_PARTS:
                break
            kind = part.get_content_type()
            if kind not in {"text/plain", "text/html"} or part.get_filename() is not None:
                continue
            said = _decoded(part)
            if kind == "text/plain" and said:
                return said
            html = html or said
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError, IndexError):
        return None  # the standard library's parser is not made for whatever people send
    return _TAG.sub(" ", html) if html else None


def readable(text: str) -> str:
    """A header as a person reads it: encoded words (RFC 2047) in clear, where they can be."""
    if "=?" not in text:
        return text
    try:
        return _UNKEPT.sub("\ufffd", str(make_header(decode_header(text))))
    except (HeaderParseError, LookupError, ValueError, TypeError, AssertionError):
        return text


def _decoded(part: "Message[str, str]") -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        said = payload.decode(part.get_content_charset() or "utf-8", "replace")
    except (LookupError, ValueError):
        said = payload.decode("utf-8", "replace")
    return _UNKEPT.sub("\ufffd", said)[:_MOST_CHARS]


def _fields(raw: bytes) -> dict[str, str]:
    """Unfolded, by name in lower case; of a field that stands there twice the first, as mail programs do."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    found: dict[str, str] = {}
    for name, value in HeaderParser(policy=email.policy.compat32).parsestr(_UNKEPT.sub("\ufffd", text)).items():
        found.setdefault(name.lower(), re.sub(r"\r?\n(?=[ \t])|[\r\n]+", " ", str(value)).strip())
    return found


def _likeness(fields: dict[str, str], size: int) -> str:
    """Of a message without Message-ID: two that are alike in all of this count as one."""
    parts = [fields.get(name, "") for name in ("date", "from", "to", "cc", "subject")]
    return "none:" + hashlib.sha256("\n".join([*parts, str(size)]).encode()).hexdigest()


def _addresses(fields: dict[str, str], *names: str) -> tuple[str, ...]:
    said = [fields[name][:_MOST_ADDRESS_CHARS] for name in names if name in fields]
    return tuple(dict.fromkeys(address.strip().lower() for address in _parsed(said) if address.strip()))


def _parsed(said: list[str]) -> Iterable[str]:
    try:
        return [address for _, address in getaddresses(said)][:_MOST_ADDRESSES]
    except (RecursionError, ValueError, IndexError, TypeError):
        return re.findall(r"[^\s<>()\",;:]+@[^\s<>()\",;:]+", " ".join(said))[:_MOST_ADDRESSES]
