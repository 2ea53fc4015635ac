"""Where a Kafka log is, in one line: ``kafka://host:port[,host:port…]/topic[?option=value&…]``.

=========================  ==========================================================================================
``replication.factor``     copies of every record (default 3): the topic is created so, and refused with fewer
``min.insync.replicas``    how many must have a record before it is acknowledged (default one less, at least 1)
``delivery.timeout.ms``    how long an append may take before its outcome is unknown (default 30000)
``request.timeout.ms``     how long the brokers may take to answer a question (default 15000)
``client.id``              how this process is named in the brokers' logs (default ``headrace``)
``security.protocol``      ``plaintext`` (default), ``ssl``, ``sasl_plaintext``, ``sasl_ssl``
``ssl.ca.location``        file with the certificates to trust; without it the system's
``ssl.certificate.location``, ``ssl.key.location``   files with this client's certificate and key (mutual TLS)
``sasl.mechanism``         ``PLAIN``, ``SCRAM-SHA-256``, ``SCRAM-SHA-512``
``sasl.username``          who signs in
``sasl.password.file``     file with the password; a password in a URL would end up in logs, so it has no option
=========================  ==========================================================================================
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

from headrace.errors import BadInputError, UnavailableError

SCHEME: Final = "kafka"
_SERVER: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}\Z")
_TOPIC: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
_FORM: Final = "write kafka://host:port[,host:port]/topic?option=value"
_NUMBERS: Final = {
    "replication.factor": 32_767,
    "min.insync.replicas": 32_767,
    "delivery.timeout.ms": 3_600_000,
    "request.timeout.ms": 600_000,
}
_FILES: Final = frozenset({"ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "sasl.password.file"})
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "security.protocol": ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
    "sasl.mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
}
_OPTIONS: Final = frozenset({*_NUMBERS, *_FILES, *_CHOICES, "client.id", "sasl.username"})


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A parsed address. ``client`` are the settings every client of the cluster needs, as librdkafka names them, apart
    from the password."""

    servers: str
    topic: str
    replication: int
    min_insync: int
    delivery_timeout_ms: int
    request_seconds: float
    client: Mapping[str, str]
    password_file: Path | None

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address that ``url`` names.

        :raises BadInputError: it names none; the message says what is wrong with it.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise BadInputError(f"this is no address of a Kafka log ({error}): {_FORM}") from None
        servers, topic = parts.netloc, parts.path.removeprefix("/")
        if "@" in servers:  # before anything is quoted: a password may stand there
            raise BadInputError("who signs in goes into the options sasl.username and sasl.password.file, not before @")
        if parts.scheme != SCHEME or parts.fragment:
            raise BadInputError(f"{url[:80]!r} is no address of a Kafka log: {_FORM}")
        if not all(map(_SERVER.match, servers.split(","))):
            raise BadInputError(f"{servers[:80]!r} names no brokers: {_FORM}")
        if not _TOPIC.match(topic):
            raise BadInputError(f"{topic[:80]!r} is no name of a topic: 1 to 249 of A-Z a-z 0-9 . _ -; {_FORM}")
        options = _options(parts.query)
        replication = int(options.get("replication.factor", "3"))
        min_insync = int(options.get("min.insync.replicas", str(max(1, replication - 1))))
        if min_insync > replication:
            raise BadInputError(f"min.insync.replicas={min_insync} of replication.factor={replication} cannot be met")
        password = options.get("sasl.password.file")
        own = {*_NUMBERS, "sasl.password.file"}
        client = {name: value for name, value in options.items() if name not in own}
        return cls(
            servers=servers,
            topic=topic,
            replication=replication,
            min_insync=min_insync,
            delivery_timeout_ms=int(options.get("delivery.timeout.ms", "30000")),
            request_seconds=int(options.get("request.timeout.ms", "15000")) / 1000,
            client={"client.id": "headrace", **client},
            password_file=Path(password) if password else None,
        )

    def settings(self) -> dict[str, str]:
        """What every client of the cluster is configured with, the password included. Never log it.

        :raises UnavailableError: the password file cannot be read.
        """
        found = {"bootstrap.servers": self.servers, **self.client}
        if self.password_file is not None:
            try:
                found["sasl.password"] = self.password_file.read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise UnavailableError(
                    f"sasl.password.file {self.password_file} cannot be read ({error}); check the file"
                ) from error
        return found

    def __str__(self) -> str:
        """The place without options, for messages."""
        return f"{SCHEME}://{self.servers}/{self.topic}"


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise BadInputError(f"the options {query[:80]!r} are not name=value&name=value ({error})") from error
    options = dict(pairs)
    if len(options) != len(pairs):
        raise BadInputError("an option is there twice; give it once")
    for name, value in options.items():
        if name == "sasl.password":
            raise BadInputError(
                "a password in a URL ends up in logs: put it in a file and name that, sasl.password.file"
            )
        if name not in _OPTIONS:
            raise BadInputError(f"no such option: {name[:60]!r}; there are {', '.join(sorted(_OPTIONS))}")
        if name in _NUMBERS and not (value.isascii() and value.isdigit() and 1 <= int(value) <= _NUMBERS[name]):
            raise BadInputError(f"{name}={value[:20]!r} must be a whole number from 1 to {_NUMBERS[name]}")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise BadInputError(f"{name}={value[:40]!r} must be one of {', '.join(_CHOICES[name])}")
        if not value:
            raise BadInputError(f"the option {name} is empty; give it a value, or leave it out")
    if options.get("security.protocol", "").startswith("sasl"):
        missing = {"sasl.mechanism", "sasl.username", "sasl.password.file"} - options.keys()
        if missing:
            raise BadInputError(
                f"security.protocol={options['security.protocol']} also needs {', '.join(sorted(missing))}"
            )
    return options
