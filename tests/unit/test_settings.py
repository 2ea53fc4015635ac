"""What can be set, where it comes from, and what is refused."""

import base64
import hashlib
import re
import stat
from pathlib import Path
from typing import Final

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.schemas.refs import ActorRef
from headrace.settings import (
    DEFAULT_PORT,
    FILE,
    SECRET_FILE,
    is_loopback,
    load_settings,
    new_key,
    refuse_unsafe,
    webhook_endpoints,
)

SECRET: Final = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY: Final = f"""
[[api_keys]]
name = "bot"
sha256 = "{"ab" * 32}"
tenant = "acme"
verbs = ["read", "propose"]
expires_at = 2027-01-01T00:00:00Z
"""


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STORE", "HOST", "PORT", "API_KEYS", "WEBHOOKS"):
        monkeypatch.delenv(f"HEADRACE_{name}", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_without_anything_it_listens_on_loopback(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", DEFAULT_PORT, ())
    assert settings.store == tmp_path / "data" / "headrace"
    refuse_unsafe(settings)


def test_arguments_before_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text('host = "127.0.0.2"\nport = 1\n')
    assert load_settings(tmp_path).port == 1
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path))
    assert load_settings().host == "127.0.0.2"
    monkeypatch.setenv("HEADRACE_PORT", "2")
    assert load_settings().port == 2
    assert load_settings(port=3).port == 3
    assert load_settings(host="::1").host == "::1"
    assert load_settings(tmp_path / "elsewhere").host == "127.0.0.1"


def test_keys_and_webhooks_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / FILE).write_text(
        KEY
        + f"""
[[webhooks]]
name = "mailroom"
tenant = "acme"
source = "webhook/mailroom"
secrets = ["{SECRET}"]
secret_files = ["secret"]
"""
    )
    settings = load_settings(tmp_path)
    (key,) = settings.api_keys
    assert (key.name, key.tenant, sorted(key.verbs)) == ("bot", "acme", ["propose", "read"])
    assert key.expires_at is not None
    endpoints = webhook_endpoints(settings)
    assert list(endpoints) == ["mailroom"]
    assert endpoints["mailroom"].actor == ActorRef("user", "webhook")
    assert endpoints["mailroom"].secrets == (SECRET, SECRET)
    assert not (tmp_path / SECRET_FILE).exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 70000", "port"),
        ("prot = 1", "prot"),
        ("port = ", FILE),
        (KEY + KEY, "two have one name"),
        (KEY.replace("bot", "ann@example.org"), "name"),
        (KEY.replace("ab" * 32, "hr_secret-key"), "sha256"),
        (KEY.replace("propose", "obey"), "verbs"),
        (KEY.replace("Z", ""), "expires_at"),
        ('[[webhooks]]\nname = "x"\ntenant = "t"\nsource = "s"\nactor = "root/x"', "actor"),
        ('[[webhooks]]\nname = "x"\ntenant = "t"\nsource = "a b"', "source"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadInputError, match=re.escape(named)) as refusal:
        load_settings(tmp_path)
    assert "hr_secret-key" not in str(refusal.value)


def test_what_is_wrong_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_API_KEYS", "{nonsense")
    with pytest.raises(BadInputError, match="api_keys"):
        load_settings()


def test_the_default_webhook_gets_a_secret_once(tmp_path: Path) -> None:
    first = webhook_endpoints(load_settings(tmp_path))["default"]
    assert (first.tenant, first.source, first.actor) == ("local", "webhook/default", ActorRef("user", "webhook"))
    (secret,) = first.secrets
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["webhook-default"]
    assert webhook_endpoints(load_settings(tmp_path))["default"] == first
    assert webhook_endpoints(load_settings(tmp_path / "other"))["default"] != first
    assert secret not in repr(first)


def test_secrets_that_cannot_be_used(tmp_path: Path) -> None:
    webhook = '[[webhooks]]\nname = "x"\ntenant = "t"\nsource = "s"\n'
    (tmp_path / FILE).write_text(webhook)
    with pytest.raises(BadInputError, match="has no secret"):
        webhook_endpoints(load_settings(tmp_path))
    (tmp_path / FILE).write_text(webhook + 'secrets = ["whsec_tooshort"]')
    with pytest.raises(BadInputError, match="24 to 64") as refusal:
        webhook_endpoints(load_settings(tmp_path))
    assert "tooshort" not in str(refusal.value)
    (tmp_path / FILE).write_text(webhook + 'secret_files = ["missing"]')
    with pytest.raises(UnavailableError, match="missing"):
        webhook_endpoints(load_settings(tmp_path))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError):
        webhook_endpoints(load_settings(tmp_path / "file"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.1", "10.0.0.1", "localhost.evil.org", "127.0.0.1.evil.org", "2130706433", ""]
)
def test_any_other_address_needs_keys(tmp_path: Path, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(BadInputError, match="api_keys"):
        refuse_unsafe(load_settings(tmp_path, host=host))
    (tmp_path / FILE).write_text(KEY)
    refuse_unsafe(load_settings(tmp_path, host=host))


def test_a_new_key_has_256_bits_and_only_its_hash_is_kept() -> None:
    keys = [new_key() for _ in range(100)]
    assert len({key for key, _ in keys}) == 100
    for key, digest in keys:
        assert len(base64.urlsafe_b64decode(key.removeprefix("hr_") + "=")) == 32
        assert hashlib.sha256(key.encode()).hexdigest() == digest
