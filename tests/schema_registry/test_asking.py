"""``python -m headrace.schemas.compatibility --registry URL --topic NAME``: what a release would meet, told before."""

import json
from pathlib import Path

import pytest

from headrace.kinds import schema_registry
from headrace.schemas.compatibility import main, release
from headrace.schemas.confluent import ConfluentRegistry
from headrace.schemas.registry import parse_version
from tests.schema_registry.topics import put, stranger, versions_of
from tests.unit.avro_data import Source, field, schema

ONE = schema([field("buyer", "string")])
TWO = schema([field("buyer", "string"), field("cents", "long", default=0)], version=2)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A package's schemas: one type, released."""
    bring(tmp_path, ONE)
    release(tmp_path)
    return tmp_path


def bring(files: Path, source: Source) -> None:
    """Put a file where it belongs."""
    path = files / "shop" / f"sold.v{source['headrace.version']}.avsc"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(source), encoding="utf-8")


def test_what_a_registry_has_or_would_take_is_well(
    files: Path, registry_url: str, topic: str, confluent: ConfluentRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(files), "--registry", registry_url, "--topic", topic]
    assert main(asked) == 0, "nothing is there yet"
    confluent.register([parse_version(ONE)])
    assert main(asked) == 0
    bring(files, TWO)
    release(files)
    assert main(asked) == 0
    assert capsys.readouterr().err == ""
    assert len(versions_of(registry_url, f"{topic}-example.shop.Sold")) == 1, "nothing was registered"


def test_what_it_would_refuse_is_told_by_file(
    files: Path, registry_url: str, topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = f"{topic}-example.shop.Sold"
    put(registry_url, subject, json.dumps(schema([field("seller", "string")])))
    with stranger(registry_url) as client:
        client.set_compatibility(subject, "BACKWARD_TRANSITIVE")
    assert main([str(files), "--registry", registry_url, "--topic", topic]) == 1
    told = capsys.readouterr().err
    assert told.startswith("shop/sold.v1.avsc: the schema registry ")
    assert f"refuses shop.sold version 1 under the subject {subject} (it is incompatible)" in told


def test_a_subject_that_is_not_kept_compatible_is_told(
    files: Path, registry_url: str, topic: str, confluent: ConfluentRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    confluent.register([parse_version(ONE)])
    with stranger(registry_url) as client:
        client.set_compatibility(f"{topic}-example.shop.Sold", "NONE")
    assert main([str(files), "--registry", registry_url, "--topic", topic]) == 1
    assert f"the subject {topic}-example.shop.Sold is kept NONE, not BACKWARD_TRANSITIVE" in capsys.readouterr().err


def test_a_registry_that_cannot_be_asked_is_told(
    files: Path, registry_url: str, topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(files), "--registry", f"{registry_url}/nowhere", "--topic", topic]) == 1
    assert "not at this path" in capsys.readouterr().err
    assert main([str(files), "--registry", "registry:8081", "--topic", topic]) == 1
    assert "is no address of a schema registry" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(files), "--registry", registry_url])
    assert "--registry and --topic go together" in capsys.readouterr().err


def test_headraces_own_schemas_go_in(registry_url: str, topic: str) -> None:
    assert main(["--registry", registry_url, "--topic", topic]) == 0
    with schema_registry(registry_url, topic) as confluent:
        assert not confluent.address.files
