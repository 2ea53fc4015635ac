"""CalDAV as a provider: a calendar on any server, read with a password. It notifies nobody, so it is polled."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from headrace.errors import BadInputError
from headrace.producers.provider import Connected, Delivery, Received, Watch
from headrace.producers.provider_http import ProviderHttp, is_here
from headrace.producers.refusal import RefusedError

if TYPE_CHECKING:
    from headrace.producers.caldav import CaldavSource

NAME: Final = "caldav"


class Caldav:
    """The :class:`headrace.producers.provider.Provider`. A connected source's settings: ``url`` of the server,
    ``username``, and ``calendar``: its URL, its path, or its display name. Its grant is the password."""

    @property
    def name(self) -> str:
        """See :class:`headrace.producers.provider.Provider`."""
        return NAME

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> "CaldavSource":
        """See :class:`headrace.producers.provider.Provider`. Of ``http`` only the password is used.

        :raises BadInputError: its settings cannot be used.
        """
        # The library takes half a second to import, which who has no such source should not pay.
        from headrace.producers.caldav import CaldavSource  # noqa: PLC0415

        missing = [name for name in ("url", "username", "calendar") if not connected.settings.get(name)]
        if missing:
            raise BadInputError(f"a CalDAV source needs {', '.join(missing)}: connect it again with that")
        url, username, calendar = (connected.settings[name] for name in ("url", "username", "calendar"))
        _refuse_clear(url)
        return CaldavSource(url, username, http.tokens.access(), calendar, pseudonym=pseudonym)

    def watch(
        self,
        connected: Connected,
        http: ProviderHttp,
        address: str,
        last: Watch | None,
        now: int,
    ) -> None:
        """See :class:`headrace.producers.provider.Provider`."""

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """See :class:`headrace.producers.provider.Provider`: there is nothing to end."""

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:  # noqa: ARG002
        """See :class:`headrace.producers.provider.Provider`.

        :raises RefusedError: always.
        """
        raise RefusedError("not_notification", "CalDAV has no notifications: nothing is taken here")


def _refuse_clear(url: str) -> None:
    """Every request carries the password.

    :raises BadInputError: the address is none, or would show it to the network.
    """
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError:
        scheme, host = "", None
    if not host or scheme not in ("http", "https"):
        raise BadInputError("url of a CalDAV source is an address that begins with https://; correct its settings")
    if scheme == "http" and not is_here(host):
        raise BadInputError("http:// shows the password to the network: give the CalDAV server's https:// address")
