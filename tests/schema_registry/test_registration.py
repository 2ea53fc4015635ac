"""What stands in the schema registry after headrace has started, whoever was there before or at the same time."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from headrace.errors import BadInputError, HaltError, UnavailableError
from headrace.kinds import installed_schemas, schema_registry
from headrace.schemas.confluent import ConfluentRegistry
from headrace.schemas.registry import Registry, SchemaVersion, built_in, fingerprint_of, parse_version
from tests.schema_registry.topics import put, stranger, versions_of
from tests.unit.avro_data import field, schema

ONE = schema([field("buyer", "string")])
TWO = schema([field("buyer", "string"), field("cents", "long", default=0)], version=2)
THREE = schema(
    [field("buyer", ["null", "string"]), field("cents", "long", default=0), field("paid", "boolean", default=False)],
    version=3,
)
SUBJECT = "example.shop.Sold"


def parsed(*sources: dict[str, Any]) -> list[SchemaVersion]:
    return [parse_version(source) for source in sources]


def ids(confluent: ConfluentRegistry, versions: Iterable[SchemaVersion]) -> list[int]:
    return [confluent.id_of(version) for version in versions]


def fingerprints(url: str, subject: str) -> list[bytes]:
    return [fingerprint_of(text) for _, text in versions_of(url, subject)]


def test_all_schemas_are_registered_by_topic_and_record(
    confluent: ConfluentRegistry, registry_url: str, topic: str
) -> None:
    registry = installed_schemas(confluent)
    with stranger(registry_url) as client:
        subjects = {subject for subject in client.get_subjects() if subject.startswith(f"{topic}-")}
        assert subjects == {f"{topic}-{version.name}" for version in registry.versions}
        assert {client.get_compatibility(subject) for subject in subjects} == {"BACKWARD_TRANSITIVE"}
        for version in registry.versions:
            schema_id = confluent.id_of(version)
            found = client.get_schema(schema_id)
            assert json.loads(found.schema_str or "") == version.source, "with its docs and properties"
            assert confluent.fingerprint_of(schema_id) == version.fingerprint


def test_it_can_be_repeated(confluent: ConfluentRegistry, registry_url: str, topic: str) -> None:
    versions = parsed(ONE, TWO)
    confluent.register(versions)
    first = ids(confluent, versions)
    for _ in range(2):
        with schema_registry(registry_url, topic) as again:
            again.register(reversed(versions))
            assert ids(again, versions) == first
    assert [one for one, _ in versions_of(registry_url, f"{topic}-{SUBJECT}")] == first


def test_versions_are_registered_in_their_order(confluent: ConfluentRegistry, registry_url: str, topic: str) -> None:
    confluent.register(parsed(THREE, ONE, TWO))
    expected = [version.fingerprint for version in parsed(ONE, TWO, THREE)]
    assert fingerprints(registry_url, f"{topic}-{SUBJECT}") == expected


def test_an_older_headrace_finds_its_versions_beside_newer_ones(
    confluent: ConfluentRegistry, registry_url: str, topic: str
) -> None:
    confluent.register(parsed(ONE, TWO, THREE))
    with schema_registry(registry_url, topic) as older:
        older.register(parsed(ONE))
        assert ids(older, parsed(ONE)) == ids(confluent, parsed(ONE))
    assert len(versions_of(registry_url, f"{topic}-{SUBJECT}")) == 3


def test_other_docs_are_no_other_version(confluent: ConfluentRegistry, registry_url: str, topic: str) -> None:
    confluent.register(parsed(ONE, TWO))
    with schema_registry(registry_url, topic) as reworded:
        versions = parsed({**ONE, "doc": "Said better."}, {**TWO, "doc": "Said better."})
        reworded.register(versions)
        assert ids(reworded, versions) == ids(confluent, parsed(ONE, TWO))
    assert len(versions_of(registry_url, f"{topic}-{SUBJECT}")) == 2


def test_a_version_that_somebody_else_registered_is_taken_as_it_is(
    confluent: ConfluentRegistry, registry_url: str, topic: str
) -> None:
    bare = {"type": "record", "name": SUBJECT, "fields": [{"type": {"type": "string"}, "name": "buyer"}]}
    theirs = put(registry_url, f"{topic}-{SUBJECT}", json.dumps(bare))
    confluent.register(parsed(ONE))
    assert ids(confluent, parsed(ONE)) == [theirs]
    assert len(versions_of(registry_url, f"{topic}-{SUBJECT}")) == 1


@pytest.mark.parametrize("level", ["NONE", "FORWARD"])
def test_a_level_that_somebody_changed_is_set_again(
    confluent: ConfluentRegistry, registry_url: str, topic: str, level: str
) -> None:
    confluent.register(parsed(ONE))
    subject = f"{topic}-{SUBJECT}"
    with stranger(registry_url) as client:
        client.set_compatibility(subject, level)
        with schema_registry(registry_url, topic) as again:
            again.register(parsed(ONE))
        assert client.get_compatibility(subject) == "BACKWARD_TRANSITIVE"


def test_an_incompatible_schema_is_refused_by_name(confluent: ConfluentRegistry, registry_url: str, topic: str) -> None:
    foreign = schema([field("buyer", "string"), field("price", "long")])
    there = put(registry_url, f"{topic}-{SUBJECT}", json.dumps(foreign))
    wanted = schema([field("buyer", "string"), field("seller", "string")])
    with pytest.raises(HaltError) as caught:
        confluent.register(parsed(wanted))
    text = str(caught.value)
    assert f"refuses shop.sold version 1 under the subject {topic}-{SUBJECT} (" in text
    assert "give the log another topic" in text
    assert [one for one, _ in versions_of(registry_url, f"{topic}-{SUBJECT}")] == [there]
    with pytest.raises(UnavailableError, match="is not in the schema registry"):
        confluent.id_of(*parsed(wanted))


def test_the_subject_refuses_what_would_break_readers_later(
    confluent: ConfluentRegistry, registry_url: str, topic: str
) -> None:
    """Transitively: what reads version 2 alone, as BACKWARD asks, is not enough."""
    confluent.register(parsed(ONE, TWO, THREE))
    breaks_the_first = {**schema([field("cents", "long")]), "headrace.version": 4}
    with pytest.raises(Exception, match="409"):
        put(registry_url, f"{topic}-{SUBJECT}", json.dumps(breaks_the_first))


def test_who_only_reads_registers_nothing(confluent: ConfluentRegistry, registry_url: str, topic: str) -> None:
    registry = installed_schemas(confluent, register=False)
    with pytest.raises(UnavailableError, match="start a headrace that writes to this log: it registers its schemas"):
        registry.encode("mail.read", {})
    with stranger(registry_url) as client:
        assert not [subject for subject in client.get_subjects() if subject.startswith(f"{topic}-")]
    with schema_registry(registry_url, topic) as writer:
        raw = installed_schemas(writer).encode("mail.read", {})
    assert registry.decode(raw).type == "mail.read"
    assert registry.encode("mail.read", {}) == raw


def test_threads_that_race_agree(registry_url: str, topic: str) -> None:
    versions, together = parsed(ONE, TWO, THREE), threading.Barrier(6)
    found: list[list[int]] = []

    def start() -> None:
        with schema_registry(registry_url, topic) as one:
            together.wait(20)
            one.register(versions)
            found.append(ids(one, versions))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    assert len(set(map(tuple, found))) == 1
    assert [one for one, _ in versions_of(registry_url, f"{topic}-{SUBJECT}")] == found[0]
    with stranger(registry_url) as client:
        assert client.get_compatibility(f"{topic}-{SUBJECT}") == "BACKWARD_TRANSITIVE"


_STARTING = """
import sys
from headrace.kinds import installed_schemas, schema_registry
with schema_registry(sys.argv[1], sys.argv[2]) as confluent:
    sys.stdin.readline()
    registry = installed_schemas(confluent)
    print(*(confluent.id_of(version) for version in registry.versions))
"""


def test_processes_that_race_agree(registry_url: str, topic: str) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _STARTING, registry_url, topic],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said[0] == said[1]
    assert len(set(said[0])) == len(Registry(built_in()).versions)


def test_a_topic_must_have_a_name(registry_url: str) -> None:
    with pytest.raises(BadInputError, match="named after the topic; name one"):
        schema_registry(registry_url, "")
