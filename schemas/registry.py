"""Every schema version ever released, and bytes ↔ dicts by them.

A datum stands behind a head that names the exact version it was written with, so a reader that lacks that version
knows it. There are two heads:

- Avro single-object encoding (Avro 1.12 specification, "Single-object encoding"): ``C3 01``, the CRC-64-AVRO
  fingerprint of the writer's schema in little-endian order. Needs nothing but this module.
- Confluent wire format: ``00``, the schema's id in a schema registry as 4 bytes in big-endian order. Written when the
  registry is made with :class:`SchemaIds`, and read only then. It frames whole records (the roles ``event`` and
  ``record``); what lies inside a body (``content``, a proposal's data) is in single-object encoding always, so that
  what is inside never needs a schema registry and a proposal's payload hash does not depend on one.

Behind its head a datum has one encoding here, the plain one (shortest numbers, arrays and maps in one block without its
size); any other is refused, so that what a record says never depends on how lenient the reader is.

Three properties of our own in the ``.avsc`` files: ``headrace.type`` (the CloudEvents type the record is the body
of), ``headrace.role`` (``event``, ``proposal``, ``content`` or ``record``) and ``headrace.version``. Fields may carry
``headrace.pseudonym`` (the intake replaces values by pseudonyms) and ``headrace.content`` (bytes that hold another
record with personal data). What else is asked of a schema: :mod:`headrace.schemas.definition`.
"""

import copy
import io
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final, NamedTuple, Protocol

import fastavro
from fastavro.schema import SchemaParseException, fingerprint, to_parsing_canonical_form

from headrace.errors import BadInputError, HaltError, SchemaMissingError, UndecodableError
from headrace.schemas.datum import misfit
from headrace.schemas.definition import CONTENT, spelt_out
from headrace.schemas.evolution import breaks
from headrace.schemas.plain import whole

MARKER: Final = b"\xc3\x01"
HEAD: Final = 10
"""Bytes before the datum: marker and fingerprint."""
WIRE_MARKER: Final = b"\x00"
WIRE_HEAD: Final = 5
"""Bytes before the datum in Confluent wire format: marker and id."""
_IDS: Final = range(1, 1 << 31)
"""What a schema registry gives out. Four bytes that are none of it were never written with one."""
_WHOLE: Final = ("event", "record")
"""The roles that a record's own body may have: the others stand inside one."""
_NO_DATUM: Final = (ValueError, TypeError, EOFError, IndexError, OverflowError, struct.error)
"""What fastavro raises on bytes that are none."""


class SchemaVersion(NamedTuple):
    """One ``.avsc`` file. ``fingerprint`` is the 8 bytes as they stand in encoded data; ``shape`` is the file as
    :func:`headrace.schemas.definition.spelt_out` gives it. ``has_int``: numbers of 32 bits must be looked at.
    ``read`` is :func:`headrace.schemas.plain.whole` of it."""

    type: str
    role: str
    version: int
    name: str
    fingerprint: bytes
    source: Mapping[str, Any]
    parsed: Any
    shape: Mapping[str, Any]
    has_int: bool
    read: Callable[[bytes, int], dict[str, Any]]


class Decoded(NamedTuple):
    """A datum, read as the newest version of its type knows it."""

    type: str
    role: str
    body: dict[str, Any]


class SchemaIds(Protocol):
    """A schema registry: its ids for our schema versions, and the other way round. Both never change."""

    def id_of(self, version: SchemaVersion) -> int:
        """The id of a schema version.

        :raises UnavailableError: the registry does not answer, or does not have it (yet).
        """
        ...

    def fingerprint_of(self, schema_id: int) -> bytes:
        """The fingerprint of the schema with this id.

        :raises UnavailableError: the registry does not answer.
        :raises SchemaMissingError: it has no such id, or no Avro schema behind it.
        """
        ...


