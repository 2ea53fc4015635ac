"""Where a schema registry is, in one line: ``https://host[:port][,host[:port]…][/path][?option=value&…]``.

With several hosts (one registry, several instances) the next is asked when one does not answer.

=================================  ==================================================================================
``timeout.ms``                     how long the registry may take with each step of an answer (default 5000)
``ssl.ca.location``                file with the certificates to trust; without it those that Python brings
``ssl.certificate.location``, ``ssl.key.location``   files with this client's certificate and key (mutual TLS)
``basic.auth.username``            who signs in
``basic.auth.password.file``       file with the password; a password in a URL would end up in logs, so it has no option
=================================  ==================================================================================
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from headrace.errors import BadInputError, UnavailableError

_SCHEMES: Final = ("http", "https")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~%-]+)*/?\Z")
_FORM: Final = "write https://host:port[,host:port]/path?option=value"
_MOST_MS: Final = 60_000
_FILES: Final = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")
_PASSWORD: Final = "basic.auth.password.file"  # noqa: S105 - the name of an option
_TOGETHER: Final = (
    ("ssl.certificate.location", "ssl.key.location"),
    ("basic.auth.username", _PASSWORD),
)
_OPTIONS: Final = frozenset({"timeout.ms", *_FILES, "basic.auth.username", _PASSWORD})


@dataclass(frozen=True, slots=True)
class SchemaRegistryAddress:
    """A parsed address. ``files`` are the TLS options, as confluent-kafka names them."""

    urls: tuple[str, ...]
    timeout_seconds: float
    files: Mapping[str, str]
    username: str | None
    password_file: Path | None

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address that ``url`` names.

        :raises BadInputError: it names none; the message says what is wrong with it.
        """
        shown = url.partition("?")[0]
        if "@" in shown:  # first, because the other messages quote what they refuse
            raise BadInputError(
                "who signs in goes into the options basic.auth.username and basic.auth.password.file, not before @"
            )
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise BadInputError(f"{shown[:80]!r} is no address of a schema registry ({error}): {_FORM}") from error
        if parts.scheme not in _SCHEMES or parts.fragment:
            raise BadInputError(f"{shown[:80]!r} is no address of a schema registry: {_FORM}")
        hosts = parts.netloc.split(",")
        if not all(map(_HOST.match, hosts)) or not _PATH.match(parts.path):
            raise BadInputError(f"{parts.netloc + parts.path:.80} names no schema registry: {_FORM}")
        options = _options(parts.query)
        if parts.scheme != "https" and any(name in options for name in _FILES):
            raise BadInputError("certificates are for https: write https:// or leave the options ssl.… out")
        password = options.get(_PASSWORD)
        return cls(
            urls=tuple(f"{parts.scheme}://{host}{parts.path.rstrip('/')}" for host in hosts),
            timeout_seconds=int(options.get("timeout.ms", "5000")) / 1000,
            files={name: options[name] for name in _FILES if name in options},
            username=options.get("basic.auth.username"),
            password_file=Path(password) if password else None,
        )

    def settings(self) -> dict[str, Any]:
        """What confluent-kafka's client is configured with, the password included. Never log it.

        :raises UnavailableError: the password file cannot be read, or is empty.
        """
        found: dict[str, Any] = {"url": ",".join(self.urls), "timeout": self.timeout_seconds, **self.files}
        if self.password_file is not None:
            try:
                password = self.password_file.read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise UnavailableError(
                    f"{_PASSWORD} {self.password_file} cannot be read ({error}); check the file"
                ) from error
            if not password:
                raise UnavailableError(f"{_PASSWORD} {self.password_file} is empty; write the password into it")
            found["basic.auth.user.info"] = f"{self.username}:{password}"
        return found

    def __str__(self) -> str:
        """The place without options, for messages."""
        return ",".join(self.urls)


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise BadInputError("the options are not name=value&name=value; mend what stands behind the ?") from error
    options = dict(pairs)
    if len(options) != len(pairs):
        raise BadInputError("an option is there twice; give it once")
    for name, value in options.items():
        if name in {"basic.auth.password", "basic.auth.user.info"}:
            raise BadInputError(f"a password in a URL ends up in logs: put it in a file and name that, {_PASSWORD}")
        if name not in _OPTIONS:
            raise BadInputError(f"no such option: {name[:60]!r}; there are {', '.join(sorted(_OPTIONS))}")
        if not value:
            raise BadInputError(f"the option {name} is empty; give it a value, or leave it out")
    timeout = options.get("timeout.ms", "1")
    if not (timeout.isascii() and timeout.isdigit() and 1 <= int(timeout) <= _MOST_MS):
        raise BadInputError(f"timeout.ms={timeout[:20]!r} must be a whole number from 1 to {_MOST_MS}")
    if ":" in options.get("basic.auth.username", ""):
        raise BadInputError("basic.auth.username may hold no colon (RFC 7617, section 2)")
    for pair in _TOGETHER:
        missing = [name for name in pair if name not in options]
        if len(missing) == 1:
            raise BadInputError(f"{pair[0]} and {pair[1]} go together; {missing[0]} is missing")
    return options
