"""A schema registry that really checks: Apicurio Registry, schemas in memory, behind Confluent's API."""

import http.client
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.errors import UnavailableError
from infra.stack.artifacts import fetched
from infra.stack.child import Child
from infra.stack.java import QUICK, java
from infra.stack.ports import kept_ports

_TRIES: Final = 3
_START_SECONDS: Final = 60.0
_API: Final = "/apis/ccompat/v7"


class SchemaRegistry:
    """One registry; what was registered is gone when it stops. ``quick`` is for tests: it starts faster."""

    def __init__(self, directory: Path, *, quick: bool = False) -> None:
        self.directory: Final = directory
        self._quick: Final = QUICK if quick else ()
        self._port = 0
        self._server: Child | None = None

    @property
    def url(self) -> str:
        """What a client of Confluent's Schema Registry is given."""
        return f"http://127.0.0.1:{self._port}{_API}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it answers.

        :raises UnavailableError: Java or its files are missing, or it does not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        [jar] = sorted(fetched("registry").glob("*-runner.jar"))
        failure: UnavailableError | None = None
        for _ in range(_TRIES):
            [self._port] = kept_ports(self.directory / "port", 1)
            options = ["-Xmx512m", *self._quick, "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
            home = self.directory / "home"  # Quarkus unpacks things there
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            self._server = Child(
                "the schema registry",
                [java(), *options, f"-Djava.io.tmpdir={home}", "-jar", jar],
                self.directory / "registry.log",
            )
            self._server.start()
            try:
                self._server.wait_ready(self._answers, _START_SECONDS)
            except UnavailableError as error:
                failure = error
                (self.directory / "port").unlink()
            else:
                return
        raise failure or UnavailableError("the schema registry does not come up")

    def stop(self, timeout: float = 10.0) -> None:
        """End it: politely, and after ``timeout`` seconds by force."""
        if self._server is not None:
            self._server.stop(timeout)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
        try:
            connection.request("GET", f"{_API}/subjects")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
