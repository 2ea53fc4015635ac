"""A mailbox that is opened with somebody's consent: connected by the command line at an authorization server, read and
listened to on a real Dovecot, which takes that server's tokens and no others."""

import re
import secrets
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx
import pytest

from headrace.cli import output
from headrace.cli.main import run
from headrace.errors import BadInputError
from headrace.producers.connections import key_of
from headrace.producers.imap_idle import ImapWatcher
from headrace.producers.provider_http import GrantError
from headrace.producers.source_syncs import SourceSyncs
from headrace.settings import load_settings
from headrace.sourcing import host_of, setups_of
from headrace.store import Store
from tests.doubles.http import served
from tests.doubles.oauth import CLIENT, SECRET, AuthorizationServer
from tests.imap.parts import Person
from tests.imap.test_imap_access import Secured, secured, token
from tests.imap.test_imap_idle import SOON

__all__ = ("secured",)

pytestmark = pytest.mark.embedded("in one process with its files")

SETTINGS: Final = f"""
[imap.oauth."HOST"]
client_id = "{CLIENT}"
client_secret_file = "keys/imap"
authorize_url = "URL/authorize"
token_url = "URL/token"
scope = "imap offline_access"
"""


class Owner:
    """Somebody with a mailbox, and the authorization server of the host that it is reached by."""

    def __init__(self, account: str, host: str) -> None:
        self.account, self.host, self.user = account, host, f"{account}-{secrets.token_hex(4)}@example.com"
        self.lasts = 600
        """Seconds for which the mail server takes the next access token; the client is told an hour."""
        self.auth: Final = AuthorizationServer(vendor="another", made=lambda: token(self.user, seconds=self.lasts))


