"""The JVM parts, fetched once: Maven reads ``infra/kafka/pom.xml`` and fills a directory of the cache.

The cache is ``$HEADRACE_CACHE``, else ``$XDG_CACHE_HOME/headrace``, else ``~/.cache/headrace``. A directory appears in
it whole or not at all, and what is there is used without Maven and without a network.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from headrace.errors import UnavailableError
from infra.stack.java import java

POM: Final = Path(__file__).resolve().parents[1] / "kafka" / "pom.xml"
PROFILES: Final = ("broker", "registry")
_FETCH_SECONDS: Final = 900
_INSTALL_SECONDS: Final = 900
_MISSING: Final = (
    "the local stack needs Maven once, to fetch Apache Kafka: apt-get install maven (or brew install maven), then try"
    " again; or name a running Kafka in HEADRACE_TEST_KAFKA"
)


def cache() -> Path:
    """Where fetched parts are kept."""
    named = os.environ.get("HEADRACE_CACHE")
    if named:
        return Path(named)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "headrace"


def place(profile: str) -> Path:
    """Where a profile's files are, or will be. Another pom is another place."""
    return cache() / f"{profile}-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def fetched(profile: str) -> Path:
    """The directory that holds a profile's files; fetched now if they are not here yet.

    :raises UnavailableError: Maven is missing or fails; the message says what to do.
    """
    found = place(profile)
    if found.is_dir():
        return found
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError(_MISSING)
    found.parent.mkdir(parents=True, exist_ok=True)
    with (found.parent / f"{profile}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes start together; one fetches, the others find
        if not found.is_dir():
            with tempfile.TemporaryDirectory(dir=found.parent, prefix=f"{profile}-") as draft:
                _run_maven(maven, profile, Path(draft) / "files")
                (Path(draft) / "files").rename(found)
    return found


def install_maven() -> None:
    """Install Maven where that takes no questions: on Debian and its kin, as root. Harmless where it is, or where
    everything is fetched already.

    :raises UnavailableError: it cannot be installed here; the message says what to do.
    """
    if shutil.which("mvn") is None and not place("broker").is_dir():
        apt_install("maven", _MISSING)


def apt_install(package: str, otherwise: str) -> None:
    """Install a package of Debian's.

    :raises UnavailableError: it cannot be installed here; the message ends with ``otherwise``.
    """
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise UnavailableError(otherwise)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        try:
            ran = subprocess.run(  # noqa: S603 - the system's own package tool
                [apt, *words], env=quiet, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"apt-get {words[0]} takes too long; {otherwise}") from None
        if ran.returncode != 0:
            raise UnavailableError(f"apt-get {words[0]} failed ({ran.stderr.strip()[-300:]}); {otherwise}")


def _run_maven(maven: str, profile: str, target: Path) -> None:
    environment = dict(os.environ)
    if shutil.which("java") is None:
        environment["JAVA_HOME"] = str(java().parents[1])
    try:
        ran = subprocess.run(  # noqa: S603 - Maven, on our own pom
            [maven, "-q", "-B", "-f", str(POM), f"-P{profile}", f"-Dtarget={target}", "validate"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError("Maven takes too long to fetch the local stack's parts; check the network") from None
    if ran.returncode != 0 or not target.is_dir():
        first = next((line for line in ran.stdout.splitlines() if "ERROR" in line), ran.stderr.strip()[-300:])
        raise UnavailableError(f"Maven could not fetch the local stack's parts: {first}; check the network, try again")
