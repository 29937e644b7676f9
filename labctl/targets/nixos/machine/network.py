"""Who gets in: SSH from everywhere, by key; the other ports from where lab.yaml says that the lab's machines are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from labctl.emit.nix import Noted, Ref, Value
from labctl.placed import PlacedHost
from labctl.targets.nixos.machine import tailscale
from labctl.targets.nixos.needs import Needs, Opening
from labctl.targets.nixos.values import given

WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not bound
PODS: Final = ("cni0", "flannel.1")
"""Interfaces of k3s' own network: the machine's pods, and those of other nodes. A firewall has to let them in
(docs.k3s.io/installation/requirements): they call the API server and the kubelet at the machine's own address."""
API: Final = 6443
KUBELET: Final = 10250
VXLAN: Final = 8472
_SSH: Final = 22


def module(host: PlacedHost, needs: Needs) -> Mapping[str, Value]:
    """Return ``networking.nix``: firewall, SSH, and who logs in."""
    keys = [str(key) for key in _listed((host.machine or {}).get("keys"))]
    settings: dict[str, Value] = {
        "PasswordAuthentication": False,
        "KbdInteractiveAuthentication": False,
        "PermitRootLogin": "prohibit-password",
    }
    port = host.login.port
    # a port that is forwarded from elsewhere is 22 here, so that one stays
    ports: list[Value] = [_SSH, port] if port not in {None, _SSH} else []
    ssh: dict[str, Value] = {"enable": True, "ports": ports, "settings": settings}
    found: dict[str, Value] = {
        "networking": {"firewall": _firewall(host, needs)},
        "services": {"openssh": given(ssh)},
        # without it nobody could confirm the system: labctl's helper on the machine is a Python program
        "environment": {"systemPackages": Noted([Ref("pkgs.python3")], "labctl logs in with it")},
        "users": {"users": _users(host, keys)},
        "security": {"sudo": {"wheelNeedsPassword": False}} if _named(host) and host.login.sudo is not False else {},
    }
    if not _users(host, keys):
        del found["users"]
    return given(found)


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else ()


def _named(host: PlacedHost) -> bool:
    return host.login.user not in {None, "root"}


def _users(host: PlacedHost, keys: list[str]) -> dict[str, Value]:
    """Return who logs in. NixOS removes users that it was told of before and no longer is, so the login is named."""
    access: dict[str, Value] = {"openssh": {"authorizedKeys": {"keys": list(keys)}}} if keys else {}
    found: dict[str, Value] = {"root": access} if access else {}
    if _named(host):
        found[str(host.login.user)] = {"isNormalUser": True, "extraGroups": ["wheel"], **access}
    return found


def _firewall(host: PlacedHost, needs: Needs) -> dict[str, Value]:
    joined = tailscale.joins(host)
    trusted: list[Value] = [tailscale.INTERFACE] if joined else []
    trusted += PODS if needs.node is not None else ()
    who = " and ".join([*(["the tailnet"] if joined else []), *(["the cluster's own pods"] if needs.node else [])])
    firewall: dict[str, Value] = {"enable": True}
    if trusted:
        firewall["trustedInterfaces"] = Noted(trusted, who)
    tcp, udp = through(host, needs)
    interface = (host.machine or {}).get("interface")
    if interface:
        own = given({"allowedTCPPorts": list(tcp), "allowedUDPPorts": list(udp)})
        firewall["interfaces"] = {str(interface): own} if own else {}
    elif tcp:
        firewall["allowedTCPPorts"] = Noted(list(tcp), "each is bound to one address of the host, and open there")
    return given(firewall)


def through(host: PlacedHost, needs: Needs) -> tuple[list[int], list[int]]:
    """Return the TCP and UDP ports that the firewall lets other machines reach, beside SSH and what it trusts."""
    here = [o for o in needs.openings if not o.container and _is_opened(host, o)]
    tcp, udp = {o.port for o in here}, set[int]()
    if needs.node is not None and (host.machine or {}).get("interface"):
        tcp |= {API} if needs.node.server is None else set()
        tcp |= {KUBELET} if needs.node.others else set()
        udp |= {VXLAN} if needs.node.others else set()
    return sorted(tcp), sorted(udp)


def _is_opened(host: PlacedHost, opening: Opening) -> bool:
    if tailscale.is_inside(opening.bind):
        return False  # what comes over the tailnet is trusted
    if opening.bind in WILDCARDS:
        return bool((host.machine or {}).get("interface"))
    return True
