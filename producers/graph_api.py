"""Microsoft Graph v1.0, as far as a mailbox and a calendar are followed with it: requests, and answers read strictly.

What an answer lacks is an UnavailableError that names the field: nothing is guessed, and the cursor stays. Links to the
next page and to the next round (``@odata.nextLink``, ``@odata.deltaLink``) are opaque and kept whole
(https://learn.microsoft.com/graph/delta-query-overview); ProviderHttp follows none to another host.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.answers import Answers
from headrace.producers.provider_http import GrantError, ProviderHttp, StatusError

BASE_URL: Final = "https://graph.microsoft.com/v1.0/"
IMMUTABLE: Final = 'IdType="ImmutableId"'
"""Asked with every request (https://learn.microsoft.com/graph/outlook-immutable-id): an id that lasts when an item
moves."""
PAGE: Final = 500
"""How many items a page should have (Outlook gives 1,000 at the most)."""
_LOST: Final = frozenset({"syncstatenotfound", "syncstateinvalid", "resyncrequired"})
"""Codes of a 40X that mean 410 (https://learn.microsoft.com/graph/delta-query-overview, synchronization reset)."""
_NO_MAILBOX: Final = frozenset({"mailboxnotenabledforrestapi", "mailboxnotsupportedforrestapi"})
GRAPH: Final = Answers("Graph", ids=re.compile(r"[A-Za-z0-9_=+/-]{1,180}"))
_MOST_PAGES: Final = 20_000
_MOST_LINK_CHARS: Final = 16_384


class SyncStateLostError(Exception):
    """Graph no longer knows a delta link: everything has to be compared. Never leaves a source."""


class Page(NamedTuple):
    """Items of a page; ``link`` is where the next round begins, on the last page of a delta round only."""

    items: list[Mapping[str, Any]]
    link: str | None


class GraphApi:
    """Graph, with somebody's grant.

    Every method raises UnavailableError (ThrottledError among them) where asking again later may work, and
    BadInputError (GrantError among them) where a person must act; a StatusError is left to whoever asked.
    """

    def __init__(self, http: ProviderHttp) -> None:
        self._http: Final = http

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, prefer: str = "") -> dict[str, Any]:
        """One resource."""
        return self.ask("GET", path, params=params, prefer=prefer)

    def found(self, path: str, params: Mapping[str, Any] | None = None, *, prefer: str = "") -> dict[str, Any] | None:
        """One resource, ``None`` where there is none (any more)."""
        try:
            return self.get(path, params, prefer=prefer)
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        prefer: str = "",
    ) -> dict[str, Any]:
        """What is answered; ``prefer`` is asked for besides immutable ids (RFC 7240)."""
        wanted = f"{IMMUTABLE}, {prefer}" if prefer else IMMUTABLE
        try:
            return self._http.ask(method, path, params=params, body=body, headers={"Prefer": wanted})
        except StatusError as error:
            raise _meaning(error) from None

    def listed(self, path: str, params: Mapping[str, Any], *, prefer: str = "") -> Iterator[Mapping[str, Any]]:
        """All items of a collection, page after page."""
        for page in self._pages(path, params, prefer, delta=False):
            yield from page.items

    def delta(self, path: str, params: Mapping[str, Any], *, prefer: str = "") -> Iterator[Page]:
        """A first round: everything there is.

        Pages of the round that Graph forgets meanwhile are an UnavailableError: it begins anew.
        """
        try:
            yield from self._pages(path, params, prefer, delta=True)
        except SyncStateLostError:
            raise UnavailableError("Graph has forgotten the page that it named; the sync begins anew") from None

    def since(self, link: str, *, prefer: str = "") -> Iterator[Page]:
        """A later round: what changed since.

        :raises SyncStateLostError: Graph cannot say.
        """
        return self._pages(link, None, prefer, delta=True)

    def _pages(self, url: str, params: Mapping[str, Any] | None, prefer: str, *, delta: bool) -> Iterator[Page]:
        prefer = ", ".join(filter(None, (f"odata.maxpagesize={PAGE}", prefer)))
        seen: set[str] = set()
        while True:
            try:
                said = self.get(url, params, prefer=prefer)
            except StatusError as error:
                if delta and _is_lost(error):
                    raise SyncStateLostError from None
                if not delta and seen and error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.GONE):
                    raise UnavailableError(
                        "Graph no longer takes the page that it named; the sync begins anew"
                    ) from None
                raise
            found = [GRAPH.mapping(one) for one in GRAPH.items(said, "value")]
            following = _link(said, "@odata.nextLink")
            if following is None:
                end = _link(said, "@odata.deltaLink") if delta else None
                if delta and end is None:
                    raise GRAPH.unusable("@odata.deltaLink")
                yield Page(found, end)
                return
            if following in seen or len(seen) > _MOST_PAGES:
                raise UnavailableError("Graph names the same page again; the sync begins anew")
            seen.add(following)
            yield Page(found, None)
            url, params = following, None


