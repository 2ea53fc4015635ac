"""A provider that a package brings: one module of its own, and nothing of headrace's is changed for it."""

import json
import tomllib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

import pytest

from headrace import providers
from headrace.cli import exits
from headrace.errors import BadInputError, HaltError
from headrace.producers.caldav_provider import Caldav
from headrace.producers.provider import Connected
from headrace.producers.source_syncs import ProviderSetup
from headrace.settings import load_settings
from headrace.sourcing import setup_of, setups_of
from tests.integration.processes import Following, Ran, headrace

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "account"
FOLDER: Final = ("bank_folder", "--account", "ann", "--set", "folder=ann")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory for PYTHONPATH with the example as an installer leaves it."""
    found = tmp_path_factory.mktemp("installed")
    (found / "headrace_account").symlink_to(EXAMPLE / "headrace_account")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    about = found / f"headrace_account-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = ((group, points.items()) for group, points in project["entry-points"].items())
    lines = [
        line for group, points in groups for line in (f"[{group}]", *(f"{name} = {what}" for name, what in points))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return str(found)


Run = Callable[..., Ran]


@pytest.fixture
def run(installed: str, tmp_path: Path) -> Run:
    """The command line, on a store of the test's own."""
    return lambda *words: headrace(*words, "--store", tmp_path / "store", PYTHONPATH=installed)


def book(folder: Path, number: int, **said: Any) -> None:
    """As a bank does: the whole file appears at once."""
    fresh = folder / f"{number:06}.new"
    fresh.write_text(json.dumps(said))
    fresh.rename(folder / f"{number:06}.json")


def test_it_is_added_synced_and_examined_like_any_other(installed: str, run: Run, tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "spool" / "ann"
    folder.mkdir(parents=True)
    for number in range(600):  # more than a page
        book(
            folder, number, account="a-1", type="account.adjusted" if number else "account.opened", amount=1, balance=5
        )
    with Following("dev", "--store", store, "--port", "0", "--json", PYTHONPATH=installed) as dev:
        dev.line()
        missing = run("source", "add", *FOLDER)
        assert missing.code == exits.ERROR
        assert (
            "bank_folder is not set up here: put the section [providers.bank_folder] into headrace.toml" in missing.err
        )
    (store / "headrace.toml").write_text(f"[providers.bank_folder]\nroot = {json.dumps(str(folder.parent))}\n")
    with Following("dev", "--store", store, "--port", "0", "--json", PYTHONPATH=installed) as dev:
        dev.line()
        with Following("watch", "--store", store, "--account", "ann", "--json", PYTHONPATH=installed) as watch:
            assert watch.err.readline().startswith("headrace: watching ann")
            added = run("source", "add", *FOLDER, "--json")
            assert added.code == exits.OK, added.err
            name = added.json["source"]
            assert list(iter(lambda: watch.line()["type"], "source.synced")).count("account.adjusted") == 599
            book(folder, 600, account="a-1", type="account.adjusted", amount=-4)
            assert run("source", "sync", name, "--account", "ann").code == exits.OK
            assert list(iter(lambda: watch.line()["type"], "source.synced")).count("account.adjusted") == 1
        [account] = run("entity", "ls", "--kind", "bank.account", "--json").json
        assert account["state"] == {"open": True, "balance": 5 + 599 - 4, "adjustments": 600}
        well = run("source", "doctor", "--json")
        assert well.code == exits.OK, well.out
        [listed] = run("source", "ls", "--json").json
        assert (listed["source"], listed["feeds"], listed["state"]) == (name, ["bank.account"], "idle")
    (folder / "000007.json").write_text("not a booking")
    assert run("source", "sync", name, "--account", "ann").code == exits.OK, "it is behind the cursor"
    damaged = run("source", "sync", name, "--account", "ann", "--full")
    assert damaged.code == exits.ERROR
    assert "the booking 000007.json is none" in damaged.err
    book(folder, 7, account="a-1", type="account.adjusted", amount=1)
    again = run("source", "sync", name, "--account", "ann", "--full", "--json")
    assert again.code == exits.OK, again.err
    [account] = run("entity", "ls", "--kind", "bank.account", "--json").json
    assert account["state"]["adjustments"] == 600, "told again, it has no second effect"
    assert run("audit", "verify").code == exits.OK


@pytest.mark.parametrize("folder", [None, "", "..", "../store", "/etc", "."])
def test_nothing_outside_its_root_can_be_connected(
    installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.syspath_prepend(installed)
    setup = import_module("headrace_account.provider").set_up({"root": "spool"}, tmp_path)
    settings = {"folder": folder} if folder is not None else {}
    connected = Connected("local", "ann", "bank_folder/x", "bank_folder", settings)
    nothing: Any = None
    with pytest.raises(BadInputError, match="the name of one below the root"):
        setup.provider.source(connected, nothing, str)
    assert setup.provider.source(connected._replace(settings={"folder": "ann"}), nothing, str).feeds == (
        "bank.account",
    )


# What a package may bring


class Other(Caldav):
    """A provider with a name of its own."""

    @property
    def name(self) -> str:
        """As its entry point has it."""
        return "other"


def set_up(section: dict[str, Any], directory: Path) -> ProviderSetup | None:
    return ProviderSetup(Other(), f"https://{section['host']}/{directory.name}/") if section else None


def ill_named(section: dict[str, Any], directory: Path) -> ProviderSetup:
    return ProviderSetup(Caldav(), "https://x.invalid/")


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have these entry points, and no others."""

    def brought(**points: str) -> None:
        found = [EntryPoint(name, f"{__name__}:{what}", providers.GROUP) for name, what in points.items()]

        def entry_points(group: str) -> list[EntryPoint]:
            assert group == providers.GROUP
            return found

        monkeypatch.setattr(providers, "entry_points", entry_points)

    return brought


def test_its_section_is_its_own(bring: Callable[..., None], tmp_path: Path) -> None:
    bring(other="set_up")
    assert "other" not in setups_of(load_settings(tmp_path))
    with pytest.raises(BadInputError, match=r"put the section \[providers\.other\] into headrace\.toml"):
        setup_of({}, "other")
    with pytest.raises(BadInputError, match="there are caldav, gmail, google_calendar, graph, imap, other"):
        setup_of({}, "another")
    (tmp_path / "headrace.toml").write_text('[providers.other]\nhost = "x"\n')
    assert setups_of(load_settings(tmp_path))["other"].base_url == f"https://x/{tmp_path.name}/"


@pytest.mark.parametrize(
    ("name", "told"),
    [("another", "no installed package brings"), ("graph", r"graph is headrace's own and is set up in")],
)
def test_a_section_for_nobody_is_refused(bring: Callable[..., None], tmp_path: Path, name: str, told: str) -> None:
    bring(other="set_up")
    (tmp_path / "headrace.toml").write_text(f"[providers.{name}]\nx = 1\n")
    with pytest.raises(BadInputError, match=told):
        setups_of(load_settings(tmp_path))


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ({"imap": "set_up"}, "two providers are called 'imap'"),
        ({"Other": "set_up"}, "is no name of a provider"),
        ({"other": "nothing_of_that_name"}, "cannot be loaded"),
        ({"other": "ill_named"}, "brings a provider that calls itself 'caldav'"),
    ],
)
def test_what_cannot_be_a_provider_stops_the_process(
    bring: Callable[..., None], tmp_path: Path, points: dict[str, str], told: str
) -> None:
    bring(**points)
    with pytest.raises(HaltError, match=told):
        setups_of(load_settings(tmp_path))
