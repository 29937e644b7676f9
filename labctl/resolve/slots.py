"""Placement: which server of which deployment runs on which cards of which host."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby

from labctl.diagnostics import Diagnostic
from labctl.model.deployment import Deployment, Placement
from labctl.placed import PlacedGpu, PlacedHost
from labctl.quantity import format_size
from labctl.resolve.ledger import taken
from labctl.values import dataclass


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
        yield some, _label(host, some)


def _card(host: PlacedHost, ref: int | str) -> PlacedGpu:
    return next(g for g in host.gpus if ref in (g.index, g.uuid))


def _label(host: PlacedHost, gpus: tuple[PlacedGpu, ...]) -> str:
    return f"{host.name}-gpu" + "-".join(str(g.index) for g in gpus)


def cardless_slots(name: str, deployment: Deployment, hosts: Mapping[str, PlacedHost]) -> list[Slot]:
    """Return the slots of a deployment in a lab without cards: each server on a host drawn by the names."""
    count = deployment.replicas or 1
    drawn = [min(hosts.values(), key=lambda h: _draw(name, index, h.name)) for index in range(count)]
    return [
        Slot(deployment=name, host=host, gpus=(), index=i, label=f"{host.name}-{i}" if count > 1 else host.name)
        for i, host in enumerate(drawn)
    ]


Needs = Callable[[PlacedHost, tuple[PlacedGpu, ...]], int | str]
"""Bytes that one server would take on each of these cards; a reason when it cannot run there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a placed server takes on one card."""

    deployment: str
    group: str | None
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A deployment to be placed."""

    name: str
    servers: int
    span: int
    """Cards per server."""
    group: str | None
    needs: Needs


class Packer:
    """Places servers by budget. Deterministic, and as little of it as possible depends on the other deployments.

    A deployment ranks the cards on its own: cards it is not on yet first, then the smallest kind of card that can hold
    it, then in an order drawn from the names of deployment and card. It moves when another deployment has filled the
    card it would have had, and for no other reason. Deployments that take turns count by the largest of them.
    """

    def __init__(self, hosts: Mapping[str, PlacedHost]) -> None:
        self.kinds = tuple(_kinds(hosts))
        """The cards of each host, those of one kind together."""
        self._claims: dict[tuple[str, int], list[Claimed]] = {}

    def claim(self, host: PlacedHost, gpus: tuple[PlacedGpu, ...], claimed: Claimed) -> None:
        """Enter a server that is placed."""
        for gpu in gpus:
            self._claims.setdefault((host.name, gpu.index), []).append(claimed)

    def free(self, host: PlacedHost, gpu: PlacedGpu, further: tuple[Claimed, ...] = ()) -> int:
        """Bytes left on a card, with ``further`` claims on it; negative when it would be overfull."""
        return gpu.memory - gpu.reserve - taken((*self._claims.get((host.name, gpu.index), ()), *further))

    def place(self, wanted: Wanted) -> list[Slot] | Diagnostic:
        """Return a slot per server, or why there are not so many; only what fits whole is entered."""
        slots: list[Slot] = []
        for index in range(wanted.servers):
            best = min(self._spots(wanted, index, slots), key=lambda spot: spot[0], default=None)
            if best is None:
                refusal = self._refusal(wanted, index)
                self._release(slots)
                return refusal
            _, host, gpus, claimed = best
            self.claim(host, gpus, claimed)
            slots.append(Slot(deployment=wanted.name, host=host, gpus=gpus, index=index, label=_label(host, gpus)))
        return slots

    def _release(self, slots: list[Slot]) -> None:
        """Take the latest servers off their cards again."""
        for host, gpu in ((s.host.name, g.index) for s in slots for g in s.gpus):
            self._claims[host, gpu].pop()

    def _spots(
        self, wanted: Wanted, index: int, slots: list[Slot]
    ) -> Iterator[tuple[tuple[int, int, list[str]], PlacedHost, tuple[PlacedGpu, ...], Claimed]]:
        """Yield for each kind of card of each host the best cards of that kind with room, and their rank."""
        mine = {(s.host.name, g.index) for s in slots for g in s.gpus}
        for host, cards in self.kinds:
            size = wanted.needs(host, cards[: wanted.span]) if len(cards) >= wanted.span else ""
            if isinstance(size, str):
                continue
            claimed = Claimed(deployment=wanted.name, group=wanted.group, total=size)
            ranked = sorted(
                ((host.name, g.index) in mine, _draw(wanted.name, index, f"{host.name}/{g.index}"), g.index)
                for g in cards
                if self.free(host, g, (claimed,)) >= 0
            )[: wanted.span]
            if len(ranked) == wanted.span:
                chosen = tuple(g for g in cards if g.index in {i for _, _, i in ranked})
                rank = (sum(again for again, _, _ in ranked), cards[0].memory, [draw for _, draw, _ in ranked])
                yield rank, host, chosen, claimed

    def _refusal(self, wanted: Wanted, placed: int) -> Diagnostic:
        lines = [line for host, cards in self.kinds for line in self._answers(wanted, host, cards)]
        return Diagnostic(
            code="LAB063",
            summary=f"no card has room for server {placed + 1} of {wanted.servers}",
            detail="\n".join(lines),
            path=("deployments", wanted.name),
            hint="lower its context, give it a smaller quantisation, or say where it runs with `on:`",
        )

    def _answers(self, wanted: Wanted, host: PlacedHost, cards: tuple[PlacedGpu, ...]) -> Iterator[str]:
        few = f"it spans {wanted.span} cards of a kind, and there are {len(cards)}"
        size = few if len(cards) < wanted.span else wanted.needs(host, cards[: wanted.span])
        for gpu in cards:
            free = format_size(max(0, self.free(host, gpu)))
            answer = size if isinstance(size, str) else f"needs {format_size(size)}, {free} free"
            yield f"{host.name} GPU {gpu.index} ({gpu.model}): {answer}"


def _kinds(hosts: Mapping[str, PlacedHost]) -> Iterator[tuple[PlacedHost, tuple[PlacedGpu, ...]]]:
    for name in sorted(hosts):
        ordered = sorted(hosts[name].gpus, key=lambda g: (_kind(g), g.index))
        for _, cards in groupby(ordered, key=_kind):
            yield hosts[name], tuple(cards)


def _kind(gpu: PlacedGpu) -> tuple[str, int, int]:
    return (gpu.model, gpu.memory, gpu.reserve)


def _draw(name: str, index: int, place: str) -> str:
    return hashlib.sha256(f"{name}/{index}/{place}".encode()).hexdigest()
