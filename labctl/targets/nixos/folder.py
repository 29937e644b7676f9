"""Where things of a NixOS host lie: the flake that describes it, and the secrets that no flake may hold."""

from __future__ import annotations

from typing import Final

from labctl.placed import PlacedHost
from labctl.targets import shared

FLAKE: Final = "flake/flake.nix"
SYSTEM_UNIT: Final = "nixos-system"
"""Name of the unit that is the system as a whole. No workload has it: LAB235 says so."""


def flake(host: PlacedHost) -> str:
    """Return the tree path of flake.nix."""
    return shared.join(host.places.config, FLAKE)


def module(host: PlacedHost, name: str) -> str:
    """Return the tree path of one of a host's own modules, ``default.nix`` or ``files/…``."""
    return shared.join(host.places.config, "flake", "hosts", host.name, name)


def secret(host: PlacedHost, name: str) -> str:
    """Return the tree path of a file with secrets, which labctl writes itself: root's own, outside the store."""
    return shared.join(host.places.state, "secrets", name)
