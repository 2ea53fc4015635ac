"""``headrace source add`` where a person consents: their browser, played by a script, an authorization server that has
the rules of the real ones, and whatever else may knock at the port where the answer is waited for."""

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from headrace.cli import consenting, exits
from tests.doubles.http import held, replies
from tests.integration.cli_desk import cli, own_environment
from tests.integration.consent_desk import (
    GMAIL,
    GRAPH,
    HERE,
    IMAP,
    SOON,
    WAIT,
    Browser,
    Site,
    browser,
    nothing_is_said_of,
    site,
    vendor,
)

__all__ = ("browser", "cli", "own_environment", "site", "vendor")


@pytest.mark.parametrize(
    ("vendor", "words", "redirect", "scope"),
    [
        ("google", GMAIL, "http://127.0.0.1:", "https://www.googleapis.com/auth/gmail.metadata"),
        (
            "google",
            ("google_calendar", "--set", "calendar=ann@example.com"),
            "http://127.0.0.1:",
            "https://www.googleapis.com/auth/calendar.events.owned.readonly",
        ),
        ("google", (*IMAP, "host=imap.gmail.com"), "http://127.0.0.1:", "https://mail.google.com/"),
        ("entra", GRAPH, "http://localhost:", "User.Read Mail.ReadBasic offline_access"),
        (
            "entra",
            (*IMAP, "host=Outlook.Office365.com"),
            "http://localhost:",
            "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
        ),
        ("another", HERE, "http://127.0.0.1:", "imap offline_access"),
    ],
    indirect=["vendor"],
)
def test_from_the_address_to_the_grant(
    site: Site, browser: Browser, words: tuple[str, ...], redirect: str, scope: str
) -> None:
    added = site.add(*words)
    assert added.code == exits.OK, added.err
    assert added.json == {
        "source": added.json["source"],
        "provider": words[0],
        "tenant": "local",
        "account": "ann",
        "new": True,
    }
    browser.join()
    assert browser.asked["scope"] == scope
    assert re.fullmatch(re.escape(redirect) + r"\d+", browser.asked["redirect_uri"]), "no slash at the end"
    assert browser.shown is not None
    assert browser.shown.status_code == 200
    assert (browser.shown.headers["referrer-policy"], browser.shown.headers["cache-control"]) == (
        "no-referrer",
        "no-store",
    )
    [asked] = site.server.asked
    assert asked["redirect_uri"] == browser.asked["redirect_uri"]
    [grant] = site.grants()
    assert grant["access_token"] in site.server.access
    assert grant["refresh_token"]
    nothing_is_said_of(site, browser, added)
    with pytest.raises(httpx.ConnectError):
        httpx.get(browser.sent_to)
    [row] = [one for one in site.cli("source", "doctor", "--json").json if one["check"] == "grant"]
    assert row["said"] == "ok"
    assert row["fault"] is None


def test_a_public_client(site: Site, browser: Browser) -> None:
    site.configure(client_secret_file="")
    site.server.secret = None
    added = site.add(*HERE)
    assert added.code == exits.OK, added.err
    assert "client_secret" not in site.server.asked[0]


def test_what_else_a_browser_does_is_no_answer(site: Site, browser: Browser) -> None:
    statuses = list[int]()
    silent = list[socket.socket]()

    def fuss(sent_to: str) -> None:
        split = urlsplit(sent_to)
        assert split.hostname is not None
        assert split.port is not None
        silent.append(socket.create_connection((split.hostname, split.port)))  # a connection kept ready, as browsers do
        root = f"http://{split.netloc}"
        state = dict(parse_qsl(split.query))["state"]
        for path in (
            "/favicon.ico",
            "/",
            "/?state=",
            "/?code=forged&state=another",
            f"/?state={state}",
            f"/?code=c&state={state}x",
            "/?error=access_denied&state=another",
            "/?%",
        ):
            statuses.append(httpx.get(root + path, timeout=SOON).status_code)
        statuses.append(httpx.post(sent_to, timeout=SOON).status_code)

    browser.before = fuss
    added = site.add(*HERE)
    assert added.code == exits.OK, added.err
    assert statuses == [404] * 8 + [501]
    assert len(site.server.asked) == 1
    silent[0].close()


def test_a_page_that_is_loaded_again_changes_nothing(site: Site, browser: Browser) -> None:
    asked, go_on = threading.Event(), threading.Event()
    site.faulty.plan(held(asked, go_on), path="/token")

    def load(sent_to: str) -> None:
        assert httpx.get(sent_to, timeout=WAIT).status_code == 200
        assert asked.wait(WAIT), "what the first one brought is made a grant of"

    browser.before, browser.after = load, go_on.set
    added = site.add(*HERE)
    assert added.code == exits.OK, added.err
    browser.join()
    assert browser.shown is not None
    assert browser.shown.status_code == 200
    assert len(site.server.asked) == 1


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("no", "imap.example.com gives no consent (access_denied); begin again, and allow what is asked for"),
        ("a used code", "imap.example.com does not take the answer: it came too late, or has been used before"),
    ],
)
def test_what_comes_of_no(site: Site, browser: Browser, says: Any, told: str) -> None:
    site.server.says = says
    refused = site.add(*HERE)
    assert refused.code == exits.ERROR
    assert told in refused.err
    browser.join()
    assert browser.shown is not None
    assert browser.shown.status_code == 200, "the person is told that the answer has come"
    assert site.grants() == []
    nothing_is_said_of(site, browser, refused)