def parse_version(source: Mapping[str, Any]) -> SchemaVersion:
    """The schema version in a parsed ``.avsc`` file.

    :raises HaltError: it says what headrace does not take, or Avro refuses it: mend the file.
    """
    shape = spelt_out(source)
    kind, role, version = source["headrace.type"], source["headrace.role"], source["headrace.version"]
    try:
        parsed = fastavro.parse_schema(json.loads(json.dumps(source)))
        canonical = to_parsing_canonical_form(parsed)
    except (KeyError, ValueError, TypeError, AttributeError, SchemaParseException) as error:
        raise HaltError(f"schema {kind} cannot be used: {error!r}; mend the .avsc file") from error
    crc = bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
    has_int = '"int"' in canonical
    return SchemaVersion(kind, role, version, shape["name"], crc, source, parsed, shape, has_int, whole(shape))


def fingerprint_of(text: str) -> bytes:
    """The fingerprint of any Avro schema, as it stands in single-object encoding.

    :raises ValueError: the text is none.
    """
    try:
        canonical = to_parsing_canonical_form(fastavro.parse_schema(json.loads(text)))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, SchemaParseException) as error:
        raise ValueError(f"no Avro schema: {error!r:.200}") from error
    return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def datum(value: bytes) -> bytes:
    """What stands behind the head, whichever it is: the same bytes for the same body. Without a head, all of it."""
    if value[:2] == MARKER:
        return value[HEAD:]
    return value[WIRE_HEAD:] if value[:1] == WIRE_MARKER else value


