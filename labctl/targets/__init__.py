"""Targets: each turns workloads into files and units. None of them knows an engine.

A target is one module with an object ``target`` that satisfies ``Target``, and one line in ``TARGETS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol, cast

from labctl.artefact import File, Item, ModelFile
from labctl.diagnostics import Diagnostic
from labctl.placed import PlacedHost, Places
from labctl.workload import Capability, Control, Workload

TARGETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "compose": "labctl.targets.compose:target",
        "k3s": "labctl.targets.k3s:target",
        "systemd": "labctl.targets.systemd:target",
        "local": "labctl.targets.local:target",
        "nixos": "labctl.targets.nixos:target",
    }
)


class Target(Protocol):
    """What a target module offers."""

    name: str
    accepts: frozenset[Capability]
    by_name: bool
    """Workloads of one host reach each other by name, on a private network."""

    def network(self, host: PlacedHost) -> str | None:
        """Return the private network in which a host's workloads find each other by name, None for none.

        Hosts with the same one find each other's workloads, too.
        """
        ...

    def control(self, host: PlacedHost, name: str) -> Control | None:
        """Return how another program of the host starts and stops a workload, None when none may."""
        ...

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:
        """Return the folders for a host of this lab; ``models`` overrides the models folder."""
        ...

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[Item]:
        """Return everything that goes to this host. ``models`` lists the model files that its workloads may name."""
        ...


class SiteTarget(Target, Protocol):
    """A target whose hosts are nodes of clusters (``Places.site``): all of one cluster are rendered together."""

    def check(self, hosts: Sequence[PlacedHost], workloads: Sequence[Workload]) -> Iterable[Diagnostic]:
        """Return what is wrong with a cluster and what it cannot be told, with paths from the top."""
        ...

    def render_site(
        self, hosts: Sequence[PlacedHost], workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[Item]:
        """Return everything that goes to one cluster and to its hosts; ``models`` of all of them."""
        ...


class MachineTarget(Target, Protocol):
    """A target that looks after machines as a whole (``PlacedHost.machine``)."""

    def remarks(self, host: PlacedHost, workloads: Sequence[Workload]) -> Iterable[Diagnostic]:
        """Return what a machine cannot be, and what is worth knowing about it, with paths from the top."""
        ...


def load(name: str) -> Target:
    """Import the target of that name; KeyError when there is none."""
    module, _, attribute = TARGETS[name].partition(":")
    return cast("Target", getattr(importlib.import_module(module), attribute))
