"""A delivery as HTTP brings it: how much of it is read, what it says it is, and how it is packed."""

import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect

from headrace.producers.cloud_events import MAX_EVENTS
from headrace.producers.refusal import RefusedError

MEBIBYTE: Final = 1024 * 1024
SINGLE: Final = ("application/cloudevents+json", "application/json")
"""Content types of one event."""
BATCH: Final = "application/cloudevents-batch+json"
"""Content type of an array of events."""
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Of zlib, for the gzip (RFC 1952) and zlib (RFC 1950) formats (RFC 9110 §8.4.1)."""

RawHeaders = Iterable[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""


class Limits(NamedTuple):
    """What one delivery may cost: bytes as sent and decompressed, events, seconds until the body is in, and how many
    deliveries wait for the log at once (each holds a thread)."""

    body: int = MEBIBYTE
    decompressed: int = MEBIBYTE
    events: int = MAX_EVENTS
    seconds: float = 30.0
    waiting: int = 64


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body's bytes as they were sent; never more of them in memory than may be sent.

    :raises RefusedError: ``too_large``, by its stated length or while it comes; ``slow_body``; ``incomplete_body``.
    """
    limit = limits.body
    too_large = RefusedError("too_large", f"a body may have {limit} bytes: send fewer events at once")
    stated = _values(request.scope["headers"], b"content-length")
    if any(length.isascii() and length.isdigit() and int(length[:20]) > limit for length in stated):
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(limits.seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                body += chunk
    except TimeoutError:
        raise RefusedError("slow_body", f"the body took more than {limits.seconds:g} s: send it at once") from None
    except ClientDisconnect:
        raise RefusedError("incomplete_body", "the connection ended before the body did: send it again") from None
    return bytes(body)


def is_batch(headers: RawHeaders) -> bool:
    """Whether the content type is the batch's.

    :raises RefusedError: ``content_type``: none, several, another one, or another charset than UTF-8.
    """
    stated = _values(headers, b"content-type")
    media_type, _, parameters = (stated[0] if len(stated) == 1 else "").lower().partition(";")
    named = (parameter.partition("=") for parameter in parameters.split(";"))
    charsets = {value.strip(' "') for name, _, value in named if name.strip() == "charset"}
    media_type = media_type.strip()
    if media_type not in (*SINGLE, BATCH) or not charsets <= {"utf-8"}:
        raise RefusedError("content_type", f"send {SINGLE[0]}, or {BATCH} for several events, in UTF-8")
    return media_type == BATCH


def content_encoding(headers: RawHeaders) -> str | None:
    """The one content encoding, ``None`` for none.

    :raises RefusedError: ``content_encoding``: another one, or several.
    """
    stated = ", ".join(_values(headers, b"content-encoding")).lower()
    if stated in ("", "identity"):
        return None
    if stated not in _WINDOW_BITS:
        raise RefusedError("content_encoding", "send the body as it is, or with gzip or deflate, once")
    return stated


def decompressed(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The body without its encoding, at most ``limit`` bytes: of a bomb, one byte more than that is unpacked.

    :raises RefusedError: ``expands_too_far``, or ``not_compressed``.
    """
    plain, whole = body, True
    if encoding is not None:
        inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            plain = inflater.decompress(body, limit + 1)
        except zlib.error:
            plain = b""
        whole = inflater.eof and not inflater.unused_data
    if len(plain) > limit:
        raise RefusedError("expands_too_far", f"a body may have {limit} bytes decompressed: send fewer events at once")
    if not whole:
        raise RefusedError(
            "not_compressed", f"the body is not one whole {encoding} stream: compress it once, then sign"
        )
    return plain


def _values(headers: RawHeaders, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for found, value in headers if found == name]
