"""Which entity kinds and schemas this installation has: the built-in ones and users' own, by the same door.

A package brings a kind with an entry point in the group ``headrace.kinds`` (its name, and the object), and its
``.avsc`` files with one in the group ``headrace.schemas`` (a name, and the package that holds them).
"""

from importlib import resources
from importlib.metadata import entry_points

from headrace.errors import HaltError
from headrace.processors.core.kind import GROUP, Kind
from headrace.processors.engine import require_kinds
from headrace.schemas.registry import Registry, SchemaVersion, built_in, parse_version, read_directory

SCHEMAS_GROUP = "headrace.schemas"


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


def installed_schemas() -> Registry:
    """The built-in schemas and those that installed packages bring.

    :raises HaltError: one cannot be used, or claims what is headrace's own.
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
    return Registry(sources)


def _check_foreign(package: str, version: SchemaVersion) -> None:
    own = version.name.split(".")[0] == "headrace" or version.type.split(".")[0] in ("log", "policy")
    if own or version.role == "record":
        raise HaltError(
            f"{package!r} brings {version.name} ({version.type}, {version.role}): the namespace headrace, types"
            " beginning with log. or policy. and the role record are headrace's own; use names of yours, and event,"
            " proposal or content"
        )
