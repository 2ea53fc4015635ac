"""``docs/providers`` and ``docs/sources.md`` say what works: each block of settings is one, and each command connects a
source, up to where a person or a password is asked for."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from headrace.cli import connected, exits
from headrace.cli.main import app
from headrace.producers.setups import setups
from headrace.producers.source_syncs import Access
from headrace.settings import load_settings
from headrace.sourcing import hooks_of, setups_of
from tests.integration.cli_desk import Cli, cli, mail, own_environment
from tests.providers.test_graph_certificates import ANY, certificate, pem
from tests.unit.test_cli_docs import leaves

__all__ = ("cli", "own_environment")

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGES: Final = sorted((DOCS / "providers").glob("*.md"))
PROVIDERS: Final = {"gmail", "google_calendar", "graph", "imap", "caldav"}
_FENCED: Final = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in this language, without what they are indented by."""
    found = _FENCED.findall(page.read_text(encoding="utf-8"))
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, named, text in found if named == language]


def commands(page: Path) -> list[list[str]]:
    """The words of each command line of headrace on a page."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^headrace .+$", text, re.MULTILINE)]


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both; where they differ, the other."""
    tables = {name for name in one.keys() & other.keys() if isinstance(other[name], dict)}
    return {**one, **other, **{name: merged(one[name], other[name]) for name in tables}}


def settings_of(*pages: Path) -> dict[str, Any]:
    """What all the blocks of these pages come to."""
    found: dict[str, Any] = {}
    for page in pages:
        for block in blocks(page, "toml"):
            found = merged(found, tomllib.loads(block))
    return found


def as_toml(said: Mapping[str, Any], name: str = "") -> str:
    """Tables of texts, numbers and lists."""
    own = [f"{key} = {json.dumps(value)}" for key, value in said.items() if not isinstance(value, dict)]
    inner = [as_toml(value, f"{name}{json.dumps(key)}.") for key, value in said.items() if isinstance(value, dict)]
    return "\n".join([*([f"[{name[:-1]}]"] if name else []), *own, *inner, ""])


def files(said: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The files that settings name, and whether they hold a certificate."""
    for name, value in said.items():
        if isinstance(value, dict):
            yield from files(value)
        elif name.endswith(("_file", "_files")):
            for one in [value] if isinstance(value, str) else value:
                yield one, name.startswith("certificate")


def lay_down(store: Path, said: Mapping[str, Any]) -> None:
    """The settings in a store's directory, with the files that they name."""
    for name, certified in files(said):
        file = store / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pem(ANY) + certificate(ANY) if certified else b"s3cret" * 10)
    (store / "headrace.toml").write_text(as_toml(said), encoding="utf-8")


def test_there_is_a_page_for_each_provider() -> None:
    assert {page.stem for page in PAGES} == PROVIDERS | {"hooks"}
    sources = (DOCS / "sources.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"(providers/{page.name})" in sources
    assert setups(google=None, push=None, microsoft=None).keys() <= PROVIDERS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_settings_can_be_used(page: Path, tmp_path: Path) -> None:
    found = blocks(page, "toml")
    assert found or page.stem == "caldav"
    for number, block in enumerate(found):
        store = tmp_path / str(number)
        store.mkdir()
        lay_down(store, tomllib.loads(block))
        (store / "headrace.toml").write_text(block, encoding="utf-8")
        settings = load_settings(store)
        assert setups_of(settings).keys() <= PROVIDERS
        hooks_of(settings)


@pytest.mark.parametrize("page", [*PAGES, DOCS / "sources.md"], ids=lambda page: page.stem)
def test_every_command_connects(page: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Access]()

    def consented(access: Access, *, paste: bool) -> dict[str, Any]:
        assert access.scope
        asked.append(access)
        return {"access_token": "t", "refresh_token": "r", "expires_at": 0.0, "scope": ""}

    monkeypatch.setattr(connected, "consented", consented)
    mail(cli)
    lay_down(tmp_path / "store", settings_of(page) if page in PAGES else settings_of(*PAGES))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pw").write_text("sesame")
    adding = [words for words in commands(page) if words[:2] == ["source", "add"]]
    assert adding, "the page does not say how a source is connected"
    assert page.stem not in PROVIDERS or {words[2] for words in adding} == {page.stem}
    for words in adding:
        added = cli(*words)
        assert added.code == exits.OK, (words, added.err)
        assert added.out.rstrip().endswith(("is connected", "is connected again"))
    assert len(asked) == sum("--password-file" not in words for words in adding)


@pytest.mark.parametrize("page", [*PAGES, DOCS / "sources.md"], ids=lambda page: page.stem)
def test_every_other_command_is_one(page: Path) -> None:
    root = typer.main.get_command(app)
    known = {
        tuple(context.command_path.split()[1:]): command
        for command, context in leaves(root, typer.Context(root, info_name="headrace"))
    }
    named = {tuple(words[:2]) for words in commands(page)}
    assert {("source", "doctor"), ("source", "ls")} <= named, "the page does not say how to see that it works"
    for words in commands(page):
        path = next(path for path in (tuple(words[:2]), tuple(words[:1])) if path in known)
        options = {name for one in known[path].params for name in one.opts}
        assert {word for word in words if re.fullmatch("--?[a-z-]+", word)} <= options, words


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as they are made of them."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", [*PAGES, DOCS / "sources.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(((?!https?:)[^)#]*)(#?)([^)]*)\)", page.read_text(encoding="utf-8")):
        led_to = (page.parent / target).resolve() if target else page
        assert led_to.is_file(), target
        assert not anchor or anchor in anchors(led_to), (target, anchor)
