"""The schema registry behind TLS and a password, as operators put it: a gateway of the tests' own in front of it."""

import base64
import http.client
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT_SECONDS: Final = 20.0


@contextmanager
def guarded(
    registry_url: str, keystore: Path, username: str, password: str, *, trust: Path | None = None
) -> Generator[str, None, None]:
    """The URL of the gateway. ``keystore`` holds its key and certificate; with ``trust`` clients must show one of that
    authority."""
    target = urlsplit(registry_url)
    wanted = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # an answer in one piece: in two, each waits for TCP's delayed acknowledgement

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("Authorization") != wanted:
                self._answer(401, "application/json", b'{"error_code": 401, "message": "Unauthorized"}')
                return
            onward = http.client.HTTPConnection(target.hostname or "", target.port, timeout=_TIMEOUT_SECONDS)
            headers = {name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers}
            onward.request(self.command, self.path, body or None, headers)
            answer = onward.getresponse()
            self._answer(answer.status, answer.headers.get_content_type(), answer.read())
            onward.close()

        do_GET = do_POST = do_PUT = _pass_on  # noqa: N815 - http.server's names

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keystore)
    if trust is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(trust)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="gateway", daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}{target.path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_TIMEOUT_SECONDS)
