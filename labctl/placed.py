"""Hosts once everything about them is known: cards enumerated, folders chosen. Read by engines, services and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labctl.diagnostics import DocPath
from labctl.workload import Accelerator, GpuAccess, GpuClaim, GpuDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedGpu:
    """One card of one host.

    Attributes:
        index: position on the PCI bus, from 0.
        uuid: ``GPU-…`` where known.
        model: the catalogue's name, e.g. ``RTX 5090``.
        vendor: ``nvidia``, ``amd`` or ``intel``.
        capability: CUDA compute capability such as ``8.6``; None for other vendors.
        gfx: AMD architecture such as ``gfx1151``; None for other vendors.
        memory: bytes as the driver reports them.
        reserve: bytes that labctl leaves free (display, other programs).
        unified: its memory is the host's memory.
        power_limit: watts, None to leave it.
        origin: the part of lab.yaml that lists it.
    """

    index: int
    model: str
    vendor: str
    memory: int
    reserve: int = 0
    uuid: str | None = None
    capability: str | None = None
    gfx: str | None = None
    unified: bool = False
    power_limit: int | None = None
    origin: DocPath = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a target keeps things on a host.

    Attributes:
        root: folder that the host's tree is laid into; ``/`` or, for the local target, a folder of the user's.
        config: folder for labctl's files, relative to ``root``, e.g. ``opt/labctl/my-lab``.
        state: folder for manifest, lock and audit log, relative to ``root``.
        models: the models folder as programs of the host see it: absolute, or relative to their working folder, which
            is then ``root``.
    """

    root: str
    config: str
    state: str
    models: str

    def in_tree(self, path: str) -> str:
        """Return a host path (absolute, or relative to the root) as a tree path."""
        return path.removeprefix("/")

    def on_host(self, tree_path: str) -> str:
        """Return a tree path as programs of the host see it."""
        return f"/{tree_path}" if self.root == "/" else tree_path


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedHost:
    """One host, ready to be rendered for.

    Attributes:
        name: its name in lab.yaml.
        lab: the lab's name.
        address: how other hosts reach it.
        bind: the address to bind for what other machines must reach: the narrowest that works.
        target: name of its target.
        places: its folders.
        arch: ``x86_64`` or ``aarch64``.
        user: who runs its native services; None for the target's default.
        gpu_access: how its container engine hands out NVIDIA cards.
        group_ids: numeric ids of its ``video`` and ``render`` groups.
        options: its target's own block of lab.yaml.
    """

    name: str
    lab: str
    address: str
    bind: str
    target: str
    places: Places
    arch: str = "x86_64"
    cores: int | None = None
    cpu_features: frozenset[str] | None = None
    memory: int | None = None
    gpus: tuple[PlacedGpu, ...] = ()
    user: str | None = None
    gpu_access: GpuAccess = GpuAccess.RESERVATION
    group_ids: tuple[int, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    origin: DocPath = ()

    def claim(self, gpus: tuple[PlacedGpu, ...], accelerator: Accelerator, budget: tuple[int, ...] = ()) -> GpuClaim:
        """Return the claim of a workload on some of this host's cards."""
        return GpuClaim(
            accelerator=accelerator,
            devices=tuple(GpuDevice(g.index, g.uuid) for g in gpus),
            budget=budget,
            access=self.gpu_access,
            group_ids=self.group_ids,
            unified=any(g.unified for g in gpus),
        )
