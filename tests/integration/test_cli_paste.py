"""``headrace source add --paste``: the browser is on another machine, and a person pastes what it shows in the end."""

import os
import pty
import re
import select
import subprocess
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import pytest

from headrace.cli import exits
from tests.integration.cli_desk import Ran, cli, own_environment
from tests.integration.consent_desk import (
    GMAIL,
    GRAPH,
    HERE,
    WAIT,
    Browser,
    Site,
    browser,
    consented_at,
    nothing_is_said_of,
    site,
    vendor,
)
from tests.integration.processes import HEADRACE, PATIENCE_S, environment

__all__ = ("browser", "cli", "own_environment", "site", "vendor")


class Typed:
    """Standard input: what a person pastes after having read the note."""

    def __init__(self, browser: Browser, answer: Callable[[str], str]) -> None:
        self._browser, self._answer = browser, answer

    def isatty(self) -> bool:
        return False

    def readline(self, size: int) -> str:
        return self._answer(self._browser.opened)[:size]


@pytest.fixture
def pasting(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], None]:
    browser.acts = "stay"

    def set_answer(answer: Callable[[str], str]) -> None:
        monkeypatch.setattr("sys.stdin", Typed(browser, answer))

    return set_answer


Pasting = Callable[[Callable[[str], str]], None]


@pytest.mark.parametrize(
    ("vendor", "words", "redirect"),
    [
        ("google", GMAIL, "http://127.0.0.1:"),
        ("entra", GRAPH, "http://localhost:"),
        ("another", HERE, "http://127.0.0.1:"),
    ],
    indirect=["vendor"],
)
def test_the_answer_is_pasted(
    site: Site, browser: Browser, pasting: Pasting, words: tuple[str, ...], redirect: str
) -> None:
    pasting(lambda opened: f"  '{consented_at(opened)}'\n")
    added = site.add(*words, "--paste")
    assert added.code == exits.OK, added.err
    assert browser.asked["redirect_uri"].startswith(redirect)
    assert 49_152 <= int(browser.asked["redirect_uri"].rpartition(":")[2]) < 65_536
    assert browser.asked["redirect_uri"] in browser.notes[-1], "so that a person knows it when they see it"
    assert len(site.grants()) == 1
    nothing_is_said_of(site, browser, added)


def other_state(url: str) -> str:
    return consented_at(url).replace("state=", "state=x")


def gives(text: str) -> Callable[[str], str]:
    """Somebody who pastes this, whatever was asked."""
    return lambda _: text


NO_ANSWERS: Final[list[tuple[Callable[[str], str], str]]] = [
    (gives(""), "nothing was pasted: begin again"),
    (gives(" \n"), "nothing was pasted: begin again"),
    (gives("x" * 20_000), "more than 16384 characters: paste the address, and nothing else"),
    (gives("s3cret-code\n"), "this is no answer to what imap.example.com was asked just now"),
    (gives("https://example.com/?code=s3cret-code\n"), "this is no answer to what imap.example.com was asked"),
    (str, "this is no answer to what imap.example.com was asked just now"),
    (other_state, "this is no answer to what imap.example.com was asked just now"),
]


@pytest.mark.parametrize(("answer", "told"), NO_ANSWERS)
def test_what_is_pasted_and_is_no_answer(
    site: Site, browser: Browser, pasting: Pasting, answer: Callable[[str], str], told: str
) -> None:
    pasting(answer)
    refused = site.add(*HERE, "--paste")
    assert refused.code == exits.ERROR
    assert told in refused.err
    assert "s3cret-code" not in refused.err
    assert site.server.asked == []
    assert site.grants() == []


def test_somebody_who_says_no_pastes_that(site: Site, browser: Browser, pasting: Pasting) -> None:
    site.server.says = "no"
    pasting(consented_at)
    refused = site.add(*HERE, "--paste")
    assert "gives no consent (access_denied)" in refused.err


def address_in(told: str) -> str | None:
    found = re.search(r"^  (https?://\S+)\r?$", told, re.MULTILINE)
    return found[1] if found is not None else None


def test_for_a_program_the_note_is_no_part_of_the_document(site: Site) -> None:
    words = ["source", "add", *HERE, "--account", "ann", "--paste", "--json", "--store", str(site.store)]
    process = subprocess.Popen(
        [*HEADRACE, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(words, {}),
    )
    assert process.stderr is not None
    told = ""
    while (url := address_in(told)) is None:
        line = process.stderr.readline()
        assert line, told
        told += line
    out, err = process.communicate(consented_at(url) + "\n", timeout=PATIENCE_S)
    ran = Ran(process.returncode, out, told + err)
    assert ran.code == exits.OK, ran.err
    assert out.count("\n") == 1
    assert ran.json["new"] is True
    assert len(site.grants()) == 1


def test_a_terminal_does_not_show_what_is_pasted(site: Site) -> None:
    words = ["source", "add", *HERE, "--account", "ann", "--paste", "--store", str(site.store)]
    terminal, its = pty.openpty()
    process = subprocess.Popen(
        [*HEADRACE, *words], stdin=its, stdout=its, stderr=its, start_new_session=True, env=environment(words, {})
    )
    os.close(its)
    told = b""
    try:
        while b"The address: " not in told:
            told += shown_on(terminal)
        url = address_in(told.decode())
        assert url is not None
        answer = consented_at(url)
        os.write(terminal, answer.encode() + b"\n")
        told += rest_of(terminal)
        assert process.wait(PATIENCE_S) == exits.OK, told
    finally:
        os.close(terminal)
        process.kill()
        process.wait()
    assert b"is connected" in told
    assert dict(parse_qsl(urlsplit(answer).query))["code"].encode() not in told


def shown_on(terminal: int) -> bytes:
    ready, _, _ = select.select([terminal], [], [], WAIT)
    assert ready
    return os.read(terminal, 4_096)


def rest_of(terminal: int) -> bytes:
    """What is shown until the program ends."""
    told = b""
    while True:
        try:
            part = shown_on(terminal)
        except OSError:
            return told  # so Linux says that nobody has the terminal any more
        if not part:
            return told
        told += part
