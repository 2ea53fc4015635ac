"""A provider of one's own, in one module: a bank's export, a folder into which each booking is put as a JSON file.

.. code-block:: toml

    [providers.bank_folder]               # headrace.toml
    root = "/var/spool/bank"              # only folders below it can be connected; relative to the store's directory

``headrace source add bank_folder --account ann --set folder=ann`` connects one. A booking's file is named by its
number, so that names grow: ``000041.json`` holds ``{"account": "a-1", "type": "account.adjusted", "amount": 50}``. A
folder notifies nobody, so it is looked at every five minutes.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.event import Changes, Known, NewEvent
from headrace.producers.provider import Connected, Delivery, Received, Watch
from headrace.producers.provider_http import ProviderHttp
from headrace.producers.refusal import RefusedError
from headrace.producers.source_syncs import ProviderSetup
from headrace_account.kind import KIND

NAME: Final = "bank_folder"
_AT_ONCE: Final = 500
_FIELDS: Final = {"account.opened": "balance", "account.adjusted": "amount"}


class BankFolderSource:
    """The :class:`headrace.producers.event.Source` of one folder. The cursor is the name of the last file."""

    feeds = (KIND.name,)

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:  # noqa: ARG002 - a booking is never undone
        """See :class:`headrace.producers.event.Source`."""
        try:
            names = iter(sorted(file.name for file in self._folder.glob("*.json") if file.name > (cursor or "")))
        except OSError as error:
            raise UnavailableError(f"the folder of bookings cannot be read ({error.strerror})") from error
        full = cursor is None
        page = list(islice(names, _AT_ONCE))
        while True:
            following = list(islice(names, _AT_ONCE))
            events = tuple(_booking(self._folder / name) for name in page)
            cursor = page[-1] if page else cursor
            yield Changes(events, cursor or "", full, more=bool(following))
            if not following:
                return
            page = following


def _booking(file: Path) -> NewEvent:
    """The event of a file. Its id is the file's name: told again, it has no second effect."""
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
        type_, account = said["type"], said["account"]
        body = {_FIELDS[type_]: int(said[_FIELDS[type_]])}
        return NewEvent(type_, KIND.name, str(account), f"{account}-{file.stem}", body)
    except OSError as error:
        raise UnavailableError(f"the booking {file.name} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"the booking {file.name} is none ({error!r}): mend it, and the sync goes on") from error


class BankFolder:
    """The :class:`headrace.producers.provider.Provider`."""

    name = NAME

    def __init__(self, root: Path) -> None:
        self._root: Final = root.resolve()

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> BankFolderSource:  # noqa: ARG002
        """See :class:`headrace.producers.provider.Provider`.

        :raises BadInputError: ``folder`` is missing, or not below the root.
        """
        folder = (self._root / connected.settings.get("folder", "")).resolve()
        if self._root not in folder.parents:
            raise BadInputError("a bank_folder source needs folder, the name of one below the root: --set folder=NAME")
        return BankFolderSource(folder)

    def watch(self, connected: Connected, http: ProviderHttp, address: str, last: Watch | None, now: int) -> None:
        """See :class:`headrace.producers.provider.Provider`: a folder notifies nobody."""

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """See :class:`headrace.producers.provider.Provider`: there is nothing to end."""

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:  # noqa: ARG002
        """See :class:`headrace.producers.provider.Provider`.

        :raises RefusedError: always.
        """
        raise RefusedError("not_notification", "a folder has no notifications: nothing is taken here")


def set_up(section: Mapping[str, Any], directory: Path) -> ProviderSetup | None:
    """For the entry point: ``[providers.bank_folder]`` and the store's directory.

    :raises BadInputError: ``root`` is missing.
    """
    if not section:
        return None
    root = section.get("root")
    if not isinstance(root, str) or not root:
        raise BadInputError("[providers.bank_folder] needs root, the directory that the bank's folders are in")
    return ProviderSetup(BankFolder(directory / root), "https://invalid./", grantless=True)
