"""Which thread a message belongs to. IMAP does not say, so it is the messages that it names (RFC 5322, section 3.6.4).

A thread is named after the message that began it: the first of ``References``, else what ``In-Reply-To`` names, else
the message itself. A message is filed

1. in the thread of that name, or in the one named after itself, where there is one on the log or here, or in the one
   that it is the last message of on the log;
2. else with a message that it names, the nearest first, or with another that names the same;
3. else with a message that names it;
4. else in a new thread of that name.

Once filed it stays: threads are never merged or split, whatever arrives later. What is on the log decides first, so the
same comes out where everything is filed anew.
"""

from typing import Final, Protocol

from headrace.producers.imap_index import ImapIndex

_AT_ONCE: Final = 500


class ThreadsOnLog(Protocol):
    """What the log can say of a mailbox's threads."""

    def has(self, thread: str) -> bool:
        """Whether there is one of this name."""
        ...

    def ending(self, key: str) -> str | None:
        """The one that this message is the last of."""
        ...


def file_messages(index: ImapIndex, on_log: ThreadsOnLog) -> None:
    """File what belongs to no thread yet."""
    rest = [(message, key, names) for message, key, names in index.unfiled()]
    left: list[tuple[int, str, tuple[str, ...]]] = []
    for first in range(0, len(rest), _AT_ONCE):
        with index.filing():
            for message, key, names in rest[first : first + _AT_ONCE]:
                own = (_name(key, names), key)
                held = next((one for one in own if index.has_thread(one) or on_log.has(one)), on_log.ending(key))
                if held is None:
                    left.append((message, key, names))
                else:
                    index.file(message, held)
    for first in range(0, len(left), _AT_ONCE):
        with index.filing():
            for message, key, names in left[first : first + _AT_ONCE]:
                index.file(message, _found(index, key, names))


def _found(index: ImapIndex, key: str, names: tuple[str, ...]) -> str:
    name = _name(key, names)
    for one in (name, key):
        if index.has_thread(one):
            return one
    for one in names:
        thread = index.thread_of(one) or index.thread_naming(one)
        if thread is not None:
            return thread
    return index.thread_naming(key) or name


def _name(key: str, names: tuple[str, ...]) -> str:
    return names[-1] if names else key
