"""A provider's answers in JSON, read strictly: what cannot be read is an UnavailableError that names the field.

Nothing is guessed, and the cursor stays. What providers differ in is said once for each, where its API is.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headrace.errors import UnavailableError

_UNKEPT: Final = re.compile("[\0\ud800-\udfff]")
_UINT64_DIGITS: Final = 20
_MOST_RETRY_SECONDS: Final = 3_600.0


class Answers:
    """Readers of what ``provider`` answers; each raises UnavailableError for what it cannot use.

    ``ids`` is what an id may look like, whole: it goes into URLs, and into entity ids. Numbers are from 0 to less than
    ``numbers_below``. ``null_lists`` is whether ``null`` is an empty list, as a missing one is.
    """

    def __init__(
        self, provider: str, *, ids: re.Pattern[str], numbers_below: int = 2**63, null_lists: bool = True
    ) -> None:
        self._provider: Final = provider
        self._ids: Final = ids
        self._numbers_below: Final = numbers_below
        self._null_lists: Final = null_lists

    def unusable(self, field: str) -> UnavailableError:
        """An answer that cannot be read: ``field`` is missing, or of another shape."""
        return UnavailableError(f"{self._provider} answers without a usable {field}; it is asked again later")

    def mapping(self, said: Any, field: str | None = None) -> Mapping[str, Any]:
        """An object, or the one in ``field`` of it."""
        found = self.mapping(said).get(field) if field is not None else said
        if not isinstance(found, dict):
            raise self.unusable(field or "object")
        return found

    def optional(self, said: Any, field: str) -> Mapping[str, Any]:
        """The object in ``field``, empty where there is none."""
        return self.mapping(said, field) if self.mapping(said).get(field) is not None else {}

    def items(self, said: Any, field: str) -> list[Any]:
        """The list in ``field``."""
        found = self.mapping(said).get(field)
        if not isinstance(found, list):
            raise self.unusable(field)
        return found

    def some(self, said: Any, field: str) -> list[Any]:
        """The list in ``field``, empty where there is none."""
        found = self.mapping(said)
        if field not in found or (self._null_lists and found[field] is None):
            return []
        return self.items(found, field)

    def text(self, said: Any, field: str, *, empty: bool = False) -> str:
        """Text (``empty``: or none of it), without what neither Avro nor a database keeps: half surrogate pairs and
        U+0000."""
        return self._kept(self.mapping(said).get(field), field, empty)

    def optional_text(self, said: Any, field: str, *, empty: bool = False) -> str | None:
        """Text, ``None`` where there is none; text that is empty is none either, unless ``empty``."""
        found = self.mapping(said).get(field)
        return None if found is None or (found == "" and not empty) else self._kept(found, field, empty)

    def texts(self, said: Any, field: str, *, empty: bool = False) -> Iterator[str]:
        """The texts (``empty``: or empty ones) in the list of ``field``, none where there is no list."""
        for one in self.some(said, field):
            yield self._kept(one, field, empty)

    def number(self, said: Any, field: str) -> int:
        """A number, or (64-bit ones in JSON, https://developers.google.com/discovery/v1/type-format) its text."""
        found = self.mapping(said).get(field)
        if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) <= _UINT64_DIGITS:
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < self._numbers_below:
            raise self.unusable(field)
        return found

    def identifier(self, said: Any, field: str) -> str:
        """An id of the provider's."""
        found = self.mapping(said).get(field)
        if not isinstance(found, str) or not self._ids.fullmatch(found):
            raise self.unusable(field)
        return found

    def _kept(self, found: Any, field: str, empty: bool) -> str:
        if not isinstance(found, str) or not (found or empty):
            raise self.unusable(field)
        return _UNKEPT.sub("\ufffd", found)


def google_reasons(body: Mapping[str, Any]) -> set[str]:
    """``error.errors[].reason`` of what Google refuses; a body of any other shape has none."""
    error = body.get("error")
    errors = error.get("errors") if isinstance(error, dict) else None
    found = [one.get("reason") for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return {one for one in found if isinstance(one, str)}


def retry_seconds(said: str | None, default: float) -> float:
    """A Retry-After in seconds (RFC 9110, section 10.2.3), an hour at the most; ``default`` where it says none."""
    if said is not None and said.isascii() and said.isdigit():
        return min(float(said[:10]), _MOST_RETRY_SECONDS)
    return default
