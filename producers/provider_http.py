"""A provider's HTTP API, asked with somebody's grant: what every provider's errors mean, in one place."""

import email.utils
import ipaddress
import json
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, Protocol

import httpx

from headrace.errors import BadInputError, UnavailableError

_TIMEOUT_SECONDS: Final = 30.0
_MOST_BYTES: Final = 64 * 1024 * 1024
DEFAULT_RETRY_SECONDS: Final = 1.0
MOST_RETRY_SECONDS: Final = 3_600.0
_PACKING: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def hush(*loggers: str) -> None:
    """Libraries write addresses, and what servers answer, to their loggers: these say only what goes wrong now."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)


hush("httpx", "httpcore")  # the address of a Google calendar has somebody's e-mail address in it


class ThrottledError(UnavailableError):
    """The provider wants to be left alone for ``retry_after`` seconds (429, or 503 that says when)."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after: Final = retry_after


class GrantError(BadInputError):
    """The person's grant is gone or too small: only connecting the source again helps."""


class StatusError(BadInputError):
    """An answer that the provider's module has to make sense of: 404, 409, 410 and the like. ``headers`` by name in
    lower case."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str], message: str) -> None:
        super().__init__(message)
        self.status: Final = status
        self.body: Final = body
        self.headers: Final = headers


class Tokens(Protocol):
    """Access tokens of one connected source."""

    def access(self, *, refused: str | None = None) -> str:
        """A token that should work now; never ``refused``, the one that the provider has just turned down.

        :raises GrantError: the grant is gone.
        :raises UnavailableError: no new one can be had now.
        """
        ...


class ProviderHttp:
    """Asks one provider with one source's tokens. Not for several threads at once; close it when done."""

    def __init__(
        self,
        base_url: str,
        tokens: Tokens,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens: Final = tokens
        self._clock: Final = clock
        self._client: Final = httpx.Client(
            base_url=base_url, transport=transport, timeout=timeout_s, follow_redirects=False
        )

    @property
    def tokens(self) -> Tokens:
        """The source's tokens, for a provider that speaks something else than HTTP as well."""
        return self._tokens

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def __enter__(self) -> "ProviderHttp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The JSON object that the provider answers, empty for none. ``url`` is a path below the base, or a whole URL
        on the same host (the next page's).

        :raises ThrottledError: 429, or 503 with ``Retry-After``.
        :raises UnavailableError: no answer, another 5xx, or one that is no JSON object.
        :raises GrantError: 401 with a fresh token, too.
        :raises StatusError: any other answer that is not 2xx.
        """
        token = self._tokens.access()
        request = self._client.build_request(method, url, params=params, json=body, headers=headers)
        here = self._client.base_url
        if (request.url.scheme, request.url.netloc) != (here.scheme, here.netloc):
            raise BadInputError(
                f"{self._host} names a page on another host, and its token goes nowhere else: report it"
            )
        answer = self._send(request, token)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            answer = self._send(request, self._tokens.access(refused=token))
        return self._read(answer)

    @property
    def _host(self) -> str:
        return self._client.base_url.host

    def _send(self, request: httpx.Request, token: str) -> httpx.Response:
        request.headers["Authorization"] = f"Bearer {token}"
        try:
            with self._streamed(request) as answer:
                read = bytearray()
                for part in answer.iter_bytes():
                    read += part
                    if len(read) > _MOST_BYTES:
                        raise UnavailableError(f"{self._host} answers with more than {_MOST_BYTES} bytes; ask for less")
                kept = [(name, value) for name, value in answer.headers.multi_items() if name not in _PACKING]
                return httpx.Response(answer.status_code, headers=kept, content=bytes(read))
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"{self._host} does not answer ({type(error).__name__}: {error}); it is asked again later"
            ) from None

    @contextmanager
    def _streamed(self, request: httpx.Request) -> Generator[httpx.Response]:
        answer = self._client.send(request, stream=True)
        try:
            yield answer
        finally:
            answer.close()

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        status = answer.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            raise GrantError(f"{self._host} turns the grant down; connect the source again")
        retry_after = self._retry_after(answer.headers.get("retry-after"))
        asks_to_wait = status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after is not None
        if status == HTTPStatus.TOO_MANY_REQUESTS or asks_to_wait:
            seconds = retry_after if retry_after is not None else DEFAULT_RETRY_SECONDS
            raise ThrottledError(f"{self._host} wants to be left alone for {seconds:g} s ({status})", seconds)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(f"{self._host} failed ({status}); it is asked again later")
        try:
            said = json.loads(answer.content) if answer.content else {}
        except ValueError:
            said = None
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            given = said if isinstance(said, dict) else {}
            raise StatusError(status, given, dict(answer.headers), f"{self._host} answers {status}")
        if not isinstance(said, dict):
            raise UnavailableError(f"{self._host} answers with something else than a JSON object; it is asked again")
        return said

    def _retry_after(self, text: str | None) -> float | None:
        """``Retry-After`` (RFC 9110, section 10.2.3) in seconds: a number, or a date."""
        if text is None:
            return None
        if text.isascii() and text.isdigit():
            return min(float(text[:10]), MOST_RETRY_SECONDS)
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        return min(max(0.0, moment.timestamp() - self._clock()), MOST_RETRY_SECONDS)


def is_here(host: str) -> bool:
    """Whether a host is this very machine, so that nobody listens in on what is sent there in clear."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
