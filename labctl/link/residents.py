"""What a gateway knows that loads and unloads models: cards with their budgets, what each server takes of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from labctl.diagnostics import Diagnostic
from labctl.gateways import Card, Children, Resident
from labctl.placed import PlacedGpu, PlacedHost, Server
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ledger import Entry, HostEntry, taken
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

    def out_of_hand(self, host: PlacedHost, names: Collection[str]) -> Iterator[Diagnostic]:
        """Yield a problem for each of some on-demand servers that a gateway on ``host`` cannot start."""
        for name, found in self.of(host).items():
            if name in names and not found.always and found.control is None:
                server = self.servers[name]
                yield Diagnostic(
                    code="LAB220",
                    summary=f"`{name}` is started on demand, and the gateway on `{host.name}` cannot start it",
                    path=server.origin,
                    hint=f"put the gateway on `{server.host.name}`, or let `{name}` run always",
                )


def children_of(placed: PlacedLab, offered: Residents, workloads: Sequence[Workload], host: PlacedHost) -> Children:
    """Return the on-demand servers of a host with the memory that is theirs, for a gateway that runs them itself.

    Who takes turns by ``labctl switch`` is a unit, resting or not.
    """
    asleep = [w for w in workloads if w.host == host.name and not offered.residents[w.name].always]
    found = [w for w in asleep if w.turns is None]
    servers = {w.name: w for w in found}
    takes: dict[str, dict[str, int]] = {name: {} for name in servers}
    room: dict[str, int] = {}
    for place, size, entries in _places(placed, host):
        room[place] = size - taken(e for e in entries if e.server not in servers)
        for entry in entries:
            if entry.server in servers:
                takes[entry.server][place] = takes[entry.server].get(place, 0) + entry.total
    deployments = {offered.residents[name].deployment for name in servers}
    groups = {name: r.exclusive for name, r in offered.residents.items() if name in servers}
    return Children(
        servers=servers,
        takes=takes,
        room=room,
        apart={n: (group, offered.residents[n].deployment) for n, group in groups.items() if group is not None},
        beside=frozenset(n for n, g in placed.lab.groups.items() if not deployments.issuperset(g.exclusive)),
    )


def _places(placed: PlacedLab, host: PlacedHost) -> Iterator[tuple[str, int, Sequence[Entry] | Sequence[HostEntry]]]:
    """Yield a host's cards, and its RAM where its size is known: name, bytes that may be taken, who takes them."""
    for account in placed.ledger.gpus:
        if account.host == host.name:
            yield _label(host.name, account.gpu), account.gpu.memory - account.gpu.reserve, account.entries
    for ram in placed.ledger.hosts:
        if ram.host == host.name and ram.memory is not None:
            yield f"the RAM of {host.name}", ram.memory - ram.reserve, ram.entries


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
