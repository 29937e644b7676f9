"""The whole of it: ``resolve`` turns a validated lab into one where everything is decided, or says what cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from labctl.diagnostics import Diagnostic, DocPath, Result
from labctl.engines import load as load_engine
from labctl.model.check import check_references
from labctl.model.lab import Lab
from labctl.placed import PlacedHost, Server
from labctl.resolve.budget import budget_problems, make_ledger, with_budgets
from labctl.resolve.clashes import check_images, file_clashes, name_clashes
from labctl.resolve.hosts import place_host
from labctl.resolve.ledger import GpuAccount, Ledger
from labctl.resolve.models import Knowledge, Known, place_model
from labctl.resolve.order import Starter, start_order
from labctl.resolve.overrun import Trials, over_budget
from labctl.resolve.ports import port_clashes
from labctl.resolve.servers import limit_problems, make_servers, membership, reach, taken_ports
from labctl.resolve.sizing import Sizing
from labctl.resolve.slots import Claimed, Packer, Slot, Wanted, cardless_slots, declared_slots
from labctl.targets import Target
from labctl.values import dataclass
from labctl.vram.footprint import Footprint


class Targets(Protocol):
    """Finds targets by name."""

    def target(self, name: str) -> Target | None:
        """Return a target, None when this version has none of that name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedLab:
    """A lab where everything is decided: what ``render`` and ``vram-budget`` start from."""

    lab: Lab
    hosts: Mapping[str, PlacedHost]
    known: Mapping[str, Known]
    servers: tuple[Server, ...]
    """Sorted by name."""
    ledger: Ledger


def resolve(lab: Lab, targets: Targets, knowledge: Knowledge) -> Result[PlacedLab]:
    """Decide everything that lab.yaml leaves open; all problems at once, with document paths."""
    resolver = _Resolver(lab, targets, knowledge)
    placed = resolver.run()
    return Result(placed, tuple(resolver.problems))


