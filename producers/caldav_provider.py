"""CalDAV as a provider: a calendar on any server, read with a password. It notifies nobody, so it is polled."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headrace.errors import BadInputError
from headrace.producers.provider import Connected, Delivery, Received, Watch
from headrace.producers.provider_http import ProviderHttp
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
