"""The parts in containers, by ``infra/compose.yaml``: for machines where a Docker engine answers."""

import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from headrace.errors import UnavailableError
from infra.stack.ports import kept_ports

COMPOSE: Final = Path(__file__).resolve().parents[1] / "compose.yaml"
_ASK_SECONDS: Final = 10
_START_SECONDS: Final = 600
_STOP_SECONDS: Final = 120
_REGISTRY_API: Final = "/apis/ccompat/v7"


def engine_answers() -> bool:
    """Whether there is a Docker engine that this user may use, and Compose."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    return all(_succeeds([docker, *words]) for words in (["info"], ["compose", "version"]))


class ComposeStack:
    """Parts in containers of a Compose project of their own, which is named after ``directory``."""

    def __init__(self, directory: Path, parts: Sequence[str], *, remove: bool) -> None:
        self._directory: Final = directory
        self._parts: Final = tuple(parts)
        self._remove: Final = remove
        self._project: Final = f"headrace-{hashlib.sha256(str(directory).encode()).hexdigest()[:10]}"
        self._environment: dict[str, str] = {}

    def start(self) -> Mapping[str, str]:
        """Start them; returns the parts' addresses by name once they are healthy.

        :raises UnavailableError: Compose fails; the message says how.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        kafka, postgres, registry, interface = kept_ports(self._directory / "ports", 4)
        password = self._password()
        self._environment = {
            "HEADRACE_KAFKA_PORT": str(kafka),
            "HEADRACE_POSTGRES_PORT": str(postgres),
            "HEADRACE_REGISTRY_PORT": str(registry),
            "HEADRACE_KAFKA_UI_PORT": str(interface),
            "HEADRACE_POSTGRES_PASSWORD": password,
        }
        self._compose(["up", "--detach", "--wait", *self._parts], _START_SECONDS)
        addresses = {
            "kafka": f"127.0.0.1:{kafka}",
            "postgres": f"postgresql://headrace:{password}@127.0.0.1:{postgres}/postgres",
            "registry": f"http://127.0.0.1:{registry}{_REGISTRY_API}",
        }
        return {part: addresses[part] for part in self._parts}

    def stop(self) -> None:
        """Remove the containers; with ``remove`` what they kept as well."""
        self._compose(["down", *(["--volumes"] if self._remove else [])], _STOP_SECONDS)

    def _password(self) -> str:
        file = self._directory / "password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(18), encoding="ascii")
        return file.read_text(encoding="ascii")

    def _compose(self, words: Sequence[str], seconds: float) -> None:
        command = ["docker", "compose", "--project-name", self._project, "--file", str(COMPOSE), *words]
        try:
            ran = subprocess.run(  # noqa: S603 - docker, with words of ours
                command,
                env={**os.environ, **self._environment},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"docker compose {words[0]} did not finish ({error}); look at the engine") from error
        if ran.returncode != 0:
            raise UnavailableError(f"docker compose {words[0]} failed: {ran.stderr.strip()[-500:]}")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        ran = subprocess.run(command, capture_output=True, timeout=_ASK_SECONDS, check=False)  # noqa: S603 - docker
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0
