"""API keys in a store's ``headrace.toml``: added and removed as text, so that comments and everything else stay."""

import contextlib
import json
import os
import re
import secrets
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from headrace.errors import BadInputError, NotFoundError, UnavailableError
from headrace.schemas.refs import parse_id
from headrace.settings import FILE, VERBS, load_settings, new_key

_HEADER: Final = re.compile(r"^\s*\[")
_TABLE: Final = "api_keys"


class KeyFile:
    """The file in ``directory``; it need not be there yet."""

    def __init__(self, directory: Path) -> None:
        self.path: Final = directory / FILE
        self._directory: Final = directory

    def listed(self) -> list[dict[str, Any]]:
        """Name, tenant, verbs and expiry of every key.

        :raises BadInputError: the file cannot be used; the message says where.
        """
        return [
            {
                "name": key.name,
                "tenant": key.tenant,
                "verbs": sorted(key.verbs),
                "expires_at": key.expires_at.isoformat() if key.expires_at is not None else None,
            }
            for key in load_settings(self._directory).api_keys
        ]

    def add(self, name: str, tenant: str, verbs: Sequence[str], expires: datetime | None) -> str:
        """Make a key, keep its hash, and return it.

        :raises BadInputError: a name that is taken, a verb there is not, or a file that cannot be used.
        :raises UnavailableError: the file cannot be written.
        """
        parse_id(name, "name")
        parse_id(tenant, "tenant")
        unknown = sorted(set(verbs) - VERBS)
        if unknown:
            raise BadInputError(f"there is no verb {unknown[0]!r}; there are {', '.join(sorted(VERBS))}")
        if any(known["name"] == name for known in self.listed()):
            raise BadInputError(f"there is a key {name!r} already; choose another name, or remove it first")
        key, sha256 = new_key()
        lines = [
            f"[[{_TABLE}]]",
            f"name = {json.dumps(name)}",
            f"tenant = {json.dumps(tenant)}",
            f"sha256 = {json.dumps(sha256)}",
            f"verbs = {json.dumps(sorted(set(verbs) or VERBS))}",
        ]
        if expires is not None:
            moment = expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)
            lines.append(f"expires_at = {moment.isoformat()}")
        text = self._text()
        block = "\n".join(lines) + "\n"
        self._write(f"{text.rstrip()}\n\n{block}" if text.strip() else block)
        return key

    def remove(self, name: str) -> None:
        """Forget a key.

        :raises NotFoundError: there is none of this name.
        :raises BadInputError: the file is written in a way that is better changed by hand.
        """
        if all(known["name"] != name for known in self.listed()):
            raise NotFoundError(f"there is no key {name!r} in {self.path}; `headrace key ls` shows what there is")
        text = self._text()
        wanted = tomllib.loads(text)
        wanted[_TABLE] = [known for known in wanted.get(_TABLE, []) if known["name"] != name]
        if not wanted[_TABLE]:
            del wanted[_TABLE]
        kept = "".join(_comments_behind(block) if _is_key(block, name) else block for block in _blocks(text))
        if _parsed(kept) != wanted:
            raise BadInputError(
                f"the key {name!r} is not in a [[{_TABLE}]] of its own: remove it from {self.path} by hand"
            )
        self._write(kept)

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except OSError as error:
            raise UnavailableError(f"{self.path} cannot be read ({error.strerror}); check its owner and mode") from None

    def _write(self, text: str) -> None:
        if _parsed(text) is None:
            raise BadInputError(f"the keys in {self.path} are not written as [[{_TABLE}]]: change them by hand")
        fresh = self.path.with_name(f".{FILE}.{secrets.token_hex(4)}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise UnavailableError(f"{self.path} cannot be written ({error.strerror}); check the directory") from None


def _blocks(text: str) -> list[str]:
    """The text cut before every line that looks like a table's header."""
    blocks = [""]
    for line in text.splitlines(keepends=True):
        if _HEADER.match(line):
            blocks.append("")
        blocks[-1] += line
    return blocks


def _comments_behind(block: str) -> str:
    """The comment lines at a block's end: they speak of what comes next."""
    lines = block.splitlines(keepends=True)
    while lines and not lines[-1].strip():
        lines.pop()
    kept: list[str] = []
    while lines and lines[-1].lstrip().startswith("#"):
        kept.insert(0, lines.pop())
    return "".join(kept)


def _is_key(block: str, name: str) -> bool:
    if not block.lstrip().startswith("[["):
        return False
    found = _parsed(block)
    keys = found.get(_TABLE) if found is not None else None
    return isinstance(keys, list) and len(keys) == 1 and keys[0].get("name") == name


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
