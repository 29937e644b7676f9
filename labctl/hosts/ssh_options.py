"""How the OpenSSH client is called: its options, its control sockets, its jump hosts.

Everything that is not said here comes from ``~/.ssh/config``. Host keys are always checked against known_hosts, and
nothing ever asks on a terminal: neither is left to the user's configuration.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from labctl.artefact import Login
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.values import dataclass

PROGRAM: Final = "LABCTL_SSH"
"""Environment variable: the ssh program to use."""
CONNECT_TIMEOUT: Final = 10
"""Seconds until a host that does not answer counts as out of reach."""
ALIVE_EVERY: Final = 5
ALIVE_TIMES: Final = 3
"""So many unanswered questions, so many seconds apart, end a connection."""
PERSIST: Final = 60
"""Seconds that a connection is kept for the next command."""
_FIXED: Final = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={CONNECT_TIMEOUT}",
    f"ServerAliveInterval={ALIVE_EVERY}",
    f"ServerAliveCountMax={ALIVE_TIMES}",
    "ControlMaster=auto",
    f"ControlPersist={PERSIST}",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "LogLevel=ERROR",
)
_APART: Final = ("ControlMaster=no", "ControlPath=none", "ConnectTimeout=5")
"""Of options that are said twice the first one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A host's SSH server and how to log in there. Not ``shared``: over a connection of its own."""

    address: str
    login: Login = Login()
    shared: bool = True

    @property
    def name(self) -> str:
        """Return ``[user@]address[:port]`` for messages."""
        user = f"{self.login.user}@" if self.login.user else ""
        port = f":{self.login.port}" if self.login.port else ""
        address = f"[{self.address}]" if ":" in self.address and port else self.address
        return f"{user}{address}{port}"

    def options(self) -> tuple[str, ...]:
        """Return the options of ssh (and, put after one another, of Ansible's ``ansible_ssh_common_args``)."""
        apart = () if self.shared else _words(_APART)
        return (*apart, *_words(_FIXED), "-o", f"ControlPath={self.control_path()}", *self._login(), *self._jump())

    def control_path(self) -> Path:
        """Return the socket by which all logins of this kind share one connection."""
        said = "\0".join(map(str, (program(), self.address, *_values(self.login))))
        return control_folder() / hashlib.sha256(said.encode()).hexdigest()[:16]

    def argv(self, command: str) -> list[str]:
        """Return the arguments that run a command there."""
        return [program(), "-T", *self.options(), "--", self.address, command]

    def alone(self) -> list[str]:
        """Return arguments that only log in there, over no shared connection: ssh then hides no message."""
        apart = ("-o", "ControlMaster=no", "-o", "ControlPath=none")
        return [program(), "-T", *apart, *self.options(), "--", self.address, "true"]

    def _login(self) -> tuple[str, ...]:
        login = self.login
        options = [] if login.user is None else ["-o", f"User={login.user}"]
        options += [] if login.port is None else ["-o", f"Port={login.port}"]
        options += [] if login.identity is None else ["-o", f"IdentityFile={login.identity}"]
        return tuple(options)

    def _jump(self) -> tuple[str, ...]:
        if not self.login.jump:
            return ()
        return ("-o", f"ProxyCommand={_proxy([j.strip() for j in self.login.jump.split(',')], self.login.identity)}")


def program() -> str:
    """Return the ssh program: ``LABCTL_SSH`` or ``ssh``."""
    return os.environ.get(PROGRAM) or "ssh"


def environment() -> dict[str, str]:
    """Return ssh's environment: no questions in windows either, and messages in English."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}


def parse(text: str) -> Destination:
    """Read ``[user@]host[:port]`` or ``ssh://[user@]host[:port]``, as ``ssh -J`` does."""
    user, _, place = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    address, port = place, ""
    if place.startswith("["):
        address, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
    elif place.count(":") == 1:
        address, port = place.split(":")
    number = int(port) if port.isdigit() else None
    return Destination(address=address, login=Login(user=user or None, port=number))


def jumps(login: Login) -> tuple[Destination, ...]:
    """Return the hosts that are gone through, nearest first."""
    return tuple(parse(j.strip()) for j in (login.jump or "").split(",") if j.strip())


def _proxy(names: Sequence[str], identity: str | None) -> str:
    """Return the command that goes through some hosts. Unlike ``-J`` it hands on that nothing may be asked."""
    *before, last = names
    there = parse(last)
    there = Destination(
        address=there.address, login=Login(user=there.login.user, port=there.login.port, identity=identity)
    )
    nested = ["-o", f"ProxyCommand={_proxy(before, identity)}"] if before else []
    words = [program(), *there.options(), *nested]
    command = " ".join(shlex.quote(word) for word in words).replace("%", "%%")
    return f"{command} -W '[%h]:%p' -- {shlex.quote(there.address)}"


def control_folder() -> Path:
    """Return a folder of this user alone, with a short name: a socket's path may have 104 bytes on some systems."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and len(runtime) < 60 and os.access(runtime, os.W_OK):
        return _private(Path(runtime) / "labctl")
    return _private(Path(tempfile.gettempdir()) / f"labctl-{os.getuid()}")


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise HostError(_unusable(folder, error.strerror or str(error))) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise HostError(_unusable(folder, "it has to be a folder that belongs to you and that nobody else may enter"))
    return folder


def _unusable(folder: Path, why: str) -> Diagnostic:
    return Diagnostic(
        code="LAB169",
        summary=f"`{folder}` cannot hold the sockets of SSH connections: {why}",
        hint=f"remove it, or run: chmod 700 {folder}",
    )


def _words(options: Sequence[str]) -> list[str]:
    return [word for option in options for word in ("-o", option)]


def _values(login: Login) -> tuple[object, ...]:
    return login.user, login.port, login.identity, login.jump
