"""Connecting sources: what a person has to give for that, and what there is to say of those that are connected."""

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.cli import output
from headrace.errors import BadInputError
from headrace.producers.connections import HOOK_SETTING, Grant
from headrace.producers.oauth import Consent
from headrace.producers.provider import Connected
from headrace.producers.source_syncs import ProviderSetup
from headrace.schemas.refs import parse_id

PASSWORD_VARIABLE: Final = "HEADRACE_SOURCE_PASSWORD"  # noqa: S105 - where it is, not what it is
_CONSENT_SECONDS: Final = 600.0
_THANKS: Final = b"<!doctype html><title>headrace</title><p>Done: headrace has its answer. This page can be closed.</p>"


class Wanted(NamedTuple):
    """What is to be connected."""

    provider: str
    tenant: str
    account: str
    name: str | None
    settings: Mapping[str, str]


def connected_of(wanted: Wanted) -> Connected:
    """A source as it is kept. Its name on the log, if none is given, stands for its settings and says nothing of them.

    :raises BadInputError: an id cannot be one.
    """
    tenant, account = parse_id(wanted.tenant, "tenant"), parse_id(wanted.account, "account")
    found = sorted(one for one in wanted.settings.items() if one[0] != HOOK_SETTING)
    said = "\0".join(f"{name}={value}" for name, value in found)
    name = wanted.name or f"{wanted.provider}/{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    return Connected(tenant, account, name, wanted.provider, dict(wanted.settings))


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE``, several.

    :raises BadInputError: one is not that, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, given, value = pair.partition("=")
        if not given or not name or name in found:
            raise BadInputError(f"{pair[:60]!r} is no setting: write NAME=VALUE, each name once")
        found[name] = value
    return found


def password_of(file: Path | None) -> str:
    """The password in a file, or in the environment.

    :raises BadInputError: there is none.
    """
    if file is not None:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    found = os.environ.get(PASSWORD_VARIABLE)
    if not found:
        raise BadInputError(f"this source opens with a password: give --password-file, or set {PASSWORD_VARIABLE}")
    return found


def consented(setup: ProviderSetup, settings: Mapping[str, str], *, seconds: float = _CONSENT_SECONDS) -> Grant:
    """What a person's browser brings back (RFC 8252, section 7.3: to a port of this machine).

    :raises BadInputError: nobody answers, or the answer is no.
    :raises UnavailableError: the provider does not answer.
    """
    assert setup.app is not None
    scope = setup.scope(settings)
    if not scope:
        raise BadInputError("these settings ask for nothing that the provider gives; see its page in docs/providers")
    server = _Redirected()
    try:
        consent = Consent(setup.app, scope, server.address)
        output.note(f"headrace: open this in a browser of this machine, and allow what it asks for:\n  {consent.url}")
        return consent.grant(server.wait(seconds))
    finally:
        server.close()


class _Redirected:
    """Waits for the browser."""

    def __init__(self) -> None:
        self._came: Final = threading.Event()
        self._path = ""
        waiting = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "state=" in self.path:
                    waiting._path = self.path
                    waiting._came.set()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(_THANKS)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the class above has it
                """Say nothing: the code is in the path."""

        self._server: Final = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread: Final = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where the browser is to be sent."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def wait(self, seconds: float) -> str:
        if not self._came.wait(seconds):
            raise BadInputError(f"nobody answered within {seconds / 60:.0f} minutes: begin again")
        return self.address.rstrip("/") + self._path

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
