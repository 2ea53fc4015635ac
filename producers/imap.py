"""IMAP: any mailbox (RFC 3501), read through IMAP and watched through a connection held open.

An IMAP server notifies nobody: :meth:`Imap.watch` gives no watch, and :meth:`Imap.watcher` what to hold instead.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from headrace.producers.imap_idle import ImapWatcher
from headrace.producers.imap_login import TIMEOUT_SECONDS, ImapSettings
from headrace.producers.imap_source import ImapSource
from headrace.producers.provider import Connected, Delivery, Received, Watch
from headrace.producers.provider_http import ProviderHttp, Tokens
from headrace.producers.refusal import RefusedError

NAME: Final = "imap"


class Imap:
    """The :class:`headrace.producers.provider.Provider`.

    ``indexes`` is a directory for what is kept between syncs, one file for each mailbox; without one, each source keeps
    it in memory while it lives. ``timeout_s`` is for connecting and for each wait for an answer.

    A connected source's settings are those of :meth:`headrace.producers.imap_login.ImapSettings.of`. Its ``Tokens``
    give the OAuth access token or, with ``auth=password``, the password, and raise ``GrantError`` when it is
    ``refused``.
    """

    def __init__(self, indexes: Path | None = None, *, timeout_s: float = TIMEOUT_SECONDS) -> None:
        self._indexes: Final = indexes
        self._timeout_s: Final = timeout_s

    @property
    def name(self) -> str:
        """See :class:`headrace.producers.provider.Provider`."""
        return NAME

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> ImapSource:
        """See :class:`headrace.producers.provider.Provider`. Of ``http`` only the tokens are used.

        :raises BadInputError: its settings cannot be used.
        """
        return self.mailbox(connected, http.tokens, pseudonym)

    def mailbox(self, connected: Connected, tokens: Tokens, pseudonym: Callable[[str], str]) -> ImapSource:
        """What reads a connected source.

        :raises BadInputError: its settings cannot be used.
        """
        settings = ImapSettings.of(connected.settings)
        file = None
        if self._indexes is not None:
            place = f"{connected.tenant}/{connected.account}/{connected.source}/{settings.address}"
            file = self._indexes / f"imap-{pseudonym(place)}.db"
        return ImapSource(settings, tokens, pseudonym, file=file, timeout_s=self._timeout_s)

    def watch(
        self,
        connected: Connected,
        http: ProviderHttp,  # noqa: ARG002 - nothing is asked
        address: str,  # noqa: ARG002
        last: Watch | None,  # noqa: ARG002
        now: int,  # noqa: ARG002
    ) -> Watch | None:
        """See :class:`headrace.producers.provider.Provider`: there is none.

        :raises BadInputError: its settings cannot be used.
        """
        ImapSettings.of(connected.settings)
        return None

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """See :class:`headrace.producers.provider.Provider`: there is nothing to end."""

    def watcher(self, connected: Connected, tokens: Tokens) -> ImapWatcher:
        """What holds a connection open and gives hints, which name the source.

        :raises BadInputError: its settings cannot be used.
        """
        return ImapWatcher(ImapSettings.of(connected.settings), tokens, connected.source)

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:  # noqa: ARG002
        """See :class:`headrace.producers.provider.Provider`: nobody has anything to deliver here.

        :raises RefusedError: always.
        """
        raise RefusedError("unknown_watch", "IMAP servers deliver no notifications: nothing is to be sent here")
