"""The ledgers: per GPU and per host, who takes how much, of what, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from labctl.placed import PlacedGpu, PlacedHost
from labctl.quantity import GIB, MIB
from labctl.vram.footprint import DeviceBytes, Footprint
from labctl.workload import Accelerator

PROCESS_OVERHEAD: Final[Mapping[Accelerator, int]] = {
    Accelerator.CUDA: 160 * MIB,
    Accelerator.ROCM: 256 * MIB,
    Accelerator.VULKAN: 64 * MIB,
}
"""What each process takes on a card before it allocates anything (contexts, kernels), in bytes.

A stated reserve, not a measurement: CUDA 12 contexts of llama.cpp take 100 to 250 MiB by card. ``reserve`` of a GPU
adds to it. Budgets (vLLM's, and declared ones) include it already.
"""

HOST_RESERVE: Final = GIB
"""RAM left for the operating system, in bytes, where a host does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one server takes on one card."""

    server: str
    deployment: str
    bytes: DeviceBytes
    overhead: int
    group: str | None = None
    runs: bool = True
    """False for a server that is not started with the lab."""
    declared: bool = False
    exact: bool = True

    @property
    def total(self) -> int:
        """Bytes, overhead included."""
        return self.bytes.total + self.overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAccount:
    """One card's ledger, in bytes."""

    host: str
    gpu: PlacedGpu
    entries: tuple[Entry, ...]

    @property
    def used(self) -> int:
        """What is taken at the worst moment: an exclusive group counts by its largest member."""
        return counted((e.group, e.deployment, e.total) for e in self.entries)

    @property
    def free(self) -> int:
        """What is left; negative when it is over budget."""
        return self.gpu.memory - self.gpu.reserve - self.used

    @property
    def fits(self) -> bool:
        """Whether everything fits."""
        return self.free >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """What one workload takes of a host's RAM."""

    server: str
    deployment: str
    bytes: int
    limited: bool
    """True when it is the workload's memory limit, False when it is an estimate."""
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAccount:
    """One host's RAM ledger, in bytes; ``memory`` is None where lab.yaml does not say."""

    host: str
    memory: int | None
    reserve: int
    entries: tuple[HostEntry, ...]

    @property
    def used(self) -> int:
        """What is taken at the worst moment."""
        return counted((e.group, e.deployment, e.bytes) for e in self.entries)

    @property
    def free(self) -> int | None:
        """What is left, None when the host's memory is not known."""
        return None if self.memory is None else self.memory - self.reserve - self.used

    @property
    def fits(self) -> bool:
        """Whether everything fits, as far as is known."""
        return self.free is None or self.free >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All accounts of a lab, sorted by host and card."""

    gpus: tuple[GpuAccount, ...]
    hosts: tuple[HostAccount, ...]
    footprints: Mapping[str, Footprint]
    """Server → its footprint."""
    unknown: tuple[str, ...] = ()
    """Servers on a card whose memory is not known."""

    @property
    def fits(self) -> bool:
        """Whether everything fits everywhere."""
        return all(g.fits for g in self.gpus) and all(h.fits for h in self.hosts)


def counted(items: Iterable[tuple[str | None, str, int]]) -> int:
    """Return the sum of bytes, where of each group only the deployment with the most counts.

    ``items`` are (group or None, deployment, bytes).
    """
    alone = 0
    groups: dict[str, dict[str, int]] = {}
    for group, deployment, size in items:
        if group is None:
            alone += size
        else:
            members = groups.setdefault(group, {})
            members[deployment] = members.get(deployment, 0) + size
    return alone + sum(max(members.values()) for members in groups.values())


def overhead(accelerator: Accelerator | None, footprint: Footprint) -> int:
    """Return a process's bytes on a card beyond its footprint."""
    if footprint.declared or accelerator is None:
        return 0
    return PROCESS_OVERHEAD[accelerator] if footprint.process is None else footprint.process


def host_accounts(
    hosts: Mapping[str, PlacedHost], reserves: Mapping[str, int | None], entries: Sequence[tuple[str, HostEntry]]
) -> tuple[HostAccount, ...]:
    """Return the RAM ledger of every host; ``entries`` are (host, entry)."""
    return tuple(
        HostAccount(
            host=name,
            memory=hosts[name].memory,
            reserve=HOST_RESERVE if reserves.get(name) is None else int(reserves[name] or 0),
            entries=tuple(sorted((e for h, e in entries if h == name), key=lambda e: e.server)),
        )
        for name in sorted(hosts)
    )
