"""The snapshot of released schemas: what breaks it is named, what does not is let through, and docs tell the truth."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import avro.compatibility
import avro.schema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headrace.errors import HaltError
from headrace.schemas.compatibility import RELEASED, Release, check, main, meaning, read_released, release, table
from headrace.schemas.definition import spelt_out
from headrace.schemas.evolution import breaks
from headrace.schemas.registry import Registry, built_in, parse_version
from tests.unit.avro_data import Source, field, later, schema, schemas

ROOT = Path(__file__).resolve().parents[2]
Change = Callable[[Source], object]


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of headrace's own schemas."""
    folder = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def edit(path: Path, change: Change) -> None:
    source = json.loads(path.read_text(encoding="utf-8"))
    change(source)
    path.write_text(json.dumps(source), encoding="utf-8")


def told(folder: Path) -> str:
    return "\n".join(map(str, check(folder)))


def one(source: Source, name: str) -> dict[str, Any]:
    """The field of that name."""
    found: dict[str, Any] = next(known for known in source["fields"] if known["name"] == name)
    return found


# -- what ships ---------------------------------------------------------------------------------------------------


def test_every_shipped_schema_is_released_and_as_it_was() -> None:
    problems = check(ROOT / "schemas")
    assert problems == [], "\n".join(map(str, problems))


def test_the_snapshot_lists_every_version_once_with_its_fingerprint() -> None:
    released = read_released(Path(str(resources.files("headrace.schemas"))))
    versions = [parse_version(source) for source in built_in()]
    assert {(found.type, found.version, found.fingerprint) for found in released} == {
        (version.type, version.version, version.fingerprint.hex()) for version in versions
    }
    assert len(released) == len(versions) == len({found.file for found in released})
    assert released == sorted(released, key=lambda found: (found.type, found.version))


def test_the_table_in_the_docs_is_that_of_the_files() -> None:
    text = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
    assert table(built_in()) in text, "print it anew: python -m headrace.schemas.compatibility --table"


def test_the_schema_in_the_docs_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
    shown = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "sold.v1.avsc").write_text(shown[0], encoding="utf-8")
    assert [problem.new for problem in check(tmp_path)] == [True]
    assert len(shown) == 1


# -- planted changes to what is released --------------------------------------------------------------------------


def _drop(name: str) -> Change:
    return lambda source: source["fields"].remove(one(source, name))


