"""The watches of a source: found without opening everybody else's, and never lost sight of."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from headrace.errors import UnavailableError
from headrace.keys import Keys
from headrace.producers.connections import Connections
from headrace.producers.provider import Connected, Watch
from headrace.producers.schedule import SourceKey
from headrace.producers.vault_sqlite import SqliteVault

ANN: Final = SourceKey("t", "ann", "mail")
BOB: Final = SourceKey("t", "bob", "mail/of/bob")


class CountingVault:
    """A vault that says how much was asked of it, and breaks when told to."""

    def __init__(self, directory: Path) -> None:
        self._vault: Final = SqliteVault(directory)
        self.asked = 0
        self.breaks_at: str | None = None

    def all(self, realm: str) -> list[tuple[str, bytes]]:
        found = list(self._vault.all(realm))
        self.asked += len(found)
        return found

    def read(self, realm: str, name: str) -> bytes | None:
        self.asked += 1
        return self._vault.read(realm, name)

    def write(self, realm: str, name: str, value: bytes | None) -> None:
        if realm == self.breaks_at:
            raise UnavailableError("the disk is full")
        self._vault.write(realm, name, value)

    def alone(self, realm: str, name: str) -> AbstractContextManager[None]:
        return self._vault.alone(realm, name)


class Parts:
    """What is connected, and where it is kept."""

    def __init__(self, directory: Path) -> None:
        self.vault: Final = CountingVault(directory)
        self.connections: Final = Connections(self.vault, Keys(bytes(32)))

    def watch(self, key: SourceKey, watch_id: str, provider: str = "gmail") -> None:
        self.connections.put_watch(key, provider, Watch(watch_id, "secret", 1_000, {}))

    def watches(self, key: SourceKey | None) -> list[str]:
        return sorted(f"{one.provider}/{one.watch.id}" for one in self.connections.watches(key))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_a_sources_watches_are_its_own(parts: Parts) -> None:
    parts.watch(ANN, "w-1")
    parts.watch(ANN, "w/2", "graph")
    parts.watch(BOB, "w-3")
    assert parts.watches(ANN) == ["gmail/w-1", "graph/w/2"]
    assert parts.watches(BOB) == ["gmail/w-3"]
    assert parts.watches(None) == ["gmail/w-1", "gmail/w-3", "graph/w/2"]
    parts.connections.drop_watch("gmail", "w-1")
    parts.connections.drop_watch("gmail", "w-1")
    assert parts.watches(ANN) == ["graph/w/2"]
    parts.connections.drop_watch("graph", "w/2")
    assert parts.watches(ANN) == []


def test_everybody_elses_are_not_opened_for_it(parts: Parts) -> None:
    parts.watch(ANN, "w-1")
    parts.vault.asked = 0
    assert parts.watches(ANN) == ["gmail/w-1"]
    alone = parts.vault.asked
    for number in range(50):
        parts.watch(SourceKey("t", f"a-{number}", "mail"), f"o-{number}")
    parts.vault.asked = 0
    assert parts.watches(ANN) == ["gmail/w-1"]
    assert parts.vault.asked == alone


@pytest.mark.parametrize("realm", ["watch", "watched"])
def test_a_watch_that_is_there_is_known_to_its_source_whatever_broke_between(parts: Parts, realm: str) -> None:
    parts.watch(ANN, "w-1")
    parts.vault.breaks_at = realm
    with pytest.raises(UnavailableError):
        parts.watch(ANN, "w-2")
    with pytest.raises(UnavailableError):
        parts.connections.drop_watch("gmail", "w-1")
    parts.vault.breaks_at = None
    assert parts.watches(ANN) == parts.watches(None)


def test_a_watch_that_another_source_has_taken_over_is_that_ones(parts: Parts) -> None:
    parts.watch(ANN, "w-1")
    parts.watch(BOB, "w-1")
    assert (parts.watches(ANN), parts.watches(BOB)) == ([], ["gmail/w-1"])


def test_a_removed_source_leaves_no_watch(parts: Parts) -> None:
    parts.connections.add(Connected(*ANN, "gmail", {}), {})
    parts.watch(ANN, "w-1")
    parts.watch(BOB, "w-3")
    parts.connections.remove(ANN)
    assert parts.watches(None) == ["gmail/w-3"]
