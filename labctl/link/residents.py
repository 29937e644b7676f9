"""What a gateway knows that loads and unloads models: cards with their budgets, what each server takes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from labctl.diagnostics import Diagnostic
from labctl.gateways import Card, Resident
from labctl.placed import PlacedGpu, PlacedHost, Server
from labctl.resolve.lab import PlacedLab
from labctl.values import dataclass
from labctl.workload import Control, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Residents:
    """All of a lab, however its gateway uses them."""

    cards: Mapping[str, Card]
    residents: Mapping[str, Resident]
    servers: Mapping[str, Server]

    def of(self, host: PlacedHost) -> Mapping[str, Resident]:
        """Return them as a gateway on ``host`` sees them: it starts and stops what runs beside it, and nothing else."""
        return {
            name: found if self.servers[name].host.name == host.name else replace(found, control=None)
            for name, found in self.residents.items()
        }

    def out_of_hand(self, host: PlacedHost) -> Iterator[Diagnostic]:
        """Yield a problem for each on-demand server that a gateway on ``host`` cannot start."""
        for name, found in self.of(host).items():
            if not found.always and found.control is None:
                server = self.servers[name]
                yield Diagnostic(
                    code="LAB220",
                    summary=f"`{name}` is started on demand, and the gateway on `{host.name}` cannot start it",
                    path=server.origin,
                    hint=f"put the gateway on `{server.host.name}`, or let `{name}` run always",
                )


def plan_residents(
    placed: PlacedLab, workloads: Sequence[Workload], controls: Mapping[str, Control | None]
) -> Residents:
    """Return every server with what it takes of each card (its footprint and its process's overhead), in bytes."""
    cards: dict[str, Card] = {}
    held: dict[str, dict[str, int]] = {}
    for account in placed.ledger.gpus:
        name = f"{account.host}:{account.gpu.index}"
        cards[name] = Card(_label(account.host, account.gpu), account.gpu.memory - account.gpu.reserve)
        for entry in account.entries:
            held.setdefault(entry.server, {})[name] = entry.total
    servers, running = {s.name: s for s in placed.servers}, {w.name: w for w in workloads}
    residents = {
        name: _resident(placed, server, running[name], held.get(name, {}), controls.get(name))
        for name, server in servers.items()
    }
    return Residents(cards=cards, residents=residents, servers=servers)


def _resident(
    placed: PlacedLab, server: Server, workload: Workload, memory: Mapping[str, int], control: Control | None
) -> Resident:
    health = workload.health
    known = [placed.lab.models[m.name] for m in server.models if m.name in placed.lab.models]
    groups = (n for n, g in placed.lab.groups.items() if server.deployment in g.exclusive)
    return Resident(
        deployment=server.deployment,
        memory=memory,
        startup=health.start_period if health else 60,
        health=(health.path if health else None) or "/health",
        always=not server.on_demand,
        exclusive=next(groups, None),
        vision=any(model.projector is not None for model in known),
        control=control,
    )


def _label(host: str, gpu: PlacedGpu) -> str:
    return f"{host} {gpu.index}: {gpu.model}"