PLANTED: dict[str, Change] = {
    "removed default": lambda source: one(source, "labels").pop("default"),
    "changed default": lambda source: one(source, "labels").update(default=["INBOX"]),
    "changed type": lambda source: one(source, "sender").update(type="bytes"),
    "renamed field": lambda source: one(source, "sender").update(name="author"),
    "removed field": _drop("in_reply_to"),
    "added required field": lambda source: source["fields"].append(field("size", "long")),
    "added field": lambda source: source["fields"].append(field("size", "long", default=0)),
    "other order": lambda source: source["fields"].reverse(),
    "no pseudonym": lambda source: one(source, "sender").pop("headrace.pseudonym"),
    "pseudonym": lambda source: one(source, "labels").update({"headrace.pseudonym": True}),
    "no content": lambda source: one(source, "content").pop("headrace.content"),
    "other content": lambda source: one(source, "content").update(
        {"headrace.content": "headrace.calendar.EventContent"}
    ),
    "other role": lambda source: source.update({"headrace.role": "record"}),
    "other type": lambda source: source.update({"headrace.type": "mail.arrived"}),
    "other version": lambda source: source.update({"headrace.version": 2}),
    "other name": lambda source: source.update(name="Arrived"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_released_file_may_not_change(shipped: Path, planted: str) -> None:
    edit(shipped / "mail" / "received.v1.avsc", PLANTED[planted])
    assert "mail/received.v1.avsc: was released and says something else now; put it back" in told(shipped)
    with pytest.raises(HaltError, match="nothing was released; first mend"):
        release(shipped)


def test_a_released_enum_may_not_lose_a_symbol(shipped: Path) -> None:
    def planted(source: Source) -> None:
        read = one(source, "reads")["type"]["items"]
        one(read, "what")["type"]["symbols"].remove("scope")

    edit(shipped / "agent" / "proposal.submitted.v1.avsc", planted)
    assert "agent/proposal.submitted.v1.avsc: was released and says something else" in told(shipped)


def test_a_released_file_may_not_vanish_nor_move(shipped: Path) -> None:
    (shipped / "mail" / "read.v1.avsc").rename(shipped / "mail" / "seen.v1.avsc")
    assert told(shipped).splitlines() == [
        "mail/read.v1.avsc: was released and is gone; put it back: records on logs were written with it",
        "mail/seen.v1.avsc: is not released; once it is right, run python -m headrace.schemas.compatibility --release",
        "mail/seen.v1.avsc: holds mail.read version 1; call it read.v1.avsc",
    ]


def test_docs_may_change(shipped: Path) -> None:
    def reworded(source: Source) -> None:
        source["doc"] = "Other words."
        for known in source["fields"]:
            known["doc"] = "Other words."

    edit(shipped / "mail" / "received.v1.avsc", reworded)
    assert check(shipped) == []


def test_only_docs_do_not_count_in_the_meaning() -> None:
    source = schema([field("a", {"type": "map", "values": "string"}, default={"doc": "x"}, doc="said")])
    reworded, other = copy.deepcopy(source), copy.deepcopy(source)
    reworded["doc"] = reworded["fields"][0]["doc"] = "else"
    assert meaning(reworded) == meaning(dict(reversed(source.items()))) == meaning(source)
    other["fields"][0]["default"] = {"doc": "y"}
    assert meaning(other) != meaning(source)


def test_a_fingerprint_that_a_library_computes_anew_is_noticed(shipped: Path) -> None:
    listed = json.loads((shipped / RELEASED).read_text(encoding="utf-8"))
    listed[0]["fingerprint"] = "0011223344556677"
    (shipped / RELEASED).write_text(json.dumps(listed), encoding="utf-8")
    assert "was released with the fingerprint 0011223344556677" in told(shipped)


# -- planted changes in a next version ----------------------------------------------------------------------------


def next_version(folder: Path, change: Change, *, stem: str = "mail/received", number: int = 2) -> None:
    source = json.loads((folder / f"{stem}.v{number - 1}.avsc").read_text(encoding="utf-8"))
    source["headrace.version"] = number
    change(source)
    (folder / f"{stem}.v{number}.avsc").write_text(json.dumps(source), encoding="utf-8")


BREAKING: dict[str, tuple[Change, str]] = {
    "removed default": (PLANTED["removed default"], "labels has lost its default"),
    "changed default": (PLANTED["changed default"], "labels has another default"),
    "changed type": (
        lambda source: one(source, "labels").update(type="long", default=0),
        "labels was array and became long",
    ),
    "renamed field": (
        lambda source: one(source, "sender").update(name="author"),
        "sender is gone: keep it",
    ),
    "required field": (PLANTED["added required field"], "size is new and has no default, but old records lack it"),
    "removed field": (PLANTED["removed field"], "in_reply_to is gone: keep it"),
    "not null any more": (
        lambda source: one(source, "in_reply_to").update(type="string", default=""),
        "in_reply_to may no longer be null",
    ),
    "narrower items": (
        lambda source: one(source, "labels").update(type={"type": "array", "items": "long"}),
        r"labels\[\] was string and became long",
    ),
    "no pseudonym": (PLANTED["no pseudonym"], "sender was headrace.pseudonym True and became None"),
    "other content": (PLANTED["other content"], "content was headrace.content 'headrace.mail.MessageContent' and"),
    "other role": (lambda source: source.update({"headrace.role": "content"}), "may stand only on an event's field"),
    "other name": (PLANTED["other name"], "another name or role than version 1"),
}


@pytest.mark.parametrize("planted", BREAKING)
def test_a_next_version_must_read_what_was_written(shipped: Path, planted: str) -> None:
    change, why = BREAKING[planted]
    next_version(shipped, change)
    problems = [problem for problem in check(shipped) if not problem.new]
    assert {problem.file for problem in problems} == {"mail/received.v2.avsc"}
    with pytest.raises(HaltError, match=why):
        release(shipped)
    assert read_released(shipped) == read_released(ROOT / "schemas"), "nothing was written"


def test_a_next_version_has_the_same_role(shipped: Path) -> None:
    next_version(shipped, lambda source: source.update({"headrace.role": "record"}), stem="mail/read")
    assert "mail.read version 2 has another name or role than version 1" in told(shipped)


def test_a_dropped_symbol_deep_inside_is_named(shipped: Path) -> None:
    def planted(source: Source) -> None:
        read = one(source, "reads")["type"]["items"]
        one(read, "what")["type"]["symbols"].remove("absent")

    next_version(shipped, planted, stem="agent/proposal.submitted")
    assert "does not read version 1: reads[].what has lost the symbol absent" in told(shipped)


def test_every_earlier_version_counts_not_only_the_last(tmp_path: Path) -> None:
    fields = [field("a", "string"), field("b", "long", default=1)]
    for number, some in ((1, fields[:1]), (2, fields), (3, [fields[0], field("b", "long")])):
        path = tmp_path / f"shop/sold.v{number}.avsc"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(schema(some, version=number)), encoding="utf-8")
    assert "version 3 does not read version 1: b is new and has no default" in told(tmp_path)
    assert "version 3 does not read version 2: b has lost its default" in told(tmp_path)


def test_versions_are_numbered_without_a_gap_and_files_named_after_them(shipped: Path) -> None:
    next_version(shipped, lambda source: source["fields"].append(field("size", "long", default=0)))
    (shipped / "mail" / "received.v2.avsc").rename(shipped / "mail" / "received.v3.avsc")
    assert "mail/received.v3.avsc: holds mail.received version 2; call it received.v2.avsc" in told(shipped)
    edit(shipped / "mail" / "received.v3.avsc", lambda source: source.update({"headrace.version": 3}))
    assert "there is a mail.received version 3 but no version 2" in told(shipped)


def test_two_types_may_not_share_a_name(shipped: Path) -> None:
    twin = json.loads((shipped / "mail" / "read.v1.avsc").read_text(encoding="utf-8"))
    twin["headrace.type"] = "mail.seen"
    (shipped / "mail" / "seen.v1.avsc").write_text(json.dumps(twin), encoding="utf-8")
    assert "mail.seen and mail.read are both named headrace.mail.Read; rename one" in told(shipped)


def test_every_unsound_file_is_told_at_once(shipped: Path) -> None:
    for name in ("read", "unread"):
        edit(shipped / "mail" / f"{name}.v1.avsc", lambda source: source["fields"].append(field("x", "double")))
    assert told(shipped).count("x is a double") == 2


def test_content_must_be_there(shipped: Path) -> None:
    (shipped / "mail" / "message_content.v1.avsc").unlink()
    assert "headrace.content names 'headrace.mail.MessageContent', which is no schema here" in told(shipped)


# -- what is let through ------------------------------------------------------------------------------------------


def test_a_sound_next_version_is_released_and_from_then_on_kept(shipped: Path) -> None:
    def grown(source: Source) -> None:
        source["fields"].append(field("size", ["null", "long"], default=None))
        one(source, "sender")["type"] = ["string", "null"]

    before = read_released(shipped)
    next_version(shipped, grown)
    assert [problem.new for problem in check(shipped)] == [True]
    (added,) = release(shipped)
    assert added[:3] == ("mail.received", 2, "mail/received.v2.avsc")
    assert check(shipped) == []
    assert set(read_released(shipped)) == {*before, added}
    assert release(shipped) == []
    edit(
        shipped / "mail" / "received.v2.avsc",
        lambda source: one(source, "size").update(default=None, type=["null", "int"]),
    )
    assert "mail/received.v2.avsc: was released and says something else now" in told(shipped)


def test_a_package_keeps_its_own_by_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = field("content", ["null", "bytes"], default=None, **{"headrace.content": "headrace.mail.MessageContent"})
    key = field("content_key", ["null", "string"], default=None)
    file = tmp_path / "shop.sold.v1.avsc"
    file.write_text(json.dumps(schema([content, key])), encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert "shop.sold.v1.avsc: is not released" in capsys.readouterr().err
    assert main([str(tmp_path), "--release"]) == 0
    assert "released shop.sold version 1 (shop.sold.v1.avsc)\n1 released schema versions" in capsys.readouterr().out
    edit(file, lambda source: source["fields"].append(field("x", "long")))
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path), "--release"]) == 1
    assert "nothing was released; first mend\nshop.sold.v1.avsc: was released" in capsys.readouterr().err
    assert main([str(tmp_path), "--table"]) == 0
    assert (
        "| `shop.sold` | event | 1 | `content`, `content_key`, `x`* | Something was sold. |" in capsys.readouterr().out
    )


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.v1.avsc").write_text("{", encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert "the schema file broken.v1.avsc cannot be read" in capsys.readouterr().err
    (tmp_path / "broken.v1.avsc").unlink()
    (tmp_path / RELEASED).write_text('[{"type": "x"}]', encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert f"{RELEASED} cannot be read" in capsys.readouterr().err


# -- the rule itself, against Apache Avro's ------------------------------------------------------------------------


def avro_reads(earlier: Source, reader: Source) -> bool:
    """What Apache Avro's own checker says."""
    newer, older = (avro.schema.parse(json.dumps(source)) for source in (reader, earlier))
    checker: Any = avro.compatibility.ReaderWriterCompatibilityChecker
    result = checker().get_compatibility(newer, older)
    return bool(result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.data(), first=schemas())
def test_what_only_adds_breaks_nothing(drawn: st.DataObject, first: Source) -> None:
    second = drawn.draw(later(first))
    assert list(breaks(spelt_out(first), spelt_out(second))) == []
    assert avro_reads(first, second)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(first=schemas(), second=schemas())
def test_what_breaks_nothing_is_compatible_to_apache_avro_too(first: Source, second: Source) -> None:
    if not list(breaks(spelt_out(first), spelt_out(second))):
        assert avro_reads(first, second)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(drawn=st.data(), first=schemas())
def test_going_back_is_noticed_wherever_something_was_added(drawn: st.DataObject, first: Source) -> None:
    second = drawn.draw(later(first))
    assume(parse_version(second).fingerprint != parse_version(first).fingerprint)
    lost = list(breaks(spelt_out(second), spelt_out(first)))
    shuffled = {**second, "headrace.version": 1}
    if lost:
        with pytest.raises(HaltError, match=r"version 2 does not read version 1|cannot be told apart"):
            Registry([shuffled, {**first, "headrace.version": 2}])
    else:
        assert avro_reads(second, first), "only the order changed"


def test_a_release_is_shown_as_the_snapshot_has_it() -> None:
    listed = json.loads((ROOT / "schemas" / RELEASED).read_text(encoding="utf-8"))
    assert [Release(**entry)._asdict() for entry in listed] == listed
