"""Targets: each turns workloads into files and units. None of them knows an engine.

A target is one module with an object ``target`` that satisfies ``Target``, and one line in ``TARGETS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol, cast

from labctl.artefact import File, HostRoot, Image, ModelFile, SecretFile, Unit
from labctl.placed import PlacedHost, Places
from labctl.workload import Capability, Workload

TARGETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "compose": "labctl.targets.compose:target",
        "systemd": "labctl.targets.systemd:target",
        "local": "labctl.targets.local:target",
    }
)

COMING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "k3s": "Kubernetes manifests for k3s",
        "nixos": "NixOS modules",
    }
)
"""Targets that lab.yaml already knows and this version cannot render: said once per host, never dropped silently."""


class Target(Protocol):
    """What a target module offers."""

    name: str
    accepts: frozenset[Capability]
    by_name: bool
    """Workloads of one host reach each other by name, on a private network."""

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:
        """Return the folders for a host of this lab; ``models`` overrides the models folder."""
        ...

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[File | SecretFile | ModelFile | Image | Unit | HostRoot]:
        """Return everything that goes to this host. ``models`` lists the model files that its workloads may name."""
        ...


def load(name: str) -> Target:
    """Import the target of that name; KeyError when there is none."""
    module, _, attribute = TARGETS[name].partition(":")
    return cast("Target", getattr(importlib.import_module(module), attribute))
