"""From a host of the tree to a connection and its managers."""

from __future__ import annotations

import os
import socket
from typing import Final

from labctl.artefact import HostRoot, Manager
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, Site, UnitManager
from labctl.hosts.compose import ComposeManager
from labctl.hosts.local import LocalShell
from labctl.hosts.observe import Managers
from labctl.hosts.supervisor import SupervisorManager
from labctl.hosts.systemd import SystemdManager

_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1", ""})


def connect(root: HostRoot) -> Site:
    """Return the host with its connection. HostError (LAB100) for a host that is not this machine."""
    if root.managers != (Manager.SUPERVISOR,) and not is_here(root.address):
        raise HostError(
            Diagnostic(
                code="LAB100",
                summary=f"`{root.host}` ({root.address}) is another machine; this version applies to its own only",
                path=("hosts", root.host, "address"),
                hint=f"run labctl on `{root.host}`, or copy what `labctl render` writes to it",
            )
        )
    folder = os.path.abspath(os.path.expanduser(root.root))  # noqa: PTH100, PTH111 - keeps symbolic links
    return Site(root=root, shell=LocalShell(), folder=folder)


def managers_of(site: Site) -> Managers:
    """Return all managers of a host; none of them is asked anything yet."""
    found: list[UnitManager] = [
        SupervisorManager(site),
        ComposeManager(site),
        SystemdManager(site),
        SystemdManager(site, user=True),
    ]
    return {manager.manager: manager for manager in found}


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
