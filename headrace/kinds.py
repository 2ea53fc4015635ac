"""Which entity kinds and schemas this installation has: the built-in ones and users' own, by the same door.

A package brings a kind with an entry point in the group ``headrace.kinds`` (its name, and the object), and its
``.avsc`` files with one in the group ``headrace.schemas`` (a name, and the package that holds them).
"""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from headrace.errors import HaltError
from headrace.log.kafka_address import KafkaAddress
from headrace.places import Places
from headrace.processors.core.kind import GROUP, Kind
from headrace.processors.engine import require_kinds
from headrace.schemas.registry import Registry, SchemaVersion, built_in, parse_version, read_directory

if TYPE_CHECKING:
    from headrace.schemas.confluent import ConfluentRegistry

SCHEMAS_GROUP = "headrace.schemas"
TOPIC: Final = "headrace.events"
"""What the subjects in a schema registry are named after where the log is no topic."""


def installed_kinds() -> dict[str, Kind]:
    """Every kind that an installed package brings, by name.

    :raises HaltError: two claim one name, or one cannot be loaded.
    """
    kinds: list[Kind] = []
    for point in sorted(entry_points(group=GROUP), key=lambda found: found.name):
        try:
            kind: Kind = point.load()
        except Exception as error:
            raise HaltError(f"the entity kind {point.name!r} ({point.value}) cannot be loaded: {error!r}") from error
        if kind.name != point.name:
            raise HaltError(f"the entry point {point.name!r} brings a kind that calls itself {kind.name!r}")
        kinds.append(kind)
    return require_kinds(kinds)


def schema_registry(url: str, topic: str) -> "ConfluentRegistry":
    """The schema registry at ``url`` (:mod:`headrace.schemas.confluent_address`) for the records of ``topic``. Asks it
    nothing yet. One for the life of the process: it remembers what it was told.

    :raises BadInputError: ``url`` is no address of a schema registry.
    :raises UnavailableError: a file that it names cannot be used.
    """
    # Half a second of imports, which nobody without a schema registry should pay.
    from headrace.schemas.confluent import ConfluentRegistry  # noqa: PLC0415
    from headrace.schemas.confluent_address import SchemaRegistryAddress  # noqa: PLC0415

    return ConfluentRegistry(SchemaRegistryAddress.parse(url), topic)


@contextmanager
def schema_registry_at(places: Places) -> "Generator[ConfluentRegistry | None]":
    """The schema registry of these places, if they name one; closed afterwards. Raises what :func:`schema_registry`
    does, and BadInputError where the log's address is none."""
    if places.schema_registry_url is None:
        yield None
        return
    topic = KafkaAddress.parse(places.log_url).topic if places.log_url is not None else TOPIC
    with schema_registry(places.schema_registry_url, topic) as confluent:
        yield confluent


def installed_schemas(confluent: "ConfluentRegistry | None" = None, *, register: bool = True) -> Registry:
    """The built-in schemas and those that installed packages bring.

    With ``confluent`` records are written in Confluent wire format, and all schemas are registered there first. Without
    ``register`` (who only reads; who looks again for a schema that was missing) it is asked nothing now.

    :raises HaltError: one cannot be used, claims what is headrace's own, or is refused by the schema registry.
    :raises UnavailableError: the schema registry does not answer.
    """
    sources = list(built_in())
    for point in sorted(entry_points(group=SCHEMAS_GROUP), key=lambda found: found.name):
        try:
            brought = list(read_directory(resources.files(point.value)))
        except (ImportError, OSError, TypeError) as error:
            raise HaltError(f"the schemas of {point.name!r} ({point.value}) cannot be loaded: {error!r}") from error
        for source in brought:
            _check_foreign(point.name, parse_version(source))
        sources += brought
    registry = Registry(sources, confluent)
    if confluent is not None and register:
        confluent.register(registry.versions)
    return registry


def _check_foreign(package: str, version: SchemaVersion) -> None:
    own = version.name.split(".")[0] == "headrace" or version.type.split(".")[0] in ("log", "policy")
    if own or version.role == "record":
        raise HaltError(
            f"{package!r} brings {version.name} ({version.type}, {version.role}): the namespace headrace, types"
            " beginning with log. or policy. and the role record are headrace's own; use names of yours, and event,"
            " proposal or content"
        )
