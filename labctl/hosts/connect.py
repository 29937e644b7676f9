"""From a host of the tree to a connection and its managers."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from labctl.artefact import HostRoot, Manager
from labctl.hosts.base import Shell, Site, UnitManager
from labctl.hosts.local import LocalShell
from labctl.hosts.observe import Managers
from labctl.hosts.ssh import SshShell

SUDO_PASSWORD: Final = "LABCTL_SUDO_PASSWORD"  # noqa: S105 - where one is
"""Environment variable: the password for sudo on hosts."""
_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1", ""})


def connect(root: HostRoot) -> Site:
    """Return the host with its connection, which is made when it is first used and shared by all that ask for it.

    LostError when its root folder is ``~`` and the host cannot be reached.
    """
    shell: Shell = HERE if _is_local(root) else CONNECTIONS.get(root)
    folder = root.root
    if folder == "~" or folder.startswith("~/"):
        folder = shell.me().home + folder[1:]
    return Site(root=root, shell=shell, folder=_here(folder))


def _from_environment(host: str) -> str | None:  # noqa: ARG001 - one for all hosts
    return os.environ.get(SUDO_PASSWORD)


class Connections:
    """The connections of this process, by host. They end with it."""

    def __init__(self) -> None:
        self._shells: dict[tuple[object, ...], SshShell] = {}
        self._lock = threading.Lock()
        self.sudo_password: Callable[[str], str | None] = _from_environment
        """Returns the password for sudo on a host, None when nobody knows it. Asked when sudo wants one."""

    def get(self, root: HostRoot) -> SshShell:
        """Return the shell of a host, a new one when there is none or when its connection was lost."""
        login = root.login
        key = (root.host, root.address, root.root, login.user, login.port, login.identity, login.jump, login.sudo)
        with self._lock:
            shell = self._shells.get(key)
            if shell is None or not shell.usable:
                shell = self._shells[key] = self._made(root, shared=True)
            return shell

    def fresh(self, root: HostRoot) -> SshShell:
        """Return a shell that logs in anew, over no connection that there is. Whoever asks for it closes it."""
        return self._made(root, shared=False)

    def _made(self, root: HostRoot, *, shared: bool) -> SshShell:
        sudo = root.root == "/" if root.login.sudo is None else root.login.sudo
        return SshShell(root.host, root.address, root.login, sudo=sudo, password=self._password, shared=shared)

    def _password(self, host: str) -> str | None:
        return self.sudo_password(host)

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            shells = list(self._shells.values())
            self._shells.clear()
        for shell in shells:
            shell.close()


CONNECTIONS: Final = Connections()
"""All connections to other machines."""
atexit.register(CONNECTIONS.close)
HERE: Final = LocalShell()
"""The connection to this machine."""


def _here(folder: str) -> str:
    return os.path.abspath(os.path.expanduser(folder))  # noqa: PTH100, PTH111 - keeps symbolic links


def _is_local(root: HostRoot) -> bool:
    """Whether a host is this machine. A port or a jump host says that it is another one behind an own address."""
    if root.managers == (Manager.SUPERVISOR,) or root.address.lower() in _OWN_NAMES:
        return True
    return root.login.port is None and root.login.jump is None and is_here(root.address)


class Known(Mapping[str, UnitManager]):
    """The managers of a host. Each is imported and made when it is first asked for: most hosts have one."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._made: dict[str, UnitManager] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> UnitManager:
        with self._lock:
            if name not in self._made:
                module, kind, options = _MANAGERS[name]
                self._made[name] = getattr(importlib.import_module(module), kind)(self._site, **options)
            return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MANAGERS)

    def __len__(self) -> int:
        return len(_MANAGERS)


_MANAGERS: Final[Mapping[str, tuple[str, str, Mapping[str, Any]]]] = {
    Manager.SUPERVISOR: ("labctl.hosts.supervisor", "SupervisorManager", {}),
    Manager.COMPOSE: ("labctl.hosts.compose", "ComposeManager", {}),
    Manager.SYSTEMD: ("labctl.hosts.systemd", "SystemdManager", {}),
    Manager.SYSTEMD_USER: ("labctl.hosts.systemd", "SystemdManager", {"user": True}),
    Manager.NIXOS: ("labctl.hosts.nixos", "NixosManager", {}),
}


def managers_of(site: Site) -> Managers:
    """Return all managers of a host; none of them is asked anything yet."""
    return Known(site)


@functools.cache
def is_here(address: str) -> bool:
    """Whether an address or name is this machine: only an address of one's own can be bound."""
    if address.lower() in {*_OWN_NAMES, socket.gethostname().lower()}:
        return True
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_can_bind(family, place) for family, _, _, _, place in found)


def _can_bind(family: int, place: tuple[object, ...]) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(place)
        except OSError:
            return False
    return True
