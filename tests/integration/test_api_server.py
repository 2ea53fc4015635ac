"""The API on a socket: starts, says where it is, stops within bounds and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest

from headrace.api.server import GRACE_SECONDS, SERVER_FILE, BackgroundServer
from headrace.errors import UnavailableError
from headrace.settings import load_settings
from tests.integration.api_desk import WAIT
from tests.integration.stores import open_store, variables

PROGRAM = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from headrace.api.server import serve
    from headrace.settings import load_settings
    from headrace.store import Store

    directory = Path(sys.argv[1])
    settings = load_settings(directory, port=0)
    with Store(directory, writer=True, partitions=2, places=settings.places) as store:
        serve(store, settings, ready=lambda url: print(url, flush=True))
    print("closed", flush=True)
    """
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, **variables(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        told = json.loads((tmp_path / SERVER_FILE).read_text())
        assert told == {"url": url, "pid": process.pid}
        with httpx.Client(base_url=url, timeout=WAIT) as http:
            assert http.get("/health/ready").json()["status"] == "ok"
            with http.stream("GET", "/v1/accounts/a/watch") as stream:
                assert next(stream.iter_lines()).startswith("id: ")
                process.send_signal(number)
                assert process.wait(GRACE_SECONDS + WAIT) == 0
        assert process.stdout.read() == "closed\n"
        assert not (tmp_path / SERVER_FILE).exists()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_servers_in_one_process_do_not_meet(tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "one", writer=True, partitions=2) as one,
        open_store(tmp_path / "two", writer=True, partitions=2) as two,
        BackgroundServer(one, load_settings(one.directory, port=0)) as first,
    ):
        with BackgroundServer(two, load_settings(two.directory, port=0)) as second:
            ids = {httpx.get(f"{server.url}/v1/log").json()["log_id"] for server in (first, second)}
            assert len(ids) == 2
        assert not (two.directory / SERVER_FILE).exists()
        assert httpx.get(f"{first.url}/health/live").status_code == 200
        assert json.loads((one.directory / SERVER_FILE).read_text())["url"] == first.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{first.url}/health/live")


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, open_store(tmp_path, writer=True, partitions=2) as store:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"{port}.*another port"):
            BackgroundServer(store, load_settings(tmp_path, port=port)).__enter__()
        assert not (tmp_path / SERVER_FILE).exists()


def test_it_answers_on_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return  # this machine has no IPv6
    with (
        open_store(tmp_path, writer=True, partitions=2) as store,
        BackgroundServer(store, load_settings(tmp_path, host="::1", port=0)) as server,
    ):
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/v1/accounts").status_code == 200
