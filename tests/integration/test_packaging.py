"""What users get: the wheel, the source distribution, and headrace installed from them where no checkout is near."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("schemas", "producers", "processors", "projections")
BIN = Path(sys.executable).parent

# `make test` hands whole files to its workers, so the fixtures build once; a cold package cache may keep them waiting.
pytestmark = [pytest.mark.timeout(900), pytest.mark.embedded("is about what is installed")]


class Built(NamedTuple):
    wheel: Path
    sdist: Path


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command} gave {ran.returncode}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout


def build(source: Path, out: Path, *what: str) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", out, source, cwd=out.parent)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("built") / "out"
    build(ROOT, out, "--wheel", "--sdist")
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and what it needs to run, nothing else."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    uv = BIN / "uv"
    run(uv, "venv", "--quiet", "--python", sys.executable, venv, cwd=ROOT)
    install = (uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python")
    run(*install, "--require-hashes", "-r", ROOT / "infra" / "lock" / "runtime.txt", cwd=ROOT)
    run(*install, "--no-deps", built.wheel, cwd=ROOT)
    return venv / "bin"


def files_under(folder: Path, at: str) -> set[str]:
    """Every file of a real folder, named as it is inside an archive that has the folder at ``at``."""
    return {
        f"{at}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")
    }


def in_packages() -> set[str]:
    """Every file of the five packages, named as in the wheel."""
    own = {name for name in files_under(ROOT / "headrace", "headrace") if name.split("/")[1] not in STAGES}
    return own.union(*(files_under(ROOT / stage, f"headrace/{stage}") for stage in STAGES))


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def outside(tmp_path: Path) -> dict[str, str]:
    """An environment in which only what is installed can be found."""
    hidden = ("PYTHON", "VIRTUAL_ENV", "HEADRACE", "COVERAGE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return kept | {"HOME": str(tmp_path)}


def test_the_wheel_holds_every_file_of_the_five_packages(built: Built) -> None:
    names = {name for name in contents(built.wheel) if ".dist-info/" not in name}
    assert names == in_packages()
    assert "headrace/py.typed" in names
    assert "headrace/schemas/refs.py" in names


def test_the_wheel_names_its_licence_and_its_command(built: Built) -> None:
    held = contents(built.wheel)
    (licence,) = (name for name in held if name.endswith(".dist-info/licenses/LICENSE"))
    assert b"Apache License" in held[licence]
    (scripts,) = (name for name in held if name.endswith(".dist-info/entry_points.txt"))
    assert b"headrace = headrace.cli.main:run" in held[scripts]


def test_the_sdist_holds_the_real_folders_once(unpacked: Path) -> None:
    for stage in STAGES:
        assert files_under(unpacked / stage, stage) == files_under(ROOT / stage, stage)
        assert not (unpacked / "headrace" / stage).exists()
    for name in ("Makefile", "LICENSE", "README.md", "pyproject.toml", ".ci/run", "infra/lock/dev.txt"):
        assert (unpacked / name).is_file(), name
    assert not [path for path in unpacked.rglob("*") if path.is_symlink() or path.suffix == ".pyc"]


def test_the_sdist_builds_an_equal_wheel(built: Built, unpacked: Path, tmp_path: Path) -> None:
    build(unpacked, tmp_path / "again", "--wheel")
    (again,) = (tmp_path / "again").glob("*.whl")
    assert contents(again) == contents(built.wheel)


def test_installed_headrace_shows_its_help(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "headrace", "--help", cwd=tmp_path, environment=outside(tmp_path))
    assert "demo" in said


def test_installed_headrace_is_typed_and_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    asked = "import headrace.schemas.refs, pathlib; print(pathlib.Path(headrace.schemas.refs.__file__).resolve())"
    said = run(installed / "python", "-c", asked, cwd=tmp_path, environment=outside(tmp_path)).strip()
    assert not Path(said).is_relative_to(ROOT)
    assert said.endswith("site-packages/headrace/schemas/refs.py")


def test_the_demo_runs_where_no_checkout_is_near(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "headrace", "demo", "--json", cwd=tmp_path, environment=outside(tmp_path))
    summary: dict[str, Any] = json.loads(said.splitlines()[-1])["summary"]
    assert summary["verified"] is True
    assert summary["accepted"] >= 1
    assert summary["superseded"] >= 3


def test_the_editable_install_sees_the_stages_through_their_links(tmp_path: Path) -> None:
    asked = "import headrace.schemas.refs as refs; print(refs.__file__)"
    said = run(BIN / "python", "-c", asked, cwd=tmp_path, environment=outside(tmp_path)).strip()
    assert Path(said) == ROOT / "headrace" / "schemas" / "refs.py"
    assert Path(said).samefile(ROOT / "schemas" / "refs.py")
