"""The machine under a node of a Kubernetes cluster: the modules of any NixOS host, with k3s among its services."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.artefact import Item
from labctl.diagnostics import Diagnostic
from labctl.placed import PlacedHost
from labctl.targets.nixos import check, machine, system
from labctl.targets.nixos.machine.cluster import RUNTIME
from labctl.targets.nixos.needs import Needs, Node
from labctl.targets.nixos.system import root

__all__ = ["RUNTIME", "Node", "artefacts", "remarks", "root"]


def artefacts(host: PlacedHost, node: Node) -> Iterator[Item]:
    """Yield the machine's root, its flake, its secrets and its units. LabctlError for what it cannot be."""
    needs = _needs(host, node)
    modules = system.modules(host, needs, {})
    check.check(host, needs, (), modules)
    yield system.root(host)
    yield from system.items(host, needs, modules, ())


def remarks(host: PlacedHost, node: Node) -> Iterator[Diagnostic]:
    """Yield what such a machine cannot be, and what is worth knowing about it."""
    needs = _needs(host, node)
    yield from machine.problems(host, needs)
    yield from machine.warnings(host, needs)


def _needs(host: PlacedHost, node: Node) -> Needs:
    """Return what a node has to offer: every pod is a container, and may be given any of its cards."""
    return Needs(contained=frozenset(gpu.vendor for gpu in host.gpus), node=node)