def read_files(directory: Traversable, below: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The ``.avsc`` files below a directory in the order of their names, each with its path there.

    :raises HaltError: one is no JSON, or cannot be read.
    """
    for entry in sorted(directory.iterdir(), key=lambda found: found.name):
        path = f"{below}{entry.name}"
        if entry.is_dir():
            yield from read_files(entry, f"{path}/")
        elif entry.name.endswith(".avsc"):
            try:
                yield path, json.loads(entry.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise HaltError(f"the schema file {path} cannot be read: {error}; mend it") from error


def read_directory(directory: Traversable) -> Iterator[Mapping[str, Any]]:
    """The ``.avsc`` files below a directory, in the order of their names.

    :raises HaltError: one is no JSON, or cannot be read.
    """
    return (source for _, source in read_files(directory))


class Registry:
    """Schema versions by type, name and fingerprint; encodes with the newest, decodes any.

    With ``ids`` records are written in Confluent wire format, without in single-object encoding; both are read. May be
    used by several threads.

    :raises HaltError: a file is not sound by itself, or beside the others; the message names what to mend.
    """

    def __init__(self, sources: Iterable[Mapping[str, Any]], ids: SchemaIds | None = None) -> None:
        self.versions: Final = tuple(parse_version(source) for source in sources)
        for _, text in contradictions(self.versions):
            raise HaltError(text)
        self.newest: Final[dict[str, SchemaVersion]] = {}
        for version in sorted(self.versions, key=lambda known: known.version):
            self.newest[version.type] = version
        self.by_name: Final = {version.name: version for version in self.newest.values()}
        self.by_fingerprint: Final = {version.fingerprint: version for version in self.versions}
        self._by_head: Final = {MARKER + version.fingerprint: version for version in self.versions}
        self._ids: Final = ids
        self._by_id: Final[dict[int, SchemaVersion]] = {}
        self._heads: Final = {
            version.type: MARKER + version.fingerprint
            for version in self.newest.values()
            if ids is None or version.role not in _WHOLE
        }

    def schema(self, record_type: str) -> SchemaVersion:
        """The newest version for a type.

        :raises BadInputError: no schema has that type.
        """
        found = self.newest.get(record_type)
        if found is None:
            raise BadInputError(f"{record_type[:80]!r} is no type that this log knows; known: {', '.join(self.newest)}")
        return found

    def encode(self, record_type: str, body: Mapping[str, Any]) -> bytes:
        """``body`` by the newest version, behind the head that its role and this registry call for. Fields that have a
        default may be left out.

        :raises BadInputError: unknown type, or the body does not fit the schema; the message names the field.
        :raises UnavailableError: the schema registry's id for the version is not known and cannot be found out now.
        """
        version = self.schema(record_type)
        wrong = misfit(version.shape, body)
        if wrong is not None:
            raise BadInputError(f"{record_type} does not fit its schema: {wrong}")
        head = self._heads.get(record_type)
        return _written(version, body, self._wire_head(version) if head is None else head)

    def decode(self, value: bytes) -> Decoded:
        """The datum in a record's value, every field of the newest version present. Takes time and memory in proportion
        to ``len(value)``, whatever the bytes are.

        :raises UndecodableError: it is in neither encoding, or the datum does not fit the schema it names.
        :raises SchemaMissingError: it names a schema version that is not here.
        :raises UnavailableError: the schema registry that knows the version does not answer.
        """
        writer = self._by_head.get(value[:HEAD])
        if writer is not None:
            return self._decoded(writer, value, HEAD)
        if value[:1] == WIRE_MARKER and len(value) >= WIRE_HEAD:
            return self._decoded(self._by_wire_head(value), value, WIRE_HEAD)
        raise _unknown(value)

    def decode_nested(self, value: bytes) -> Decoded:
        """The datum in bytes that lie inside a body: :meth:`decode` for single-object encoding alone. Never asks a
        schema registry.

        :raises UndecodableError: no single-object encoding, or the datum does not fit the schema it names.
        :raises SchemaMissingError: it names a schema version that is not here.
        """
        writer = self._by_head.get(value[:HEAD])
        if writer is None:
            raise _unknown(value)
        return self._decoded(writer, value, HEAD)

    def _decoded(self, writer: SchemaVersion, value: bytes, at: int) -> Decoded:
        body = _read(writer, value, at)
        reader = self.newest[writer.type]
        if reader is not writer:
            resolved: Any = fastavro.schemaless_reader(io.BytesIO(value[at:]), writer.parsed, reader.parsed)
            body = copy.deepcopy(resolved)  # fastavro hands out the schema's own defaults
        return Decoded(writer.type, writer.role, body)

    def _wire_head(self, version: SchemaVersion) -> bytes:
        assert self._ids is not None
        number = self._ids.id_of(version)
        head = self._heads[version.type] = WIRE_MARKER + number.to_bytes(4, "big")
        return head

    def _by_wire_head(self, value: bytes) -> SchemaVersion:
        number = int.from_bytes(value[1:WIRE_HEAD], "big")
        known = self._by_id.get(number)
        if known is not None:
            return known
        if number not in _IDS:
            raise UndecodableError("the body names a schema by an id that no schema registry gives out")
        if self._ids is None:
            raise SchemaMissingError(
                f"a record is in Confluent wire format (schema id {number}), and no schema registry is configured here;"
                " set HEADRACE_SCHEMA_REGISTRY_URL to the one it was written with"
            )
        crc = self._ids.fingerprint_of(number)
        version = self.by_fingerprint.get(crc)
        if version is None:
            raise _unknown(MARKER + crc)
        if version.role not in _WHOLE:
            raise UndecodableError(f"{version.type} stands inside records, in Avro single-object encoding only")
        self._by_id[number] = version
        return version


def _unknown(value: bytes) -> UndecodableError | SchemaMissingError:
    """What to raise on a head that is none, or names a schema version that is not here."""
    if value[:2] != MARKER or len(value) < HEAD:
        return UndecodableError("the body is not in Avro single-object encoding")
    return SchemaMissingError(
        f"a record was written with schema {value[2:HEAD].hex()}, which is not here;"
        " upgrade headrace or install the package of the entity kind that brings it"
    )


def contradictions(versions: Iterable[SchemaVersion]) -> Iterator[tuple[SchemaVersion, str]]:
    """Where schema versions, each sound by itself, do not go together: which one, and why in words."""
    ordered = sorted(versions, key=lambda known: known.version)
    types: dict[str, list[SchemaVersion]] = {}
    names: dict[str, SchemaVersion] = {}
    fingerprints: dict[bytes, SchemaVersion] = {}
    for version in ordered:
        types.setdefault(version.type, []).append(version)
        other = names.setdefault(version.name, version)
        if other.type != version.type:
            yield version, f"{version.type} and {other.type} are both named {version.name}; rename one of the records"
        same = fingerprints.setdefault(version.fingerprint, version)
        if (same.type, same.version) != (version.type, version.version):
            told = "cannot be told apart in encoded data (docs, defaults and marks do not count); drop one"
            yield version, f"{version.type} {version.version} and {same.type} {same.version} {told}"
    for one_type in types.values():
        yield from _unordered(one_type)
    for version in ordered:
        for field in version.shape["fields"]:
            content = names.get(field[CONTENT]) if CONTENT in field else None
            if CONTENT in field and (content is None or content.role != "content"):
                unknown = "which is no schema here with the role content; add it or mend the name"
                yield version, f"{version.type}: {CONTENT} names {field[CONTENT]!r:.80}, {unknown}"


def _unordered(versions: list[SchemaVersion]) -> Iterator[tuple[SchemaVersion, str]]:
    """What is wrong with the versions of one type: without a gap, alike in what they are, each reads all before it."""
    for number, version in enumerate(versions, 1):
        called = f"{version.type} version {version.version}"
        if version.version < number:
            yield version, f"two schemas claim {called}; give one another number"
            return
        if version.version > number:
            yield version, f"there is a {called} but no version {number}; put its file back, or number without a gap"
            return
        for earlier in versions[: number - 1]:
            if (earlier.name, earlier.role) != (version.name, version.role):
                yield version, f"{called} has another name or role than version {earlier.version}; give it the same"
            for wrong in breaks(earlier.shape, version.shape):
                yield version, f"{called} does not read version {earlier.version}: {wrong}"


def _written(version: SchemaVersion, body: Mapping[str, Any], head: bytes) -> bytes:
    buffer = io.BytesIO()
    buffer.write(head)
    fastavro.schemaless_writer(buffer, version.parsed, body)
    return buffer.getvalue()


def _read(writer: SchemaVersion, value: bytes, at: int) -> dict[str, Any]:
    """The datum behind the head of ``at`` bytes, as its writer knew it.

    :raises UndecodableError: it is none, or not in the plain encoding.
    """
    try:
        return writer.read(value, at)
    except (ValueError, IndexError):
        return _read_slowly(writer, value, at)


def _read_slowly(writer: SchemaVersion, value: bytes, at: int) -> dict[str, Any]:
    """The same by another way, which says what is wrong: those words stand in verdicts, and are never to change."""
    buffer = io.BytesIO(value)
    buffer.seek(at)
    try:
        body: Any = fastavro.schemaless_reader(buffer, writer.parsed, None)
        plain = _written(writer, body, value[:at]) == value
    except _NO_DATUM as error:
        # a library's own words may change with its version, and what is said here stands in verdicts
        raise UndecodableError(f"the body is no {writer.type} version {writer.version}") from error
    if not plain:
        raise UndecodableError(
            f"the body of {writer.type} version {writer.version} is not in Avro's plain encoding, or goes on behind it"
        )
    wrong = misfit(writer.shape, body) if writer.has_int else None
    if wrong is not None:
        raise UndecodableError(f"the body is no {writer.type} version {writer.version}: {wrong}")
    found: dict[str, Any] = body
    return found


@cache
def built_in() -> tuple[Mapping[str, Any], ...]:
    """The ``.avsc`` files that headrace ships."""
    return tuple(read_directory(resources.files("headrace.schemas")))
