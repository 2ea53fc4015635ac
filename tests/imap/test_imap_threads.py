"""Which thread a message is filed in, whatever the order in which messages arrive."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.producers.imap_connection import Flagged, Header, Standing
from headrace.producers.imap_index import ImapIndex, NewMessage
from headrace.producers.imap_message import mail_of, readable, text_of
from headrace.producers.imap_threads import file_messages

pytestmark = pytest.mark.embedded("opens no store")

Names = tuple[str, ...]
# Nearest first, as mail_of has them.
WHOLE: dict[str, Names] = {"a": (), "b": ("a",), "c": ("b", "a"), "d": ("c", "b", "a"), "e": ("a",)}


class Filing:
    """An index, and the log's threads."""

    def __init__(self) -> None:
        self.index = ImapIndex.at(None)
        self.folder = self.index.enter("INBOX", "inbox", 1).id
        self.on_log: set[str] = set()
        self.ends: dict[str, str] = {}
        self.uid = 0

    def arrive(self, *messages: tuple[str, Names]) -> None:
        """Together, in one sync."""
        new = []
        for key, names in messages:
            self.uid += 1
            new.append(NewMessage(self.uid, frozenset(), key, self.uid, names))
        self.index.add(self.folder, new)
        file_messages(self.index, self)
        self.on_log |= self.index.threads()

    def has(self, thread: str) -> bool:
        return thread in self.on_log

    def ending(self, key: str) -> str | None:
        return self.ends.get(key)

    def lose_index(self) -> "Filing":
        other = Filing()
        other.on_log = self.on_log
        other.ends = self.ends
        return other

    def threads(self, keys: str) -> list[str | None]:
        return [self.index.thread_of(key) for key in keys]


def test_a_conversation_is_one_thread_in_any_order_and_after_any_loss() -> None:
    for order in permutations(WHOLE):
        filing = Filing()
        for key in order:
            filing.arrive((key, WHOLE[key]))
        assert set(filing.threads("abcde")) == {"a"}
        anew = filing.lose_index()
        anew.arrive(*((key, WHOLE[key]) for key in order))
        assert set(anew.threads("abcde")) == {"a"}


def test_an_answer_that_names_only_what_it_answers_joins_its_thread() -> None:
    filing = Filing()
    filing.arrive(("a", ()), ("b", ("a",)))
    filing.arrive(("c", ("b",)))
    filing.arrive(("d", ("c",)))
    assert filing.threads("abcd") == ["a"] * 4


def test_an_ancestor_that_comes_late_joins_the_thread_that_its_answers_made() -> None:
    filing = Filing()
    filing.arrive(("c", ("b",)))
    assert filing.threads("c") == ["b"]
    filing.arrive(("b", ("a",)))
    filing.arrive(("d", ("b", "a")), ("a", ()))
    assert filing.threads("abcd") == ["b"] * 4
    for order in permutations("abcd"):
        anew = filing.lose_index()
        names: dict[str, Names] = {"a": (), "b": ("a",), "c": ("b",), "d": ("b", "a")}
        anew.arrive(*((key, names[key]) for key in order))
        assert anew.threads("abcd") == ["b"] * 4, "as the log has it"


def test_two_threads_stay_two_when_a_message_turns_up_that_names_both() -> None:
    filing = Filing()
    filing.arrive(("a", ()), ("x", ()))
    filing.arrive(("m", ("x", "a")))
    assert filing.threads("axm") == ["a", "x", "a"]
    filing.arrive(("n", ("m",)), ("y", ("x",)))
    assert filing.threads("axmny") == ["a", "x", "a", "a", "x"]


def test_a_message_whose_ancestor_is_gone_is_found_again_by_being_the_last_of_its_thread() -> None:
    filing = Filing()
    filing.arrive(("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ("c",)))
    filing.ends = {"d": "a"}
    anew = filing.lose_index()
    anew.arrive(("c", ("b",)), ("d", ("c",)))
    assert anew.threads("cd") == ["a", "a"]


def test_shortened_references_find_the_thread_by_the_nearest_that_is_known() -> None:
    filing = Filing()
    filing.arrive(("a", ()), ("b", ("a",)), ("c", ("b", "a")))
    filing.arrive(("z", ("c", "b")))
    assert filing.threads("z") == ["a"]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), max_size=4)), max_size=4),
        max_size=8,
    )
)
def test_what_is_filed_stays_and_everything_is_filed(arrivals: list[list[tuple[str, list[str]]]]) -> None:
    filing = Filing()
    before: dict[str, str] = {}
    for together in arrivals:
        filing.arrive(*((key, tuple(dict.fromkeys(one for one in names if one != key))) for key, names in together))
        now = {key: thread for key in "abcdefgh" if (thread := filing.index.thread_of(key)) is not None}
        assert before.items() <= now.items()
        assert now.keys() == before.keys() | {key for key, _ in together}
        before = now
    assert filing.index.threads() == set(before.values())


header_bytes = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.tuples(
            st.sampled_from([b"Message-ID", b"In-Reply-To", b"References", b"From", b"To", b"Subject", b"Date"]),
            st.one_of(
                st.binary(max_size=60),
                st.from_regex(rb"\A(=\?[\w-]{1,8}\?[bBqQ]\?[^?]{0,20}\?=|<[^>]{0,9}>|[(<\[\"\\,@ ]){0,12}\Z"),
            ),
        ).map(b": ".join),
        max_size=6,
    ).map(b"\r\n".join),
)


@given(header_bytes)
def test_any_header_can_be_read(text: bytes) -> None:
    mail = mail_of(Header(1, frozenset(), None, len(text), text))
    assert mail.key
    said = [mail.key, *mail.names, *mail.senders, *mail.recipients, *mail.recipient_lines]
    said += [one for one in (mail.answered, mail.subject, mail.sender) if one is not None]
    assert all("\0" not in one and one.encode() is not None for one in said)
    assert mail.key not in mail.names
    assert mail == mail_of(Header(9, frozenset({"\\Seen"}), 5, len(text), text)), "wherever it is moved to"


@given(st.one_of(st.binary(max_size=400), header_bytes.map(lambda head: head + b"\r\n\r\nText")))
def test_any_text_can_be_read(raw: bytes) -> None:
    found = text_of(raw)
    assert found is None or ("\0" not in found and found.encode() is not None)


def test_texts() -> None:
    assert text_of(b"Content-Type: text/html\r\n\r\n<style>x</style><p>Hi</p>") == "  Hi "
    parts = b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>no\r\n"
    parts += b"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    parts += b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4"
    assert text_of(parts) == "ä"
    assert text_of(parts[:20]) is None
    assert readable("=?utf-8?q?=C3=A4?= b") == "ä b"


def test_a_message_that_stays_where_it_is_is_not_marked() -> None:
    filing = Filing()
    filing.arrive(("a", ()), ("b", ()))
    assert filing.index.take_up(None) is False
    filing.index.hand("one")
    assert filing.index.take_up("one") is True
    assert filing.index.dirty() == []
    filing.index.reflag(filing.folder, [Flagged(1, frozenset()), Flagged(2, frozenset({"\\Seen"}))])
    assert filing.index.dirty() == ["b"]
    filing.index.hand("two")
    assert filing.index.take_up("one") is True, "the log never got the second cursor"
    assert filing.index.dirty() == ["b"]
    assert filing.index.take_up("another's") is False
    assert filing.index.dirty() == ["a", "b"]
    filing.index.settle(filing.folder, Standing(1, 3, 0, 2))
    filing.index.enter("INBOX", "inbox", 2)
    assert filing.index.count(filing.index.folders()["INBOX"].id) == 0
