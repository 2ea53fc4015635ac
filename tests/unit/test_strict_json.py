"""JSON from outside means one thing or is refused; no input makes the parser fail in another way."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.producers.refusal import RefusedError
from headrace.producers.strict_json import MAX_DEPTH, parse_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", min_codepoint=1)), inner),
    max_leaves=20,
)


def reason_of(body: bytes) -> str:
    """Why it is refused."""
    with pytest.raises(RefusedError) as refused:
        parse_json(body)
    return refused.value.reason


@given(value=VALUES, ascii_=st.booleans())
def test_what_json_writes_is_read_back(value: Any, ascii_: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_).encode()) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{} {}", "not_json"),
        (b"{'a': 1}", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'"\n"', "not_json"),
        (b"\xff", "not_utf8"),
        (b'"\xed\xa0\x80"', "not_utf8"),
        ("{}".encode("utf-16"), "not_utf8"),
        ("{}".encode("utf-16-le"), "not_json"),
        (b'{"a": 1, "a": 1}', "duplicate_key"),
        (b'[{"a": {"b": 1, "b": 2}}]', "duplicate_key"),
        (b'{"a": 1, "\\u0061": 2}', "duplicate_key"),
        (b"NaN", "bad_number"),
        (b"[-Infinity]", "bad_number"),
        (b"1e999", "bad_number"),
        (b"-1e999", "bad_number"),
        (b"9223372036854775808", "bad_number"),
        (b"-9223372036854775809", "bad_number"),
        (b"1" * 5_000, "bad_number"),
        (b"1" * 1_000_000, "bad_number"),
        (b'"\\ud800"', "bad_text"),
        (b'["\\udc00\\ud800"]', "bad_text"),
        (b'{"\\ud800": 1}', "bad_text"),
        (b'{"a": [["\\u0000"]]}', "bad_text"),
    ],
)
def test_refusals(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


def test_escapes_that_are_text_are_taken() -> None:
    assert parse_json(b'"\\ud83d\\ude00 \\\\u0000 \\u00e9"') == "\U0001f600 \\u0000 é"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_is_counted_before_parsing(opening: str, closing: str) -> None:
    levels = len([letter for letter in opening if letter in "[{"])
    fits = MAX_DEPTH // levels
    assert parse_json((opening * fits + "1" + closing * fits).encode()) is not None
    assert reason_of((opening * (fits + 1) + "1" + closing * (fits + 1)).encode()) == "too_deep"
    assert reason_of((opening * (1_000_000 // len(opening))).encode()) == "too_deep"


def test_brackets_in_strings_do_not_nest() -> None:
    text = '[[[{"\\"' * 100
    assert parse_json(json.dumps([text, {text: text}]).encode()) == [text, {text: text}]


@pytest.mark.parametrize("unit", [b'"', b'\\"', b'"\\', b'"a', b"[]", b'{"":', b"\\"])
def test_a_mebibyte_of_anything_is_decided_soon(unit: bytes) -> None:
    body = unit * (1_048_576 // len(unit))
    before = time.process_time()
    assert reason_of(body) in ("not_json", "too_deep")
    assert time.process_time() - before < 2


@given(body=st.binary(max_size=60) | st.text('[]{}",:\\u0d81e9.-+ntf', max_size=60).map(str.encode))
def test_no_other_exception(body: bytes) -> None:
    try:
        value = parse_json(body)
    except RefusedError as refused:
        assert refused.refusal.status == 400  # noqa: PT017
    else:
        json.dumps(value, allow_nan=False).encode()
