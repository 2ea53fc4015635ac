"""Every schema version ever released, and bytes ↔ dicts by them.

Bodies travel in Avro single-object encoding (Avro 1.12 specification, "Single-object encoding"): ``C3 01``, the
CRC-64-AVRO fingerprint of the writer's schema in little-endian order, the binary datum. A record therefore names the
exact version that wrote it, and a reader that lacks that version knows it.

Three properties of our own in the ``.avsc`` files: ``headrace.type`` (the CloudEvents type the record is the body
of), ``headrace.role`` (``event``, ``proposal``, ``content`` or ``record``) and ``headrace.version``. Fields may carry
``headrace.pseudonym`` (the intake replaces values by pseudonyms) and ``headrace.content`` (bytes that hold another
record with personal data).
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final, NamedTuple

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from headrace.errors import BadInputError, HaltError, SchemaMissingError, UndecodableError

MARKER: Final = b"\xc3\x01"
HEAD: Final = 10
"""Bytes before the datum: marker and fingerprint."""


class SchemaVersion(NamedTuple):
    """One ``.avsc`` file. ``fingerprint`` is the 8 bytes as they stand in encoded data."""

    type: str
    role: str
    version: int
    name: str
    fingerprint: bytes
    source: Mapping[str, Any]
    parsed: Any


class Decoded(NamedTuple):
    """A datum, read as the newest version of its type knows it."""

    type: str
    role: str
    body: dict[str, Any]


def parse_version(source: Mapping[str, Any]) -> SchemaVersion:
    """The schema version in a parsed ``.avsc`` file.

    :raises HaltError: one of headrace's own properties is missing, or Avro refuses it: mend the file.
    """
    try:
        parsed = fastavro.parse_schema(json.loads(json.dumps(source)))
        crc = fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
        name = f"{source['namespace']}.{source['name']}"
        kind, role, version = source["headrace.type"], source["headrace.role"], source["headrace.version"]
    except (KeyError, ValueError, TypeError, fastavro.schema.SchemaParseException) as error:
        raise HaltError(f"schema {source.get('name', '?')!r} cannot be used: {error!r}; mend the .avsc file") from error
    return SchemaVersion(kind, role, version, name, bytes.fromhex(crc), source, parsed)


def read_directory(directory: Traversable) -> Iterator[Mapping[str, Any]]:
    """The ``.avsc`` files below a directory, in the order of their names."""
    for entry in sorted(directory.iterdir(), key=lambda found: found.name):
        if entry.is_dir():
            yield from read_directory(entry)
        elif entry.name.endswith(".avsc"):
            yield json.loads(entry.read_text(encoding="utf-8"))


class Registry:
    """Schema versions by type, name and fingerprint; encodes with the newest, decodes any.

    :raises HaltError: two files claim the same type and version.
    """

    def __init__(self, sources: Iterable[Mapping[str, Any]]) -> None:
        self.versions: Final = tuple(parse_version(source) for source in sources)
        self.by_fingerprint: Final = {version.fingerprint: version for version in self.versions}
        self.newest: Final[dict[str, SchemaVersion]] = {}
        for version in sorted(self.versions, key=lambda known: known.version):
            earlier = self.newest.get(version.type)
            if earlier is not None and earlier.version == version.version:
                raise HaltError(f"two schemas claim {version.type} version {version.version}; give one another number")
            self.newest[version.type] = version
        self.by_name: Final = {version.name: version for version in self.newest.values()}

    def schema(self, record_type: str) -> SchemaVersion:
        """The newest version for a type.

        :raises BadInputError: no schema has that type.
        """
        found = self.newest.get(record_type)
        if found is None:
            raise BadInputError(f"{record_type[:80]!r} is no type that this log knows; known: {', '.join(self.newest)}")
        return found

    def encode(self, record_type: str, body: Mapping[str, Any]) -> bytes:
        """``body`` in single-object encoding, by the newest version.

        :raises BadInputError: unknown type, or the body does not fit the schema; the message names the field.
        """
        version = self.schema(record_type)
        known = {field["name"] for field in version.source["fields"]}
        if not known.issuperset(body):
            extra = ", ".join(sorted(set(body) - known))
            raise BadInputError(f"{record_type}: no such field: {extra}; known: {', '.join(sorted(known))}")
        buffer = io.BytesIO()
        buffer.write(MARKER + version.fingerprint)
        try:
            fastavro.schemaless_writer(buffer, version.parsed, dict(body), strict_allow_default=True)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
            raise BadInputError(f"{record_type}: the body does not fit the schema: {error}") from error
        return buffer.getvalue()

    def decode(self, value: bytes) -> Decoded:
        """The datum in these bytes, every field of the newest version present.

        :raises UndecodableError: no single-object encoding, or the datum does not fit the schema it names.
        :raises SchemaMissingError: it names a schema version that is not here.
        """
        if value[:2] != MARKER or len(value) < HEAD:
            raise UndecodableError("the body is not in Avro single-object encoding")
        writer = self.by_fingerprint.get(value[2:HEAD])
        if writer is None:
            raise SchemaMissingError(
                f"a record was written with schema {value[2:HEAD].hex()}, which is not here;"
                " upgrade headrace or install the package of the entity kind that brings it"
            )
        reader = self.newest[writer.type]
        buffer = io.BytesIO(value)
        buffer.seek(HEAD)
        try:
            if reader is writer:
                body = fastavro.schemaless_reader(buffer, writer.parsed, None)
            else:
                body = fastavro.schemaless_reader(buffer, writer.parsed, reader.parsed)
        except (ValueError, TypeError, EOFError, IndexError, OverflowError, StopIteration) as error:
            raise UndecodableError(f"the body is no {writer.type} version {writer.version}: {error!r}") from error
        if buffer.tell() != len(value):
            raise UndecodableError(f"the body has bytes left over behind a {writer.type} version {writer.version}")
        if not isinstance(body, dict):
            raise UndecodableError(f"the body of {writer.type} is no record")
        return Decoded(writer.type, writer.role, body)


@cache
def built_in() -> tuple[Mapping[str, Any], ...]:
    """The ``.avsc`` files that headrace ships."""
    return tuple(read_directory(resources.files("headrace.schemas")))
