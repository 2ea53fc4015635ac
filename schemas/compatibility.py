"""Keeps every released schema what it was: ``python -m headrace.schemas.compatibility [--release] [DIRECTORY]``.

``released.json`` beside the ``.avsc`` files lists every version that a record may have been written with. A released
file may not change its meaning or vanish, and a later version of a type must read all earlier ones
(:mod:`headrace.schemas.evolution`). A package with an entity kind of its own keeps its files by the same command.

``--registry URL --topic NAME`` asks a running schema registry as well, before a release meets it: whether it has, or
would take, every version under the topic's subjects. Nothing is changed there.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError, HaltError, UnavailableError
from headrace.schemas.registry import SchemaVersion, built_in, contradictions, parse_version, read_files

RELEASED: Final = "released.json"


class Release(NamedTuple):
    """One released version: ``fingerprint`` is CRC-64-AVRO as it stands in encoded data, ``meaning`` see
    :func:`meaning`; both in hexadecimal."""

    type: str
    version: int
    file: str
    fingerprint: str
    meaning: str


class Problem(NamedTuple):
    """What is wrong with ``file`` and what to do. ``new``: only that it is not released yet."""

    file: str
    text: str
    new: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def meaning(source: Mapping[str, Any]) -> str:
    """SHA-256 of what a schema file says, in hexadecimal: canonical JSON of all of it but its docs. Unlike the
    fingerprint it covers defaults and headrace's own properties."""
    text = json.dumps(_undocumented(source), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _undocumented(said: Any) -> Any:
    if isinstance(said, Mapping):
        return {key: one if key == "default" else _undocumented(one) for key, one in said.items() if key != "doc"}
    return [_undocumented(one) for one in said] if isinstance(said, list) else said


def check(directory: Path) -> list[Problem]:
    """Everything that is wrong with the ``.avsc`` files below ``directory`` and their ``released.json``.

    :raises HaltError: a file or ``released.json`` cannot be read at all.
    """
    files = dict(read_files(directory))
    released = read_released(directory)
    return [*_against_snapshot(files, released), *_among_themselves(files)]


def check_registry(directory: Path, url: str, topic: str) -> list[Problem]:
    """Where the schema registry at ``url`` would not go along with the ``.avsc`` files below ``directory``.

    :raises HaltError: a file cannot be read or used.
    :raises BadInputError: ``url`` is no address of a schema registry.
    :raises UnavailableError: the registry does not answer, or does not let us in.
    """
    # Half a second of imports, which the ordinary check should not pay.
    from headrace.schemas.confluent import ConfluentRegistry  # noqa: PLC0415
    from headrace.schemas.confluent_address import SchemaRegistryAddress  # noqa: PLC0415

    versions = [(file, parse_version(source)) for file, source in read_files(directory)]
    files = {version.fingerprint: file for file, version in versions}
    with ConfluentRegistry(SchemaRegistryAddress.parse(url), topic) as registry:
        refusals = registry.refusals(version for _, version in versions)
        return [Problem(files[version.fingerprint], text) for version, text in refusals]


def _against_snapshot(files: Mapping[str, Mapping[str, Any]], released: Sequence[Release]) -> Iterator[Problem]:
    for release in released:
        source = files.get(release.file)
        if source is None:
            yield Problem(release.file, "was released and is gone; put it back: records on logs were written with it")
        elif meaning(source) != release.meaning:
            change = (
                f"was released and says something else now; put it back, and make version {release.version + 1} of it"
            )
            yield Problem(release.file, change)
        elif parse_version(source).fingerprint.hex() != release.fingerprint:
            text = f"was released with the fingerprint {release.fingerprint}, which is not what is computed now"
            yield Problem(
                release.file, f"{text}; a library must have changed: old records can no longer be read with it"
            )
    known = {release.file for release in released}
    for file in files:
        if file not in known:
            text = "is not released; once it is right, run python -m headrace.schemas.compatibility --release"
            yield Problem(file, text, new=True)


def _among_themselves(files: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """What the registry asks of files, each by itself and all together, and that they are called as they should be."""
    versions: dict[str, SchemaVersion] = {}
    for file, source in files.items():
        try:
            version = versions[file] = parse_version(source)
        except HaltError as error:
            yield Problem(file, str(error))
            continue
        if not _is_named(file, version):
            stem = version.type.rpartition(".")[2]
            yield Problem(
                file, f"holds {version.type} version {version.version}; call it {stem}.v{version.version}.avsc"
            )
    if len(versions) == len(files):
        others = [parse_version(source) for source in _others(files.values())]
        for version, text in contradictions([*others, *versions.values()]):
            yield Problem(next((file for file, one in versions.items() if one is version), version.name), text)


def _others(sources: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """The built-in schemas, which those of a package must get on with."""
    names = {source["headrace.type"] for source in sources}
    return () if names & {source["headrace.type"] for source in built_in()} else built_in()


def _is_named(file: str, version: SchemaVersion) -> bool:
    """Whether folders and name together end in the type: ``mail/received.v1.avsc`` is ``mail.received`` version 1."""
    ending = f".v{version.version}.avsc"
    path = "." + file.removesuffix(ending).replace("/", ".")
    return file.endswith(ending) and path.endswith(f".{version.type}")


def read_released(directory: Path) -> list[Release]:
    """What was released of the files below ``directory``; nothing, where there is no ``released.json``.

    :raises HaltError: it cannot be read.
    """
    try:
        listed = json.loads((directory / RELEASED).read_text(encoding="utf-8"))
        return [Release(**release) for release in listed]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise HaltError(f"{directory / RELEASED} cannot be read: {error}; put it back from version control") from error


def release(directory: Path) -> list[Release]:
    """Add what is new to ``released.json``; returns what was added. From then on those files are for ever.

    :raises HaltError: anything else is wrong; nothing was written.
    """
    problems = [problem for problem in check(directory) if not problem.new]
    if problems:
        raise HaltError("nothing was released; first mend\n" + "\n".join(map(str, problems)))
    known = read_released(directory)
    files = {release.file for release in known}
    added: list[Release] = []
    for file, source in read_files(directory):
        if file not in files:
            version = parse_version(source)
            added.append(Release(version.type, version.version, file, version.fingerprint.hex(), meaning(source)))
    listed = sorted([*known, *added], key=lambda one: (one.type, one.version))
    text = json.dumps([one._asdict() for one in listed], indent=2) + "\n"
    (directory / RELEASED).write_text(text, encoding="utf-8")
    return added


def table(sources: Iterable[Mapping[str, Any]]) -> str:
    """Every record type as a Markdown table, by role and name."""
    versions = sorted(map(parse_version, sources), key=lambda one: (one.role, one.type, one.version))
    rows = ["| type | role | version | fields | what it says |", "|---|---|---|---|---|"]
    for one in versions:
        fields = ", ".join(_field(field) for field in one.shape["fields"]) or "none"
        rows.append(f"| `{one.type}` | {one.role} | {one.version} | {fields} | {one.source.get('doc', '')} |")
    return "\n".join(rows) + "\n"


def _field(field: Mapping[str, Any]) -> str:
    return f"`{field['name']}`{'' if 'default' in field else '*'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 all is well, 1 something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m headrace.schemas.compatibility", description="Keeps every released schema what it was."
    )
    parser.add_argument("directory", nargs="?", type=Path, help="folder with .avsc files; default: headrace's own")
    parser.add_argument("--release", action="store_true", help="add new versions to released.json, for ever")
    parser.add_argument("--table", action="store_true", help="print the record types as a Markdown table")
    parser.add_argument("--registry", metavar="URL", help="ask this schema registry, too")
    parser.add_argument("--topic", metavar="NAME", help="the log's topic, which the subjects are named after")
    given = parser.parse_args(arguments)
    if (given.registry is None) != (given.topic is None):
        parser.error("--registry and --topic go together")
    directory: Path = given.directory or Path(str(resources.files("headrace.schemas")))
    try:
        if given.table:
            sys.stdout.write(table(source for _, source in read_files(directory)))
            return 0
        if given.release:
            for added in release(directory):
                sys.stdout.write(f"released {added.type} version {added.version} ({added.file})\n")
        problems = check(directory)
        if given.registry is not None and all(problem.new for problem in problems):
            problems += check_registry(directory, given.registry, given.topic)
    except (HaltError, BadInputError, UnavailableError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if not problems:
        sys.stdout.write(f"{len(read_released(directory))} released schema versions, all as they were\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