def test_without_a_refresh_token(site: Site, browser: Browser) -> None:
    site.configure(scope="imap")
    refused = site.add(*HERE)
    assert refused.code == exits.ERROR
    assert "imap.example.com gave no refresh token" in refused.err
    assert site.grants() == []
    nothing_is_said_of(site, browser, refused)


def test_another_secret_than_the_apps(site: Site, browser: Browser) -> None:
    (site.store / "keys" / "app").write_text("another")
    refused = site.add(*HERE)
    assert refused.code == exits.ERROR
    assert "check the app's client id and secret" in refused.err
    assert "another" not in refused.err
    assert site.grants() == []


def test_a_server_that_is_ill(site: Site, browser: Browser) -> None:
    site.faulty.plan(replies(503), path="/token")
    refused = site.add(*HERE)
    assert refused.code == exits.UNAVAILABLE
    assert "gives no token now (503)" in refused.err
    assert site.grants() == []


def test_a_redirect_address_that_is_not_registered_is_told_to_the_person(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at Microsoft with 127.0.0.1, or at anybody who takes no port but his own."""
    browser.acts = "stay"
    site.configure(redirect="http://localhost")
    monkeypatch.setattr(consenting, "CONSENT_SECONDS", 0.1)
    site.add(*HERE)
    assert httpx.get(browser.opened).status_code == 400


def test_nobody_answers(site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.acts = "stay"
    monkeypatch.setattr(consenting, "CONSENT_SECONDS", 0.1)
    refused = site.add(*HERE)
    assert refused.code == exits.ERROR
    assert (
        "nobody answered within 0.1 seconds: begin again; where the browser is on another machine, with" in refused.err
    )
    assert site.grants() == []
    assert not [one for one in threading.enumerate() if one.name == "headrace-consent"]


def test_connected_again_it_has_the_new_grant(site: Site, browser: Browser) -> None:
    first = site.add(*HERE).json
    [before] = site.grants()
    site.server.revoke()
    again = site.add(*HERE).json
    assert (again["source"], again["new"]) == (first["source"], False)
    [after] = site.grants()
    assert after["refresh_token"] != before["refresh_token"]


# -- before anybody is asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*HERE, "--password-file", "keys/app"), "with no password: leave out --password-file"),
        (("imap", "--set", "host=h", "--set", "username=u", "--paste"), "which nobody consents to: leave out --paste"),
        ((*IMAP, "host=imap.other.example"), 'put the section [imap.oauth."imap.other.example"] with client_id,'),
        ((*IMAP, "host=imap.gmail.com"), "put the section [google] with client_id, client_secret_file into headrace"),
        ((*IMAP, "host=outlook.office365.com"), "put the section [microsoft] with client_id, client_secret_file into"),
        (IMAP[:-1], "an IMAP source needs host and username"),
    ],
)
def test_what_cannot_be_consented_to(site: Site, browser: Browser, words: tuple[str, ...], told: str) -> None:
    if "keys/app" in words:
        words = tuple(str(site.store / one) if one == "keys/app" else one for one in words)
    else:
        whole = (site.store / "headrace.toml").read_text()
        (site.store / "headrace.toml").write_text(whole[whole.index("[imap") :])
    refused = site.add(*words)
    assert refused.code == exits.ERROR
    assert told in json.loads(refused.err)["error"]["message"]
    assert browser.opened == ""


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"authorize_url": "http://login.example.com/a"}, "http only to this very machine"),
        ({"token_url": "ftp://x"}, "imap.oauth.imap.example.com.token_url"),
        ({"redirect": "https://headrace.example.com"}, "imap.oauth.imap.example.com.redirect"),
        ({"secret": "x"}, "imap.oauth.imap.example.com.secret"),
        ({"client_secret_file": "keys/none"}, "the secret of the app at imap.example.com"),
    ],
)
def test_settings_that_cannot_be_used(site: Site, browser: Browser, more: dict[str, str], told: str) -> None:
    site.configure(**more)
    refused = site.add(*HERE)
    assert refused.code != exits.OK
    assert told in refused.err


def test_the_secret_of_one_imap_server_keeps_nobody_else_from_being_connected(site: Site, tmp_path: Path) -> None:
    site.configure(client_secret_file="keys/none")
    password = tmp_path / "password"
    password.write_text("sesame")
    added = site.add("imap", "--set", "host=h", "--set", "username=u", "--password-file", password)
    assert added.code == exits.OK, added.err
