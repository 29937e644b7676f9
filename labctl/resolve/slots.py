"""Placement: which server of which deployment runs on which cards of which host."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from labctl.diagnostics import Diagnostic
from labctl.model.deployment import Deployment, Placement
from labctl.placed import PlacedGpu, PlacedHost
from labctl.quantity import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place for one server."""

    deployment: str
    host: PlacedHost
    gpus: tuple[PlacedGpu, ...]
    index: int
    """Number among the deployment's servers, from 0."""
    label: str
    """``<host>`` and what tells it from the deployment's other servers there, e.g. ``ash-gpu0``."""


def declared_slots(name: str, deployment: Deployment, hosts: Mapping[str, PlacedHost]) -> Iterator[Slot]:
    """Yield the slots that ``on`` declares; references are known to be good."""
    index = 0
    for placement in deployment.on:
        host = hosts[placement.host]
        for gpus, label in _cards(placement, host):
            for i in range(placement.servers):
                suffix = f"{label}-{i}" if placement.servers > 1 else label
                yield Slot(deployment=name, host=host, gpus=gpus, index=index, label=suffix)
                index += 1


def _cards(placement: Placement, host: PlacedHost) -> Iterator[tuple[tuple[PlacedGpu, ...], str]]:
    if placement.gpus == "none":
        yield (), host.name
        return
    cards = host.gpus if placement.gpus == "all" else tuple(_card(host, ref) for ref in placement.gpus)
    size = placement.gpus_per_server
    for at in range(0, len(cards), size):
        some = cards[at : at + size]
        yield some, f"{host.name}-gpu" + "-".join(str(g.index) for g in some)


def _card(host: PlacedHost, ref: int | str) -> PlacedGpu:
    return next(g for g in host.gpus if ref in (g.index, g.uuid))


Fits = Callable[[PlacedHost, tuple[PlacedGpu, ...]], int | None]
"""Bytes that one server would take on a card, None when it cannot run there at all."""


class Packer:
    """Places servers by budget. Deterministic, and as little of it as possible depends on the other deployments.

    A deployment ranks the cards on its own: the smallest kind of card that can hold it first, then in an order drawn
    from the names of deployment and card. It moves when another deployment has filled the card it would have had,
    and for no other reason.
    """

    def __init__(self, hosts: Mapping[str, PlacedHost], used: Mapping[tuple[str, int], int]) -> None:
        self.hosts = hosts
        self.used = dict(used)

    def free(self, host: PlacedHost, gpu: PlacedGpu) -> int:
        """Bytes left on a card."""
        return gpu.memory - gpu.reserve - self.used.get((host.name, gpu.index), 0)

    def place(self, name: str, count: int, needs: Fits) -> list[Slot] | Diagnostic:
        """Return ``count`` slots, preferring different cards, or why there are not so many."""
        slots: list[Slot] = []
        for index in range(count):
            found = self._best(name, index, needs, {(s.host.name, g.index) for s in slots for g in s.gpus})
            if found is None:
                return self._refusal(name, index, count, needs)
            host, gpu, size = found
            self.used[host.name, gpu.index] = self.used.get((host.name, gpu.index), 0) + size
            slots.append(
                Slot(deployment=name, host=host, gpus=(gpu,), index=index, label=f"{host.name}-gpu{gpu.index}")
            )
        return slots

    def _best(
        self, name: str, index: int, needs: Fits, taken: set[tuple[str, int]]
    ) -> tuple[PlacedHost, PlacedGpu, int] | None:
        ranked = []
        for host, gpu in self._all():
            size = needs(host, (gpu,))
            if size is not None and size <= self.free(host, gpu):
                again = (host.name, gpu.index) in taken
                ranked.append(((again, gpu.memory, _draw(name, index, host, gpu)), host, gpu, size))
        if not ranked:
            return None
        _, host, gpu, size = min(ranked, key=lambda r: r[0])
        return host, gpu, size

    def _all(self) -> Iterator[tuple[PlacedHost, PlacedGpu]]:
        for name in sorted(self.hosts):
            for gpu in self.hosts[name].gpus:
                yield self.hosts[name], gpu

    def _refusal(self, name: str, placed: int, count: int, needs: Fits) -> Diagnostic:
        lines = []
        for host, gpu in self._all():
            size = needs(host, (gpu,))
            free = format_size(max(0, self.free(host, gpu)))
            what = "cannot run there" if size is None else f"needs {format_size(size)}, {free} free"
            lines.append(f"{host.name} GPU {gpu.index} ({gpu.model}): {what}")
        return Diagnostic(
            code="LAB063",
            summary=f"no card has room for server {placed + 1} of {count}",
            detail="\n".join(lines) or "the lab has no GPUs",
            path=("deployments", name),
            hint="lower its context, give it a smaller quantisation, or say where it runs with `on:`",
        )


def _draw(name: str, index: int, host: PlacedHost, gpu: PlacedGpu) -> str:
    return hashlib.sha256(f"{name}/{index}/{host.name}/{gpu.index}".encode()).hexdigest()
