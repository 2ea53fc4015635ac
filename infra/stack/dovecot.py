"""Dovecot (IMAP, RFC 3501) on a free port of 127.0.0.1: the system's programs, with a configuration of our own.

It runs as an unprivileged user from its first moment, so it needs none of the directories and users that the
distribution's package sets up. Any user name logs in with the one password and has an empty mailbox of its own.
"""

import grp
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from headrace.errors import UnavailableError
from infra.stack.artifacts import apt_install
from infra.stack.child import Child, Owner
from infra.stack.ports import free_ports

_TRIES: Final = 3
_START_SECONDS: Final = 30.0
_ADMIN_SECONDS: Final = 30
_SEARCHED: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
_MISSING: Final = (
    "the tests of the IMAP provider need Dovecot: apt-get install dovecot-imapd (or the like), then try again"
)
_CONFIG: Final = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = /dev/stderr
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
mail_location = maildir:{directory}/mail/%u
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
first_valid_gid = 0
mail_fsync = never
protocols = imap
listen = 127.0.0.1
auth_failure_delay = 0
auth_verbose = yes
auth_mechanisms = {mechanisms}
disable_plaintext_auth = no
mail_max_userip_connections = 1000
imap_hibernate_timeout = 0
{tls}
service imap-login {{
  chroot =
  service_count = 0
  inet_listener imap {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
}}
service imap {{
  client_limit = 1
  process_limit = 100
  process_min_avail = 2
  service_count = 0
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service auth {{
  user = {user}
}}
service auth-worker {{
  user = {user}
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/home/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
{folders}
}}
{more}
"""
_FOLDERS: Final = "\n".join(
    f"  mailbox {name} {{\n    auto = subscribe\n    special_use = \\{name}\n  }}"
    for name in ("Sent", "Drafts", "Trash", "Archive", "Junk")
)


class Certificate(NamedTuple):
    """Files: a server's certificate and its private key."""

    certificate: Path
    key: Path


class DovecotServer:
    """A Dovecot with everything it keeps in ``directory``, which must be one that every user may enter.

    ``capability`` is what it says it can, where that should be less than it can; ``more`` further lines of its
    configuration; ``special`` whether its folders say what they are for (RFC 6154).
    """

    def __init__(
        self,
        directory: Path,
        *,
        certificate: Certificate | None = None,
        capability: str | None = None,
        special: bool = True,
        mechanisms: str = "plain login",
        more: str = "",
    ) -> None:
        self.directory: Final = directory
        self.password: Final = secrets.token_urlsafe(12)
        self.port = 0
        self.tls_port = 0
        self.server: Child | None = None
        self._certificate: Final = certificate
        self._folders: Final = _FOLDERS if special else ""
        self._mechanisms: Final = mechanisms
        self._more: Final = more + (f"\nprotocol imap {{\n  imap_capability = {capability}\n}}\n" if capability else "")
        self._owner: Final = _owner()

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.directory / "dovecot.conf"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it greets.

        :raises UnavailableError: it is not installed, or does not come up.
        """
        program = _program("dovecot")
        for name in ("run", "state", "mail", "home"):
            folder = self.directory / name
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, *self._owner)
        os.chown(self.directory, *self._owner)
        failure: UnavailableError | None = None
        for _ in range(_TRIES):
            # Another process may take a port between our looking and Dovecot's binding: then it ends.
            self.port, self.tls_port = free_ports(2)
            self.config.write_text(self._text(), encoding="utf-8")
            try:
                self._launch(program)
            except UnavailableError as error:
                failure = error
            else:
                return
        raise failure or UnavailableError("Dovecot does not come up")

    def restart(self) -> None:
        """Start it at the same ports, after it was stopped or killed.

        :raises UnavailableError: it does not come up.
        """
        self._launch(_program("dovecot"))

    def stop(self, timeout: float = 10.0) -> None:
        """End it: politely, and after ``timeout`` seconds by force. Whoever is connected is told BYE."""
        if self.server is not None:
            self.server.stop(timeout, politely=signal.SIGTERM)

    def administer(self, *words: str) -> str:
        """What ``doveadm`` answers.

        :raises UnavailableError: it fails.
        """
        root = os.geteuid() == 0
        ran = subprocess.run(  # noqa: S603 - Dovecot's own tool
            [_program("doveadm"), "-c", self.config, *words],
            capture_output=True,
            text=True,
            timeout=_ADMIN_SECONDS,
            check=False,
            cwd=self.directory,
            user=self._owner.uid if root else None,
            group=self._owner.gid if root else None,
        )
        if ran.returncode != 0:
            raise UnavailableError(f"doveadm {words[0]} failed: {ran.stderr.strip()[-300:]}")
        return ran.stdout

    def _text(self) -> str:
        tls = "ssl = no"
        if self._certificate is not None:
            tls = f"ssl = yes\nssl_cert = <{self._certificate.certificate}\nssl_key = <{self._certificate.key}"
        return _CONFIG.format(
            directory=self.directory,
            user=pwd.getpwuid(self._owner.uid).pw_name,
            group=_group(self._owner.gid),
            uid=self._owner.uid,
            gid=self._owner.gid,
            mechanisms=self._mechanisms,
            tls=tls,
            port=self.port,
            tls_port=self.tls_port if self._certificate is not None else 0,
            password=self.password,
            folders=self._folders,
            more=self._more,
        )

    def _launch(self, program: str) -> None:
        self.server = Child(
            "Dovecot",
            [program, "-F", "-c", self.config],
            self.directory / "dovecot.log",
            owner=self._owner if os.geteuid() == 0 else None,
            last_signal=signal.SIGTERM,  # its other processes end with it
        )
        self.server.start()
        self.server.wait_ready(self._greets, _START_SECONDS)

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                return connection.recv(4) == b"* OK"
        except OSError:
            return False


def install_dovecot() -> None:
    """Install Dovecot where that takes no questions: on Debian and its kin, as root. Harmless where it is.

    :raises UnavailableError: it cannot be installed here; the message says what to do.
    """
    if shutil.which("dovecot", path=_SEARCHED) is None:
        apt_install("dovecot-imapd", _MISSING)


def _program(name: str) -> str:
    found = shutil.which(name, path=_SEARCHED)
    if found is None:
        raise UnavailableError(_MISSING)
    return found


def _owner() -> Owner:
    """Whom it runs as: never root, which Dovecot refuses to read mail as."""
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid())
    for name in ("dovecot", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    raise UnavailableError("Dovecot does not read mail as root, and there is no user dovecot or nobody: add one")


def _group(gid: int) -> str:

    return grp.getgrgid(gid).gr_name
