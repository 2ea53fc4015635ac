"""API keys by the command line."""

import json
from pathlib import Path

from headrace.cli import exits
from tests.integration.cli_desk import Cli, basis_of, cli, mail, own_environment, propose

__all__ = ("cli", "own_environment")


def test_keys_open_what_they_are_for(cli: Cli, tmp_path: Path) -> None:
    mail(cli)
    basis = basis_of(cli, "mail.thread/t-1")
    made = cli("key", "add", "drafter", "--verb", "read", "--verb", "propose", "--expires", "2999-01-01")
    assert made.code == exits.OK
    key = made.out.strip()
    kept = (tmp_path / "store" / "headrace.toml").read_text(encoding="utf-8")
    assert key.startswith("hr_")
    assert key not in kept + made.err
    assert (tmp_path / "store" / "headrace.toml").stat().st_mode & 0o077 == 0
    without = propose(cli, "p-1", "mail.archive", "mail.thread/t-1", basis)
    assert without.code == exits.ERROR
    assert "--api-key or HEADRACE_API_KEY" in json.loads(without.err)["error"]["message"]
    proposed = propose(cli, "p-1", "mail.archive", "mail.thread/t-1", basis, "--api-key", key)
    assert proposed.code == exits.OK, proposed
    assert cli("proposal", "show", "p-1", "--json").json["actor"] == "agent/drafter"
    assert "may not review" in cli("proposal", "dismiss", "p-1", "--api-key", key).err
    assert cli("key", "ls", "--json").json == [
        {"name": "drafter", "tenant": "local", "verbs": ["propose", "read"], "expires_at": "2999-01-01T00:00:00+00:00"}
    ]


def test_the_key_file_keeps_what_people_wrote(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "store" / "headrace.toml"
    file.parent.mkdir()
    written = (
        '# ours\nport = 9000\n\n[[webhooks]]\nname = "m"\ntenant = "acme"\nsource = "webhook/m"\nsecret_files = ["k"]\n'
    )
    file.write_text(written, encoding="utf-8")
    for name in ("one", "two"):
        assert cli("key", "add", name, "--tenant", "acme").code == exits.OK
    with file.open("a", encoding="utf-8") as more:
        more.write("# the third\n")
    assert cli("key", "add", "three", "--tenant", "acme").code == exits.OK
    assert "there is a key 'two' already" in cli("key", "add", "two").err
    assert "there is no verb 'fly'; there are admin, propose" in cli("key", "add", "four", "--verb", "fly").err
    assert cli("key", "rm", "two").code == exits.OK
    assert cli("key", "rm", "two").code == exits.NOT_FOUND
    assert [key["name"] for key in cli("key", "ls", "--json").json] == ["one", "three"]
    for name in ("one", "three"):
        assert cli("key", "rm", name).code == exits.OK
    assert file.read_text(encoding="utf-8").rstrip() == written + "\n# the third"
    assert "no API keys" in cli("key", "ls").err
    file.write_text(
        'api_keys = [{name = "x", tenant = "t", sha256 = "' + "0" * 64 + '", verbs = ["read"]}]\n', encoding="utf-8"
    )
    assert "by hand" in cli("key", "add", "y").err
    assert "by hand" in cli("key", "rm", "x").err
    file.write_text("port = \n", encoding="utf-8")
    assert "the settings cannot be read" in cli("key", "ls").err
