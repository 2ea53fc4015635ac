"""The mail folders of a mailbox, and what lying in one means: Graph follows messages folder by folder, and archiving,
trashing, sending are all moves from one to another."""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from headrace.errors import UnavailableError
from headrace.processors.kinds.mail_thread import INBOX, TRASH
from headrace.producers.graph_api import GRAPH, GraphApi, Page, segment, yes
from headrace.producers.mail_story import SENT

DRAFT: Final = "DRAFT"
SPAM: Final = "SPAM"
WORDS: Final[Mapping[str, str | None]] = {
    "inbox": INBOX,
    "sentitems": SENT,
    "deleteditems": TRASH,
    "junkemail": SPAM,
    "drafts": DRAFT,
    "outbox": DRAFT,
    "archive": None,
}
"""Well-known folders (https://learn.microsoft.com/graph/api/resources/mailfolder) and the label that lying in one is;
what lies in the archive is archived, and carries no label for it."""
_INHERITED: Final = frozenset({"sentitems", "deleteditems", "drafts", "outbox"})
"""What is in a folder below them is in them: a deleted folder moves below Deleted Items with all it has."""
_DEEP: Final = 300
_MOST_CURSOR_BYTES: Final = 8 * 1024 * 1024
_SELECT: Final = "id,parentFolderId,isHidden"
Labels = frozenset[str]


def is_fact(labels: Labels | None) -> bool:
    """Whether what carries these labels was received or sent: it is in sight, and no draft."""
    return labels is not None and DRAFT not in labels


class Folder(NamedTuple):
    """A folder; hidden ones and search folders are not looked into."""

    id: str
    parent: str | None
    hidden: bool


class Folders:
    """The tree. ``words`` are the ids of the well-known folders that there are, with their names."""

    def __init__(self, folders: Iterable[Folder], words: Mapping[str, str]) -> None:
        self.by_id: Final = {folder.id: folder for folder in folders}
        self.words: Final = dict(words)

    def labels(self, folder: str) -> Labels | None:
        """What a message in this folder carries for it; ``None``: it is in no folder that a person sees, so it is gone
        (deleted for good, it is kept out of sight for some days)."""
        found = self.by_id.get(folder)
        if found is None or found.hidden:
            return None
        label = self._inherited(found)
        word = self.words.get(folder)
        if word is not None:
            own = WORDS[word]
            return frozenset({own} if own is not None else ())
        return frozenset({label, folder} if label == SENT else {label or folder})

    def followed(self) -> list[str]:
        """The folders whose messages are facts, in an order that does not change."""
        return sorted(one for one in self.by_id if is_fact(self.labels(one)))

    def _inherited(self, folder: Folder) -> str | None:
        at: Folder | None = folder
        for _ in range(_DEEP):
            if at is None:
                return None
            word = self.words.get(at.id)
            if word in _INHERITED:
                return WORDS[word]
            at = self.by_id.get(at.parent) if at.parent is not None else None
        raise UnavailableError("Graph names folders that lie in each other; the sync begins anew")


class Cursor(NamedTuple):
    """Where a sync left off: ``tree`` is the delta link of the folders, ``links`` those of the messages of each;
    ``seen`` the time of the newest message (epoch milliseconds UTC)."""

    folders: Folders
    tree: str
    links: Mapping[str, str]
    seen: int

    def write(self) -> str:
        """As it stands on the log: packed, for links are long, and much alike."""
        said = {
            "tree": self.tree,
            "words": self.folders.words,
            "folders": {one.id: [one.parent, one.hidden] for one in self.folders.by_id.values()},
            "links": dict(self.links),
            "seen": self.seen,
        }
        packed = zlib.compress(json.dumps(said, separators=(",", ":"), sort_keys=True).encode(), 9)
        return "m1:" + base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def read(cls, cursor: str | None) -> "Cursor | None":
        """``None`` for what is none: then everything is compared."""
        if cursor is None or not cursor.startswith("m1:"):
            return None
        try:
            unpacked = zlib.decompressobj().decompress(
                base64.b64decode(cursor[3:], altchars=b"-_", validate=True), _MOST_CURSOR_BYTES
            )
            said = json.loads(unpacked)
            folders = [
                Folder(str(one), None if parent is None else str(parent), bool(hidden))
                for one, (parent, hidden) in said["folders"].items()
            ]
            words = {str(one): str(word) for one, word in said["words"].items() if word in WORDS}
            links = {str(one): str(link) for one, link in said["links"].items()}
            return cls(Folders(folders, words), str(said["tree"]), links, int(said["seen"]))
        except (binascii.Error, zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def all_folders(api: GraphApi) -> tuple[Folders, str]:
    """The tree, and the link to what changes in it from now on."""
    found, link = _applied({}, api.delta("me/mailFolders/delta", {"$select": _SELECT}))
    return Folders(found.values(), _words(api, WORDS)), link


def changed_folders(api: GraphApi, before: Folders, link: str) -> tuple[Folders, str]:
    """The tree as it is now.

    :raises SyncStateLostError: Graph cannot say what changed.
    """
    found, link = _applied(dict(before.by_id), api.since(link))
    words = dict(before.words)
    if found.keys() != before.by_id.keys():
        # The archive, for one, is made when it is first used.
        words |= _words(api, WORDS.keys() - set(words.values()))
    return Folders(found.values(), words), link


def _applied(folders: dict[str, Folder], pages: Iterable[Page]) -> tuple[dict[str, Folder], str]:
    link: str | None = None
    for page in pages:
        for said in page.items:
            folder = GRAPH.identifier(said, "id")
            if "@removed" in said:
                folders.pop(folder, None)
                continue
            before = folders.get(folder)
            # An update brings at least what changed; the rest is as it was.
            parent = GRAPH.identifier(said, "parentFolderId") if said.get("parentFolderId") is not None else None
            hidden = _hidden(said) if "isHidden" in said or before is None else before.hidden
            folders[folder] = Folder(folder, parent or (before.parent if before is not None else None), hidden)
        link = page.link
    assert link is not None, "a round ends with a link"
    return folders, link


def _hidden(said: Mapping[str, Any]) -> bool:
    kind = said.get("@odata.type")
    return yes(said, "isHidden") or kind == "#microsoft.graph.mailSearchFolder"


def _words(api: GraphApi, names: Iterable[str]) -> dict[str, str]:
    words: dict[str, str] = {}
    for name in sorted(names):
        said = api.found(f"me/mailFolders/{segment(name)}", {"$select": "id"})
        if said is not None:
            words[GRAPH.identifier(said, "id")] = name
    return words


def folder_path(folder: str) -> str:
    """The messages of a folder."""
    return f"me/mailFolders/{segment(folder)}/messages"
