"""What every vault promises."""

import threading
from abc import abstractmethod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import UnavailableError
from headrace.producers.vault import Vault

NAMES = st.sampled_from(["a", "b", "a/b", "ä", "x" * 300, "A"])
VALUES = st.one_of(st.none(), st.binary(max_size=64), st.just(bytes(20_000)))
REALMS = st.sampled_from(["source", "grant"])


class VaultConformance:
    """``vault`` makes a vault of the place that the test has, which is empty at first; ``again`` another of the same,
    as another process would."""

    @pytest.fixture
    @abstractmethod
    def vault(self) -> Vault: ...

    @pytest.fixture
    @abstractmethod
    def again(self, vault: Vault) -> Vault: ...

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
        deadline=None,
        max_examples=30,
    )
    @given(writes=st.lists(st.tuples(REALMS, NAMES, VALUES), max_size=12))
    def test_it_is_a_dict_that_everybody_shares(
        self, vault: Vault, again: Vault, writes: list[tuple[str, str, bytes | None]]
    ) -> None:
        for realm in ("source", "grant"):
            for name, _ in vault.all(realm):
                again.write(realm, name, None)
        model: dict[tuple[str, str], bytes] = {}
        for number, (realm, name, value) in enumerate(writes):
            (vault if number % 2 else again).write(realm, name, value)
            if value is None:
                model.pop((realm, name), None)
            else:
                model[realm, name] = value
            assert again.read(realm, name) == vault.read(realm, name) == value
        for realm in ("source", "grant"):
            expected = sorted((name.encode(), value) for (kept, name), value in model.items() if kept == realm)
            for one in (vault, again):
                assert [(name.encode(), value) for name, value in one.all(realm)] == expected

    def test_one_at_a_time(self, vault: Vault, again: Vault) -> None:
        """Ten times each adds one to a number, by reading and writing it."""
        vault.write("grant", "n", b"0")

        def count(on: Vault) -> None:
            for _ in range(10):
                with on.alone("grant", "n"):
                    found = on.read("grant", "n")
                    assert found is not None
                    on.write("grant", "n", str(int(found) + 1).encode())

        threads = [threading.Thread(target=count, args=(one,)) for one in (vault, again, vault)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert vault.read("grant", "n") == b"30"

    def test_others_go_on_meanwhile(self, vault: Vault, again: Vault) -> None:
        with vault.alone("grant", "a"), again.alone("grant", "b"), again.alone("source", "a"):
            again.write("grant", "a", b"1")
            assert vault.read("grant", "a") == b"1"

    def test_who_waits_too_long_is_told(self, vault: Vault, impatient: Vault) -> None:
        with (
            vault.alone("grant", "a"),
            pytest.raises(UnavailableError, match="somebody else has been at the grant a"),
            impatient.alone("grant", "a"),
        ):
            pytest.fail("both are in")
        with impatient.alone("grant", "a"):
            pass

    def test_an_error_inside_lets_go(self, vault: Vault, again: Vault) -> None:
        with pytest.raises(ZeroDivisionError), vault.alone("grant", "a"):
            raise ZeroDivisionError
        with again.alone("grant", "a"):
            pass

    @pytest.fixture
    @abstractmethod
    def impatient(self, vault: Vault) -> Vault: ...
