"""The envelope: what is written is read back exactly, and what is not of its form is refused by name."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import BadInputError, UndecodableError
from headrace.log.framing import TRANSPORT_PREFIX
from headrace.schemas.envelope import Envelope, from_headers, normal_time, rfc3339, to_headers
from headrace.schemas.refs import ActorRef

Headers = tuple[tuple[str, bytes], ...]

_IDS = st.from_regex(r"[A-Za-z0-9._~:+=-]{1,200}", fullmatch=True)
_SOURCES = st.from_regex(r"[A-Za-z0-9._~:/+=-]{1,200}", fullmatch=True)
_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}(\.[a-z][a-z0-9_]{0,20}){0,2}", fullmatch=True)
_TIMES = st.integers(-62_135_596_800_000, 253_402_300_799_999).map(rfc3339)
_SUBJECTS = st.just(("", "")) | st.tuples(_NAMES, _IDS)


def _about(subject: tuple[str, str], **rest: Any) -> Envelope:
    return Envelope(kind=subject[0], entity=subject[1], **rest)


_ENVELOPES = st.builds(
    _about,
    subject=_SUBJECTS,
    id=_IDS,
    source=_SOURCES,
    type=_NAMES,
    actor=st.builds(ActorRef, st.sampled_from(["user", "agent", "system"]), _IDS),
    concerns=st.lists(_IDS, max_size=64).map(tuple),
    occurred_at=st.none() | _TIMES,
    observed_at=st.none() | _TIMES,
    causation=st.none() | _IDS,
    correlation=st.none() | _IDS,
    sync=st.none() | _IDS,
    traceparent=st.none() | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
)
FULL = Envelope(
    "e-1",
    "webhook/mail",
    "mail.received",
    ActorRef("user", "ann"),
    "mail.thread",
    "t-17",
    ("message:p-1", "person:p-2"),
    "2026-11-21T17:15:00.000Z",
    "2026-11-21T17:15:01.250Z",
    "c-1",
    "c-2",
    "s-1",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
HEADERS = to_headers(FULL)


def replaced(name: str, value: bytes | None) -> Headers:
    """The full headers with one replaced, or left out."""
    found = {**dict(HEADERS), name: value}
    return tuple((known, said) for known, said in found.items() if said is not None)


@given(envelope=_ENVELOPES)
@example(envelope=FULL)
def test_what_is_written_is_read_back_and_written_the_same(envelope: Envelope) -> None:
    headers = to_headers(envelope)
    assert from_headers(headers) == envelope == from_headers(dict(headers))
    assert to_headers(from_headers(headers)) == headers


def test_the_headers_are_those_of_the_kafka_binding() -> None:
    assert HEADERS == (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"e-1"),
        ("ce_source", b"webhook/mail"),
        ("ce_type", b"mail.received"),
        ("ce_actor", b"user/ann"),
        ("content-type", b"application/avro"),
        ("ce_subject", b"mail.thread/t-17"),
        ("ce_concerns", b"message:p-1,person:p-2"),
        ("ce_time", b"2026-11-21T17:15:00.000Z"),
        ("ce_observedat", b"2026-11-21T17:15:01.250Z"),
        ("ce_causation", b"c-1"),
        ("ce_correlation", b"c-2"),
        ("ce_sync", b"s-1"),
        ("ce_traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    )


@given(envelope=_ENVELOPES, drawn=st.data())
def test_the_order_of_headers_and_those_that_are_not_ours_mean_nothing(
    envelope: Envelope, drawn: st.DataObject
) -> None:
    others = [(TRANSPORT_PREFIX + "time", b"\xff\xfe"), (TRANSPORT_PREFIX + "time", b"1"), ("x", b"\xff"), ("x", b"")]
    headers = drawn.draw(st.permutations([*to_headers(envelope), *others]))
    assert from_headers(tuple(headers)) == envelope


# -- hostile headers ----------------------------------------------------------------------------------------------

_ID_VALUES = (
    b"",
    b"a b",
    b"ann@example.com",
    b"a" * 201,
    b"a\n",
    b"a\x00",
    "é".encode(),
    b"\xff",
    b"a/b",
    b"a,b",
    b"%41",
)
_TIME_VALUES = (
    b"",
    b"2026-11-21T17:15:00Z",
    b"2026-11-21T17:15:00.000+00:00",
    b"2026-11-21 17:15:00.000Z",
    b"2026-11-21T17:15:00,000Z",
    b"2026-11-21T17:15:00.000z",
    b"2026-11-21T17:15:00.000Z\n",
    b"2026-11-21T24:00:00.000Z",
    b"2026-11-21T17:60:00.000Z",
    b"2026-11-21T17:15:60.000Z",
    b"2026-W47-6T17:15:00.000Z",
    b"2026-02-29T17:15:00.000Z",
    b"2026-04-31T17:15:00.000Z",
    b"2026-13-01T17:15:00.000Z",
    b"2026-00-01T17:15:00.000Z",
    b"2026-01-00T17:15:00.000Z",
    b"0000-01-01T17:15:00.000Z",
    "２０２６-11-21T17:15:00.000Z".encode(),
    b"\xff",
)
HOSTILE: dict[str, tuple[bytes, ...]] = {
    "ce_specversion": (b"", b"0.3", b"1.0 ", b"2.0", b"\xff"),
    "ce_id": _ID_VALUES,
    "ce_source": (b"", b"a b", b"ann@example.com", b"a" * 201, b"a\n", "é".encode(), b"\xff"),
    "ce_type": (
        b"",
        b"Mail",
        b"mail.",
        b".mail",
        b"mail..x",
        b"1mail",
        b"mail.received\n",
        b"m" * 101,
        b"\xff",
        b"a b",
    ),
    "ce_actor": (b"", b"user", b"user/", b"/ann", b"person/ann", b"user/ann@example.com", b"user/a/b", b"\xff"),
    "ce_subject": (
        b"",
        b"mail.thread",
        b"mail.thread/",
        b"/t",
        b"Mail/t",
        b"mail/a/b",
        b"mail/a@b",
        b"m" * 101 + b"/t",
        b"\xff",
    ),
    "ce_concerns": (b"", b",", b"a,", b",a", b"a b", b"a@b", b",".join([b"a"] * 65), b"\xff"),
    "ce_time": _TIME_VALUES,
    "ce_observedat": _TIME_VALUES,
    "ce_causation": _ID_VALUES,
    "ce_correlation": _ID_VALUES,
    "ce_sync": _ID_VALUES,
    "ce_traceparent": (b"", b"x", b"00-AF", b"a" * 65, b"00\n", b"\xff"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HOSTILE.items() for value in values])
def test_a_header_that_is_not_of_its_form_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(UndecodableError):
        from_headers(replaced(name, value))


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_actor"])
def test_a_required_header_is_missed_by_name(name: str) -> None:
    with pytest.raises(UndecodableError, match=f"the header {name} is missing"):
        from_headers(replaced(name, None))


@pytest.mark.parametrize("name", [name for name, _ in HEADERS if name.startswith("ce_")])
def test_a_header_that_is_there_twice_is_refused_even_with_the_same_value(name: str) -> None:
    again = dict(HEADERS)[name]
    for headers in ((*HEADERS, (name, again)), ((name, again), *HEADERS)):
        with pytest.raises(UndecodableError, match=f"the header {name} is there twice"):
            from_headers(headers)


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([*HOSTILE, "content-type", "x"]),
            st.binary(max_size=30) | st.text(max_size=30).map(str.encode),
        )
    ).map(tuple)
)
def test_any_headers_are_an_envelope_or_refused(headers: Headers) -> None:
    try:
        found = from_headers(headers)
    except UndecodableError:
        return
    assert from_headers(to_headers(found)) == found


@given(name=st.sampled_from(sorted(HOSTILE)), at=st.integers(0, 60), byte=st.binary(max_size=2))
def test_one_changed_place_is_an_envelope_or_refused(name: str, at: int, byte: bytes) -> None:
    was = dict(HEADERS)[name]
    try:
        found = from_headers(replaced(name, was[:at] + byte + was[at + 1 :]))
    except UndecodableError:
        return
    assert from_headers(to_headers(found)) == found


def test_times_sort_as_they_are() -> None:
    moments = [-62_135_596_800_000, -1, 0, 1, 999, 1000, 1_795_256_100_000, 253_402_300_799_999]
    texts = [rfc3339(moment) for moment in moments]
    assert texts == sorted(texts)
    assert texts[0] == "0001-01-01T00:00:00.000Z"
    assert texts[1] == "1969-12-31T23:59:59.999Z"


# -- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": "ann@example.com"}, "ce_id 'ann@example.com' is not an opaque id"),
        ({"id": "\ud800"}, "surrogates"),
        ({"source": "a b"}, "ce_source 'a b' is no name of a source"),
        ({"type": "Mail"}, "ce_type 'Mail' is no type name"),
        ({"actor": ActorRef("person", "ann")}, "ce_actor must be user"),
        ({"actor": ActorRef("user", "ann@x.org")}, "ce_actor must be user"),
        ({"actor": ActorRef("user/x", "ann")}, "ce_actor must be user"),
        ({"kind": "Mail"}, "ce_subject must be kind/id"),
        ({"entity": "a b"}, "ce_subject must be kind/id"),
        ({"kind": ""}, "entity 't-17' may not stand on the log"),
        ({"kind": "mail/thread"}, "ce_subject must be kind/id"),
        ({"concerns": ("a", "")}, "ce_concerns must be at most 64 opaque keys"),
        ({"concerns": ("a,b",)}, "concerns .* would be read as"),
        ({"concerns": ["a"]}, "concerns .* would be read as"),
        ({"concerns": ("a",) * 65}, "ce_concerns must be at most 64 opaque keys"),
        ({"occurred_at": "2026-11-21"}, "'2026-11-21' is no UTC time of the form"),
        ({"observed_at": ""}, "'' is no UTC time of the form"),
        ({"causation": "a@b"}, "ce_causation 'a@b' is not an opaque id"),
        ({"correlation": ""}, "ce_correlation '' is not an opaque id"),
        ({"sync": "x y"}, "ce_sync 'x y' is not an opaque id"),
        ({"traceparent": "zz"}, "ce_traceparent is no W3C traceparent"),
    ],
)
def test_what_may_not_stand_on_the_log_is_not_written(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInputError, match=named) as caught:
        to_headers(FULL._replace(**change))
    assert not isinstance(caught.value, UndecodableError)


@pytest.mark.parametrize(
    ("said", "normal"),
    [
        ("2026-11-21T17:15:00Z", "2026-11-21T17:15:00.000Z"),
        ("2026-11-21T17:15:00.123999Z", "2026-11-21T17:15:00.123Z"),
        ("2026-11-21T18:15:00+01:00", "2026-11-21T17:15:00.000Z"),
        ("0999-01-01T00:00:00Z", "0999-01-01T00:00:00.000Z"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00.000Z"),
    ],
)
def test_any_time_takes_the_one_form(said: str, normal: str) -> None:
    assert normal_time(said) == normal
    assert from_headers(to_headers(FULL._replace(occurred_at=normal))).occurred_at == normal


@pytest.mark.parametrize(
    "said", ["", "now", "2026-11-21T17:15:00", "2026-11-21", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00", "é"]
)
def test_what_is_no_time_is_refused(said: str) -> None:
    with pytest.raises(BadInputError, match=r"is no time .*write it as 2026-11-21T17:15:00\.000Z"):
        normal_time(said)


@given(moment=st.datetimes(timezones=st.timezones()))
def test_every_moment_has_the_one_form(moment: Any) -> None:
    try:
        normal = normal_time(moment.isoformat())
    except BadInputError:
        assert moment.year in (1, 9999), "only what leaves the calendar in UTC is refused"
        return
    assert from_headers(to_headers(FULL._replace(occurred_at=normal))).occurred_at == normal
    assert normal_time(normal) == normal
