"""What headrace asks of a schema, whoever brings it: refused where it is loaded, with the place and the reason."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace import kinds
from headrace.errors import HaltError
from headrace.schemas.registry import Registry, parse_version
from tests.unit.avro_data import Source, field, schema


def shop(*fields: dict[str, Any], **other: Any) -> Registry:
    """A registry with the one type shop.sold."""
    return Registry([schema(list(fields), **other)])


_IN = {"type": "record", "name": "In", "fields": [field("who", "string"), field("n", "int", default=0)]}
_CONTENT = field("content", ["null", "bytes"], default=None, **{"headrace.content": "example.shop.Words"})
_KEY = field("content_key", ["null", "string"], default=None)
_WORDS = {**schema([field("text", "string")], role="content"), "name": "Words", "headrace.type": "shop.words"}
_MARK = {"headrace.pseudonym": True}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([field("f", {"type": "long", "logicalType": "timestamp-millis"})], "f has logicalType.*plain longs"),
        ([field("f", "long", logicalType="timestamp-millis")], "f has aliases or a logicalType"),
        ([field("f", "double")], "f is a double"),
        ([field("f", ["null", "float"])], "f is a float"),
        ([field("f", ["string", "long"])], "f is a union of other than null and one type"),
        ([field("f", ["null", "string", "long"])], "f is a union"),
        ([field("f", ["null"])], "f is a union"),
        ([field("f", {"type": "array", "items": "null"})], "f is an array of items that take no byte"),
        ([field("f", {"type": "array", "items": {"type": "record", "name": "No", "fields": []}})], "take no byte"),
        (
            [field("f", {"type": "record", "name": "R", "fields": [field("more", ["null", "R"])]})],
            r"f\.more is recursive \(R\)",
        ),
        ([field("f", ["null", "Sold"])], r"f is recursive \(Sold\)"),
        ([field("f", "Unknown")], "f names 'Unknown', which is not defined before it"),
        ([field("f", {"type": "fixed", "name": "F", "size": 0})], "must have a size in bytes"),
        ([field("f", {"type": "enum", "name": "E", "symbols": []})], "E must have symbols"),
        ([field("f", {"type": "enum", "name": "E", "symbols": ["a", "a"]})], "E must have symbols"),
        ([field("f", "string"), field("f", "string")], "'f' is no field's name, or used twice"),
        ([field("f", "string", aliases=["g"])], "f has aliases"),
        ([field("f", {"type": "record", "name": "R", "aliases": ["Q"], "fields": []})], "f has aliases"),
        ([field("f", "string", default=5)], "the default does not fit: f must be text"),
        ([field("f", "bytes", default="x")], "the default does not fit: f must be bytes"),
        ([field("f", ["string", "null"], default=None)], "the default does not fit: f must be text"),
        ([field("f", _IN, default={"who": "a"})], "the default does not fit: f.n is missing"),
        ([field("f", "long", **_MARK)], "f: headrace.pseudonym must be true, on a string"),
        ([field("f", {"type": "map", "values": "string"}, **_MARK)], "f: headrace.pseudonym must be true, on a string"),
        ([field("f", "string", **{"headrace.pseudonym": "yes"})], "f: headrace.pseudonym must be true"),
        ([_CONTENT], "content must have the default null, and beside it a field content_key"),
        ([_KEY], "content_key is the name of sealed content"),
        ([field("content", "string")], "content is the name of sealed content"),
        ([{**_CONTENT, "name": "words"}, _KEY], "words: headrace.content may stand only on an event's field content"),
        (
            [{**_CONTENT, "headrace.content": "example.shop.None"}, _KEY],
            "names 'example.shop.None', which is no schema",
        ),
        ([{**_CONTENT, "headrace.content": "example.shop.Sold"}, _KEY], "no schema here with the role content"),
        ([{**_CONTENT, "headrace.content": 5}, _KEY], "no schema here with the role content"),
        ([5], "is no field's name"),
        ("none", "has no list of fields"),
    ],
)
def test_what_headrace_does_not_take_halts_with_the_place(fields: Any, why: str) -> None:
    with pytest.raises(HaltError, match=f"shop.sold.*{why}"):
        Registry([schema(fields), _WORDS])


@pytest.mark.parametrize(
    "type_",
    [
        "bytes",
        ["null", "bytes"],
        {"type": "fixed", "name": "F", "size": 2},
        {"type": "array", "items": "bytes"},
        {"type": "map", "values": {"type": "record", "name": "R", "fields": [field("deep", ["null", "bytes"])]}},
    ],
)
def test_a_proposal_holds_nothing_but_json(type_: Any) -> None:
    with pytest.raises(HaltError, match=r"f.* holds bytes, but what is proposed is kept as JSON"):
        shop(field("f", type_), role="proposal")
    shop(field("f", type_), role="event")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"headrace.type": None}, "headrace.type must be a name"),
        ({"headrace.type": "Shop"}, "headrace.type must be a name"),
        ({"headrace.role": "fact"}, "headrace.role must be one of event, proposal, content, record"),
        ({"headrace.version": 0}, "headrace.version must be a number from 1 on"),
        ({"headrace.version": True}, "headrace.version must be a number from 1 on"),
        ({"headrace.version": "1"}, "headrace.version must be a number from 1 on"),
        ({"namespace": ""}, "a record with a namespace"),
        ({"name": "a b"}, "is no Avro name"),
        ({"name": None}, "has no name"),
        ({"type": "enum", "symbols": ["a"]}, "a schema is a record"),
        ({"type": "string"}, "a schema is a record"),
    ],
)
def test_a_schema_must_say_what_it_is(change: dict[str, Any], why: str) -> None:
    with pytest.raises(HaltError, match=f"cannot be used: .*{why}.*; mend the .avsc file"):
        Registry([{**schema([]), **change}])


def test_a_file_that_is_no_object_halts() -> None:
    with pytest.raises(HaltError, match="a schema file holds one JSON object"):
        parse_version([1])  # type: ignore[arg-type]


def test_a_type_defined_once_may_be_named_again() -> None:
    who = {"type": "record", "name": "Who", "fields": [field("address", "string", **_MARK)]}
    registry = shop(field("seller", who), field("buyer", "Who"), field("others", {"type": "array", "items": "Who"}))
    shapes = {one["name"]: one["type"] for one in registry.versions[0].shape["fields"]}
    assert shapes["buyer"] == shapes["seller"] == shapes["others"]["items"]
    assert shapes["buyer"]["fields"][0]["headrace.pseudonym"] is True


# -- schemas that packages bring ----------------------------------------------------------------------------------


class _Point:
    def __init__(self, value: str) -> None:
        self.name, self.value = "shop", value


def _pointing_to(package: str) -> Callable[..., list[_Point]]:
    def entry_points(group: str) -> list[_Point]:
        assert group == "headrace.schemas"
        return [_Point(package)]

    return entry_points


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """What an installation has with a package that brings these schemas."""

    def installed(*sources: Source) -> Registry:
        def read(_: object) -> Iterator[Source]:
            return iter(sources)

        monkeypatch.setattr(kinds, "entry_points", _pointing_to("tests.unit"))
        monkeypatch.setattr(kinds, "read_directory", read)
        return kinds.installed_schemas()

    return installed


def test_a_package_brings_types_of_its_own(bring: Callable[..., Registry]) -> None:
    registry = bring(schema([_CONTENT, _KEY]), _WORDS)
    assert registry.schema("shop.sold").name == "example.shop.Sold"
    assert registry.schema("mail.read").role == "event"


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "headrace.mail"},
        {"headrace.role": "record"},
        {"headrace.type": "log.sold"},
        {"headrace.type": "policy.sold"},
    ],
)
def test_a_package_may_not_claim_what_is_headraces_own(bring: Callable[..., Registry], change: Source) -> None:
    with pytest.raises(HaltError, match=r"'shop' brings .* are headrace's own; use names of yours"):
        bring({**schema([]), **change})


def test_a_package_may_not_add_versions_to_a_type_that_is_not_its_own(bring: Callable[..., Registry]) -> None:
    newer = {**schema([field("message", ["null", "string"], default=None)], version=2), "headrace.type": "mail.read"}
    with pytest.raises(HaltError, match=r"mail\.read version 2 has another name or role than version 1"):
        bring(newer)


def test_a_package_that_is_not_there_halts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "entry_points", _pointing_to("no.such.package"))
    with pytest.raises(HaltError, match=r"the schemas of 'shop' \(no\.such\.package\) cannot be loaded"):
        kinds.installed_schemas()
