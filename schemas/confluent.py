"""A schema registry that speaks Confluent's API, as the readers and writers of one topic use it.

Subjects are named by TopicRecordNameStrategy (``{topic}-{full name of the record}``), their compatibility is
BACKWARD_TRANSITIVE. What an id stands for never changes in a schema registry, so what was asked once is remembered for
the life of the process. Which of our schema versions a text is, its fingerprint says: docs, defaults and properties may
differ, as they do where somebody else registered it.

Nothing that the registry says, or fails to say, condemns a record: it only decides whether it can be read now.

Importing this takes half a second (confluent-kafka's client), so :func:`headrace.kinds.schema_registry` does it late.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Self, TypeVar

from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from headrace.errors import BadInputError, HaltError, SchemaMissingError, UnavailableError
from headrace.schemas.confluent_address import SchemaRegistryAddress
from headrace.schemas.registry import SchemaVersion, fingerprint_of

LEVEL: Final = "BACKWARD_TRANSITIVE"
_AVRO: Final = "AVRO"
_REST_SECONDS: Final = 1.0
"""So long nobody asks again after the registry did not answer: every partition would wait for it in turn."""
_RETRIES: Final = {"max.retries": 1, "retries.wait.ms": 50, "retries.max.wait.ms": 200}
_REFUSED: Final = (409, 422)
_DENIED: Final = (401, 403)
_NOT_FOUND: Final = 404
_NO_SUCH_THING: Final = range(40401, 40500)
"""Confluent's own codes for a subject, version, schema or level that is not there; any other 404 is no answer."""
_Answer = TypeVar("_Answer")


