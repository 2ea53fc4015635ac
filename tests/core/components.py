"""Which entities of a history have to do with each other at all, by any chain of proposals and their reads."""

from collections.abc import Iterator, Sequence

from headrace.errors import HeadraceError
from headrace.log.port import Stored
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import parse_account_key
from tests.core.scribe import KINDS, REGISTRY

Node = tuple[str, ...]


class _Groups:
    """Things said to belong together, and whatever follows from it."""

    def __init__(self) -> None:
        self._parents: dict[Node, Node] = {}

    def find(self, node: Node) -> Node:
        parent = self._parents.setdefault(node, node)
        return node if parent == node else self.find(parent)

    def join(self, one: Node, other: Node) -> None:
        self._parents[self.find(one)] = self.find(other)

    def __contains__(self, node: Node) -> bool:
        return node in self._parents

    def named(self) -> dict[Node, set[Node]]:
        groups: dict[Node, set[Node]] = {}
        for node in self._parents:
            groups.setdefault(self.find(node), set()).add(node)
        return groups


def apart(records: Sequence[Stored]) -> Iterator[tuple[list[int], set[str]]]:
    """Each group of entities: the offsets of all records about it, and what :func:`told_by` calls its rows."""
    groups = _Groups()
    about: dict[int, Node] = {}
    for record in records:
        node = _node(record, groups)
        if node is not None:
            about[record.offset] = node
    for what, *rest in [node for nodes in groups.named().values() for node in nodes]:
        if what == "entity" and ("kind", *rest[:3]) in groups:
            groups.join(("entity", *rest), ("kind", *rest[:3]))  # some scope takes in its kind
    for root, nodes in sorted(groups.named().items()):
        names = set[str]()
        for what, *rest in nodes:
            names |= {f"{what} {tuple(rest)}", f"claim {tuple(rest)}"}
        yield [offset for offset, node in about.items() if groups.find(node) == root], names


def _node(record: Stored, groups: _Groups) -> Node | None:
    """The entity or proposal that a record is about; what it reads is joined to it."""
    try:
        account = parse_account_key(record.key or b"")
        envelope = from_headers(dict(record.headers))
    except HeadraceError:
        return None
    entity: Node = ("entity", *account, envelope.kind, envelope.entity)
    try:
        body = REGISTRY.decode(record.value).body
    except HeadraceError:
        body = {}
    if envelope.type != "proposal.submitted":
        node = entity if envelope.kind else ("proposal", *account, body["proposal"]) if "proposal" in body else None
        if node is not None:  # an id that is used up by one is so for the other
            groups.join(node, ("identity", *account, envelope.source, envelope.id))
        return node
    proposal: Node = ("proposal", *account, envelope.id)
    groups.join(proposal, entity)
    for read in body.get("reads", ()):
        kinds = [name for name, kind in KINDS.items() if read["kind"] in kind.containers]
        for kind in kinds if read["what"] == "scope" else ():
            groups.join(proposal, ("kind", *account, kind))
        if read["what"] != "scope":
            groups.join(proposal, ("entity", *account, read["kind"], read["id"]))
    return proposal