def _is_lost(error: StatusError) -> bool:
    return error.status == HTTPStatus.GONE or (
        HTTPStatus.BAD_REQUEST <= error.status < HTTPStatus.INTERNAL_SERVER_ERROR and code(error.body) in _LOST
    )


def _meaning(error: StatusError) -> BadInputError:
    said = code(error.body)
    if said in _NO_MAILBOX:
        return BadInputError("this person has no mailbox at Exchange Online that Graph can read; connect another one")
    if error.status == HTTPStatus.FORBIDDEN:
        return GrantError(
            "Graph says that the grant does not cover this; connect the source again with the permissions it needs,"
            " and ask an administrator to allow the app"
        )
    return error


def code(body: Mapping[str, Any]) -> str:
    """``error.code`` in lower case, empty where there is none: Graph's services spell it differently."""
    error = body.get("error")
    said = error.get("code") if isinstance(error, dict) else None
    return said.lower() if isinstance(said, str) else ""


def segment(name: str) -> str:
    """An id or name as a part of a path."""
    return quote(name, safe="=")


def literal(value: str) -> str:
    """Text in a ``$filter`` (OData 4.01 ABNF: quotes are doubled)."""
    return "'" + value.replace("'", "''") + "'"


def _link(said: Mapping[str, Any], field: str) -> str | None:
    if said.get(field) is None:
        return None
    link = said[field]
    if not isinstance(link, str) or not link.startswith(("https://", "http://")) or len(link) > _MOST_LINK_CHARS:
        raise GRAPH.unusable(field)
    return link


# Answers, read


def text(said: Mapping[str, Any], field: str) -> str | None:
    """Text, ``None`` where there is none; it may be empty."""
    return GRAPH.optional_text(said, field, empty=True)


def yes(said: Mapping[str, Any], field: str, default: bool = False) -> bool:
    """A boolean; one sample of the documentation has it as text (delta-query-messages)."""
    found = said.get(field)
    if isinstance(found, bool):
        return found
    if found is not None and found not in ("true", "false"):
        raise GRAPH.unusable(field)
    return default if found is None else found == "true"


def moment(said: Mapping[str, Any], field: str) -> int | None:
    """An Edm.DateTimeOffset in epoch milliseconds UTC."""
    found = text(said, field)
    if found is None:
        return None
    try:
        when = datetime.fromisoformat(found)
        return round(when.timestamp() * 1000) if when.tzinfo is not None and when.year > 1 else None
    except (ValueError, OverflowError):
        raise GRAPH.unusable(field) from None


def address(said: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """A recipient's address in lower case, and as a person reads it."""
    person = GRAPH.optional(said, "emailAddress")
    name, at = text(person, "name"), text(person, "address")
    at = at.strip() if at is not None else None
    shown = f"{name} <{at}>" if name and at and name != at else at or name
    return (at.lower() if at else None), (shown or None)