class ConfluentRegistry:
    """Ids of schema versions under the subjects of ``topic``. May be used by several threads.

    :raises BadInputError: ``topic`` is empty.
    :raises UnavailableError: a file that the address names cannot be used.
    """

    def __init__(self, address: SchemaRegistryAddress, topic: str) -> None:
        if not topic:
            raise BadInputError("the subjects in a schema registry are named after the topic; name one")
        self.address: Final = address
        self.topic: Final = topic
        settings = {**address.settings(), **_RETRIES}
        try:
            self._client: Final = SchemaRegistryClient(settings)
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"the client of the schema registry {address} cannot be made ({error}); check the files"
                " that its address names"
            ) from error
        self._ids: Final[dict[bytes, int]] = {}
        self._fingerprints: Final[dict[int, bytes]] = {}
        self._failed: tuple[float, str] | None = None

    def subject(self, version: SchemaVersion) -> str:
        """The subject a schema version stands under."""
        return f"{self.topic}-{version.name}"

    def register(self, versions: Iterable[SchemaVersion]) -> None:
        """See to it that the registry has all of these, the versions of a type in their order, and keeps each subject
        compatible. What is there already is only looked up, so it can be repeated, and by several processes at once.

        :raises UnavailableError: the registry does not answer, or does not let us in.
        :raises HaltError: it refuses one; the message names the subject and what to do.
        """
        compatible: set[str] = set()
        for version in sorted(versions, key=lambda known: (known.type, known.version)):
            if version.fingerprint in self._ids:
                continue
            subject = self.subject(version)
            if subject not in compatible:
                self._keep_compatible(subject)
                compatible.add(subject)
            found = self._find(version)
            self._remember(version, self._put(version) if found is None else found)

    def id_of(self, version: SchemaVersion) -> int:
        """The id of a schema version.

        :raises UnavailableError: the registry does not answer, or does not have it yet.
        """
        known = self._ids.get(version.fingerprint)
        if known is not None:
            return known
        found = self._find(version)
        if found is None:
            raise UnavailableError(
                f"{version.type} version {version.version} is not in the schema registry {self.address} under the"
                f" subject {self.subject(version)}; start a headrace that writes to this log: it registers its schemas"
            )
        self._remember(version, found)
        return found

    def fingerprint_of(self, schema_id: int) -> bytes:
        """The fingerprint of the schema with this id.

        :raises UnavailableError: the registry does not answer, or does not let us in.
        :raises SchemaMissingError: it has no such id, or no Avro schema behind it.
        """
        known = self._fingerprints.get(schema_id)
        if known is not None:
            return known
        schema = self._ask(lambda: self._client.get_schema(schema_id))
        found = None if schema is None else _fingerprint(schema)
        if found is None:
            wrong = "does not know" if schema is None else "keeps for something else than an Avro schema by itself"
            raise SchemaMissingError(
                f"a record was written with schema id {schema_id}, which the schema registry {self.address} {wrong};"
                " set HEADRACE_SCHEMA_REGISTRY_URL to the one it was written with, or restore that one from its backup"
            )
        self._fingerprints[schema_id] = found
        return found

    def refusals(self, versions: Iterable[SchemaVersion]) -> Iterator[tuple[SchemaVersion, str]]:
        """What :meth:`register` would meet: versions that the registry would refuse, and subjects whose compatibility
        somebody changed. Changes nothing there.

        :raises UnavailableError: the registry does not answer, or does not let us in.
        """
        for version in versions:
            subject = self.subject(version)
            if not self._versions(subject):
                continue
            level = self._level(subject)
            if level != LEVEL:
                kept = "as the registry keeps all" if level is None else level
                yield version, f"the subject {subject} is kept {kept}, not {LEVEL}; the next start of headrace sets it"
            if self._find(version) is None and not self._would_take(version):
                yield version, self._refusal(version, "it is incompatible")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- parts of it ----------------------------------------------------------------------------------------------

    def _remember(self, version: SchemaVersion, schema_id: int) -> None:
        self._fingerprints[schema_id] = version.fingerprint
        self._ids[version.fingerprint] = schema_id

    def _keep_compatible(self, subject: str) -> None:
        """Give the subject its level. Of several who do so at once one is told of a conflict, with the level set."""

        if self._level(subject) == LEVEL:
            return
        try:
            self._ask(lambda: self._client.set_compatibility(subject, LEVEL))
        except _RefusedError as error:
            if self._level(subject) != LEVEL:
                raise HaltError(
                    f"the schema registry {self.address} does not let the subject {subject} be {LEVEL} ({error}); set"
                    " it there"
                ) from error

    def _find(self, version: SchemaVersion) -> int | None:
        """The id under which the version, or another text of it, is in its subject."""
        subject = self.subject(version)
        same = self._ask(lambda: self._client.lookup_schema(subject, _said(version)))
        if same is not None and same.schema_id is not None:
            return same.schema_id
        for number in self._versions(subject):
            other = self._version(subject, number)
            if other is not None and other.schema_id is not None and _fingerprint(other.schema) == version.fingerprint:
                return other.schema_id
        return None

    def _versions(self, subject: str) -> list[int]:
        return self._ask(lambda: self._client.get_versions(subject)) or []

    def _version(self, subject: str, number: int) -> RegisteredSchema | None:
        return self._ask(lambda: self._client.get_version(subject, number))

    def _level(self, subject: str) -> str | None:
        return self._ask(lambda: self._client.get_compatibility(subject))

    def _would_take(self, version: SchemaVersion) -> bool:
        subject, said = self.subject(version), _said(version)
        return self._ask(lambda: self._client.test_compatibility_all_versions(subject, said)) is not False

    def _put(self, version: SchemaVersion) -> int:
        try:
            found = self._ask(lambda: self._client.register_schema(self.subject(version), _said(version)))
        except _RefusedError as error:
            there = self._find(version)  # of several who register at once, one may be told of a conflict
            if there is None:
                raise HaltError(self._refusal(version, str(error))) from error
            return there
        if found is None:
            raise UnavailableError(f"the schema registry {self.address} gives no id for {version.type}; check its log")
        return found

    def _refusal(self, version: SchemaVersion, why: str) -> str:
        subject = self.subject(version)
        return (
            f"the schema registry {self.address} refuses {version.type} version {version.version} under the subject"
            f" {subject} ({why}): what is registered there is not headrace's. Look at the subject's versions; delete"
            " those that no record on the topic was written with, or give the log another topic"
        )

    def _ask(self, question: Callable[[], _Answer]) -> _Answer | None:
        """The registry's answer, ``None`` where it says that there is no such thing.

        :raises UnavailableError: it does not answer, or does not let us in.
        :raises _RefusedError: it does not take what it was given.
        """
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise UnavailableError(self._failed[1])
        try:
            answer = question()
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND and error.error_code in _NO_SUCH_THING:
                answer = None
            elif error.http_status_code in _REFUSED:
                raise _RefusedError(f"{error.error_message!s:.300}") from error
            else:
                raise UnavailableError(self._fail(_answered(error))) from error
        except Exception as error:  # the client raises what the HTTP library raises that it happened to find
            raise UnavailableError(self._fail(f"does not answer ({error!r:.200}); check that it runs")) from error
        self._failed = None
        return answer

    def _fail(self, what: str) -> str:
        text = f"the schema registry {self.address} {what}"
        self._failed = time.monotonic() + _REST_SECONDS, text
        return text


class _RefusedError(Exception):
    """The registry understood and does not take it; what it says."""


def _answered(error: SchemaRegistryError) -> str:
    if error.http_status_code in _DENIED:
        return (
            f"does not let us in (HTTP {error.http_status_code}); check basic.auth.username and"
            " basic.auth.password.file, and what this user may do"
        )
    if error.http_status_code == _NOT_FOUND:
        return "is none, or not at this path (HTTP 404); check HEADRACE_SCHEMA_REGISTRY_URL"
    return f"cannot answer now (HTTP {error.http_status_code}: {error.error_message!s:.200}); check its log"


def _said(version: SchemaVersion) -> Schema:
    return Schema(json.dumps(version.source, ensure_ascii=False, separators=(",", ":")), _AVRO)


def _fingerprint(schema: Schema) -> bytes | None:
    """Which Avro schema it is; ``None`` where it is none, or none without others that it refers to."""
    if schema.schema_type not in (None, _AVRO) or schema.schema_str is None:
        return None
    try:
        return fingerprint_of(schema.schema_str)
    except ValueError:
        return None
