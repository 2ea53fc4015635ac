"""A real CalDAV server for the demo and the tests: Radicale (GPL-3), run as a process and never imported."""

import http
import http.client
import importlib.util
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from caldav.davclient import DAVClient

from headrace.errors import BadInputError, UnavailableError

_ATTEMPTS: Final = 5
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.02
_CONFIG: Final = """\
[server]
hosts = 127.0.0.1:{port}
max_connections = 64
delay_on_error = 0
[auth]
type = htpasswd
htpasswd_filename = {users}
htpasswd_encryption = plain
delay = 0
[rights]
type = owner_only
[storage]
filesystem_folder = {collections}
[web]
type = none
[logging]
level = warning
"""
# RFC 4791 §5.3.1
_MKCALENDAR: Final = """\
<C:mkcalendar xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><D:set><D:prop>\
<D:displayname>{name}</D:displayname>\
</D:prop></D:set></C:mkcalendar>"""


class CaldavServer:
    """Radicale on a free port of 127.0.0.1, with one user and everything it keeps in ``directory``.

    The data outlives the process: another one in the same directory goes on with the same calendars and password,
    at another port. It is plain HTTP and its password lies readable in ``directory``: for a demo, not for people.
    """

    def __init__(self, directory: Path, *, username: str = "person") -> None:
        self.directory = directory
        self.username = username
        self.password = ""
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._client: DAVClient | None = None

    @property
    def storage(self) -> Path:
        """Where Radicale keeps the user's calendars, one folder each."""
        return self.directory / "collections" / "collection-root" / self.username

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers.

        :raises UnavailableError: Radicale is not installed, or does not come up.
        """
        if importlib.util.find_spec("radicale") is None:
            raise UnavailableError("the demo's calendar server is not installed: pip install 'headrace[demo]'")
        if self._process is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        users = self.directory / "users"
        if not users.exists():
            users.touch(mode=0o600)
            users.write_text(f"{self.username}:{secrets.token_urlsafe(18)}\n", encoding="utf-8")
        self.username, self.password = users.read_text(encoding="utf-8").strip().split(":", 1)
        for _ in range(_ATTEMPTS):
            # Another process may take the port between our looking and Radicale's binding: then it exits, try again.
            if self._launch(_free_port(), users):
                self._client = DAVClient(
                    url=self.url, username=self.username, password=self.password, enable_rfc6764=False, timeout=10
                )
                return
        raise UnavailableError(f"Radicale does not come up; what it says is in {self.directory / 'radicale.log'}")

    def stop(self) -> None:
        """End it: politely, and after five seconds by force."""
        if self._client is not None:
            self._client.close()
            self._client = None
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def make_calendar(self, name: str) -> str:
        """Make an empty calendar and return its URL; if there is one of this name already, that one's."""
        url = f"{self.url}{quote(self.username)}/{quote(name, safe='')}/"
        client = self._connected()
        if client.propfind(url, depth=0).status == 404:
            _done(client.mkcalendar(url, _MKCALENDAR.format(name=escape(name))).status, "made")
        return url

    def put_event(self, calendar_url: str, ics: str, name: str | None = None) -> str:
        """What a person's calendar app does to save an event: PUT it, over what was there. Returns its URL.

        ``name`` is the resource's; without one, the file is named after the UID.
        """
        url = calendar_url + quote(name or f"{_uid(ics)}.ics", safe="")
        headers = {"Content-Type": "text/calendar; charset=utf-8"}
        _done(self._connected().put(url, ics, headers).status, "saved")
        return url

    def delete_event(self, event_url: str) -> None:
        """What a person's calendar app does to delete an event."""
        _done(self._connected().delete(event_url).status, "deleted")

    def forget_sync_tokens(self, calendar_url: str) -> None:
        """Make every sync token issued for a calendar stale, and forget what was deleted, as if both were too old."""
        name = unquote(calendar_url.rstrip("/").rsplit("/", 1)[-1])
        for memory in ("sync-token", "history"):
            shutil.rmtree(self.storage / name / ".Radicale.cache" / memory, ignore_errors=True)

    def _connected(self) -> DAVClient:
        if self._client is None:
            raise UnavailableError("the demo's calendar server is not running: call start() first")
        return self._client

    def _launch(self, port: int, users: Path) -> bool:
        self.url = f"http://127.0.0.1:{port}/"
        config = self.directory / "radicale.conf"
        config.write_text(
            _CONFIG.format(port=port, users=users, collections=self.directory / "collections"), encoding="utf-8"
        )
        with (self.directory / "radicale.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
                [sys.executable, "-m", "radicale", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._answers(port):
                return True
            try:
                self._process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            break
        self.stop()
        return False

    def _answers(self, port: int) -> bool:
        """Whether it is ours that answers: nobody else knows the password."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        login = b64encode(f"{self.username}:{self.password}".encode()).decode()
        try:
            connection.request("PROPFIND", "/", headers={"Depth": "0", "Authorization": f"Basic {login}"})
            return connection.getresponse().status == http.HTTPStatus.MULTI_STATUS
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _uid(ics: str) -> str:
    return next((line[4:].strip() for line in ics.splitlines() if line.upper().startswith("UID:")), "event")


def _done(status: int, what: str) -> None:
    if status not in {200, 201, 204}:
        raise BadInputError(f"not {what}: Radicale answers {status}; check the URL and the iCalendar text")
