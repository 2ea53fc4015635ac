"""The vault in a file, and what seals it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import HaltError, UnavailableError
from headrace.keys import Keys
from headrace.producers.vault import Seal
from headrace.producers.vault_sqlite import FILE, SqliteVault
from tests.contract.vault_conformance import VaultConformance


class TestSqliteVault(VaultConformance):
    @pytest.fixture
    def vault(self, tmp_path: Path) -> SqliteVault:
        return SqliteVault(tmp_path)

    @pytest.fixture
    def again(self, vault: SqliteVault, tmp_path: Path) -> SqliteVault:
        return SqliteVault(tmp_path)

    @pytest.fixture
    def impatient(self, vault: SqliteVault, tmp_path: Path) -> SqliteVault:
        return SqliteVault(tmp_path, patience_seconds=0.1)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    SqliteVault(tmp_path).write("grant", "a", b"1")
    assert [path.stat().st_mode & 0o077 for path in tmp_path.iterdir()] == [0] * len(list(tmp_path.iterdir()))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    vault = SqliteVault(tmp_path)
    (tmp_path / FILE).write_bytes(b"no database at all" * 400)
    with pytest.raises(UnavailableError, match="put the file back from its backup"):
        vault.read("grant", "a")


def test_a_process_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from headrace.producers.vault_sqlite import SqliteVault\n"
        "with SqliteVault(Path(sys.argv[1])).alone('grant', 'a'):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    vault = SqliteVault(tmp_path, patience_seconds=0.1)
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        with pytest.raises(UnavailableError), vault.alone("grant", "a"):
            pytest.fail("both are in")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with vault.alone("grant", "a"):
            pass


@given(plain=st.binary(max_size=200), at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_what_is_sealed_opens_there_and_nowhere_else(plain: bytes, at: int, flip: int) -> None:
    seal = Seal(Keys(bytes(32)))
    sealed = seal.close("grant", "acme/ann/gmail", plain)
    assert seal.open("grant", "acme/ann/gmail", sealed) == plain
    assert seal.close("grant", "acme/ann/gmail", plain) != sealed
    changed = bytearray(sealed)
    changed[at % len(changed)] ^= flip
    wrong = [
        (seal, "grant", "acme/bob/gmail", sealed),
        (seal, "source", "acme/ann/gmail", sealed),
        (Seal(Keys(b"k" * 32)), "grant", "acme/ann/gmail", sealed),
        (seal, "grant", "acme/ann/gmail", bytes(changed)),
        (seal, "grant", "acme/ann/gmail", sealed[: at % len(sealed)]),
    ]
    for one, realm, name, value in wrong:
        with pytest.raises(HaltError, match="connect the source again"):
            one.open(realm, name, value)
