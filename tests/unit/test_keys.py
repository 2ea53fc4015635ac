"""Keys: pseudonyms that tell nothing across accounts, and a key file that is made once and never by halves."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BadInputError, UnavailableError
from headrace.keys import MASTER_BYTES, Keys

KEYS = Keys(bytes(range(32)))
_TEXTS = st.text(max_size=40)


def test_a_pseudonym_is_hmac_sha_256_under_the_accounts_key() -> None:
    # Fixed for ever: another value here would part new events from the old ones on the log.
    assert KEYS.pseudonym("t", "a", "ann@example.com") == "p-ouivlmfmsfxrsl7lls5e346hjj"
    assert KEYS.payload_hash("t", "a", b"{}").hex() == (
        "861ffadd2278b53b885141e03bffa37e6e538b12d48b7a38b5453afe0e01667e"
    )


@given(text=_TEXTS)
def test_a_pseudonym_of_a_pseudonym_is_itself(text: str) -> None:
    found = KEYS.pseudonym("t", "a", text)
    assert KEYS.pseudonym("t", "a", found) == found == KEYS.pseudonym("t", "a", text)
    assert len(found) == 28


@given(one=_TEXTS, other=_TEXTS)
def test_pseudonyms_are_equal_where_texts_are(one: str, other: str) -> None:
    assert (KEYS.pseudonym("t", "a", one) == KEYS.pseudonym("t", "a", other)) is (one == other)


@pytest.mark.parametrize(
    "text", ["p-" + "a" * 25, "p-" + "a" * 27, "p-" + "A" * 26, "p-" + "a" * 25 + "1", "p-" + "a" * 26 + "\n"]
)
def test_what_only_looks_like_a_pseudonym_becomes_one(text: str) -> None:
    assert KEYS.pseudonym("t", "a", text) != text


def test_every_account_tenant_and_master_key_has_its_own() -> None:
    places = [(KEYS, "t", "a"), (KEYS, "t", "b"), (KEYS, "s", "a"), (KEYS, "ta", ""), (Keys(bytes(32)), "t", "a")]
    assert len({keys.pseudonym(tenant, account, "x") for keys, tenant, account in places}) == len(places)
    assert len({keys.payload_hash(tenant, account, b"x") for keys, tenant, account in places}) == len(places)
    assert len(KEYS.payload_hash("t", "a", b"x")) == 32


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(BadInputError, match="holds half a surrogate pair: send Unicode text"):
        KEYS.pseudonym("t", "a", "x\ud800")


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_master_key_has_32_bytes(size: int) -> None:
    with pytest.raises(BadInputError, match="the master key must be 32 bytes"):
        Keys(bytes(size))


# -- the file -----------------------------------------------------------------------------------------------------


def test_the_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master"
    before = os.umask(0)
    try:
        first = Keys.at(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["master"]
    assert len(path.read_bytes()) == MASTER_BYTES
    assert Keys.at(path).pseudonym("t", "a", "x") == first.pseudonym("t", "a", "x")
    assert Keys.at(tmp_path / "other").pseudonym("t", "a", "x") != first.pseudonym("t", "a", "x")


def test_of_several_who_make_it_at_once_all_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master"
    everybody = threading.Barrier(8)
    found: list[str] = []

    def make() -> None:
        everybody.wait(30)
        found.append(Keys.at(path).pseudonym("t", "a", "x"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["master"]


def test_whoever_comes_second_takes_the_firsts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "master"
    theirs, link = bytes(range(32)), os.link

    def lose(fresh: Path, wanted: Path) -> None:
        path.write_bytes(theirs)
        link(fresh, wanted)

    monkeypatch.setattr("headrace.keys.os.link", lose)
    assert Keys.at(path).pseudonym("t", "a", "x") == Keys(theirs).pseudonym("t", "a", "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["master"]


def test_a_crash_while_it_is_made_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "master"

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headrace.keys.os.fsync", fail)
    with pytest.raises(UnavailableError, match="No space left on device"):
        Keys.at(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_damaged_file_is_named_and_not_replaced(tmp_path: Path, size: int) -> None:
    path = tmp_path / "master"
    path.write_bytes(bytes(size))
    with pytest.raises(
        BadInputError, match=rf"master holds {size} bytes, a master key has 32: it is damaged; put it back"
    ):
        Keys.at(path)
    assert len(path.read_bytes()) == size


def test_where_none_may_be_made_a_missing_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master"
    with pytest.raises(UnavailableError, match=r"master cannot be used: .*No such file.*put it back"):
        Keys.at(path, create=False)
    assert not path.parent.exists()


def test_a_directory_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"cannot be used: .*Is a directory"):
        Keys.at(tmp_path)
