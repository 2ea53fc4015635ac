"""A calendar collection as WebDAV shows it: which members it has, which of them changed, and their text.

HTTP, authentication, redirects and XML parsing are the ``caldav`` library's. The REPORTs themselves are written and
read here: its ``get_objects_by_sync_token`` rewrites hrefs on the way (a member named ``a%40b`` becomes another one),
answers a refused token by fetching everything, and goes on with half a listing where a server cuts it short.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit
from xml.etree import ElementTree

from caldav.davclient import DAVClient
from caldav.lib import error

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.provider_http import DEFAULT_RETRY_SECONDS, MOST_RETRY_SECONDS, ThrottledError, hush

_DAV: Final = "{DAV:}"
_CALDAV: Final = "{urn:ietf:params:xml:ns:caldav}"
_BATCH: Final = 50
_MAX_PAGES: Final = 10_000
_GONE: Final = frozenset({404, 410})
_LATER: Final = frozenset({408, 423, 425, 429})
_NOT_IMPLEMENTED: Final = 501
_TRUNCATED: Final = 507

hush("caldav", "niquests", "urllib3", "urllib3_future")


class Member(NamedTuple):
    """A resource of the collection: its address as the server writes it, and its version."""

    href: str
    etag: str | None


class Listing(NamedTuple):
    """Members, and members that are gone, by canonical path; ``token`` is where the next listing goes on, ``None``
    where the server keeps no such thing."""

    members: dict[str, Member]
    gone: frozenset[str]
    token: str | None


class Resource(NamedTuple):
    """A member's text and the version of just that text."""

    etag: str | None
    text: str


class _Reply(NamedTuple):
    status: int
    root: Any  # an lxml element, or None where the body was no XML
    text: str = ""
    etag: str | None = None


class _Page(NamedTuple):
    members: dict[str, Member]
    gone: set[str]
    token: str | None
    truncated: bool


def canonical_path(href: str, folder: str = "/") -> str:
    """The path of ``href``, which stands in ``folder`` if it is relative, escaped in one way only.

    The same member may be written with other escapes, with a doubled slash or as a whole URL (RFC 3986 §6.2.2).
    """
    if href.startswith("/"):
        path = href.partition("?")[0].partition("#")[0]
    elif "://" in href:
        path = urlsplit(href).path
    else:
        path = f"{folder}/{href}"
    segments = [quote(unquote_to_bytes(segment), safe="") for segment in path.split("/") if segment]
    return "/" + "/".join(segments) + ("/" if segments and path.endswith("/") else "")


