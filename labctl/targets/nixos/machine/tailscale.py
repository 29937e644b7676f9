"""Tailscale: the machine joins a tailnet with a key that is read at run time, and trusts what comes from there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final

from labctl.artefact import Format, SecretFile
from labctl.emit.nix import Value
from labctl.placed import PlacedHost
from labctl.targets.nixos import secret
from labctl.targets.nixos.values import merge
from labctl.workload import SecretRef, SecretText

INTERFACE: Final = "tailscale0"
FILE: Final = "tailscale"
UNIT: Final = "tailscaled.service"
CONNECTED: Final = "tailscaled-autoconnect.service"
"""It has started when the machine has its address of the tailnet; there with an auth key only (nixpkgs
nixos/modules/services/networking/tailscale.nix)."""
ADDRESSES: Final = ipaddress.ip_network("100.64.0.0/10")
"""Of every tailnet: RFC 6598, tailscale.com/kb/1015/100.x-addresses."""


def joins(host: PlacedHost) -> bool:
    """Whether the host is to be on a tailnet."""
    return bool((host.machine or {}).get("tailscale"))


def is_inside(address: str) -> bool:
    """Whether an address is one of a tailnet."""
    try:
        return ipaddress.ip_address(address) in ADDRESSES
    except ValueError:
        return False


def module(host: PlacedHost) -> Mapping[str, Value]:
    """Return ``tailscale.nix``; nothing where lab.yaml names no key."""
    if not joins(host):
        return {}
    service: dict[str, Value] = {"enable": True, "authKeyFile": secret.place(host, FILE)}
    return merge({"services": {"tailscale": service}}, secret.credential(host, FILE, _key(host)))


def secrets(host: PlacedHost) -> Iterator[SecretFile]:
    """Yield the file with the key, where labctl itself brings it."""
    if joins(host):
        yield from secret.files(host, FILE, {"key": _key(host)}, Format.RAW, (*host.origin, "nixos", "tailscale"))


def _key(host: PlacedHost) -> SecretText:
    return SecretText((SecretRef(str((host.machine or {})["tailscale"])),))
