"""The small nouns: overlaps, tokens, ids. What is accepted comes back exactly, everything else is refused."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import BadInputError, UndecodableError
from headrace.schemas.refs import (
    EntityRef,
    Token,
    Touch,
    account_key,
    parse_account_key,
    parse_id,
    parse_subject,
)

_ENDS = st.none() | st.integers(-3, 5)
_TOUCHES = st.builds(Touch, st.sampled_from(["calendar", "label"]), st.sampled_from(["a", "b"]), _ENDS, _ENDS)
_IDS = st.from_regex(r"[A-Za-z0-9._~:+=-]{1,200}", fullmatch=True)
_TOKENS = st.builds(
    Token,
    st.binary(min_size=16, max_size=16),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 63) - 1),
    st.binary(min_size=8, max_size=8),
)


def points(touch: Touch) -> set[int]:
    """What it covers of a line long enough for every bound above, counted one by one."""
    start = touch.start if touch.start is not None else -100
    end = touch.end if touch.end is not None else 100
    return {start} if touch.start is not None and end <= start else set(range(start, end))


@given(one=_TOUCHES, other=_TOUCHES)
@example(one=Touch("calendar", "a", 2, 2), other=Touch("calendar", "a", 2, 3))
@example(one=Touch("calendar", "a", 2, 2), other=Touch("calendar", "a", 1, 2))
@example(one=Touch("calendar", "a", 5, 2), other=Touch("calendar", "a", 5, 5))
@example(one=Touch("calendar", "a"), other=Touch("calendar", "a", None, -3))
def test_overlap_is_having_a_point_in_common(one: Touch, other: Touch) -> None:
    same = (one.container, one.id) == (other.container, other.id)
    assert one.meets(other) is (same and not points(one).isdisjoint(points(other)))
    assert other.meets(one) is one.meets(other)
    assert one.meets(one)


@given(token=_TOKENS)
def test_tokens_come_back_exactly(token: Token) -> None:
    assert Token.parse(token.encode()) == token == Token.unpack(token.pack())
    assert len(token.pack()) == 37
    assert len(token.encode()) == 50


def same_bytes(text: str) -> str:
    """Another text that a lenient decoder takes for the same bytes."""
    return text[:-1] + chr(ord(text[-1]) + 1)


TOKEN = Token(bytes(range(16)), 3, 70_000, b"checksum")
TEXT = TOKEN.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        TEXT[:-1],
        TEXT + "A",
        TEXT + "==",
        TEXT + "\n",
        " " + TEXT,
        same_bytes(TEXT),
        TEXT.replace("A", "é", 1),
        base64.urlsafe_b64encode(b"\2" + TOKEN.pack()[1:]).decode().rstrip("="),
        base64.urlsafe_b64encode(TOKEN._replace(offset=1 << 63).pack()).decode().rstrip("="),
        base64.urlsafe_b64encode(TOKEN.pack()[:-1]).decode().rstrip("="),
        "\ud800",
        "A" * 1_000_000,
    ],
)
def test_what_was_never_given_out_is_no_token(text: str) -> None:
    with pytest.raises(BadInputError, match="is not a token; pass back exactly what an earlier answer gave you"):
        Token.parse(text)


def test_standard_base64_is_no_token() -> None:
    token = TOKEN._replace(log_id=b"\xff" * 16)
    assert "_" in token.encode()
    with pytest.raises(BadInputError):
        Token.parse(token.encode().replace("_", "/"))


@given(text=st.text(max_size=60) | st.text("AQZaz09-_=", min_size=48, max_size=52))
def test_a_token_is_only_what_encode_makes(text: str) -> None:
    try:
        token = Token.parse(text)
    except BadInputError:
        return
    assert token.encode() == text


@given(raw=st.binary(max_size=40) | st.binary(min_size=37, max_size=37).map(lambda raw: b"\1" + raw[1:]))
def test_bytes_are_one_token_or_none(raw: bytes) -> None:
    token = Token.unpack(raw)
    assert token is None or token.pack() == raw


def test_a_token_beyond_what_a_table_can_count_to_is_none() -> None:
    assert Token.unpack(TOKEN._replace(offset=(1 << 63) - 1).pack()) is not None
    assert Token.unpack(TOKEN._replace(offset=1 << 63).pack()) is None


# -- ids ----------------------------------------------------------------------------------------------------------


@given(text=_IDS)
def test_opaque_ids_are_taken_as_they_are(text: str) -> None:
    assert parse_id(text, "account") == text


@given(address=st.emails())
@example(address="ann@example.com")
def test_an_address_is_never_an_id(address: str) -> None:
    for text in (address, f"<{address}>", f"mailto:{address}"):
        with pytest.raises(BadInputError, match=r"account .* is not an opaque id: .*never an address"):
            parse_id(text, "account")
        with pytest.raises(BadInputError):
            parse_subject(f"mail.thread/{text}")
        with pytest.raises(UndecodableError):
            parse_account_key(account_key("t", text))


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a\n", "\n", "a\0", "é", "a" * 201, "а", "a,b", "%41"])
def test_what_is_not_opaque_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="is not an opaque id"):
        parse_id(text, "tenant")
    with pytest.raises(BadInputError):
        parse_subject(f"mail.thread/{text}")


@pytest.mark.parametrize(
    "text", ["", "mail.thread", "/t", "Mail/t", "mail./t", ".mail/t", "mail\n/t", "1mail/t", "m" * 101 + "/t"]
)
def test_what_names_no_entity_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="names no entity: write it kind/id"):
        parse_subject(text)


@given(tenant=_IDS, account=_IDS, kind=st.sampled_from(["mail.thread", "m"]), entity=_IDS)
def test_subjects_and_keys_come_back(tenant: str, account: str, kind: str, entity: str) -> None:
    ref = EntityRef(tenant, account, kind, entity)
    assert parse_subject(ref.subject) == (kind, entity)
    assert parse_account_key(account_key(tenant, account)) == (tenant, account)


@pytest.mark.parametrize("key", [b"", b"/", b"t/", b"/a", b"t", b"t/a/b", b"t/a@b", b"t/a\n", b"\xff/a", b"t/\xff"])
def test_a_key_of_another_form_is_refused(key: bytes) -> None:
    with pytest.raises(UndecodableError, match="the record's key is not"):
        parse_account_key(key)


@given(key=st.binary(max_size=20))
def test_any_key_is_an_account_or_refused(key: bytes) -> None:
    try:
        tenant, account = parse_account_key(key)
    except UndecodableError:
        return
    assert account_key(tenant, account) == key
