"""A history with texts as long as a record may hold them, wherever tables look rows up by one."""

import base64
import hashlib

from tests.contract.rich_history import ANN, HOUR, START, Author, mail, meeting


def long_text(characters: int) -> str:
    """Text that no compression makes shorter."""
    return base64.b64encode(hashlib.shake_256(b"headrace").digest(characters))[:characters].decode()


def write_long(author: Author) -> None:
    """Facts, a proposal and answers, each with a long text: past the doors, which take no such thing."""
    for number, characters in enumerate((3_000, 100_000)):
        text, thread = long_text(characters), f"l-{number}"
        head = author.fact("mail.received", thread, f"lm-{number}", mail(500 + number))
        author.fact("mail.labelled", thread, f"ll-{number}", {"added": [text, f"{text}!", "📬" * characters]})
        read = [author.scope("mail.label", text, head), author.entity(f"mail.thread/{thread}", head)]
        author.propose(f"lp-{number}", "mail.label", f"mail.thread/{thread}", read, {"added": [text]})
        author.note("proposal.withdrawn", f"lw-{number}", {"proposal": text})
        author.note("review.dismissed", f"lr-{number}", {"proposal": f"{text}!"}, actor=ANN)
        author.note("delivery.unknown", f"ld-{number}", {"proposal": text, "attempt": text})
        body = meeting(START + 30 * HOUR) | {"calendar": text, "resource": f"/{text}", "attendees": []}
        author.note("calendar.created", f"lk-{number}", body, entity=f"calendar.event/l-{number}", actor=ANN)
        author.fact("mail.labelled", thread, f"lo-{number}", {"removed": [text]})
