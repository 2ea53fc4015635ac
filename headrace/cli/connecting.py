"""Connecting sources: what a person has to give for that, and what there is to say of those that are connected."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.connections import HOOK_SETTING
from headrace.producers.provider import Connected
from headrace.schemas.refs import parse_id

PASSWORD_VARIABLE: Final = "HEADRACE_SOURCE_PASSWORD"  # noqa: S105 - where it is, not what it is


class Wanted(NamedTuple):
    """What is to be connected."""

    provider: str
    tenant: str
    account: str
    name: str | None
    settings: Mapping[str, str]


def connected_of(wanted: Wanted) -> Connected:
    """A source as it is kept. Its name on the log, if none is given, stands for its settings and says nothing of them.

    :raises BadInputError: an id cannot be one.
    """
    tenant, account = parse_id(wanted.tenant, "tenant"), parse_id(wanted.account, "account")
    found = sorted(one for one in wanted.settings.items() if one[0] != HOOK_SETTING)
    said = "\0".join(f"{name}={value}" for name, value in found)
    name = wanted.name or f"{wanted.provider}/{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    return Connected(tenant, account, name, wanted.provider, dict(wanted.settings))


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE``, several.

    :raises BadInputError: one is not that, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, given, value = pair.partition("=")
        if not given or not name or name in found:
            raise BadInputError(f"{pair[:60]!r} is no setting: write NAME=VALUE, each name once")
        found[name] = value
    return found


def password_of(file: Path | None) -> str:
    """The password in a file, or in the environment.

    :raises BadInputError: there is none.
    :raises UnavailableError: the file cannot be read.
    """
    if file is not None:
        try:
            found = file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise UnavailableError(f"{file} cannot be read ({error.strerror}); check its owner and mode") from None
        except UnicodeDecodeError:
            raise BadInputError(f"{file} holds no UTF-8 text; write the password into it, and nothing else") from None
        if not found:
            raise BadInputError(f"{file} is empty; write the password into it, and nothing else")
        return found
    found = os.environ.get(PASSWORD_VARIABLE, "")
    if not found:
        raise BadInputError(f"this source opens with a password: give --password-file, or set {PASSWORD_VARIABLE}")
    return found
