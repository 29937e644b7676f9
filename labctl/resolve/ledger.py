"""The ledgers: per GPU and per host, who takes how much, of what, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from labctl.placed import PlacedGpu, PlacedHost
from labctl.quantity import GIB, MIB
from labctl.values import dataclass
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


class Claim(Protocol):
    """Something that takes memory, alone or in turn with the other deployments of its group."""

    @property
    def deployment(self) -> str:
        """Whose it is."""
        ...

    @property
    def group(self) -> str | None:
        """The exclusive group it takes turns in."""
        ...

    @property
    def total(self) -> int:
        """Bytes."""
        ...


C = TypeVar("C", bound=Claim)


def at_worst(claims: Iterable[C]) -> tuple[C, ...]:
    """Return the claims that count at the worst moment: of each group only the deployment that takes the most."""
    everything = tuple(claims)
    sums: dict[tuple[str, str], int] = {}
    for claim in everything:
        if claim.group is not None:
            key = (claim.group, claim.deployment)
            sums[key] = sums.get(key, 0) + claim.total
    largest = dict(sorted(sums, key=lambda key: (sums[key], key)))
    return tuple(c for c in everything if c.group is None or largest[c.group] == c.deployment)


def taken(claims: Iterable[Claim]) -> int:
    """Return the bytes that are taken at the worst moment."""
    return sum(claim.total for claim in at_worst(claims))


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
        return taken(self.entries)

    @property
    def free(self) -> int:
        """What is left; negative when it is over budget."""
        return self.gpu.memory - self.gpu.reserve - self.used

    @property
    def fits(self) -> bool:
        """Whether everything fits."""
        return self.free >= 0

    def with_sizes(self, sizes: Mapping[str, DeviceBytes]) -> GpuAccount:
        """Return the account with other sizes of some servers."""
        entries = tuple(replace(e, bytes=sizes.get(e.server, e.bytes)) for e in self.entries)
        return replace(self, entries=entries)

    def without(self, server: str) -> GpuAccount:
        """Return the account without one server."""
        return replace(self, entries=tuple(e for e in self.entries if e.server != server))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """What one workload takes of a host's RAM; ``deployment`` is the workload's own name for all but servers."""

    server: str
    deployment: str
    total: int
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
        return taken(self.entries)

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


def overhead(accelerator: Accelerator | None, footprint: Footprint) -> int:
    """Return a process's bytes on a card beyond its footprint."""
    if footprint.declared or accelerator is None:
        return 0
    return PROCESS_OVERHEAD[accelerator] if footprint.process is None else footprint.process


def host_accounts(
    hosts: Mapping[str, PlacedHost], reserves: Mapping[str, int | None], entries: Sequence[tuple[str, HostEntry]]
) -> tuple[HostAccount, ...]:
    """Return the RAM ledger of every host; ``entries`` are (host, entry)."""
    held: dict[str, list[HostEntry]] = {}
    for host, entry in entries:
        held.setdefault(host, []).append(entry)
    return tuple(
        HostAccount(
            host=name,
            memory=hosts[name].memory,
            reserve=HOST_RESERVE if reserves.get(name) is None else int(reserves[name] or 0),
            entries=tuple(sorted(held.get(name, ()), key=lambda e: e.server)),
        )
        for name in sorted(hosts)
    )
