"""What a folder is for, and what being in it says of a message, in the labels that the log has for mail."""

from collections.abc import Iterable, Mapping
from typing import Final

from headrace.processors.kinds.mail_thread import INBOX, TRASH
from headrace.producers.imap_connection import ListedFolder
from headrace.producers.imap_index import Place
from headrace.producers.mail_story import SENT, UNREAD

SPAM: Final = "SPAM"
STARRED: Final = "STARRED"
ANSWERED: Final = "ANSWERED"
_DRAFT: Final = "DRAFT"
_WORDS: Final = frozenset({INBOX, TRASH, SENT, UNREAD, SPAM, STARRED, ANSWERED, _DRAFT, "CHAT"})
"""What a folder or keyword of such a name would be taken for; it goes by another (:func:`_own`)."""
_USES: Final[Mapping[str, str]] = {
    "\\sent": "sent",
    "\\drafts": "drafts",
    "\\trash": "trash",
    "\\junk": "junk",
    "\\archive": "archive",
    "\\all": "archive",
    "\\flagged": "view",
    "\\important": "view",
}
"""Attributes of RFC 6154 and RFC 8457. A view shows again what is in other folders."""
_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "sent": frozenset({"sent", "sent items", "sent messages", "sent mail"}),
    "drafts": frozenset({"drafts"}),
    "trash": frozenset({"trash", "deleted items", "deleted messages", "bin"}),
    "junk": frozenset({"junk", "spam", "junk e-mail", "junk email", "bulk mail"}),
    "archive": frozenset({"archive", "archives", "all mail"}),
}
"""For servers that do not say."""
_UNREAD_FOLDERS: Final = frozenset({"drafts", "view"})
_FLAGS: Final[Mapping[str, str]] = {"\\flagged": STARRED, "\\answered": ANSWERED, "\\draft": _DRAFT}
_MOST_CHARS: Final = 200


def roles(folders: Iterable[ListedFolder], given: Mapping[str, str]) -> dict[ListedFolder, str]:
    """The folders that hold mail, and what each is for: ``inbox``, ``sent``, ``trash``, ``junk``, ``archive``, or
    ``other``. Drafts, and views of other folders, are left out.

    A name that is ``given`` counts first, then what the server says, then the usual names. What is below a folder is
    for the same.
    """
    listed = list(folders)
    own: dict[ListedFolder, str] = {}
    for folder in listed:
        said = [_USES[flag] for flag in sorted(folder.flags) if flag in _USES]
        if said:
            own[folder] = said[0]
    for role, names in _NAMES.items():
        if role in given:
            own = {folder: one for folder, one in own.items() if one != role}
        elif role not in own.values():
            own |= {folder: role for folder in listed if folder not in own and _top(folder) in names}
    by_name = {name: role for role, name in given.items()}
    own |= {folder: by_name[folder.name] for folder in listed if folder.name in by_name}
    found: dict[ListedFolder, str] = {}
    for folder in listed:
        role = "inbox" if folder.name.upper() == INBOX else own.get(folder) or _inherited(folder, own)
        if role not in _UNREAD_FOLDERS:
            found[folder] = role
    return found


def labels(places: Iterable[Place]) -> frozenset[str]:
    """What a message is labelled that is at these places. In the trash, or marked as deleted, is only what is nowhere
    else."""
    said = [(_is_trash(place), _place_labels(place)) for place in places]
    shown = [one for trash, one in said if not trash]
    return frozenset[str]().union(*(shown or [one for _, one in said]))


def _is_trash(place: Place) -> bool:
    return place.role == "trash" or "\\deleted" in {flag.lower() for flag in place.flags}


def _place_labels(place: Place) -> set[str]:
    flags = {flag.lower(): flag for flag in place.flags}
    found = {_FLAGS[low] for low in flags if low in _FLAGS}
    found |= {_own(flag) for low, flag in flags.items() if not low.startswith("\\")}
    if "\\seen" not in flags:
        found.add(UNREAD)
    if _is_trash(place):
        return found | {TRASH}
    match place.role:
        case "inbox":
            found.add(INBOX)
        case "sent":
            found.add(SENT)
        case "junk":
            found.add(SPAM)
        case "archive":
            pass
        case _:
            found.add(_own(place.folder))
    return found


def _own(name: str) -> str:
    """A folder's or keyword's name as a label, apart from the words that mean something here."""
    kept = name[:_MOST_CHARS]
    return f"imap:{kept}" if kept.upper() in _WORDS else kept


def _top(folder: ListedFolder) -> str:
    """The name without the part that all folders of some servers have in front."""
    name = folder.name.casefold()
    return name.removeprefix(f"inbox{folder.delimiter}") if folder.delimiter else name


def _inherited(folder: ListedFolder, own: Mapping[ListedFolder, str]) -> str:
    above = [
        (len(one.wire), role)
        for one, role in own.items()
        if one.delimiter and folder.wire.startswith(one.wire + one.delimiter.encode())
    ]
    return max(above)[1] if above else "other"
