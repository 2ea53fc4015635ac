"""The address of a schema registry: what it says, and that nothing secret gets into it or out of it."""

from pathlib import Path

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.schemas.confluent_address import SchemaRegistryAddress


def test_the_plain_form() -> None:
    address = SchemaRegistryAddress.parse("http://registry:8081")
    assert address.settings() == {"url": "http://registry:8081", "timeout": 5.0}
    assert str(address) == "http://registry:8081"


def test_everything_at_once(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("se:cret\n", encoding="utf-8")
    address = SchemaRegistryAddress.parse(
        "https://one:8081,[::1]:8082/apis/ccompat/v7/?timeout.ms=250&ssl.ca.location=/etc/ca.pem"
        "&ssl.certificate.location=/etc/me.pem&ssl.key.location=/etc/me.key"
        f"&basic.auth.username=ann&basic.auth.password.file={password}"
    )
    assert address.settings() == {
        "url": "https://one:8081/apis/ccompat/v7,https://[::1]:8082/apis/ccompat/v7",
        "timeout": 0.25,
        "ssl.ca.location": "/etc/ca.pem",
        "ssl.certificate.location": "/etc/me.pem",
        "ssl.key.location": "/etc/me.key",
        "basic.auth.user.info": "ann:se:cret",
    }
    assert "cret" not in f"{address}{address!r}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is no address of a schema registry"),
        ("registry:8081", "is no address of a schema registry"),
        ("kafka://registry:8081", "is no address of a schema registry"),
        ("http://registry:8081#x", "is no address of a schema registry"),
        ("http://", "names no schema registry"),
        ("http://a b", "names no schema registry"),
        ("http://registry:8081,", "names no schema registry"),
        ("http://registry/a b", "names no schema registry"),
        ("https://ann:secret@registry", "not before @"),
        ("ann:secret@registry", "not before @"),
        ("registry?basic.auth.password=secret", "is no address of a schema registry"),
        ("https://r?basic.auth.user.info=ann:secret", "a password in a URL ends up in logs"),
        ("https://r?basic.auth.password=secret", "a password in a URL ends up in logs"),
        ("https://r?basic.auth.username=ann", r"basic\.auth\.password\.file is missing"),
        ("https://r?basic.auth.password.file=f", r"basic\.auth\.username is missing"),
        ("https://r?basic.auth.username=a:n&basic.auth.password.file=f", "may hold no colon"),
        ("https://r?ssl.key.location=f", r"ssl\.certificate\.location is missing"),
        ("http://r?ssl.ca.location=f", "certificates are for https"),
        ("https://r?colour=red", "no such option: 'colour'; there are basic"),
        ("https://r?timeout.ms", "the options are not name=value"),
        ("https://r?timeout.ms=", r"the option timeout\.ms is empty"),
        ("https://r?timeout.ms=1&timeout.ms=2", "twice"),
        ("https://r?timeout.ms=0", "must be a whole number from 1 to 60000"),
        ("https://r?timeout.ms=60001", "must be a whole number from 1 to 60000"),
        ("https://r?timeout.ms=1.5", "must be a whole number from 1 to 60000"),
        ("https://r?timeout.ms=²", "must be a whole number from 1 to 60000"),
        ("http://[::1", "is no address of a schema registry"),
    ],
)
def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said) as caught:
        SchemaRegistryAddress.parse(url)
    assert "secret" not in str(caught.value)


def test_a_password_file_that_says_nothing_is_named(tmp_path: Path) -> None:
    for name, content, said in (
        ("none", None, "cannot be read"),
        ("empty", b"\n", "is empty"),
        ("raw", b"\xff", "read"),
    ):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        address = SchemaRegistryAddress.parse(f"https://r?basic.auth.username=ann&basic.auth.password.file={file}")
        with pytest.raises(UnavailableError, match=said):
            address.settings()
