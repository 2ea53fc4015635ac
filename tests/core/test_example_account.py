"""The example kind, by the door that users have: its wheel is built, unpacked far from this checkout, and used."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.core.scribe import ROOT
from tests.integration.stores import drop_tables, variables

EXAMPLE = ROOT / "examples" / "account"
pytestmark = pytest.mark.usefixtures("stores_of_test")
WALK = """
import json, sys
from pathlib import Path
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.producers.event import NewEvent
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef, EntityRef, Token
from headrace.settings import load_settings
from headrace.store import Store
from headrace_account.kind import RULES

ACCOUNT, NOW = EntityRef("bank", "branch-1", "bank.account", "b1"), "2026-11-21T17:15:00.000Z"

def put(store, record):
    (position,) = store.log.append([record])
    assert store.applied.wait(position.partition, position.offset, 30)
    return position

def adjust(store, agent, name, amount, basis):
    return store.intake.proposal(
        ACCOUNT, name, "account.adjust", actor=ActorRef("agent", agent), source="api",
        reads=[{"what": "entity", "kind": ACCOUNT.kind, "id": ACCOUNT.id, "basis": basis}],
        data={"amount": amount}, content=None, expires_at=None, said_concerns=[], observed_at=NOW)

def deliver(store, name, what, **body):
    envelope = Envelope(f"{name}-{what}", "teller", f"delivery.{what}", ActorRef("system", "teller"))
    body = {"proposal": name, "attempt": f"at-{name}", **body}
    return put(store, store.intake.record(ACCOUNT.tenant, ACCOUNT.account, envelope, body))

directory = Path(sys.argv[1])
policy, places = Policy("bank", (*RULES, *DEFAULT_POLICY.rules)), load_settings(directory).places
with Store(directory, writer=True, policy=policy, places=places, partitions=4) as store:
    opened = NewEvent("account.opened", ACCOUNT.kind, ACCOUNT.id, "o1", {"balance": 100})
    partition = put(store, store.intake.event(
        *ACCOUNT[:2], opened, source="teller", actor=ActorRef("user", "ann"), observed_at=NOW)).partition
    with store.tables.snapshot() as reader:
        (row,) = reader.rows("SELECT * FROM bank_accounts", {})
        (folded,) = reader.rows("SELECT * FROM partitions WHERE partition = :p", {"p": partition})
    basis = Token(folded["log_id"], partition, row["head_offset"], row["head_check"])
    for agent, name, amount in (("in", "p-in", 50), ("out", "p-out", -20), ("greedy", "p-all", -200)):
        put(store, adjust(store, agent, name, amount, basis))
    for name in ("p-out", "p-in"):
        deliver(store, name, "attempted")
        deliver(store, name, "succeeded")
    with store.tables.snapshot() as reader:
        (row,) = reader.rows("SELECT balance, adjustments, intents FROM bank_accounts", {})
        verdicts = reader.rows("SELECT proposal, verdict, text FROM verdicts ORDER BY offset", {})
    print(json.dumps({"kinds": sorted(store.kinds), "row": row, "verdicts": verdicts}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel: the package and the metadata by which its entry points are found."""
    folder = tmp_path_factory.mktemp("account")
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", folder / "wheel", EXAMPLE, cwd=folder)
    (wheel,) = (folder / "wheel").glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADRACE_"))}
    environment |= variables(cwd / "store")
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout


def files(package: Path) -> set[str]:
    """What a package consists of, whether or not it was run already."""
    return {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.embedded("opens no store")
def test_the_wheel_holds_the_kind_its_schemas_and_the_two_doors(installed: Path) -> None:
    assert files(installed / "headrace_account") == files(EXAMPLE / "headrace_account")
    (metadata,) = installed.glob("*.dist-info")
    doors = (metadata / "entry_points.txt").read_text()
    assert "[headrace.kinds]\nbank.account = headrace_account.kind:KIND" in doors
    assert "[headrace.schemas]\nbank.account = headrace_account.schemas" in doors


def test_both_adjustments_land_and_the_third_is_rejected(installed: Path, tmp_path: Path) -> None:
    said: dict[str, Any] = json.loads(run("-c", WALK, tmp_path / "store", cwd=tmp_path, path=installed))
    assert "bank.account" in said["kinds"]
    assert said["row"] == {"balance": 130, "adjustments": 2, "intents": "[]"}
    verdicts = {one["proposal"]: one for one in said["verdicts"]}
    assert {name: one["verdict"] for name, one in verdicts.items()} == {
        "p-in": "accepted",
        "p-out": "accepted",
        "p-all": "rejected",
    }
    assert json.loads(verdicts["p-all"]["text"])["finding"] == {"rule": "below_zero"}


def test_without_the_package_the_log_is_not_judged_differently_but_not_at_all(installed: Path, tmp_path: Path) -> None:
    run("-c", WALK, tmp_path / "store", cwd=tmp_path, path=installed)
    drop_tables(tmp_path / "store")
    again = f"""
from pathlib import Path
from headrace.errors import UnsupportedFoldError
from headrace.settings import load_settings
from headrace.store import Store
directory = Path({str(tmp_path)!r}) / "store"
try:
    with Store(directory, writer=True, places=load_settings(directory).places) as store:
        store.applied.wait(0, 0, 30)
except UnsupportedFoldError as error:
    print(error)
"""
    assert "bank.account" in run("-c", again, cwd=tmp_path)
