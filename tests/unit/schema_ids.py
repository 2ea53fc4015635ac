"""Ids for schema versions without a schema registry."""

import json
from collections.abc import Iterable
from typing import Final

from headrace.schemas.registry import SchemaVersion


def text_of(version: SchemaVersion) -> str:
    """The version's file."""
    return json.dumps(version.source)


class NumberedIds:
    """Numbers the versions from 1. ``asked`` says what was asked for; ``failure`` is raised instead of an answer."""

    def __init__(self, versions: Iterable[SchemaVersion], *, failure: Exception | None = None) -> None:
        self.failure = failure
        self.asked: Final[list[str]] = []
        self._ids: Final = {version.fingerprint: number for number, version in enumerate(versions, 1)}

    def id_of(self, version: SchemaVersion) -> int:
        """See :class:`headrace.schemas.registry.SchemaIds`."""
        self._answer("id_of")
        return self._ids[version.fingerprint]

    def fingerprint_of(self, schema_id: int) -> bytes:
        """See :class:`headrace.schemas.registry.SchemaIds`."""
        self._answer("fingerprint_of")
        return next(one for one, number in self._ids.items() if number == schema_id)

    def _answer(self, what: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked.append(what)