class Site:
    """A store, and a mail server that takes the tokens of two people."""

    def __init__(self, directory: Path, mail: Secured, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.mail, self._capsys = directory, mail, capsys
        self.ann, self.bob = Owner("ann", "127.0.0.1"), Owner("bob", "localhost")

    def run(self, *words: object) -> tuple[int, str]:
        self._capsys.readouterr()
        code = run([*map(str, words), "--store", str(self.directory)])
        printed = self._capsys.readouterr()
        return code, printed.out + printed.err

    def connect(self, owner: Owner) -> str:
        """By the command line; the source's name."""
        said = {"host": owner.host, "port": self.mail.server.port, "security": "none", "auth": "oauth"}
        pairs = [f"{name}={value}" for name, value in {**said, "username": owner.user}.items()]
        browser = list[threading.Thread]()

        def opened(note: str) -> None:
            [url] = re.findall(r"^  (http\S+)$", note, re.MULTILINE)
            browser.append(threading.Thread(target=lambda: httpx.get(url, follow_redirects=True, timeout=30)))
            browser[0].start()

        with patch.object(output, "note", opened):
            words = [word for pair in pairs for word in ("--set", pair)]
            code, told = self.run("source", "add", "imap", "--account", owner.account, *words)
        assert code == 0, told
        browser[0].join()
        return told.split()[0]

    def sync(self, name: str, account: str = "ann") -> tuple[int, str]:
        """By the command line; its exit code, and what it says."""
        return self.run("source", "sync", name, "--account", account)

    @contextmanager
    def store(self) -> Generator[Store]:
        with Store(self.directory, writer=True) as opened:
            yield opened


@pytest.fixture
def site(secured: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    directory = tmp_path / "store"
    (directory / "keys").mkdir(parents=True)
    (directory / "keys" / "imap").write_text(SECRET)
    made = Site(directory, secured, capsys)
    with made.store():
        pass  # it is made
    with served(made.ann.auth) as anns, served(made.bob.auth) as bobs:
        pairs = ((made.ann, anns), (made.bob, bobs))
        text = "".join(SETTINGS.replace("HOST", owner.host).replace("URL", url) for owner, url in pairs)
        (directory / "headrace.toml").write_text(text)
        yield made


@contextmanager
def person(site: Site, owner: Owner | None = None) -> Generator[Person]:
    """At a mail program of their own."""
    made = Person(site.mail.server, (owner or site.ann).user)
    try:
        yield made
    finally:
        made.close()


def test_its_tokens_are_refreshed_for_as_long_as_it_is_connected(site: Site) -> None:
    with person(site) as ann:
        ann.receive()
        name = site.connect(site.ann)
        assert site.sync(name) == (0, f"{name} of ann: 1 events, compared in full\n")
        assert site.ann.auth.refreshes == 0
        refresh_tokens = set[str]()
        with site.store() as store:
            [connected] = store.connections.all()
            key = key_of(connected)
            grant = dict(store.connections.grant(key) or {})
            later = [grant["expires_at"]]
            setups = setups_of(load_settings(site.directory))
            syncs = SourceSyncs(store, store.connections, setups, None, clock=lambda: later[0])
            for round_ in range(1, 4):  # an hour has passed
                ann.receive()
                assert syncs.sync(key).events == 1
                assert site.ann.auth.refreshes == round_
                after = dict(store.connections.grant(key) or {})
                refresh_tokens.add(after["refresh_token"])
                later[0] = after["expires_at"]
        assert len(refresh_tokens) == 3, "each works once"


def test_a_token_that_the_mail_server_turns_down_is_refreshed(site: Site) -> None:
    site.ann.lasts = -60
    with person(site) as ann:
        ann.receive()
        name = site.connect(site.ann)
        site.ann.lasts = 600
        assert site.sync(name) == (0, f"{name} of ann: 1 events, compared in full\n")
    assert site.ann.auth.refreshes == 1


def test_a_grant_that_was_taken_back_ails_its_own_source_and_no_other(site: Site) -> None:
    with person(site) as ann, person(site, site.bob) as bob:
        anns, bobs = site.connect(site.ann), site.connect(site.bob)
        for mailbox in (ann, bob):
            mailbox.receive()
        assert (site.sync(anns)[0], site.sync(bobs, "bob")[0]) == (0, 0)
        site.ann.auth.revoke()
        assert site.sync(anns)[0] == 0, "the access token outlives the grant: nobody has told the mail server"
        code, told = site.run("source", "doctor")
        assert code == 1
        ailing, well = (
            next(row for row in told.splitlines() if row.startswith(f"{who} ") and "grant" in row)
            for who in ("ann", "bob")
        )
        assert well.endswith("ok")
        assert "127.0.0.1 says that the grant is gone (it was taken back, or has ended); connect the source" in ailing
        bob.receive()
        assert site.sync(bobs, "bob") == (0, f"{bobs} of bob: 1 events\n")
        assert site.connect(site.ann) == anns
        assert site.run("source", "doctor")[0] == 0


def test_a_sync_says_that_a_grant_is_gone(site: Site) -> None:
    site.ann.lasts = -60
    with person(site):
        name = site.connect(site.ann)
        site.ann.auth.revoke()
        code, told = site.sync(name)
    assert code == 1
    assert "127.0.0.1 says that the grant is gone" in told


def watcher_of(site: Site, store: Store) -> ImapWatcher:
    """As the host of syncs makes it."""
    with patch("headrace.sourcing.SourceHost") as made:
        host_of(store, load_settings(site.directory))
    [connected] = store.connections.all()
    watcher = made.call_args.args[3](connected)
    assert isinstance(watcher, ImapWatcher)
    return watcher


def test_what_listens_refreshes_too(site: Site) -> None:
    site.ann.lasts = -60
    with person(site) as ann:
        site.connect(site.ann)
        site.ann.lasts = 600
        with site.store() as store:
            watcher = watcher_of(site, store)
            heard, hints = threading.Semaphore(0), list[Any]()

            def listen() -> None:
                for hint in watcher.hints():
                    hints.append(hint)
                    heard.release()

            thread = threading.Thread(target=listen)
            thread.start()
            try:
                assert heard.acquire(timeout=SOON)
                assert site.ann.auth.refreshes == 1
                ann.receive()
                assert heard.acquire(timeout=SOON)
            finally:
                watcher.stop()
                thread.join(SOON)
            assert not thread.is_alive()


def test_what_listens_ends_where_the_grant_is_gone(site: Site) -> None:
    site.ann.lasts = -60
    with person(site):
        site.connect(site.ann)
        site.ann.auth.revoke()
        with site.store() as store, pytest.raises(GrantError, match="the grant is gone"):
            next(watcher_of(site, store).hints())


def test_in_the_running_process_a_message_is_on_the_log_soon(site: Site) -> None:
    with person(site) as ann:
        site.connect(site.ann)
        with site.store() as store:
            [connected] = store.connections.all()
            partition = store.intake.partition(connected.tenant, connected.account)

            def received() -> int:
                end = store.log.describe().ends[partition]
                found = store.log.read(partition, 0, end) if end else []
                return sum(dict(one.headers)["ce_type"] == b"mail.received" for one in found)

            with host_of(store, load_settings(site.directory)):
                for count in (1, 2):
                    ann.receive()
                    while received() < count:
                        assert store.applied.wait(partition, store.log.describe().ends[partition], SOON)


def test_where_its_app_is_set_up_no_more(site: Site) -> None:
    with person(site):
        name = site.connect(site.ann)
        (site.directory / "headrace.toml").write_text("")
        code, told = site.sync(name)
        assert code == 1
        assert 'put the section [imap.oauth."127.0.0.1"] with client_id' in told
        code, told = site.run("source", "doctor")
        assert code == 1
        assert re.search(r'settings +no app is set up here .*put the section \[imap\.oauth\."127\.0\.0\.1"\]', told)
        with site.store() as store, pytest.raises(BadInputError, match="no app is set up here"):
            watcher_of(site, store)
        code, told = site.run("source", "rm", name, "--account", "ann")
        assert code == 0, told