class _Resolver:
    """One resolution: gathers problems while it goes."""

    def __init__(self, lab: Lab, targets: Targets, knowledge: Knowledge) -> None:
        self.lab = lab
        self.targets = {name: targets.target(host.target) for name, host in lab.hosts.items()}
        self._faulty: set[object] = set()
        self._looked_at = 0
        self.problems: list[Diagnostic] = [*check_references(lab), *check_images(lab)]
        self.hosts = {name: place_host(lab, name, self.targets[name], self.problems) for name in lab.hosts}
        self.known = {name: knowledge.of(name, model) for name, model in lab.models.items()}
        self.models = {name: place_model(name, model, self.known[name]) for name, model in lab.models.items()}
        self.sizing = Sizing(lab, self.targets, self.models, knowledge, self.problems.append)

    def run(self) -> PlacedLab:
        good = [name for name in sorted(self.lab.deployments) if self._usable(name)]
        slots = self._slots(good)
        servers = [s for name in good if name in slots for s in self._servers(name, slots[name])]
        self.problems.extend(name_clashes(self.lab, servers))
        footprints = self._footprints(servers)
        servers = self._ordered(with_budgets(servers, footprints), footprints)
        self._check_limits(servers)
        ledger = make_ledger(self.lab, self.hosts, servers, footprints)
        self._check_budgets(servers, ledger)
        self.problems.extend(port_clashes(taken_ports(self.lab, servers)))
        self.problems.extend(file_clashes(self.lab.models, servers))
        return PlacedLab(
            lab=self.lab,
            hosts=self.hosts,
            known=self.known,
            servers=tuple(sorted(servers, key=lambda s: s.name)),
            ledger=ledger,
        )

    def _usable(self, name: str) -> bool:
        """Whether a deployment's references are good and its engine accepts it."""
        path: DocPath = ("deployments", name)
        if self._has_errors(name):
            return False
        spec = self.lab.deployments[name]
        self.problems.extend(
            _below(path, load_engine(spec.engine).check(spec, [self.models[m] for m in spec.model_names]))
        )
        return not self._has_errors(name)

    def _has_errors(self, name: str) -> bool:
        for problem in self.problems[self._looked_at :]:
            match problem.path:
                case ("deployments", faulty, *_) if problem.is_error:
                    self._faulty.add(faulty)
        self._looked_at = len(self.problems)
        return name in self._faulty

    def _slots(self, names: Iterable[str]) -> dict[str, list[Slot]]:
        """Place what is declared first, then the rest by budget, the largest first."""
        slots: dict[str, list[Slot]] = {}
        packer = Packer(self.hosts)
        rest = []
        for name in names:
            spec = self.lab.deployments[name]
            if not spec.on:
                rest.append(name)
                continue
            slots[name] = list(declared_slots(name, spec, self.hosts))
            for slot in slots[name]:
                size = self.sizing.need(name, slot.host, slot.gpus)
                if isinstance(size, int):
                    group = membership(self.lab, name).group
                    packer.claim(slot.host, slot.gpus, Claimed(deployment=name, group=group, total=size))
        for name in sorted(rest, key=lambda n: (-self._largest(packer, n), n)):
            found = self._pack(packer, name)
            if isinstance(found, Diagnostic):
                self.problems.append(found)
            else:
                slots[name] = found
        return slots

    def _pack(self, packer: Packer, name: str) -> list[Slot] | Diagnostic:
        spec = self.lab.deployments[name]
        if not any(h.gpus for h in self.hosts.values()):
            return cardless_slots(name, spec, self.hosts)
        return packer.place(
            Wanted(
                name=name,
                servers=spec.replicas or 1,
                span=spec.gpus_per_server or 1,
                group=membership(self.lab, name).group,
                needs=lambda host, gpus: self.sizing.need(name, host, gpus),
            )
        )

    def _largest(self, packer: Packer, name: str) -> int:
        """Return what a server takes on the card where it takes the most: the hardest to place go first."""
        sizes = [self.sizing.need(name, host, cards[:1]) for host, cards in packer.kinds]
        return max((size for size in sizes if isinstance(size, int)), default=0)

    def _servers(self, name: str, slots: list[Slot]) -> Iterator[Server]:
        spec = self.lab.deployments[name]
        runtimes, reaches, refused = [], [], False
        for slot in slots:
            runtime, problems = self.sizing.runtime(name, slot.host, slot.gpus)
            if problems and not refused:
                self.problems.extend(_below(("deployments", name), problems))
            refused = refused or any(p.is_error for p in problems)
            target = self.targets[slot.host.name]
            by_name = target.by_name if target is not None else True
            runtimes.append(runtime)
            linked, gateway = self._gateway_is_rendered(), self._asked_by(name, slot.host)
            reaches.append(reach(slot.host, gateway, spec, runtime, by_name=by_name, linked=linked))
        self.problems.extend(limit_problems(name, spec, len(slots)))
        if not refused:
            yield from make_servers(self.lab, name, slots, runtimes, self.models, reaches)

    def _asked_by(self, name: str, host: PlacedHost) -> PlacedHost | None:
        """Return the host of the gateway that asks a deployment's servers: one that swaps is beside them."""
        block, turn = self.lab.gateway, membership(self.lab, name)
        if block is not None and block.swapper is not None and not turn.runs and turn.turns is None:
            return host
        return self.hosts.get(self.lab.gateway_host or "")

    def _gateway_is_rendered(self) -> bool:
        from labctl.gateways import GATEWAYS  # noqa: PLC0415 - a registry

        return self.lab.gateway is not None and self.lab.gateway.engine in GATEWAYS

    def _footprints(self, servers: Iterable[Server]) -> dict[str, Footprint]:
        found = {s.name: self.sizing.footprint(s.deployment, s.gpus, s.runtime) for s in servers}
        return {name: footprint for name, footprint in found.items() if footprint is not None}

    def _check_limits(self, servers: Iterable[Server]) -> None:
        """Ask each engine for what shows once the cards are known; servers on equal cards have equal answers."""
        seen: set[tuple[object, ...]] = set()
        for server in servers:
            key = (server.deployment, tuple((g.model, g.memory) for g in server.gpus))
            if key in seen:
                continue
            seen.add(key)
            spec = self.lab.deployments[server.deployment]
            found = load_engine(spec.engine).limits(spec, server.models, server.gpus, server.runtime.version)
            self.problems.extend(_below(("deployments", server.deployment), found))

    def _check_budgets(self, servers: Iterable[Server], ledger: Ledger) -> None:
        by_name = {s.name: s for s in servers}
        asked = self.sizing
        trials = Trials(footprint=asked.trial, need=asked.need, smaller=asked.smaller, hosts=self.hosts)

        def overrun(cards: Sequence[GpuAccount]) -> Diagnostic:
            return over_budget(self.lab, cards, ledger, by_name, trials)

        found = list(budget_problems(self.lab, ledger, by_name, overrun, lambda name: not self._has_errors(name)))
        self.problems.extend(found)

    def _ordered(self, servers: list[Server], footprints: Mapping[str, Footprint]) -> list[Server]:
        starters = [
            Starter(
                name=s.name,
                host=s.host.name,
                cards=frozenset(g.index for g in s.gpus),
                measures=load_engine(self.lab.deployments[s.deployment].engine).measures_free_memory,
                bytes=max((d.total for d in footprints[s.name].devices), default=0) if s.name in footprints else 0,
                group=s.turns,
            )
            for s in servers
            if s.turns or not s.on_demand
        ]
        after = start_order(starters)
        return [replace(s, after=after.get(s.name, ())) for s in servers]


def _below(prefix: DocPath, problems: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Return problems with paths from the top; those of a host have them already."""
    return (p if (p.path or ("",))[0] == "hosts" else replace(p, path=(*prefix, *(p.path or ()))) for p in problems)
