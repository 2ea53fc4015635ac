"""Who may ask the schema registry, and what is said when it cannot be asked: never that a record is wrong."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from headrace.errors import SchemaMissingError, UnavailableError
from headrace.kinds import installed_schemas, schema_registry
from headrace.schemas.confluent import ConfluentRegistry
from headrace.schemas.registry import WIRE_MARKER, Decoded
from tests.kafka.certificates import make_certificates
from tests.proxy import FaultProxy
from tests.schema_registry.guarded import guarded

USER, PASSWORD = "ann", "pass:wörd"


@pytest.fixture
def gateway(registry_url: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a registry that asks for TLS and a password, and a directory with ca.pem and password."""
    certificates = make_certificates(tmp_path)
    (tmp_path / "password").write_text(PASSWORD + "\n", encoding="utf-8")
    with guarded(registry_url, certificates.server, USER, PASSWORD) as url:
        yield url, tmp_path


@pytest.fixture
def proxy(registry_url: str) -> Iterator[FaultProxy]:
    """In front of the registry."""
    parts = urlsplit(registry_url)
    with FaultProxy(parts.hostname or "", parts.port or 80) as found:
        yield found


def through(proxy: FaultProxy, registry_url: str, topic: str, timeout_ms: int = 500) -> ConfluentRegistry:
    return schema_registry(f"http://{proxy.address}{urlsplit(registry_url).path}?timeout.ms={timeout_ms}", topic)


def signed_in(url: str, files: Path, *, ca: bool = True, password: str = "password", user: str = USER) -> str:
    trusted = f"ssl.ca.location={quote(str(files / 'ca.pem'))}&" if ca else ""
    return f"{url}?{trusted}basic.auth.username={user}&basic.auth.password.file={quote(str(files / password))}"


# -- TLS and a password ---------------------------------------------------------------------------------------------


def test_with_certificate_and_password_it_works(gateway: tuple[str, Path], topic: str) -> None:
    with schema_registry(signed_in(*gateway), topic) as confluent:
        registry = installed_schemas(confluent)
        assert registry.decode(registry.encode("mail.read", {})).type == "mail.read"


def test_a_certificate_of_ones_own_is_shown(registry_url: str, tmp_path: Path, topic: str) -> None:
    certificates = make_certificates(tmp_path)
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    shown = f"&ssl.certificate.location={certificates.client}&ssl.key.location={certificates.client_key}"
    with guarded(registry_url, certificates.server, USER, PASSWORD, trust=certificates.trust) as url:
        with schema_registry(signed_in(url, tmp_path), topic) as without, pytest.raises(UnavailableError):
            without.fingerprint_of(2_147_483_647)
        with schema_registry(signed_in(url, tmp_path) + shown, topic) as confluent, pytest.raises(SchemaMissingError):
            confluent.fingerprint_of(2_147_483_647)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"user": "bob"}, r"does not let us in \(HTTP 401\); check basic\.auth\.username"),
        ({"password": "ca.pem"}, r"does not let us in \(HTTP 401\)"),
        ({"ca": False}, "does not answer .*CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_without_them_it_says_which(
    gateway: tuple[str, Path], topic: str, wrong: dict[str, str | bool], said: str
) -> None:
    url, files = gateway
    address = signed_in(
        url,
        files,
        ca=bool(wrong.get("ca", True)),
        password=str(wrong.get("password", "password")),
        user=str(wrong.get("user", USER)),
    )
    with schema_registry(address, topic) as confluent, pytest.raises(UnavailableError, match=said) as caught:
        confluent.fingerprint_of(1)
    assert PASSWORD not in str(caught.value)


def test_files_that_cannot_be_used_are_named(gateway: tuple[str, Path], topic: str) -> None:
    url, files = gateway
    (files / "empty").touch()
    for name, said in (
        ("nowhere", r"basic\.auth\.password\.file .*nowhere cannot be read"),
        ("empty", r"basic\.auth\.password\.file .*empty is empty"),
    ):
        with pytest.raises(UnavailableError, match=said):
            schema_registry(signed_in(url, files, password=name), topic)
    with pytest.raises(UnavailableError, match=r"the client of the schema registry .* cannot be made"):
        schema_registry(f"{url}?ssl.ca.location=/nowhere/ca.pem", topic)


# -- answers that are none ------------------------------------------------------------------------------------------


def test_an_id_that_the_registry_does_not_know(confluent: ConfluentRegistry) -> None:
    registry = installed_schemas(confluent, register=False)
    with pytest.raises(SchemaMissingError, match=r"schema id 2147483647, which .* does not know; set"):
        registry.decode(WIRE_MARKER + (2_147_483_647).to_bytes(4, "big") + b"x")


def test_something_else_than_a_schema_registry(registry_url: str, topic: str) -> None:
    parts = urlsplit(registry_url)
    for url in (f"{parts.scheme}://{parts.netloc}", f"{registry_url}/nowhere"):
        with schema_registry(url, topic) as confluent, pytest.raises(UnavailableError, match="not at this path"):
            confluent.fingerprint_of(1)


@pytest.mark.parametrize("fault", ["cut", "blackhole"])
def test_a_registry_that_is_away_is_asked_again_and_the_wait_is_bounded(
    proxy: FaultProxy, registry_url: str, topic: str, fault: str
) -> None:
    with schema_registry(registry_url, topic) as direct:
        raw = installed_schemas(direct).encode("mail.read", {})
    with through(proxy, registry_url, topic) as confluent:
        registry = installed_schemas(confluent, register=False)
        getattr(proxy, fault)()
        for ask in (lambda: registry.decode(raw), lambda: registry.encode("mail.read", {})):
            began = time.monotonic()
            with pytest.raises(UnavailableError, match="does not answer"):
                ask()
            assert time.monotonic() - began < 10
        proxy.heal()
        assert eventually(lambda: registry.decode(raw)).type == "mail.read"
        assert registry.encode("mail.read", {}) == raw


def test_every_partition_does_not_wait_in_turn(proxy: FaultProxy, registry_url: str, topic: str) -> None:
    with through(proxy, registry_url, topic) as confluent:
        proxy.blackhole()
        with pytest.raises(UnavailableError) as first:
            confluent.fingerprint_of(1)
        asked, began = proxy.seen.asked, time.monotonic()
        for schema_id in range(2, 66):
            with pytest.raises(UnavailableError) as later:
                confluent.fingerprint_of(schema_id)
            if time.monotonic() - began > 0.9:
                break
            assert str(later.value) == str(first.value)
            assert proxy.seen.asked == asked


def test_what_is_known_needs_no_registry(proxy: FaultProxy, registry_url: str, topic: str) -> None:
    with through(proxy, registry_url, topic, timeout_ms=20_000) as confluent:
        registry = installed_schemas(confluent)
        proxy.cut()
        again = installed_schemas(confluent)
        for version in registry.newest.values():
            if version.role == "event" and all("default" in field for field in version.shape["fields"]):
                raw = again.encode(version.type, {})
                assert again.decode(raw) == registry.decode(raw)


def test_a_start_without_the_registry_says_so(proxy: FaultProxy, registry_url: str, topic: str) -> None:
    with through(proxy, registry_url, topic) as confluent:
        proxy.cut()
        with pytest.raises(UnavailableError, match="does not answer"):
            installed_schemas(confluent)


def eventually(ask: Callable[[], Decoded]) -> Decoded:
    """The answer once the registry answers again: after a failure nobody asks it for a second."""
    until = time.monotonic() + 20
    while True:
        try:
            return ask()
        except UnavailableError:
            assert time.monotonic() < until
