"""The whole of it: ``resolve`` turns a validated lab into one where everything is decided, or says what cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from labctl.diagnostics import Diagnostic, DocPath, Result, Severity
from labctl.engines import Engine
from labctl.engines import load as load_engine
from labctl.model.check import check_references
from labctl.model.deployment import Deployment
from labctl.model.lab import Lab
from labctl.placed import PlacedGpu, PlacedHost, Runtime, Server
from labctl.resolve.budget import budget_problems, make_ledger, with_budgets
from labctl.resolve.hosts import place_host
from labctl.resolve.ledger import Ledger, overhead
from labctl.resolve.models import Knowledge, Known, place_model
from labctl.resolve.order import Starter, start_order
from labctl.resolve.ports import port_clashes
from labctl.resolve.runtime import choose_runtime
from labctl.resolve.servers import make_servers, reach, taken_ports
from labctl.resolve.slots import Packer, Slot, declared_slots
from labctl.targets import COMING, Target
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
        self.problems: list[Diagnostic] = list(check_references(lab))
        self.hosts = {name: place_host(lab, name, self.targets[name], self.problems) for name in lab.hosts}
        self.known = {name: knowledge.of(name, model) for name, model in lab.models.items()}
        self.models = {name: place_model(name, model, self.known[name]) for name, model in lab.models.items()}
        self.sizes: dict[object, Footprint | None] = {}

    def run(self) -> PlacedLab:
        self.problems.extend(_coming(self.lab))
        good = [name for name in sorted(self.lab.deployments) if self._usable(name)]
        slots = self._slots(good)
        servers = [s for name in good if name in slots for s in self._servers(name, slots[name])]
        footprints = self._footprints(servers)
        servers = self._ordered(with_budgets(servers, footprints), footprints)
        self._check_limits(servers)
        ledger = make_ledger(self.lab, self.hosts, servers, footprints)
        by_name = {s.name: s for s in servers}
        self.problems.extend(budget_problems(self.lab, ledger, by_name, self._estimate))
        self.problems.extend(port_clashes(taken_ports(self.lab, servers)))
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
        if any(p.is_error and (p.path or ())[:2] == path for p in self.problems):
            return False
        spec = self.lab.deployments[name]
        found = list(load_engine(spec.engine).check(spec, [self.models[m] for m in spec.model_names]))
        self.problems.extend(_below(path, found))
        return not any(p.is_error for p in found)

    def _slots(self, names: Iterable[str]) -> dict[str, list[Slot]]:
        """Place what is declared first, then the rest by budget."""
        slots: dict[str, list[Slot]] = {}
        used: dict[tuple[str, int], int] = {}
        rest = []
        for name in names:
            spec = self.lab.deployments[name]
            if not spec.on:
                rest.append(name)
                continue
            slots[name] = list(declared_slots(name, spec, self.hosts))
            for slot in slots[name]:
                for gpu in slot.gpus:
                    size = self._need(name, slot.host, slot.gpus) or 0
                    used[slot.host.name, gpu.index] = used.get((slot.host.name, gpu.index), 0) + size
        packer = Packer(self.hosts, used)
        for name in sorted(rest, key=lambda n: (-self._largest(n), n)):
            found = self._pack(packer, name)
            if isinstance(found, Diagnostic):
                self.problems.append(found)
            else:
                slots[name] = found
        return slots

    def _pack(self, packer: Packer, name: str) -> list[Slot] | Diagnostic:
        spec = self.lab.deployments[name]
        if not any(h.gpus for h in self.hosts.values()):
            host = self.hosts[min(self.hosts)]
            count = spec.replicas or 1
            return [
                Slot(deployment=name, host=host, gpus=(), index=i, label=f"{host.name}-{i}" if count > 1 else host.name)
                for i in range(count)
            ]
        return packer.place(name, spec.replicas or 1, lambda host, gpus: self._need(name, host, gpus))

    def _largest(self, name: str) -> int:
        sizes = [self._need(name, host, (gpu,)) or 0 for host in self.hosts.values() for gpu in host.gpus]
        return max(sizes, default=0)

    def _need(self, name: str, host: PlacedHost, gpus: tuple[PlacedGpu, ...]) -> int | None:
        """Return bytes on the fullest of these cards, None when it cannot run there or is of unknown size."""
        spec = self.lab.deployments[name]
        runtime, problems = self._runtime(spec, host, gpus)
        footprint = None if problems else self._sized(spec, gpus, runtime)
        if footprint is None:
            return None
        return max((d.total for d in footprint.devices), default=0) + overhead(runtime.accelerator, footprint)

    def _runtime(
        self, spec: Deployment, host: PlacedHost, gpus: tuple[PlacedGpu, ...]
    ) -> tuple[Runtime, tuple[Diagnostic, ...]]:
        engine: Engine = load_engine(spec.engine)
        return choose_runtime(
            engine, spec, host, self.lab.hosts[host.name], gpus, self.targets[host.name], self.lab.images
        )

    def _sized(self, spec: Deployment, gpus: tuple[PlacedGpu, ...], runtime: Runtime) -> Footprint | None:
        """Return the footprint; the same settings on the same kind of cards are computed once."""
        key = (id(spec), tuple((g.model, g.memory) for g in gpus), runtime.version)
        if key not in self.sizes:
            models = [self.models[m] for m in spec.model_names]
            try:
                self.sizes[key] = load_engine(spec.engine).footprint(spec, models, gpus, runtime.version)
            except ValueError as error:
                self.sizes[key] = None
                self.problems.append(_unsizable(spec, error))
        return self.sizes[key]

    def _estimate(self, server: Server, spec: Deployment) -> Footprint | None:
        return load_engine(spec.engine).footprint(spec, server.models, server.gpus, server.runtime.version)

    def _servers(self, name: str, slots: list[Slot]) -> Iterator[Server]:
        spec = self.lab.deployments[name]
        runtimes, reaches, refused = [], [], False
        for slot in slots:
            runtime, problems = self._runtime(spec, slot.host, slot.gpus)
            if problems and not refused:
                self.problems.extend(_below(("deployments", name), problems))
            refused = refused or any(p.is_error for p in problems)
            target = self.targets[slot.host.name]
            by_name = target.by_name if target is not None else True
            runtimes.append(runtime)
            reaches.append(
                reach(self.lab, slot.host, spec, runtime, by_name=by_name, linked=self._gateway_is_rendered())
            )
        if not refused:
            yield from make_servers(self.lab, name, slots, runtimes, self.models, reaches)

    def _gateway_is_rendered(self) -> bool:
        from labctl.gateways import GATEWAYS  # noqa: PLC0415 - a registry

        return self.lab.gateway is not None and self.lab.gateway.engine in GATEWAYS

    def _footprints(self, servers: Iterable[Server]) -> dict[str, Footprint]:
        found = {s.name: self._sized(self.lab.deployments[s.deployment], s.gpus, s.runtime) for s in servers}
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

    def _ordered(self, servers: list[Server], footprints: Mapping[str, Footprint]) -> list[Server]:
        starters = [
            Starter(
                name=s.name,
                host=s.host.name,
                cards=frozenset(g.index for g in s.gpus),
                measures=load_engine(self.lab.deployments[s.deployment].engine).measures_free_memory,
                bytes=max((d.total for d in footprints[s.name].devices), default=0) if s.name in footprints else 0,
            )
            for s in servers
            if not s.on_demand
        ]
        after = start_order(starters)
        return [replace(s, after=after.get(s.name, ())) for s in servers]


def _below(prefix: DocPath, problems: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Return problems with paths from the top; those of a host have them already."""
    return (p if (p.path or ("",))[0] == "hosts" else replace(p, path=(*prefix, *(p.path or ()))) for p in problems)


def _unsizable(spec: Deployment, error: ValueError) -> Diagnostic:
    names = ", ".join(f"`{m}`" for m in spec.model_names)
    return Diagnostic(
        code="LAB066",
        severity=Severity.WARNING,
        summary=f"the memory of {names} cannot be computed: {error}",
        path=("models", spec.model_names[0]) if spec.model_names else None,
        hint="state it: `vram: {declared: 4 GiB}`",
    )


def _coming(lab: Lab) -> Iterator[Diagnostic]:
    for name, host in lab.hosts.items():
        if host.target in COMING:
            yield Diagnostic(
                code="LAB081",
                severity=Severity.NOTE,
                summary=f"host `{name}` is validated and budgeted; {COMING[host.target]} come with a later version",
                path=("hosts", name, "target"),
                hint="`compose`, `systemd` and `local` are rendered and applied today",
            )
