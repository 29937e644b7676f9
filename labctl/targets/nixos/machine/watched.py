"""The machine's own services as units, so that plan and status show them: what NixOS starts, labctl watches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from labctl.artefact import Manager, Unit
from labctl.emit.nix import Value
from labctl.placed import PlacedHost
from labctl.targets.nixos import folder
from labctl.targets.nixos.machine import cluster, tailscale
from labctl.targets.nixos.needs import Needs

K3S = "nixos-k3s"
TAILSCALE = "nixos-tailscale"
NAMES = frozenset({K3S, TAILSCALE})
"""What the units are called. Workloads are not called so."""


def units(host: PlacedHost, needs: Needs, modules: Mapping[str, Mapping[str, Value]]) -> Iterator[Unit]:
    """Yield the machine's units, of the modules that define them."""
    if "tailscale.nix" in modules:
        yield _unit(host, TAILSCALE, tailscale.UNIT, modules["tailscale.nix"], "Tailscale")
    if "k3s.nix" in modules:
        role = "k3s, agent" if needs.node is not None and needs.node.server is not None else "k3s, server"
        secrets = tuple(s.path for s in cluster.secrets(host, needs))
        yield _unit(host, K3S, cluster.UNIT, modules["k3s.nix"], role, secrets)


def _unit(
    host: PlacedHost, name: str, unit: str, module: Mapping[str, Value], description: str, files: tuple[str, ...] = ()
) -> Unit:
    return Unit(
        host=host.name,
        name=name,
        id=unit,
        manager=Manager.NIXOS,
        project=folder.flake(host),
        fingerprint=hashlib.sha256(repr(module).encode()).hexdigest(),
        files=files,
        after=(folder.SYSTEM_UNIT,),
        origin=host.origin,
        description=description,
    )
