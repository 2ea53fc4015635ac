"""A store whose settings name an authorization server, and a person at a browser, played by a script."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from headrace.cli import consenting, output
from headrace.producers import setups
from headrace.producers.schedule import SourceKey
from tests.doubles.http import Faulty, served
from tests.doubles.oauth import CLIENT, SECRET, AuthorizationServer, Vendor
from tests.integration.cli_desk import Cli, Ran, mail
from tests.integration.stores import open_store

WAIT: Final = 20.0
SOON: Final = 5.0
"""Before the server gives up on a connection on which nothing is said."""
IMAP: Final = ("imap", "--set", "username=ann@example.com", "--set", "auth=oauth", "--set")
HERE: Final = (*IMAP, "host=imap.example.com")
GRAPH: Final = ("graph", "--set", "address=ann@example.com")
GMAIL: Final = ("gmail", "--set", "address=ann@example.com")
Act = Literal["go", "stay"]


class Browser:
    """A person at a browser: what is asked for is opened, and the browser goes where it is sent.

    ``before`` is done with the address that it is sent to before it goes there, ``after`` when it has been there.
    """

    def __init__(self) -> None:
        self.acts: Act = "go"
        self.before: Callable[[str], object] = lambda _: None
        self.after: Callable[[], object] = lambda: None
        self.opened: str = ""
        self.sent_to: str = ""
        self.shown: httpx.Response | None = None
        self.notes: list[str] = []
        self._thread: threading.Thread | None = None

    def __call__(self, note: str) -> None:
        """Instead of showing the note to a person."""
        self.notes.append(note)
        found = re.search(r"^  (https?://\S+)$", note, re.MULTILINE)
        if found is not None:
            self.opened = found[1]
            if self.acts == "go":
                self._thread = threading.Thread(target=self._go)
                self._thread.start()

    def _go(self) -> None:
        self.sent_to = consented_at(self.opened)
        self.before(self.sent_to)
        self.shown = httpx.get(self.sent_to, timeout=WAIT)
        self.after()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(WAIT)
            assert not self._thread.is_alive()

    @property
    def asked(self) -> dict[str, str]:
        """The parameters of the authorization request."""
        return dict(parse_qsl(urlsplit(self.opened).query))


def consented_at(url: str) -> str:
    """Where a browser is sent after the person was there."""
    answer = httpx.get(url, timeout=WAIT)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


class Site:
    """A store whose settings name the authorization server of one vendor."""

    def __init__(self, cli: Cli, server: AuthorizationServer, faulty: Faulty, url: str, store: Path) -> None:
        self.cli, self.server, self.faulty, self.url, self.store = cli, server, faulty, url, store

    def add(self, *words: object) -> Ran:
        return self.cli("source", "add", *words, "--account", "ann", "--json")

    def configure(self, **more: str) -> None:
        """``headrace.toml`` with all there is; ``more`` is of the IMAP app."""
        said = {
            "client_id": CLIENT,
            "client_secret_file": "keys/app",
            "authorize_url": f"{self.url}/authorize",
            "token_url": f"{self.url}/token",
            "scope": "imap offline_access",
            **more,
        }
        shared = f'client_id = "{CLIENT}"\nclient_secret_file = "keys/app"\n'
        imap = "".join(f'{name} = "{value}"\n' for name, value in said.items() if value)
        (self.store / "headrace.toml").write_text(
            f'[google]\n{shared}topic = "projects/p/topics/t"\naudience = "a"\nservice_account = "s@p.example"\n'
            f'[microsoft]\n{shared}[imap.oauth."imap.example.com"]\n{imap}'
        )

    def grants(self) -> list[dict[str, Any]]:
        """Of the sources that are connected."""
        with open_store(self.store, writer=False, fold=False, make=False) as opened:
            found = opened.connections.all()
            keys = [SourceKey(one.tenant, one.account, one.source) for one in found]
            return [dict(opened.connections.grant(key) or {}) for key in keys]


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    made = Browser()
    monkeypatch.setattr(output, "note", made)
    monkeypatch.setattr(consenting, "CONSENT_SECONDS", WAIT)
    yield made
    made.join()


@pytest.fixture
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return getattr(request, "param", "another")


@pytest.fixture
def site(vendor: Vendor, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    mail(cli)
    store = tmp_path / "store"
    (store / "keys").mkdir(parents=True, exist_ok=True)
    (store / "keys" / "app").write_text(SECRET + "\n")
    server = AuthorizationServer(vendor=vendor)
    faulty = Faulty(server)
    with served(faulty) as url:
        monkeypatch.setattr(setups, "_GOOGLE_AUTHORIZE", f"{url}/authorize")
        monkeypatch.setattr(setups, "_GOOGLE_TOKEN", f"{url}/token")
        monkeypatch.setattr(setups, "_MICROSOFT", url)
        made = Site(cli, server, faulty, url, store)
        made.configure()
        yield made


def nothing_is_said_of(site: Site, browser: Browser, ran: Ran) -> None:
    """No secret is in what was printed, but the one-time state in the address that was to be opened."""
    secrets = [SECRET, *site.server.access, *(one.get("code", "-") for one in site.server.asked)]
    secrets += [one.get("code_verifier", "-") for one in site.server.asked]
    told = ran.out + ran.err + "".join(browser.notes)
    assert [one for one in secrets if len(one) > 1 and one in told] == []