def canonical_url(url: str) -> str:
    """A collection's URL without credentials, query or default port, and with one slash at its end."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in {None, default} else f":{parts.port}"
    return urlunsplit((parts.scheme, host + port, canonical_path(parts.path.rstrip("/") + "/"), "", ""))


@contextmanager
def answering(host: str) -> Generator[None]:
    """Turn what the library raises while it talks to ``host`` into our errors, without quoting anything."""
    try:
        yield
    except error.AuthorizationError as refusal:
        if refusal.status == 401:
            raise BadInputError(f"{host} refuses the user name or the password (401): correct them") from None
        raise BadInputError(f"{host} does not let this user read the calendar (403): ask for access") from None
    except error.NotFoundError:
        raise BadInputError(f"{host} has no calendar at this address (404): correct the URL") from None
    except error.RateLimitError as refusal:
        seconds = min(refusal.retry_after_seconds or DEFAULT_RETRY_SECONDS, MOST_RETRY_SECONDS)
        raise ThrottledError(f"{host} wants to be left alone for {seconds:g} s", seconds) from None
    except OverflowError:  # the library's, of a Retry-After with hundreds of digits
        raise ThrottledError(f"{host} wants to be left alone", MOST_RETRY_SECONDS) from None
    except error.DAVError as failure:
        if failure.status is not None and failure.status < 500:
            raise BadInputError(
                f"{host} does not answer like a CalDAV server ({failure.status}): check the URL"
            ) from None
        raise UnavailableError(f"{host} cannot answer now: try again later") from None
    except NotImplementedError:
        raise BadInputError(
            f"{host} asks for a login other than Basic, Digest or Bearer: use another address"
        ) from None
    except SyntaxError:  # lxml's XMLSyntaxError is one
        raise BadInputError(f"{host} does not answer in XML: check that the URL is a CalDAV address") from None
    except OSError as failure:
        raise UnavailableError(f"{host} cannot be reached ({type(failure).__name__}): try again later") from None


class CalendarCollection:
    """One calendar (RFC 4791 §4.2) on the connection of ``client``."""

    def __init__(self, client: DAVClient, url: str) -> None:
        self._client = client
        self._url = url
        self._path = urlsplit(url).path
        self._host = urlsplit(url).hostname or url

    def since(self, token: str) -> Listing | None:
        """What changed since ``token`` (RFC 6578 §3.2); ``None`` when the server refuses to go on from it.

        A refusal is 403 or 409 with ``DAV:valid-sync-token``, but servers vary in both status and body. So any
        refusal counts: should it mean something else, listing everything will meet it again.
        """
        listing, cut = self._listed(token)
        return None if cut or listing is None or listing.token is None else listing

    def everything(self) -> Listing:
        """All members, with a token to go on from where the server supports RFC 6578."""
        listing, cut = self._listed("")
        if cut:
            raise BadInputError(
                f"{self._host} lists only a part of the calendar and does not go on: raise its limit on results"
            )
        if listing is not None and listing.token is not None:
            return listing
        root = _multistatus(self._send("PROPFIND", _propfind(), depth=1), self._host)
        if root.find(f"{_DAV}response") is None:
            # RFC 4918 §9.1: the collection itself is among the answers. An empty calendar is not to be made of nothing.
            raise BadInputError(f"{self._host} answers nothing about the calendar: check the URL")
        return Listing(self._page(root).members, frozenset(), None)

    def fetch(self, members: Mapping[str, Member]) -> dict[str, Resource | None]:
        """The text of each of ``members`` (RFC 4791 §7.9); ``None`` for one that is gone by now."""
        found: dict[str, Resource | None] = {}
        paths = list(members)
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            found.update(self._multiget([members[path].href for path in batch]))
            for path in batch:
                # Left out of the answer, or in an answer that is too large for the XML parser.
                if path not in found:
                    found[path] = self._get(path)
        return {path: found[path] for path in paths}

    def _listed(self, token: str) -> tuple[Listing | None, bool]:
        """The listing (``None``: refused), and whether the server cut it short without going on."""
        members: dict[str, Member] = {}
        gone: set[str] = set()
        initial, truncated, position = not token, False, token
        for _ in range(_MAX_PAGES):
            reply = self._send("REPORT", _sync_collection(position), depth=0)
            if reply.status != 207 or reply.root is None:
                return None, False
            page = self._page(reply.root)
            for path in page.gone:
                members.pop(path, None)
            gone = (gone | page.gone) - page.members.keys()
            members.update(page.members)
            # RFC 6578 §3.6: a truncated answer's token is where the rest goes on. One server's skips the rest.
            stuck = page.truncated and page.token in {None, position}
            skipped = initial and truncated and not page.truncated and not page.members and not page.gone
            if stuck or skipped:
                return None, True
            if not page.truncated:
                return Listing(members, frozenset(gone), page.token), False
            truncated, position = True, page.token or ""
        raise UnavailableError(f"{self._host} does not come to the end of its list: try again later")

    def _page(self, root: Any) -> _Page:
        members: dict[str, Member] = {}
        gone: set[str] = set()
        truncated = False
        for response in root.iterfind(f"{_DAV}response"):
            href = (response.findtext(f"{_DAV}href") or "").strip()
            path = canonical_path(href, self._path)
            status = _status(response)
            if status == _TRUNCATED:
                truncated = True
            elif path.rstrip("/") == self._path.rstrip("/") or path.endswith("/"):
                continue  # the collection itself, or one inside it
            elif status in _GONE:
                gone.add(path)
            else:
                members[path] = Member(href, _text(response, f"{_DAV}getetag"))
        # Where one answer has both, the version is the younger news: a member that is gone has none.
        return _Page(
            members, gone - members.keys(), (root.findtext(f"{_DAV}sync-token") or "").strip() or None, truncated
        )

    def _multiget(self, hrefs: Sequence[str]) -> dict[str, Resource | None]:
        reply = self._send("REPORT", _calendar_multiget(hrefs), depth=None)
        found: dict[str, Resource | None] = {}
        if reply.status != 207 or reply.root is None:
            return found
        for response in reply.root.iterfind(f"{_DAV}response"):
            path = canonical_path((response.findtext(f"{_DAV}href") or "").strip(), self._path)
            text = _text(response, f"{_CALDAV}calendar-data")
            if _status(response) in _GONE:
                found[path] = None
            elif text is not None:
                found[path] = Resource(_text(response, f"{_DAV}getetag"), text)
        return found

    def _get(self, path: str) -> Resource | None:
        reply = self._send("GET", None, depth=None, path=path)
        if reply.status in _GONE:
            return None
        return Resource(reply.etag, reply.text if reply.status == 200 else "")

    def _send(
        self, method: str, body: ElementTree.Element | None, depth: int | None, path: str | None = None
    ) -> _Reply:
        url = self._url if path is None else urlunsplit((*urlsplit(self._url)[:2], path, "", ""))
        text = "" if body is None else ElementTree.tostring(body, encoding="unicode", xml_declaration=False)
        headers = {} if depth is None else {"Depth": str(depth)}
        with answering(self._host):
            try:
                response = self._client.request(url, method, text, headers)
            except error.AuthorizationError as refusal:
                # Of a REPORT it may mean a stale token (RFC 6578 §3.2) or a report that the server does not have
                # (RFC 3253 §3.1.5); of a GET, one member that only others may read.
                if refusal.status == 403 and method != "PROPFIND":
                    return _Reply(403, None)
                raise
            except SyntaxError:
                return _Reply(0, None)
        if response.status in _LATER or (response.status >= 500 and response.status != _NOT_IMPLEMENTED):
            raise UnavailableError(f"{self._host} cannot answer now ({response.status}): try again later")
        return _Reply(
            response.status, response.tree, response.raw if method == "GET" else "", response.headers.get("ETag")
        )


def _multistatus(reply: _Reply, host: str) -> Any:
    if reply.status in _GONE:
        raise BadInputError(f"{host} has no calendar at this address ({reply.status}): correct the URL")
    if reply.status != 207 or reply.root is None:
        raise BadInputError(f"{host} does not answer like a CalDAV server ({reply.status}): check the URL")
    return reply.root


def _status(response: Any) -> int | None:
    """RFC 4918 §14.24: a status of the member itself, not of one of its properties."""
    words = (response.findtext(f"{_DAV}status") or "").split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _text(response: Any, name: str) -> str | None:
    text: str | None = response.findtext(f"{_DAV}propstat/{_DAV}prop/{name}")
    return (text.strip() or None) if text is not None else None


def _element(name: str, *children: ElementTree.Element, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.Element(name)
    element.text = text
    element.extend(children)
    return element


def _prop(*names: str) -> ElementTree.Element:
    return _element(f"{_DAV}prop", *(_element(name) for name in names))


def _sync_collection(token: str) -> ElementTree.Element:
    return _element(
        f"{_DAV}sync-collection",
        _element(f"{_DAV}sync-token", text=token),
        _element(f"{_DAV}sync-level", text="1"),
        _prop(f"{_DAV}getetag"),
    )


def _propfind() -> ElementTree.Element:
    return _element(f"{_DAV}propfind", _prop(f"{_DAV}getetag"))


def _calendar_multiget(hrefs: Sequence[str]) -> ElementTree.Element:
    return _element(
        f"{_CALDAV}calendar-multiget",
        _prop(f"{_DAV}getetag", f"{_CALDAV}calendar-data"),
        *(_element(f"{_DAV}href", text=href) for href in hrefs),
    )
