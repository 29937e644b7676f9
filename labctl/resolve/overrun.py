"""A card that is over budget: the arithmetic, the line, and remedies that are computed to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from labctl.diagnostics import Diagnostic, Related
from labctl.model.deployment import Deployment
from labctl.model.lab import Lab
from labctl.placed import PlacedGpu, PlacedHost, Server
from labctl.quantity import MIB
from labctl.resolve.arithmetic import card_sum, whole
from labctl.resolve.hosts import describe
from labctl.resolve.ledger import Entry, GpuAccount, Ledger, at_worst
from labctl.resolve.remedies import remedies
from labctl.values import dataclass
from labctl.vram.footprint import DeviceBytes, Footprint

MOST = 4
"""Remedies that are shown: the first ones are the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What can be asked about changes of a lab, without making them.

    Attributes:
        footprint: the memory of a server with changed settings; None when it is unknown or would be refused.
        need: bytes that a server of a deployment would take on a card; a reason when it cannot run there.
        smaller: a server with its model in smaller and smaller quantisations, with their names.
        hosts: every host of the lab.
    """

    footprint: Callable[[Server, Deployment], Footprint | None]
    need: Callable[[str, PlacedHost, tuple[PlacedGpu, ...]], int | str]
    smaller: Callable[[Server], Iterator[tuple[str, Server]]]
    hosts: Mapping[str, PlacedHost]


def over_budget(
    lab: Lab, cards: Sequence[GpuAccount], ledger: Ledger, servers: Mapping[str, Server], trials: Trials
) -> Diagnostic:
    """Return the error of one or more equal cards of a host."""
    account = cards[0]
    blamed = by_size(account)
    found: list[str] = []
    for deployment in blamed:
        ways = _Ways(account, deployment, lab.deployments[deployment], ledger, servers, trials)
        where = f"in `{deployment}`: " if deployment != blamed[0] else ""
        found = [where + way for way in islice(ways.all(), MOST)]
        if found:
            break
    over = whole(account.used) + whole(account.gpu.reserve) - account.gpu.memory // MIB
    return Diagnostic(
        code="LAB061",
        summary=f"{_named(cards)} over budget by {over:,} MiB{' each' if len(cards) > 1 else ''}",
        detail=card_sum(account),
        path=("deployments", blamed[0]),
        hint="; or ".join(found) or "no single change is enough: move a deployment, or give the model away",
        related=(Related("the card" if len(cards) == 1 else "the cards", account.gpu.origin),),
    )


def _named(cards: Sequence[GpuAccount]) -> str:
    first = cards[0]
    if len(cards) == 1:
        return f"{describe(first.gpu)} of host `{first.host}` is"
    *most, last = (str(a.gpu.index) for a in cards)
    return f"GPUs {', '.join(most)} and {last} ({first.gpu.model}) of host `{first.host}` are"


def by_size(account: GpuAccount) -> list[str]:
    """Return the deployments that count at the worst moment, the one that takes the most first."""
    sums: dict[str, int] = {}
    for entry in at_worst(account.entries):
        sums[entry.deployment] = sums.get(entry.deployment, 0) + entry.total
    return sorted(sums, key=lambda name: (-sums[name], name))


class _Ways:
    """The ways in which one deployment could give up enough of a card."""

    def __init__(
        self,
        account: GpuAccount,
        deployment: str,
        spec: Deployment,
        ledger: Ledger,
        servers: Mapping[str, Server],
        trials: Trials,
    ) -> None:
        self.account = account
        self.spec = spec
        self.ledger = ledger
        self.entries = [e for e in account.entries if e.deployment == deployment]
        self.servers = {e.server: servers[e.server] for e in self.entries}
        self.trials = trials

    def all(self) -> Iterator[str]:
        if not self.entries[0].declared:
            yield from remedies(self.spec, self._fits, -(self.account.free // len(self.entries)))
            yield from self._smaller()
        yield from self._elsewhere()

    def _fits(self, changed: Deployment) -> bool:
        return self._fits_as({name: (server, changed) for name, server in self.servers.items()})

    def _fits_as(self, changed: dict[str, tuple[Server, Deployment]]) -> bool:
        sizes: dict[str, DeviceBytes] = {}
        known: dict[tuple[PlacedGpu, ...], Footprint | None] = {}
        for name, (server, spec) in changed.items():
            if server.gpus not in known:
                known[server.gpus] = self.trials.footprint(server, spec)
            footprint = known[server.gpus]
            if footprint is None:
                return False
            sizes[name] = footprint.devices[_position(server, self.account.gpu)]
        return self.account.with_sizes(sizes).fits

    def _smaller(self) -> Iterator[str]:
        """Yield the largest smaller quantisation of the model with which the card is not overfull."""
        steps = [list(self.trials.smaller(server)) for server in self.servers.values()]
        for options in zip(*steps, strict=True):
            changed = {server.name: (server, self.spec) for _, server in options}
            if self._fits_as(changed):
                yield f"the model as {options[0][0]}"
                return

    def _elsewhere(self) -> Iterator[str]:
        """Yield the roomiest card that could take one server, when that is enough."""
        entry = self.entries[0]
        server = self.servers[entry.server]
        if len(server.gpus) != 1 or not self.account.without(entry.server).fits:
            return
        roomy = [a for a in self.ledger.gpus if a is not self.account and self._takes(a, entry)]
        if roomy:
            best = min(roomy, key=lambda a: (-a.free, a.host, a.gpu.index))
            yield f"move `{server.name}` to {describe(best.gpu)} of host `{best.host}`, where it fits"

    def _takes(self, account: GpuAccount, entry: Entry) -> bool:
        need = self.trials.need(entry.deployment, self.trials.hosts[account.host], (account.gpu,))
        return isinstance(need, int) and need <= account.free


def _position(server: Server, gpu: PlacedGpu) -> int:
    return next(i for i, g in enumerate(server.gpus) if g.index == gpu.index)
